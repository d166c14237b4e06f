"""What tables are made of: the artifacts of one experiment, each read once, checked, and reduced to what is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from bsnn.config import Weights
from bsnn.errors import ArtifactError
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables.propagation import delayed
from bsnn.tables.shards import Outcome, Shard, join

Document = dict[str, Any]


class Source:
    """The artifacts of one experiment under one configuration. Each is read when it is first asked for."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self.pipeline, config = pipeline, pipeline.config
        self.config = config
        self.name = name
        self.experiment = config.experiments[name]
        self.time = sorted(config.time)
        self.percentiles = sorted(config.percentile)
        self.history = cache(self._history)
        self.thresholds = cache(self._thresholds)
        self.activations = cache(self._activations)
        self.simulation = cache(self._simulation)

    @property
    def simulations(self) -> dict[Place, Outcome]:
        """All simulations: kind by kind, percentile by percentile, seed by seed; all of the same images.

        Raises:
            ArtifactError: see Pipeline.read and `join`; or when simulations are of different test images.
        """
        found = {
            Place(self.name, weights, seed, percentile): self.simulation(weights, seed, percentile)
            for weights in self.config.weights
            for percentile in self.percentiles
            for seed in self.config.seeds
        }
        first = next(iter(found.values()))
        for place, other in found.items():
            if not np.array_equal(other.labels, first.labels):
                path = self.pipeline.path("simulate", place)
                raise ArtifactError(
                    f"{path}: its {other.images} test images are not the {first.images} of the other simulations; "
                    f"delete it and its further shards, and make them again with: snakemake {path}"
                )
        return found

    def _history(self, weights: Weights, seed: int) -> tuple[pd.DataFrame, Document]:
        """Columns of HISTORY, one row per epoch."""
        table, document = self.pipeline.read("network", Place(self.name, weights, seed), "history")
        return table.to_pandas(), document

    def summary(self) -> pd.DataFrame:
        """Columns of SUMMARY, one row per layer of the binary network; no seed changes them."""
        place = Place(self.name, "binary", self.config.seeds[0])
        frame: pd.DataFrame = self.pipeline.read("network", place, "summary")[0].to_pandas()
        return frame

    def _thresholds(self, weights: Weights, seed: int, percentile: float) -> tuple[dict[str, float], Document]:
        """Threshold of each layer."""
        table, document = self.pipeline.read("thresholds", Place(self.name, weights, seed, percentile))
        return dict(zip(table["layer"].to_pylist(), table["threshold"].to_pylist(), strict=True)), document

    def _activations(self, weights: Weights, seed: int) -> tuple[dict[str, float], Document]:
        """Mean activation of each layer, zeros included; the file has it beside each of thousands of percentiles."""
        table, document = self.pipeline.read("activations", Place(self.name, weights, seed))
        means = table.filter(pc.field("population") == "all").group_by("layer").aggregate([("mean", "max")])
        return dict(zip(means["layer"].to_pylist(), means["mean_max"].to_pylist(), strict=True)), document

    def _simulation(self, weights: Weights, seed: int, percentile: float) -> Outcome:
        settings = self.experiment.simulation
        found = shards(self.pipeline, "simulate", Place(self.name, weights, seed, percentile))
        run = join(found, settings.time, self.time[-1])
        return delayed(run, found[0].path) if "delayed" in self.experiment.quirks else run


def shards(pipeline: Pipeline, stage: str, place: Place) -> list[Shard]:
    """Predictions and spikes of all shards of a simulation, at a percentile or by a method.

    Raises:
        ArtifactError: see Pipeline.read.
    """
    found = []
    for number in pipeline.shards(place.experiment):
        one = place._replace(shard=number)
        predictions, document = pipeline.read(stage, one, "predictions")
        spikes, _ = pipeline.read(stage, one, "spikes")
        found.append(Shard(pipeline.path(stage, one), predictions, spikes, document))
    return found
