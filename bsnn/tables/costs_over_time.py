"""Accuracy, spikes and energy at every step, of every percentile that was simulated so far; and what to choose of it.

Other tables answer the question at hand: the configured percentiles. This one gathers the answers of earlier questions
to the same networks, too, as long as their simulations are there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bsnn.config import Method, Weights, check_percentile
from bsnn.errors import ArtifactError, ConfigError
from bsnn.pipeline.stage import Place
from bsnn.simulation.energy import energy, totals

if TYPE_CHECKING:
    from bsnn.conversion.layers import SpikingNetwork
    from bsnn.tables.gather import Source
    from bsnn.tables.shards import Outcome

logger = logging.getLogger("bsnn")

PRESET = "45nm-integer"  # of bsnn.simulation.energy.ENERGY: sums of binary weights are of integers
CONFIDENCE = 1.959964  # standard deviations of a 95 % interval
LOSS = 0.5  # points that a row to choose may be below the ANN
NEAR = 1.0  # points within which a curve counts as arrived
SLACK = 1e-9  # points: differences of equal decimals count as equal
KEYS = ["weights", "percentile"]


def costs_over_time(source: Source) -> pd.DataFrame:
    """One row per kind of weights, percentile and step up to the last reported one.

    Returns:
        weights, percentile, asked (whether the configuration names the percentile, or an earlier one did), time,
        accuracy, low and high (its 95 % interval over the test images), ann and drop (percent, points),
        spikes_per_image, nanojoules (energy of arithmetic per image, preset PRESET), seeds, images. Means over seeds.
    """
    asked, parts = source.percentiles, []
    for weights in source.config.weights:
        for percentile in sorted({*asked, *_earlier(source, weights)}):
            try:
                runs = {
                    Place(source.name, weights, seed, percentile): source.simulation(weights, seed, percentile)
                    for seed in source.config.seeds
                }
                means = _mean(source, runs)
            except ArtifactError as error:
                if percentile in asked:
                    raise
                logger.warning("an earlier percentile is left out of costs_over_time: %s", error)
                continue
            parts.append(means.assign(weights=weights, percentile=percentile, asked=percentile in asked))
    table = pd.concat(parts, ignore_index=True)
    return table[[*KEYS, "asked", *(name for name in table.columns if name not in (*KEYS, "asked"))]]


def _earlier(source: Source, weights: Weights) -> Iterator[float]:
    """Percentiles with a finished simulation of each network, under the current settings."""
    pipeline, seeds = source.pipeline, source.config.seeds
    folder = pipeline.root / source.name / weights / f"seed{seeds[0]}"
    for path in sorted(folder.glob("p*")):
        try:
            percentile = check_percentile(float(path.name[1:]), source.experiment.activations.percentiles)
        except (ValueError, ConfigError):  # another folder, or a percentile that the settings do not have
            continue
        places = [
            Place(source.name, weights, seed, percentile, shard)
            for seed in seeds
            for shard in pipeline.shards(source.name)
        ]
        if all(file.exists() for place in places for file in pipeline.files("simulate", place)):
            yield percentile


def _mean(source: Source, found: dict[Place, Outcome]) -> pd.DataFrame:
    """Means over the networks of all seeds."""
    runs = list(found.values())
    images = runs[0].images
    accuracy = np.mean([100 * run.correct / run.images for run in runs], axis=0)
    ann = float(np.mean([100 * run.ann_correct / run.images for run in runs]))
    low, high = interval(accuracy, images)
    return pd.DataFrame(
        {
            "time": np.arange(1, len(accuracy) + 1),
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "ann": ann,
            "drop": ann - accuracy,
            "spikes_per_image": np.mean([run.spikes.sum(0).cumsum() / run.images for run in runs], axis=0),
            "nanojoules": np.mean([_energy(source, *one) for one in found.items()], axis=0),
            "seeds": len(runs),
            "images": images,
        }
    )


def interval(accuracy: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval of an accuracy in percent, over test images (Wilson 1927).

    Seeds see the same images: a mean over several is taken as one network's, which makes the interval rather too wide.
    """
    share, square = np.asarray(accuracy) / 100, CONFIDENCE**2
    middle = (share + square / (2 * images)) / (1 + square / images)
    # Wilson's score interval: its middle is drawn towards one half, by less the more images there are.
    room = CONFIDENCE * np.sqrt(share * (1 - share) / images + square / (4 * images**2)) / (1 + square / images)
    return 100 * (middle - room), 100 * (middle + room)


def _energy(source: Source, place: Place, run: Outcome) -> np.ndarray:
    """Nanojoules per image up to each step."""
    return energy(totals(operations(source, place, run)[1]), PRESET).to_numpy()


def operations(source: Source, place: Place, run: Outcome) -> tuple[SpikingNetwork, pd.DataFrame]:
    """Operations of a simulation, by layer and step (bsnn.simulation.accounting.table), and the network that has them.

    Each spike counts with its layer's mean fan-out. The network is converted without switches: what an operation costs
    and a spike's fan-out do not depend on them.

    Raises:
        ArtifactError: the spikes are of other layers than the network's.
    """
    import torch

    from bsnn.conversion import method
    from bsnn.networks import own
    from bsnn.pipeline.job import Job
    from bsnn.simulation import accounting

    thresholds, _ = source.thresholds(place.weights, place.seed, place.percentile)
    network = method.convert(own.convertible(Job(source.pipeline, place).source()), thresholds, Method(), 1)
    names = tuple(layer.name for layer in network.firing)
    if names != run.layers:
        path = source.pipeline.path("simulate", place)
        raise ArtifactError(f"{path}: spikes are of layers {run.layers}, the network has {names}; delete it, run again")
    images = torch.full(run.spikes.shape[1:], run.images)
    return network, accounting.table(network, torch.from_numpy(run.spikes), images)


def first_lasting(reached: np.ndarray) -> float:
    """First step (from 1) from which it holds to the end; NaN if it does not hold at the end."""
    missed = np.flatnonzero(~reached)
    # The step after the last miss; places count from 0, steps from 1.
    first = 1 if not len(missed) else int(missed[-1]) + 2
    return float(first) if first <= len(reached) else float("nan")


def chosen(table: pd.DataFrame, times: list[int]) -> pd.DataFrame:
    """The row to choose for each kind of weights: of those at some times, within LOSS points of the ANN, fewest spikes.

    Percentiles of earlier questions are never chosen. Where no row is that near, it is the most accurate one; `near`
    says which it is.
    """
    rows = []
    for _, part in table[table["asked"] & table["time"].isin(times)].groupby("weights", sort=False):
        enough = part[part["drop"] <= LOSS + SLACK]
        order = ["spikes_per_image", "time"] if len(enough) else ["drop", "spikes_per_image"]
        rows.append((enough if len(enough) else part).sort_values(order).head(1).assign(near=len(enough) > 0))
    return pd.concat(rows, ignore_index=True)
