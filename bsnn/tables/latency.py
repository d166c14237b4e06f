"""Tables of the methods of conversion: accuracy in few steps, costs, and errors by layer, from checked artifacts.

Of each method and number of steps T: a method that does not depend on T is simulated once, and read at every T.
Means over seeds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bsnn import artifacts
from bsnn.config import Config, Weights
from bsnn.conversion.errors_by_layer import ERRORS
from bsnn.pipeline import identity
from bsnn.simulation import accounting
from bsnn.tables.gather import PREDICTIONS, SPIKES, read
from bsnn.tables.shards import Shard, predictions, spikes

logger = logging.getLogger("bsnn")

KIND = "latency-table"
SETTINGS = "latency.json"
OPERATIONS = {"layer": pa.string(), "step": pa.int64(), "quantity": pa.string(), "value": pa.float64()}
LAYER_ERRORS = {
    "layer": pa.string(),
    "time": pa.int64(),
    **dict.fromkeys((*ERRORS, "activation"), pa.float64()),
}


@dataclass(frozen=True)
class Run:
    """One method of one network, simulated for some steps."""

    config: Config
    name: str
    paths: identity.Paths
    weights: Weights
    seed: int
    method: str
    steps: int

    @property
    def times(self) -> list[int]:
        """Numbers of steps that it is read at."""
        settings = self.config.experiments[self.name].latency
        return [self.steps] if settings.method(self.method).per_time else sorted(settings.time)

    def path(self, what: str, shard: int) -> Path:
        """Artifact of one shard."""
        return self.paths.method(what, self.name, self.weights, self.seed, self.method, self.steps, shard)

    def read(self, what: str, columns: dict[str, pa.DataType]) -> list[tuple[pa.Table, dict[str, Any]]]:
        """An artifact of each shard, and what its job noted: `images` in it, among others."""
        experiment = self.config.experiments[self.name]
        stands_for = identity.method(self.config, experiment, self.weights, self.seed, self.method, self.steps)
        shards = range(1, experiment.simulation.shards + 1)
        found = [read(self.path(what, shard), what, stands_for, columns) for shard in shards]
        return [(table, document["extra"]) for table, document in found]

    def shards(self) -> list[Shard]:
        """Predictions and spikes of all shards."""
        parts = zip(self.read("predictions", PREDICTIONS), self.read("spikes", SPIKES), strict=True)
        return [
            Shard(self.path("predictions", number), predictions, spikes, {"extra": noted})
            for number, ((predictions, noted), (spikes, _)) in enumerate(parts, 1)
        ]

    def operations(self) -> pd.DataFrame:
        """Long table of costs (accounting.table), mean over all images."""
        read = self.read("operations", OPERATIONS)
        parts = [table.to_pandas().assign(images=noted["images"]) for table, noted in read]
        whole = pd.concat(parts)
        total = sum(part["images"].iloc[0] for part in parts)
        weighted = whole.assign(value=whole["value"] * whole["images"] / total)
        keys = ["layer", "step", "quantity"]
        return weighted.groupby(keys, sort=False)["value"].sum().reset_index()

    def errors(self) -> pd.DataFrame:
        """Errors by layer at `times`; of calibration images, so that all shards have the same. None of two passes.

        Times are no part of the artifact's key: what it has of others is left out, what it lacks is named in a warning.
        """
        frame: pd.DataFrame = self.read("errors", LAYER_ERRORS)[0][0].to_pandas()
        absent = [time for time in self.times if time not in set(frame["time"])]
        if len(frame) and absent:
            path, times = self.path("errors", 1), ", ".join(map(str, absent))
            logger.warning(
                "%s: made before T = %s was asked for; for errors there, delete it and run again", path, times
            )
        return frame[frame["time"].isin(self.times)]


def runs(config: Config, name: str, paths: identity.Paths) -> Iterator[Run]:
    """Every method of every network of an experiment."""
    settings = config.experiments[name].latency
    for weights in config.weights:
        for method in settings.names_for(weights):
            for seed, steps in product(config.seeds, settings.runs(method)):
                yield Run(config, name, paths, weights, seed, method, steps)


def collect(config: Config, name: str, paths: identity.Paths) -> dict[str, pd.DataFrame]:
    """All tables.

    Returns:
        latency: weights, method, T, accuracy, ann (percent), drop, and drop_se, its standard error over the test
            images (points), agreement with the ANN's predictions (percent of images), spikes (an image, until T);
        latency_costs: weights, method, T, operations of an image until T, and nanojoules by preset;
        latency_operations: weights, method, T (as simulated), layer, step, quantity, value;
        latency_errors: weights, method, T, layer, and the errors of bsnn.conversion.errors_by_layer.

    Raises:
        ArtifactError: when an artifact is missing, damaged or of other settings.
    """
    every = list(runs(config, name, paths))
    accuracies = pd.DataFrame([row for run in every for row in _accuracies(run)])
    costs = pd.concat([_costs(run) for run in every], ignore_index=True)
    operations = pd.concat([_named(run, run.operations()).assign(T=run.steps) for run in every], ignore_index=True)
    errors = pd.concat([_named(run, run.errors()).rename(columns={"time": "T"}) for run in every], ignore_index=True)
    keys = ["weights", "method", "T"]
    return {
        "latency": _latency(accuracies, keys),
        "latency_costs": _over_seeds(costs, keys),
        "latency_operations": _over_seeds(operations, [*keys, "layer", "step", "quantity"]),
        "latency_errors": _over_seeds(errors, [*keys, "layer"]),
    }


def _named(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(weights=run.weights, method=run.method)


def _over_seeds(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return frame.groupby(keys, sort=False).mean().reset_index()


def _accuracies(run: Run) -> Iterator[dict[str, Any]]:
    """A row at each time; `lost` is 1 for each image that only the ANN classifies correctly, -1 for the contrary."""
    shards = run.shards()
    labels, ann, predicted = predictions(shards, run.steps, run.steps)
    _, _, counts = spikes(shards, run.steps, run.steps)
    for time in run.times:
        at_time = predicted[:, time - 1]
        accuracy, reached = (100 * int((classes == labels).sum()) / len(labels) for classes in (at_time, ann))
        yield {
            "weights": run.weights,
            "method": run.method,
            "T": time,
            "accuracy": accuracy,
            "ann": reached,
            "drop": reached - accuracy,
            "lost": (ann == labels).astype(np.int8) - (at_time == labels).astype(np.int8),
            "agreement": 100 * int((at_time == ann).sum()) / len(labels),
            "spikes": counts[:, :time].sum() / len(labels),
        }


def _latency(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means over seeds, and the standard error of the mean drop over the test images.

    Both networks see the same images, so their difference is surer than either accuracy.
    """
    groups = rows.groupby(keys, sort=False)
    table = groups[["accuracy", "ann", "drop", "agreement", "spikes"]].mean()
    table.insert(3, "drop_se", groups["lost"].agg(_standard_error))
    return table.reset_index()


