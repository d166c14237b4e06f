"""Thresholds of a spiking network from the activation table alone: no network, no images.

At one percentile (`from_table`), or for one number of time steps by least squared error (`by_squared_error`).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bsnn.errors import BsnnError, ConversionError

TEXT = pd.ArrowDtype(pa.string())  # the same column type in a file, whatever the version of pandas
CANDIDATES = 400  # thresholds tried, from SMALLEST of the maximum up to it, each 1.3 % above the one before
SMALLEST = 1 / 200


def from_table(table: pa.Table | pd.DataFrame, percentile: float, population: str) -> pd.DataFrame:
    """Threshold of each layer: lambda is the percentile of its activations, and theta = lambda (threshold form).

    Args:
        table: of `bsnn.conversion.activations.collect`, or read back from its artifact.
        percentile: one that the table holds: three decimals from 90 to 100, one below, or one that it was made with.
        population: "all" (zeros included, as Lu & Sengupta 2020) or "positive".

    Returns:
        layer (string), percentile (double), population (string), lambda and threshold (double, in units of the
        layer's activations), in the network's order.

    Raises:
        BsnnError: percentile or population that the table does not hold.
        ConversionError: a layer whose lambda is zero or NaN.
    """
    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    chosen = arrow.filter(pc.field("population") == population)
    if not len(chosen):
        held = ", ".join(sorted(arrow["population"].unique().to_pylist())) or "none"
        raise BsnnError(f"the activation table has no population '{population}', only: {held}")
    # Equal as doubles: the table's are the ones nearest to their decimals (percentiles.grid), and so is a setting's.
    rows = chosen.filter(pc.field("percentile") == float(percentile)).select(["layer", "value"]).to_pydict()
    if not rows["layer"]:
        raise BsnnError(
            f"the activation table has no percentile {percentile}; it has three decimals from 90 to 100, one below, "
            "and those of activations.percentiles"
        )
    for layer, value in zip(rows["layer"], rows["value"], strict=True):
        _check(layer, value, percentile, population)
    return _made(dict(zip(rows["layer"], rows["value"], strict=True)), float(percentile), population)


def _made(lambdas: dict[str, float], percentile: float, population: str) -> pd.DataFrame:
    values = list(lambdas.values())
    return pd.DataFrame(
        {
            "layer": pd.Series(list(lambdas), dtype=TEXT),
            "percentile": percentile,
            "population": pd.Series([population] * len(values), dtype=TEXT),
            "lambda": values,
            "threshold": values,
        }
    )


def _check(layer: str, value: float, percentile: float, population: str) -> None:
    if value is None or not math.isfinite(value):
        raise ConversionError(
            f"layer '{layer}' has no {percentile}th percentile in population '{population}': it never gave a positive "
            "activation; train the network further, or take more calibration images"
        )
    if value <= 0:
        raise ConversionError(
            f"layer '{layer}': the {percentile}th percentile of population '{population}' is {value}, and a threshold "
            "must be positive; choose a larger percentile, or population 'positive' if the layer is mostly silent"
        )


def by_squared_error(table: pa.Table | pd.DataFrame, steps: int, initial: float) -> pd.DataFrame:
    """Threshold of each layer with the least mean squared error of the activations as T steps can carry them.

    A neuron with even input a >= 0 and v(0) = initial * theta has sent, after T steps, the activation

        Q(a) = theta / T * clip(floor(a * T / theta + initial), 0, T),

    and theta minimises the mean of (Q(a) - a)^2: a small theta clips, a large one has coarse steps. The table's
    percentiles are the quantile function of the activations, so the mean over all of them is an integral over it
    (by trapezoids); no image is needed. After Li et al. 2021 ("A free lunch from ANN", ICML; floor, on batches).

    Args:
        table: of `bsnn.conversion.activations.collect`, or read back from its artifact.
        steps: time steps T that the thresholds are for.
        initial: potential before the first step, as a fraction of the threshold (0: floor; 0.5: round).

    Returns:
        as `from_table`, with percentile NaN and population "all".

    Raises:
        BsnnError: fewer than one step, or no population "all".
        ConversionError: a layer without a positive activation.
    """
    if steps < 1:
        raise BsnnError(f"thresholds by squared error are for at least 1 time step, found {steps}")
    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    frame = arrow.filter(pc.field("population") == "all").select(["layer", "percentile", "value"]).to_pandas()
    if not len(frame):
        raise BsnnError("the activation table has no population 'all', which the squared error is over")
    found: dict[str, float] = {}
    for layer, part in frame.groupby("layer", sort=False):
        ordered = part.sort_values("percentile")
        quantiles = ordered["value"].to_numpy(np.float64)
        _check(str(layer), quantiles[-1], 100.0, "all")  # the maximum: candidates are parts of it
        found[str(layer)] = _least_error(quantiles, ordered["percentile"].to_numpy(np.float64) / 100, steps, initial)
    return _made(found, math.nan, "all")


def _least_error(values: np.ndarray, fractions: np.ndarray, steps: int, initial: float) -> float:
    """The best of the candidate thresholds; the lowest one of equals."""
    candidates = np.geomspace(values[-1] * SMALLEST, values[-1], CANDIDATES)
    errors = [np.trapezoid(_squared_error(values, theta, steps, initial), fractions) for theta in candidates]
    return float(candidates[int(np.argmin(errors))])


def _squared_error(values: np.ndarray, theta: float, steps: int, initial: float) -> np.ndarray:
    sent = np.clip(np.floor(values * steps / theta + initial), 0, steps)
    return np.asarray((sent * theta / steps - values) ** 2)
