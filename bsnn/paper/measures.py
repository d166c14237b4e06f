"""The paper's tables, each one function from gathered artifacts.

Accuracies are in percent, means and sample standard deviations are over seeds. What is not known stays empty here;
bsnn.paper.write says in words why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from bsnn.config import Config, Weights
from bsnn.paper import plan, published
from bsnn.paper.published import Accuracy
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.simulation.energy import totals
from bsnn.tables import measures
from bsnn.tables.costs_over_time import SLACK, first_lasting
from bsnn.tables.costs_over_time import operations as counted
from bsnn.tables.gather import Source
from bsnn.tables.shards import Outcome

NAMES: dict[tuple[str, str], str] = {
    ("ANN", "full"): "ANN",
    ("ANN", "binary"): "B-ANN",
    ("SNN", "full"): "SNN",
    ("SNN", "binary"): "B-SNN",
}


@dataclass(frozen=True)
class Gathered:
    """The artifacts behind one result of an experiment."""

    pipeline: Pipeline
    name: str
    result: str

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.pipeline.config

    @cached_property
    def sources(self) -> dict[str, Source]:
        """Artifacts of each experiment that the result needs."""
        needed = plan.simulated(self.config, self.name, self.result)
        root = self.pipeline.root
        # Each under a configuration of its own, with the percentiles and times that the result needs of it.
        return {
            other: Source(Pipeline(plan.view(self.config, other, found), root), other)
            for other, found in needed.items()
        }

    @property
    def source(self) -> Source:
        """Artifacts of the experiment itself."""
        return self.sources[self.name]

    @property
    def chosen_time(self) -> int:
        """Time steps of tables that show one number of steps."""
        return plan.chosen_time(self.config, self.name)


def accuracy(gathered: Gathered) -> pd.DataFrame:
    """Published and measured accuracy of each network: one row per published entry and protocol."""
    found = published.of(gathered.config.experiments[gathered.name])
    entries = [entry for entry in found.accuracy if entry.weights in gathered.config.weights]
    pairs = product(entries, gathered.sources.values())
    table = pd.DataFrame([_compared(gathered, entry, source) for entry, source in pairs])
    return table.astype({"time": "Int64", "epochs": "Int64", "verdict": "string"})


def _compared(gathered: Gathered, entry: Accuracy, source: Source) -> dict[str, object]:
    spiking = entry.network == "SNN"
    percentile = entry.percentile or gathered.config.paper.chosen
    # Where fewer steps are simulated than were published, the last of them.
    time = min(entry.time or gathered.chosen_time, source.time[-1])
    runs = [source.simulation(entry.weights, seed, percentile) for seed in source.config.seeds]
    measured = pd.Series([_snn(run, time) if spiking else _ann(run) for run in runs])
    difference = np.nan if entry.value is None else measured.mean() - entry.value
    compared = entry.value is not None and entry.tolerance is not None
    experiment = source.experiment
    recipe = experiment.train if entry.weights == "full" else experiment.binarize
    imported = experiment.imported.of(entry.weights) is not None
    return {
        "network": NAMES[entry.network, entry.weights],
        "protocol": experiment.protocol_name,
        "percentile": percentile if spiking else np.nan,
        "time": time if spiking else pd.NA,
        "published": np.nan if entry.value is None else entry.value,
        "measured_mean": measured.mean(),
        "measured_std": measured.std(),
        "difference": difference,
        "tolerance": np.nan if entry.tolerance is None else entry.tolerance,
        "verdict": _verdict(difference, entry.tolerance) if compared else None,
        "epochs": pd.NA if imported else recipe.epochs,
        "seeds": len(runs),
        "images": runs[0].images,
        "source": f"{entry.status}: {entry.source}",
    }


def _verdict(difference: float, tolerance: float | None) -> str:
    return "yes" if difference >= -(tolerance or 0) - SLACK else "no"


def _ann(run: Outcome) -> float:
    return 100 * run.ann_correct / run.images


def _snn(run: Outcome, time: int) -> float:
    return 100 * int(run.correct[time - 1]) / run.images


def protocols(gathered: Gathered) -> pd.DataFrame:
    """Accuracy at the reported times under each protocol that ran, side by side; empty where only one did."""
    if len(gathered.sources) < 2:
        return pd.DataFrame()
    keys, values = ["weights", "percentile", "time"], ["ann_mean", "snn_mean", "drop"]
    parts = [measures.accuracy(source)[[*keys, *values]] for source in gathered.sources.values()]
    names = [source.experiment.protocol_name for source in gathered.sources.values()]
    table = parts[0][keys]
    for name, part in zip(names, parts, strict=True):
        columns = {column: f"{column}|{name}" for column in values}
        table = table.merge(part.rename(columns=columns), on=keys, how="left")
    return table


def pooling(gathered: Gathered) -> pd.DataFrame:
    """ANN and SNN with each pool and place, at the chosen percentile and time."""
    rows = []
    poolings = plan.poolings(gathered.config, gathered.name)
    for weights, ((pool, place), name) in product(gathered.config.weights, poolings.items()):
        source = gathered.sources[name]
        percentile, time = gathered.config.paper.chosen, gathered.chosen_time
        runs = [source.simulation(weights, seed, percentile) for seed in source.config.seeds]
        ann, snn = pd.Series([_ann(run) for run in runs]), pd.Series([_snn(run, time) for run in runs])
        spikes = [run.spikes[:, :time].sum() / run.images for run in runs]
        row = {"weights": weights, "pool": pool, "place": place, "percentile": percentile, "time": time}
        row |= {"ann_mean": ann.mean(), "ann_std": ann.std(), "snn_mean": snn.mean(), "snn_std": snn.std()}
        rows.append({**row, "drop": (ann - snn).mean(), "spikes_per_image": np.mean(spikes), "seeds": len(runs)})
    return pd.DataFrame(rows)


def operations(gathered: Gathered) -> pd.DataFrame:
    """Operations of an image (bsnn.simulation.accounting) at the reported times; means over seeds.

    Returns:
        weights, percentile, time, ann_operations (multiplications of weights and inputs, each of them present),
        snn_macs, snn_acs, snn_binary_acs, ratio (first layer once per image) and ratio_every_step (at every step).
    """
    config, percentiles = gathered.config, gathered.source.percentiles
    parts = [_operations(gathered.source, *one) for one in product(config.weights, percentiles, config.seeds)]
    return pd.concat(parts).groupby(["weights", "percentile", "time"], sort=False).mean().reset_index()


def _operations(source: Source, weights: Weights, percentile: float, seed: int) -> pd.DataFrame:
    from bsnn.simulation.works import works  # needs torch

    run = source.simulation(weights, seed, percentile)
    network, costs = counted(source, Place(source.name, weights, seed, percentile), run)
    summed = totals(costs).set_index("step").loc[source.time]
    layers = [work for work in works(network) if work.op != "pool"]
    dense, first = sum(work.dense for work in layers), layers[0].dense
    kinds = {"effective_macs": "snn_macs", "effective_acs": "snn_acs", "effective_binary_acs": "snn_binary_acs"}
    table = summed[list(kinds)].rename(columns=kinds).rename_axis("time").reset_index()
    total = table[list(kinds.values())].sum(axis=1)
    table.insert(1, "ann_operations", float(dense))
    table["ratio"] = total / dense
    table["ratio_every_step"] = (total + first * (table["time"] - 1)) / dense
    return table.assign(weights=weights, percentile=percentile)


def latency(gathered: Gathered) -> pd.DataFrame:
    """First step from which the SNN stays within some points of its ANN, up to the last simulated step.

    Means and deviations are of all seeds: where one of them does not get there, they are empty.
    """
    source, config = gathered.source, gathered.config
    rows = []
    for weights, within, percentile in product(config.weights, sorted(config.paper.within), source.percentiles):
        found = pd.Series(list(_latencies(source, weights, percentile, within)), dtype="float64")
        rows.append(
            {
                "weights": weights,
                "within": within,
                "percentile": percentile,
                "time_mean": found.mean(skipna=False),
                "time_std": found.std(skipna=False),
                "reached": int(found.notna().sum()),
                "seeds": len(found),
                "simulated": source.time[-1],
            }
        )
    return pd.DataFrame(rows)


def _latencies(source: Source, weights: Weights, percentile: float, within: float) -> Iterator[float]:
    for seed in source.config.seeds:
        run = source.simulation(weights, seed, percentile)
        lost = 100 * (run.ann_correct - run.correct) / run.images
        yield first_lasting(lost <= within + SLACK)
