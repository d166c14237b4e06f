"""What is reported: each table one function from an experiment's artifacts to a data frame.

Accuracies are in percent, spikes are counted at all layers with neurons (not the input, not the read-out), and means
and sample standard deviations (n - 1, none for one seed) are over seeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bsnn.errors import ArtifactError
from bsnn.pipeline.columns import HISTORY, SUMMARY
from bsnn.tables.gather import Source


def accuracy(source: Source) -> pd.DataFrame:
    """Accuracy, drop and spikes over seeds: one row per kind of weights, percentile and reported time."""
    rows = [
        {
            "weights": place.weights,
            "percentile": place.percentile,
            "time": time,
            "ann": 100 * run.ann_correct / run.images,
            "snn": 100 * run.correct[time - 1] / run.images,
            "spikes": run.spikes[:, :time].sum() / run.images,
            "spikes_per_neuron": run.spikes[:, :time].sum() / (run.images * run.neurons.sum()),
            "images": run.images,
        }
        for place, run in source.simulations.items()
        for time in source.time
    ]
    groups = pd.DataFrame(rows).groupby(["weights", "percentile", "time"], sort=False)
    table = groups.agg(
        ann_mean=("ann", "mean"),
        ann_std=("ann", "std"),
        snn_mean=("snn", "mean"),
        snn_std=("snn", "std"),
        spikes_per_image=("spikes", "mean"),
        spikes_per_neuron=("spikes_per_neuron", "mean"),
        seeds=("ann", "size"),
        images=("images", "first"),
    ).reset_index()
    table.insert(7, "drop", table["ann_mean"] - table["snn_mean"])
    return table.assign(protocol=source.experiment.protocol_name)


def accuracy_over_time(source: Source) -> pd.DataFrame:
    """Accuracy at every step up to the last reported one: one row per network, percentile and step."""
    parts = [
        pd.DataFrame(
            {
                "weights": place.weights,
                "seed": place.seed,
                "percentile": place.percentile,
                "step": np.arange(1, len(run.correct) + 1),
                "accuracy": 100 * run.correct / run.images,
            }
        )
        for place, run in source.simulations.items()
    ]
    return pd.concat(parts, ignore_index=True)


def spikes_by_layer(source: Source) -> pd.DataFrame:
    """Spikes up to the last reported time, one row per kind of weights, percentile and layer; mean over seeds."""
    parts = [
        pd.DataFrame(
            {
                "weights": place.weights,
                "percentile": place.percentile,
                "layer": run.layers,
                "neurons": run.neurons,
                "spikes_per_neuron": run.rates * source.time[-1],
                "firing_rate": run.rates,
            }
        )
        for place, run in source.simulations.items()
    ]
    keys = ["weights", "percentile", "layer", "neurons"]
    return pd.concat(parts).groupby(keys, sort=False).mean().reset_index()


def rates(source: Source) -> pd.DataFrame:
    """How well threshold x firing rate approximates the ANN's mean activation, layer by layer; means over seeds.

    Activations are of the calibration images, firing rates of the test images up to the last reported time.

    Raises:
        ArtifactError: when a spiking layer has no threshold or no activations.
    """
    rows = []
    for place, run in source.simulations.items():
        thresholds, _ = source.thresholds(place.weights, place.seed, place.percentile)
        means, _ = source.activations(place.weights, place.seed)
        for layer, rate in zip(run.layers, run.rates, strict=True):
            if layer not in thresholds or layer not in means:
                path = source.pipeline.path("thresholds", place)
                raise ArtifactError(
                    f"{path}: layer '{layer}' spikes but has no threshold or no activations; "
                    f"thresholds {sorted(thresholds)}, activations {sorted(means)}; delete them and run again"
                )
            theta = thresholds[layer]
            rows.append((place.weights, place.percentile, layer, theta, rate, theta * rate, means[layer]))
    columns = ["weights", "percentile", "layer", "threshold", "firing_rate", "estimate", "activation"]
    keys = columns[:3]
    table = pd.DataFrame(rows, columns=columns).groupby(keys, sort=False).mean().reset_index()
    table["ratio"] = table["estimate"] / table["activation"].where(table["activation"] > 0)
    return table


def binary_summary(source: Source) -> pd.DataFrame:
    """Weights, memory and MACs of the binary network, by layer and in total; no rows without a binary network."""
    if "binary" not in source.config.weights:
        return pd.DataFrame(columns=[*SUMMARY, "compression"])
    table = source.summary()
    total = table[["weights_1bit", "weights_32bit", "memory_bytes", "scale_bytes", "macs"]].sum()
    table["binary"] = table["binary"].astype("boolean")
    table = pd.concat([table, pd.DataFrame([{"layer": "total", **total, "binary": pd.NA}])], ignore_index=True)
    stored = table["memory_bytes"] + table["scale_bytes"]
    table["compression"] = 4 * (table["weights_1bit"] + table["weights_32bit"]) / stored
    return table.astype({"binary": "boolean"})


def training_history(source: Source) -> pd.DataFrame:
    """Loss and accuracy of every epoch: one row per network and epoch."""
    parts = []
    for weights, seed in source.pipeline.networks:
        history, _ = source.history(weights, seed)
        parts.append(history.assign(weights=weights, seed=seed)[["weights", "seed", *HISTORY]])
    table = pd.concat(parts, ignore_index=True)
    accuracies = ["train_accuracy", "test_accuracy"]
    return table.assign(**{name: 100 * table[name] for name in accuracies})


def training(source: Source) -> pd.DataFrame:
    """Last epoch of each network; seconds are of the whole training."""
    history = training_history(source)
    groups = history.groupby(["weights", "seed"], sort=False)
    return groups.tail(1).assign(seconds=groups["seconds"].transform("sum")).reset_index(drop=True)
