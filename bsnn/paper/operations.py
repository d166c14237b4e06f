"""Operations of the spiking networks over those of their ANNs (bsnn.simulation.accounting), from counts of spikes."""

from __future__ import annotations

import pandas as pd

from bsnn.config import Weights
from bsnn.paper.measures import Gathered
from bsnn.pipeline.stage import Place
from bsnn.simulation.energy import totals
from bsnn.simulation.works import works
from bsnn.tables.costs_over_time import operations as counted


def operations(gathered: Gathered) -> pd.DataFrame:
    """Operations of an image at the reported times; means over seeds.

    Returns:
        weights, percentile, time, ann_operations (multiplications of weights and inputs, each of them present),
        snn_macs, snn_acs, snn_binary_acs, ratio (first layer once per image) and ratio_every_step (at every step).
    """
    parts = []
    for weights in gathered.config.weights:
        for percentile in gathered.source.percentiles:
            parts += [_of(gathered, weights, seed, percentile) for seed in gathered.config.seeds]
    table = pd.concat(parts).groupby(["weights", "percentile", "time"], sort=False).mean().reset_index()
    return table


def _of(gathered: Gathered, weights: Weights, seed: int, percentile: float) -> pd.DataFrame:
    source = gathered.source
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
