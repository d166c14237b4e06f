"""What tables are made of: the artifacts of one experiment, each read once, checked, and reduced to what is needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bsnn import artifacts
from bsnn.config import Config, Weights
from bsnn.errors import ArtifactError
from bsnn.pipeline import identity
from bsnn.tables.propagation import delayed
from bsnn.tables.shards import Shard, Simulation, join

Document = dict[str, Any]
HISTORY = {
    "epoch": pa.int64(),
    "lr": pa.float64(),
    "train_loss": pa.float64(),
    "train_accuracy": pa.float64(),
    "test_accuracy": pa.float64(),
    "seconds": pa.float64(),
    "images_per_second": pa.float64(),
}
SUMMARY = {
    "layer": pa.string(),
    "weights_1bit": pa.int64(),
    "weights_32bit": pa.int64(),
    "memory_bytes": pa.int64(),
    "scale_bytes": pa.int64(),
    "macs": pa.int64(),
    "binary": pa.bool_(),
}
ACTIVATIONS = {"layer": pa.string(), "population": pa.string(), "mean": pa.float64()}
THRESHOLDS = {"layer": pa.string(), "threshold": pa.float64()}
PREDICTIONS = {"image": pa.int64(), "label": pa.int64(), "ann": pa.int64(), "predicted": pa.list_(pa.int16())}
SPIKES = {
    "layer": pa.string(),
    "step": pa.int64(),
    "spikes": pa.int64(),
    "images": pa.int64(),
    "neurons": pa.int64(),
}


def read(path: Path, kind: str, stands_for: Mapping[str, Any], columns: Mapping[str, Any]) -> tuple[pa.Table, Document]:
    """Columns of an artifact, cast to these Arrow types (any width of integer or string will do), and its document.

    Raises:
        ArtifactError: missing, damaged, of another kind or identity, or with other columns.
    """
    table, document = artifacts.read_table(path, kind, {}, stands_for)
    again = f"delete it and make it again with: snakemake {path}"
    absent = [name for name in columns if name not in table.schema.names]
    if absent:
        raise ArtifactError(f"{path}: column '{absent[0]}' is missing, has {table.schema.names}; {again}")
    try:
        return table.select(list(columns)).cast(pa.schema(list(columns.items()))), document
    except (pa.ArrowException, ValueError) as error:
        raise ArtifactError(f"{path}: columns have other types than expected ({error}); {again}") from error


class Source:
    """The artifacts of one experiment under one configuration. Each is read when it is first asked for."""

    def __init__(self, config: Config, name: str, paths: identity.Paths) -> None:
        self.config = config
        self.name = name
        self.paths = paths
        self.experiment = config.experiments[name]
        self.time = sorted(config.time)
        self.percentiles = sorted(config.percentile)
        self.history = cache(self._history)
        self.thresholds = cache(self._thresholds)
        self.activations = cache(self._activations)
        self.simulation = cache(self._simulation)

    @property
    def networks(self) -> list[tuple[Weights, int]]:
        """Kind and seed of each network."""
        return [(weights, seed) for weights in self.config.weights for seed in self.config.seeds]

    @property
    def simulations(self) -> list[Simulation]:
        """All simulations: kind by kind, percentile by percentile, seed by seed; all of the same images.

        Raises:
            ArtifactError: see `read` and `shards.join`; or when simulations are of different test images.
        """
        found = [
            self.simulation(weights, seed, percentile)
            for weights in self.config.weights
            for percentile in self.percentiles
            for seed in self.config.seeds
        ]
        for other in found[1:]:
            if not np.array_equal(other.labels, found[0].labels):
                path = self.paths.predictions(self.name, other.weights, other.seed, other.percentile, 1)
                raise ArtifactError(
                    f"{path}: its {other.images} test images are not the {found[0].images} of the other simulations; "
                    f"delete it and its further shards, and make them again with: snakemake {path}"
                )
        return found

    def _history(self, weights: Weights, seed: int) -> tuple[pd.DataFrame, Document]:
        """Columns of HISTORY, one row an epoch."""
        stands_for = identity.network(self.experiment, weights, seed)
        table, document = read(self.paths.history(self.name, weights, seed), "history", stands_for, HISTORY)
        return table.to_pandas(), document

    def summary(self) -> pd.DataFrame:
        """Columns of SUMMARY, one row a layer of the binary network; no seed changes them."""
        seed = self.config.seeds[0]
        stands_for = identity.binarize(self.experiment, seed)
        return read(self.paths.summary(self.name, seed), "summary", stands_for, SUMMARY)[0].to_pandas()

    def _thresholds(self, weights: Weights, seed: int, percentile: float) -> tuple[dict[str, float], Document]:
        """Threshold of each layer."""
        path = self.paths.thresholds(self.name, weights, seed, percentile)
        stands_for = identity.thresholds(self.experiment, weights, seed, percentile)
        table, document = read(path, "thresholds", stands_for, THRESHOLDS)
        return dict(zip(table["layer"].to_pylist(), table["threshold"].to_pylist(), strict=True)), document

    def _activations(self, weights: Weights, seed: int) -> tuple[dict[str, float], Document]:
        """Mean activation of each layer, zeros included; the file has it beside each of thousands of percentiles."""
        path = self.paths.activations(self.name, weights, seed)
        stands_for = identity.activations(self.experiment, weights, seed)
        table, document = read(path, "activations", stands_for, ACTIVATIONS)
        means = table.filter(pc.field("population") == "all").group_by("layer").aggregate([("mean", "max")])
        return dict(zip(means["layer"].to_pylist(), means["mean_max"].to_pylist(), strict=True)), document

    def _simulation(self, weights: Weights, seed: int, percentile: float) -> Simulation:
        settings = self.experiment.simulation
        shards = [self._shard(weights, seed, percentile, shard) for shard in range(1, settings.shards + 1)]
        run = join(weights, seed, percentile, shards, settings.time, self.time[-1])
        return delayed(run, shards[0].path) if "delayed" in self.experiment.quirks else run

    def _shard(self, weights: Weights, seed: int, percentile: float, shard: int) -> Shard:
        stands_for = identity.simulate(self.config, self.experiment, weights, seed, percentile)
        path = self.paths.predictions(self.name, weights, seed, percentile, shard)
        predictions, document = read(path, "predictions", stands_for, PREDICTIONS)
        spikes_path = self.paths.spikes(self.name, weights, seed, percentile, shard)
        spikes, _ = read(spikes_path, "spikes", stands_for, SPIKES)
        return Shard(path, predictions, spikes, document)