def _standard_error(lost: pd.Series) -> float:
    """Of what the images lose in the mean over seeds, in points; NaN for a single image."""
    image = np.mean(np.stack(lost.tolist()), axis=0)
    return 100 * float(np.sqrt(image.var(ddof=1) / len(image))) if len(image) > 1 else float("nan")


def _costs(run: Run) -> pd.DataFrame:
    totals = accounting.totals(run.operations())
    chosen = totals[np.isin(totals["step"], run.times)].rename(columns={"step": "T"}).reset_index(drop=True)
    for preset in accounting.ENERGY:
        chosen[f"nanojoules_{preset}"] = accounting.energy(chosen, preset)
    return _named(run, chosen)


TABLES = ("latency", "latency_costs", "latency_operations", "latency_errors")


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables as `write` left them.

    Raises:
        ArtifactError: when one is missing or damaged.
    """
    return {name: artifacts.read_table(folder / f"{name}.parquet", KIND, {})[0].to_pandas() for name in TABLES}


def write(config: Config, name: str, paths: identity.Paths) -> None:
    """Write all tables as CSV (but the long one of operations) and Parquet, and note what they stand for."""
    folder, stands_for = paths.tables(name), identity.latency(config, name)
    for table, frame in collect(config, name, paths).items():
        artifacts.write_table(folder / f"{table}.parquet", frame, KIND, stands_for, {"table": table})
        if table != "latency_operations":
            artifacts.write_text(folder / f"{table}.csv", frame.to_csv(index=False, lineterminator="\n"))
    settings = {"key": identity.key(stands_for), **stands_for}
    artifacts.write_text(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
