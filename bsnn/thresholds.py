"""Thresholds of a spiking network at one percentile, from the activation table alone: no network, no images."""

from __future__ import annotations

import math

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bsnn.errors import BsnnError

TEXT = pd.ArrowDtype(pa.string())


def from_table(table: pa.Table | pd.DataFrame, percentile: float, population: str) -> pd.DataFrame:
    """Threshold of each layer: lambda is the percentile of its activations, and theta = lambda (threshold form).

    Args:
        table: of `bsnn.activations.collect`, or read back from its artifact.
        percentile: one that the table holds: three decimals from 90 to 100, one below.
        population: "all" (zeros included, as Lu & Sengupta 2020) or "positive".

    Returns:
        layer (string), percentile (double), population (string), lambda and threshold (double, in units of the
        layer's activations), in the network's order.

    Raises:
        BsnnError: percentile or population that the table does not hold; a layer whose lambda is zero or NaN.
    """
    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    chosen = arrow.filter(pc.field("population") == population)
    if not len(chosen):
        held = ", ".join(sorted(arrow["population"].unique().to_pylist())) or "none"
        raise BsnnError(f"the activation table has no population '{population}', only: {held}")
    rows = chosen.filter(pc.field("percentile") == float(percentile)).select(["layer", "value"]).to_pydict()
    if not rows["layer"]:
        raise BsnnError(
            f"the activation table has no percentile {percentile}; it has three decimals from 90 to 100, one below"
        )
    for layer, value in zip(rows["layer"], rows["value"], strict=True):
        _check(layer, value, percentile, population)
    return pd.DataFrame(
        {
            "layer": pd.Series(rows["layer"], dtype=TEXT),
            "percentile": float(percentile),
            "population": pd.Series([population] * len(rows["layer"]), dtype=TEXT),
            "lambda": rows["value"],
            "threshold": rows["value"],
        }
    )


def _check(layer: str, value: float, percentile: float, population: str) -> None:
    if value is None or not math.isfinite(value):
        raise BsnnError(
            f"layer '{layer}' has no {percentile}th percentile in population '{population}': it never gave a positive "
            "activation; train the network further, or take more calibration images"
        )
    if value <= 0:
        raise BsnnError(
            f"layer '{layer}': the {percentile}th percentile of population '{population}' is {value}, and a threshold "
            "must be positive; choose a larger percentile, or population 'positive' if the layer is mostly silent"
        )
