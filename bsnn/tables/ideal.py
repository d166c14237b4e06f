"""The ideal quantised curve of each method, and what the conversion costs in parts: clipping, quantisation, unevenness.

A method's curve is of its thresholds and rounding alone (bsnn.conversion.ideal), so that several methods share one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables.shards import Shard, compared, percent, predictions


def rows(pipeline: Pipeline, name: str) -> Iterator[dict[str, Any]]:
    """A row for each network, method with a curve, and time; then one for each of `latency.ideal`.

    Columns: those of `compared`, and what bsnn.tables.latency.collect says of them.
    """
    settings = pipeline.config.experiments[name].latency
    for weights, seed in pipeline.networks:
        curves = settings.ideals(weights)
        shown = {method: settings.ideal_of(method, weights) for method in settings.names_for(weights)}
        shown |= {curve: curve for curve in curves if curve not in shown}
        for method, curve in shown.items():
            if curve is None:
                continue
            labels, ann, found = _read(pipeline, Place(name, weights, seed, method=curve))
            for place, time in enumerate(sorted(settings.time)):
                # Columns of all times, and after them those of clipping alone, in the same order.
                even, clipped = found[:, place], found[:, place + len(settings.time)]
                fixed = curves[curve].threshold == "percentile"
                yield {
                    "weights": weights,
                    "method": method,
                    "T": time,
                    "percentile": curves[curve].percentile_at(time, settings.percentile) if fixed else np.nan,
                    **compared(labels, ann, even),
                    "clipping": percent(ann == labels) - percent(clipped == labels),
                    "quantisation": percent(clipped == labels) - percent(even == labels),
                }


def with_unevenness(table: pd.DataFrame, latency: pd.DataFrame) -> pd.DataFrame:
    """The table beside what was simulated: points that lie between the curve and the spiking network.

    Args:
        table: of `rows`, as means over seeds.
        latency: the table of methods, with their accuracy.
    """
    keys = ["weights", "method", "T"]
    simulated = latency[[*keys, "accuracy"]].rename(columns={"accuracy": "simulated"})
    merged = table.merge(simulated, on=keys, how="left")
    return merged.assign(unevenness=merged["accuracy"] - merged["simulated"])


def _read(pipeline: Pipeline, place: Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels [N], the ANN's classes [N], and those of the curve [N, 2 times]: at each time, then clipped alone."""
    found = []
    for number in pipeline.shards(place.experiment):
        one = place._replace(shard=number)
        table, document = pipeline.read("ideal", one)
        found.append(Shard(pipeline.path("ideal", one), table, pa.table({}), document))  # a curve has no spikes
    columns = 2 * len(pipeline.experiment(place).latency.time)
    return predictions(found, columns)
