"""What an experiment is, and how its numbers were made, in words and small tables."""

from __future__ import annotations

import json

import pandas as pd

from bsnn.config import Experiment
from bsnn.tables import Results
from bsnn.tables.origins import MACHINE


def facts(results: Results) -> list[tuple[str, str]]:
    """What the experiment is, in a few words each."""
    experiment, frame = results.config.experiments[results.name], results["accuracy"]
    return [
        ("Data set", f"{experiment.data.name}, {experiment.data.image_size} × {experiment.data.image_size}"),
        *_network(experiment),
        ("Protocol", experiment.protocol_name),
        ("Test images", f"{frame['images'].max():,}{_left_out(results)}"),
        ("Seeds", ", ".join(map(str, results.config.seeds))),
        ("Simulated steps", str(experiment.simulation.time)),
    ]


def _network(experiment: Experiment) -> list[tuple[str, str]]:
    if experiment.own is not None:
        return [("Network", f"of one's own, by {experiment.own.module}")]
    network = experiment.family
    return [
        ("Network", f"VGG-{len(network.features) - network.pools + len(network.hidden) + 1}"),
        ("Pool", f"{network.pool}, {network.place} the ReLU" if network.pools else "none"),
    ]


def _left_out(results: Results) -> str:
    """Broken files among the test images, if there were any."""
    simulated = results["origins"].query("stage == 'simulate'")
    if not simulated["left_out"].any():
        return ""
    return f"; {simulated['left_out'].max():,} broken files left out"


def artifacts(results: Results) -> pd.DataFrame:
    """Artifacts without their machines, the long text last."""
    frame = results["origins"].drop(columns=MACHINE)
    return frame[[*frame.columns.drop("settings"), "settings"]]


def machines(results: Results) -> pd.DataFrame:
    """Each processor, GPU and revision once, with the stages that ran there."""
    frame = results["origins"].dropna(subset="revision")
    keys = ["cpu", "cores", "gpus", "revision"]
    grouped = frame.groupby(keys, sort=False, dropna=False)["stage"]
    return grouped.agg(lambda stages: ", ".join(dict.fromkeys(stages))).reset_index()[["stage", *keys]]


def versions(results: Results) -> pd.DataFrame:
    """Each set of versions once, with the stages that ran with it."""
    frame = results["origins"].dropna(subset="versions")
    grouped = frame.groupby("versions", sort=False)["stage"]
    table = grouped.agg(lambda stages: ", ".join(dict.fromkeys(stages))).reset_index()
    table["versions"] = [", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in table["versions"]]
    return table[["stage", "versions"]]


def protocol(results: Results) -> list[tuple[str, str]]:
    """How the numbers were made, where a reader could expect something else."""
    experiment = results.config.experiments[results.name]
    quirks = experiment.quirks
    population = {"all": "all post-ReLU values, zeros included", "positive": "the positive post-ReLU values"}
    calibration = experiment.activations
    initial = experiment.simulation.initial
    return [
        ("Protocol", experiment.protocol_name),
        (
            "Thresholds",
            "One per layer: the percentile (NumPy's linear definition) of "
            f"{population[experiment.thresholds.population]}, over up to {calibration.images:,} training images, "
            f"{_calibration(quirks)}.",
        ),
        ("Neuron", f"Integrate and fire, soft reset, no leak; fires at v ≥ threshold; v(0) = {initial:g} × threshold."),
        ("Input", "The image itself, at every step: the first layer's current is constant and computed once."),
        ("Test images", _test_images(quirks)),
        (
            "Propagation",
            "Delayed, as the original's default: each connection takes a step, so that outputs come late."
            if "delayed" in quirks
            else "Same step: a spike passes through all layers within the step in which it was sent.",
        ),
        (
            "Read-out",
            "The class with the largest summed input of the last layer, after every step; the last layer never spikes. "
            "Ties, such as before the first spike arrives, go to the lowest class.",
        ),
        ("Spikes", "Counted at all layers with neurons: neither the analog input nor the read-out."),
        (
            "Binary weights",
            "Sign times one scaling factor per filter; kept in full precision: those that the module has so."
            if experiment.own is not None
            else "Sign times one scaling factor per filter, sign(0) = +1; kept in full precision: "
            f"{' and '.join(experiment.binarize.keep_full) or 'no'} layer.",
        ),
        ("Time", "Accuracy at T uses the first T steps of one simulation."),
    ]


def _calibration(quirks: frozenset[str]) -> str:
    """Which calibration images, and how they were seen."""
    chosen = "the first ones" if "first_images" in quirks else "evenly spaced"
    seen = "under a random crop and flip" if "augmented_calibration" in quirks else "without augmentation"
    dropout = "with dropout on" if "calibration_dropout" in quirks else "with dropout off"
    return f"{chosen}, {seen} and {dropout}"


def _test_images(quirks: frozenset[str]) -> str:
    """How the test images were seen, by both kinds of network."""
    texts = {
        "augmented_test": "under a random crop and flip",
        "stretched_test": "resized without regard to their aspect ratio",
        "original_normalisation": "normalised with the original's constants",
    }
    found = [text for name, text in texts.items() if name in quirks]
    return f"Seen {', '.join(found) or 'as they are'}, by the ANN and the spiking network alike."
