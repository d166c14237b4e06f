"""Tables of the methods of conversion: accuracy in few steps, costs, and errors by layer, from checked artifacts.

Of each method and number of steps T: a method that does not depend on T is simulated once, and read at every T.
Means over seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsnn import artifacts
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.simulation.energy import ENERGY, READOUT, energy, totals
from bsnn.tables import ideal
from bsnn.tables.gather import shards
from bsnn.tables.propagation import delays, later
from bsnn.tables.shards import compared, predictions, spikes

logger = logging.getLogger("bsnn")

KIND = "latency-table"


@dataclass(frozen=True)
class Run:
    """One method of one network, simulated for some steps."""

    pipeline: Pipeline
    place: Place

    @property
    def times(self) -> list[int]:
        """Numbers of steps that it is read at."""
        settings = self.pipeline.experiment(self.place).latency
        return [self.place.steps] if settings.method(self.place.method).per_time else sorted(settings.time)

    @property
    def delayed(self) -> bool:
        """Whether it is shown under delayed propagation, as all simulations of its experiment are."""
        return "delayed" in self.pipeline.experiment(self.place).quirks

    def delays(self, document: Mapping[str, Any], layers: Sequence[str]) -> dict[str, int]:
        """Steps of delay of each layer with neurons, and of the read-out."""
        found = delays(document, len(layers), self.pipeline.path("method", self.place))
        return dict(zip((*layers, READOUT), found, strict=True))

    def operations(self) -> pd.DataFrame:
        """Long table of costs (accounting.table), mean over all images."""
        places = [self.place._replace(shard=shard) for shard in self.pipeline.shards(self.place.experiment)]
        read = [self.pipeline.read("method", place, "operations") for place in places]
        parts = [table.to_pandas().assign(images=document["extra"]["images"]) for table, document in read]
        whole = pd.concat(parts)
        total = sum(part["images"].iloc[0] for part in parts)
        # Each shard has the means over its own images.
        weighted = whole.assign(value=whole["value"] * whole["images"] / total)
        keys = ["layer", "step", "quantity"]
        summed: pd.DataFrame = weighted.groupby(keys, sort=False)["value"].sum().reset_index()
        if not self.delayed:
            return summed
        firing = summed.loc[summed["quantity"] == "spikes", "layer"].unique()
        family = self.pipeline.experiment(self.place).family
        passes_on = family.pool == "max" and family.place == "after"
        return _delayed(summed, self.delays(read[0][1], list(map(str, firing))), passes_on)

    def errors(self) -> pd.DataFrame:
        """Errors by layer at `times`; of calibration images, so that all shards have the same. None of two passes.

        Times are no part of the artifact's key: what it has of others is left out, what it lacks is named in a warning.
        """
        frame: pd.DataFrame = self.pipeline.read("method", self.place, "errors")[0].to_pandas()
        absent = [time for time in self.times if time not in set(frame["time"])]
        if len(frame) and absent:
            # Without its note, too: tables that are there do not look for files that were lost behind them.
            note = self.pipeline.root / self.place.experiment / "tables" / "latency-*.json"
            logger.warning(
                "%s: made before T = %s was asked for; for errors there, delete it and %s, and run again",
                self.pipeline.path("method", self.place, "errors"),
                ", ".join(map(str, absent)),
                note,
            )
        return frame[frame["time"].isin(self.times)]


def _delayed(operations: pd.DataFrame, delays: Mapping[str, int], passes_on: bool) -> pd.DataFrame:
    """Costs under delayed propagation: spikes come later by their layer's delay, operations on them by its source's.

    `passes_on`: maximum pools of spikes, which delay by one step more and have no rows of their own.
    """
    # Layers come in the network's order, and each receives what the one before it sends; the first has no delay.
    parts, source = [], 0
    for layer, own in operations.groupby("layer", sort=False):
        source = delays.get(str(layer), source + 1) - 1 if passes_on else source
        for quantity, part in own.groupby("quantity", sort=False):
            delay = {"spikes": delays.get(str(layer), 0), "activation_sparsity": delays.get(str(layer), 0)}
            delay |= dict.fromkeys(("effective_macs", "effective_acs", "effective_binary_acs"), source)
            before = 1.0 if quantity == "activation_sparsity" else 0.0
            parts.append(part.assign(value=later(part["value"].to_numpy(), delay.get(str(quantity), 0), before)))
        source = delays.get(str(layer), source)
    return pd.concat(parts, ignore_index=True)


def runs(pipeline: Pipeline, name: str) -> list[Run]:
    """Every method of every network of an experiment."""
    return [Run(pipeline, place) for place in pipeline.places("method", name) if place.shard == 1]


def collect(pipeline: Pipeline, name: str) -> dict[str, pd.DataFrame]:
    """All tables.

    Returns:
        latency: weights, method, T, accuracy, ann (percent), drop, and drop_se, its standard error over the test
            images (points), agreement with the ANN's predictions (percent of images), spikes (an image, until T); and
            accuracy_std, ann_std and drop_std, sample standard deviations over seeds (none for one seed);
        latency_costs: weights, method, T, operations of an image until T, and nanojoules by preset;
        latency_operations: weights, method, T (as simulated), layer, step, quantity, value;
        latency_errors: weights, method, T, layer, and the errors of bsnn.conversion.errors_by_layer;
        latency_ideal: of the ideal curves: weights, method, T, accuracy, ann, drop and agreement with their columns
            as above, percentile of the thresholds, and the points that the conversion loses in parts: clipping,
            quantisation, and, beside the accuracy that is `simulated`, unevenness.

    Raises:
        ArtifactError: when an artifact is missing, damaged or of other settings.
    """
    every = runs(pipeline, name)
    accuracies = pd.DataFrame([row for run in every for row in _accuracies(run)])
    counted = [(run, run.operations()) for run in every]
    costs = pd.concat([_costs(run, found) for run, found in counted], ignore_index=True)
    operations = pd.concat([_named(run, found).assign(T=run.place.steps) for run, found in counted], ignore_index=True)
    errors = pd.concat([_named(run, run.errors()).rename(columns={"time": "T"}) for run in every], ignore_index=True)
    keys = ["weights", "method", "T"]
    table = _latency(accuracies, keys, "spikes")
    curves = _curves(pd.DataFrame(ideal.rows(pipeline, name)), keys)
    return {
        "latency": table,
        "latency_costs": _over_seeds(costs, keys),
        "latency_operations": _over_seeds(operations, [*keys, "layer", "step", "quantity"]),
        "latency_errors": _over_seeds(errors, [*keys, "layer"]),
        "latency_ideal": ideal.with_unevenness(curves, table),
    }


def _named(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(weights=run.place.weights, method=run.place.method)


def _over_seeds(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return frame.groupby(keys, sort=False).mean().reset_index()


def _accuracies(run: Run) -> Iterator[dict[str, Any]]:
    """A row at each time."""
    found, steps = shards(run.pipeline, "method", run.place), run.place.steps
    labels, ann, predicted = predictions(found, steps)
    layers, _, counts = spikes(found, steps)
    if run.delayed:
        delay = run.delays(found[0].document, layers)
        predicted = later(predicted, delay[READOUT], 0)
        counts = np.stack([later(row, delay[layer], 0) for row, layer in zip(counts, layers, strict=True)])
    for time in run.times:
        yield {
            "weights": run.place.weights,
            "method": run.place.method,
            "T": time,
            **compared(labels, ann, predicted[:, time - 1]),
            "spikes": counts[:, :time].sum() / len(labels),
        }


def _latency(rows: pd.DataFrame, keys: list[str], *more: str) -> pd.DataFrame:
    """Means over seeds, of `more` columns too; their deviations; the mean drop's standard error over the test images.

    Both networks see the same images, so their difference is surer than either accuracy.
    """
    groups = rows.groupby(keys, sort=False)
    table = groups[["accuracy", "ann", "drop", "agreement", *more]].mean()
    table.insert(3, "drop_se", groups["lost"].agg(_standard_error))
    deviations = groups[["accuracy", "ann", "drop"]].std().add_suffix("_std")
    return table.join(deviations).reset_index()


def _curves(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means over seeds of ideal curves; their percentile is that of all seeds: 99.9 three times has another mean."""
    table = _latency(rows, keys, "percentile", "clipping", "quantisation")
    return table.assign(percentile=rows.groupby(keys, sort=False)["percentile"].first().to_numpy())


