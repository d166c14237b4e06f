"""Artifacts of a small experiment, written as the stages write them, with numbers that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from networks_for_tests import trained

from bsnn import artifacts, config
from bsnn.networks import files
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

NAME = "small"
RECIPE = {"epochs": 2, "batch_size": 8, "optimiser": {"lr": 0.1}}


def settings(**changes: Any) -> config.Config:
    """A configuration with one experiment; `shards` and `steps` go to its simulation."""
    simulation = {"time": changes.pop("steps", 4), "shards": changes.pop("shards", 1)}
    experiment = {
        "description": "Eight images <of nothing> & more.",
        "data": {"name": "digits", "image_size": 8},
        "network": {"features": [4, "P"], "hidden": [6]},
        "train": RECIPE,
        "binarize": RECIPE,
        "simulation": simulation,
    }
    raw = {"run": [NAME], "percentile": [99.0], "time": [2, 4], "experiments": {NAME: experiment}, **changes}
    return config.validate(raw)


@dataclass(frozen=True)
class Truth:
    """What one simulation found: N images, T steps, spiking layers with their neurons."""

    labels: np.ndarray  # [N]
    ann: np.ndarray  # [N]
    predicted: np.ndarray  # [N, T]
    spikes: dict[str, np.ndarray]  # [N, T] by layer
    neurons: dict[str, int]
    thresholds: dict[str, float]
    means: dict[str, float]  # ANN activations


def write_simulation(
    chosen: config.Config, root: Path, which: tuple[config.Weights, int, float], truth: Truth, extra: dict[str, Any]
) -> None:
    """Predictions and spikes of all shards, as contiguous parts of the test set."""
    pipeline, shards = Pipeline(chosen, root), chosen.experiments[NAME].simulation.shards
    stands_for = pipeline.identity("simulate", Place(NAME, *which))
    for shard, images in enumerate(np.array_split(np.arange(len(truth.labels)), shards), 1):
        note = {"engine": "torch", "reason": "for the test", "seconds": 1.5}
        note |= {**placed(images, shard, shards, len(truth.labels)), **extra}
        artifacts.write_table(
            pipeline.path("simulate", Place(NAME, *which, shard)),
            predictions(truth, images),
            "predictions",
            stands_for,
            note,
        )
        artifacts.write_table(
            pipeline.path("simulate", Place(NAME, *which, shard), "spikes"),
            spikes(truth, images),
            "spikes",
            stands_for,
            note,
        )


def placed(images: np.ndarray, shard: int, shards: int, total: int) -> dict[str, int | None]:
    """What a shard notes of its images."""
    first, last = (int(images[0]), int(images[-1])) if len(images) else (None, None)
    ends = {"first": first, "last": last}
    return {"shard": shard, "shards": shards, "images": len(images), "total": total, **ends}


def predictions(truth: Truth, images: np.ndarray) -> pa.Table:
    """Predictions of some of the images."""
    predicted = truth.predicted[images]
    return pa.table(
        {
            "image": pa.array(images, pa.int32()),
            "label": pa.array(truth.labels[images], pa.int16()),
            "ann": pa.array(truth.ann[images], pa.int16()),
            "predicted": pa.array(list(predicted), pa.list_(pa.int16())),
            "margin": pa.array(list(np.ones(predicted.shape, np.float32)), pa.list_(pa.float32())),
        }
    )


def spikes(truth: Truth, images: np.ndarray) -> pd.DataFrame:
    """Spikes of some of the images: step by step, layer by layer."""
    steps = truth.predicted.shape[1]
    rows = [
        (layer, np.int32(step + 1), int(counts[images, step].sum()), len(images), truth.neurons[layer])
        for step in range(steps)
        for layer, counts in truth.spikes.items()
    ]
    frame = pd.DataFrame(rows, columns=["layer", "step", "spikes", "images", "neurons"])
    return frame.astype({"step": "int32"})


def write_network(chosen: config.Config, root: Path, weights: config.Weights, seed: int, means: dict) -> None:
    """One network with random weights, its history, summary and activations."""
    pipeline = Pipeline(chosen, root)
    stands_for = pipeline.identity("network", Place(NAME, weights, seed))
    own = trained(seed, binary=weights == "binary", features=[4, "P"], hidden=[6])
    files.save(pipeline.path("network", Place(NAME, weights, seed)), own, stands_for)
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "lr": [0.1, 0.01],
            "train_loss": [1.5, 0.5 + seed],
            "train_accuracy": [0.5, 0.75],
            "test_accuracy": [0.25, 0.625],
            "seconds": [2.0, 3.0],
            "images_per_second": [100.0, 110.0],
        }
    )
    artifacts.write_table(
        pipeline.path("network", Place(NAME, weights, seed), "history"), history, "history", stands_for
    )
    if weights == "binary":
        artifacts.write_table(
            pipeline.path("network", Place(NAME, "binary", seed), "summary"), summary(), "summary", stands_for
        )
    rows = [
        (layer, population, percentile, percentile * mean, 100, mean if population == "all" else 2 * mean, 9.0)
        for layer, mean in means.items()
        for population in ("all", "positive")
        for percentile in (50.0, 99.0, 99.9, 100.0)
    ]
    columns = ["layer", "population", "percentile", "value", "count", "mean", "maximum"]
    artifacts.write_table(
        pipeline.path("activations", Place(NAME, weights, seed)),
        pd.DataFrame(rows, columns=columns),
        "activations",
        pipeline.identity("activations", Place(NAME, weights, seed)),
        {"images": 100},
    )


def summary() -> pd.DataFrame:
    """A full first layer, a binary second one with 4 scaling factors, a full last one."""
    return pd.DataFrame(
        {
            "layer": ["conv1", "fc1", "fc2"],
            "weights_1bit": [0, 320, 0],
            "weights_32bit": [108, 0, 60],
            "memory_bytes": [432, 40, 240],
            "scale_bytes": [0, 16, 0],
            "macs": [6912, 320, 60],
            "binary": [False, True, False],
        }
    )


def write_thresholds(chosen: config.Config, root: Path, which: tuple[config.Weights, int, float], truth: Truth) -> None:
    """Thresholds of one network at one percentile."""
    frame = pd.DataFrame({"layer": list(truth.thresholds), "threshold": list(truth.thresholds.values())})
    frame = frame.assign(percentile=which[2], population="all").rename(columns={"threshold": "lambda"})
    artifacts.write_table(
        Pipeline(chosen, root).path("thresholds", Place(NAME, *which)),
        frame.assign(threshold=frame["lambda"]),
        "thresholds",
        Pipeline(chosen, root).identity("thresholds", Place(NAME, *which)),
    )


def write_all(chosen: config.Config, root: Path, truth: Callable[[str, int, float], Truth], **extra: Any) -> Pipeline:
    """Every artifact that the results need."""
    for weights in chosen.weights:
        for seed in chosen.seeds:
            write_network(chosen, root, weights, seed, truth(weights, seed, 99.0).means)
            for percentile in chosen.percentile:
                which = (weights, seed, percentile)
                write_thresholds(chosen, root, which, truth(*which))
                write_simulation(chosen, root, which, truth(*which), extra)
    return Pipeline(chosen, root)


def random_truth(images: int = 23, steps: int = 4, layers: int = 2) -> Callable[[str, int, float], Truth]:
    """Random findings that depend on kind, seed and percentile; the labels do not."""

    def make(weights: str, seed: int, percentile: float) -> Truth:
        draw = np.random.default_rng([len(weights), seed, round(1000 * percentile)])
        names = [f"conv{number}" for number in range(1, layers)] + ["fc1"]
        neurons = {name: 8 * (layers - number) for number, name in enumerate(names)}
        return Truth(
            labels=np.random.default_rng(7).integers(0, 10, images),
            ann=draw.integers(0, 10, images),
            predicted=draw.integers(0, 10, (images, steps)),
            spikes={name: draw.binomial(neurons[name], 0.2, (images, steps)) for name in names},
            neurons=neurons,
            thresholds={name: 1.0 + number for number, name in enumerate(names)},
            means={name: 0.2 * (1 + number) for number, name in enumerate(names)},
        )

    return make