def _standard_error(lost: pd.Series) -> float:
    """Of what the images lose in the mean over seeds, in points; NaN for a single image."""
    image = np.mean(np.stack(lost.tolist()), axis=0)
    return 100 * float(np.sqrt(image.var(ddof=1) / len(image))) if len(image) > 1 else float("nan")


def _costs(run: Run, operations: pd.DataFrame) -> pd.DataFrame:
    summed = totals(operations)
    chosen = summed[np.isin(summed["step"], run.times)].rename(columns={"step": "T"}).reset_index(drop=True)
    for preset in ENERGY:
        chosen[f"nanojoules_{preset}"] = energy(chosen, preset)
    return _named(run, chosen)


TABLES = ("latency", "latency_costs", "latency_operations", "latency_errors", "latency_ideal")


def load(folder: Path, stands_for: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables as `write` left them.

    Raises:
        ArtifactError: when one is missing, damaged, another table, or of other settings.
    """
    return artifacts.read_frames(folder, TABLES, KIND, stands_for)


def write(pipeline: Pipeline, name: str, folder: Path) -> None:
    """Write all tables as Parquet and CSV, the long one of operations as Parquet alone."""
    stands_for = pipeline.identity("latency_tables", Place(name))
    for table, frame in collect(pipeline, name).items():
        path, csv = folder / f"{table}.parquet", table != "latency_operations"
        artifacts.write_frame(path, frame, KIND, stands_for, csv=csv)
