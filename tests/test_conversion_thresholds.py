"""Thresholds from tables written by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bsnn.conversion.percentiles import grid
from bsnn.conversion.thresholds import by_squared_error, from_table
from bsnn.errors import BsnnError

VALUES = {  # layer, population: value at 99, 99.9 and 100
    ("conv2", "all"): (0.0, 1.5, 2.0),
    ("conv2", "positive"): (1.6, 1.9, 2.0),
    ("conv10", "all"): (0.25, 0.5, 0.75),
    ("conv10", "positive"): (0.5, 0.625, 0.75),
    ("conv10.pool", "all"): (0.1, 0.2, 0.3),
    ("conv10.pool", "positive"): (math.nan, math.nan, math.nan),
}


def table() -> pd.DataFrame:
    rows = [
        {"layer": layer, "population": population, "percentile": percentile, "value": value, "count": 8}
        for (layer, population), values in VALUES.items()
        for percentile, value in zip((99.0, 99.9, 100.0), values, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table])
def test_lambda_and_threshold_are_the_percentile_in_network_order(kind: type) -> None:
    source = pa.Table.from_pandas(table()) if kind is pa.Table else table()
    found = from_table(source, 99.9, "all")
    assert found.to_dict("list") == {
        "layer": ["conv2", "conv10", "conv10.pool"],
        "percentile": [99.9] * 3,
        "population": ["all"] * 3,
        "lambda": [1.5, 0.5, 0.2],
        "threshold": [1.5, 0.5, 0.2],
    }


def test_columns_have_the_artifact_types() -> None:
    schema = pa.Table.from_pandas(from_table(table(), 100, "all")).schema
    assert [str(field.type) for field in schema] == ["string", "double", "string", "double", "double"]


def test_population_is_chosen() -> None:
    without_silent = table()[lambda rows: rows["layer"] != "conv10.pool"]
    assert from_table(without_silent, 99, "positive")["threshold"].tolist() == [1.6, 0.5]


@pytest.mark.parametrize(
    ("percentile", "population", "message"),
    [
        (99.95, "all", "no percentile 99.95"),
        (99.9004, "all", "no percentile 99.9004"),
        (0, "all", "no percentile 0"),
        (101, "all", "no percentile 101"),
        (math.nan, "all", "no percentile nan"),
        (99.9, "negative", "no population 'negative', only: all, positive"),
        (99, "all", r"'conv2': the 99th percentile of population 'all' is 0\.0.*larger percentile.*'positive'"),
        (100, "positive", r"'conv10\.pool' has no 100th percentile in population 'positive'"),
    ],
)
def test_what_gives_no_threshold_is_refused(percentile: float, population: str, message: str) -> None:
    with pytest.raises(BsnnError, match=message):
        from_table(table(), percentile, population)


def test_neither_torch_nor_matplotlib_is_needed() -> None:
    code = "import sys, bsnn.conversion.thresholds; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def squared_error(values: np.ndarray, theta: float, steps: int, initial: float) -> float:
    """Mean squared error of activations as T steps carry them, over the values themselves."""
    sent = np.minimum(np.maximum(np.floor(values / theta * steps + initial), 0), steps)
    return float(np.mean((theta * sent / steps - values) ** 2))


def test_squared_error_by_hand() -> None:
    # activations of 0 or 3 alone: a threshold of 3 carries both without error, for every number of steps
    values = np.repeat([0.0, 3.0], 500)
    for steps in (1, 2, 5):
        assert by_squared_error(table_of(values), steps, 0.0)["threshold"].tolist() == pytest.approx([3.0])
    # mostly 1, one in a thousand 100: a single step cannot carry both, and the many win
    values = np.repeat([1.0, 100.0], [999, 1])
    assert by_squared_error(table_of(values), 64, 0.5)["threshold"][0] > 10
    values = np.repeat([1.0, 3.0], [999, 1])
    assert by_squared_error(table_of(values), 1, 0.5)["threshold"][0] == pytest.approx(1.0, rel=0.014)


@pytest.mark.parametrize("initial", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 4, 16, 64])
def test_squared_error_is_nearly_the_least_over_the_values_themselves(steps: int, initial: float) -> None:
    """The table's quantiles stand for all values: no threshold does much better on the values than the chosen one."""
    values = np.maximum(np.random.default_rng(steps).gamma(0.7, 2.0, 20_000) - 0.5, 0)
    chosen = by_squared_error(table_of(values), steps, initial)["threshold"][0]
    best = min(squared_error(values, theta, steps, initial) for theta in np.linspace(0.02, 1, 400) * values.max())
    assert squared_error(values, chosen, steps, initial) <= 1.03 * best


def test_squared_error_needs_steps_and_activations() -> None:
    with pytest.raises(BsnnError, match="at least 1 time step"):
        by_squared_error(table_of(np.ones(10)), 0, 0.0)
    with pytest.raises(BsnnError, match="must be positive"):
        by_squared_error(table_of(np.zeros(10)), 4, 0.0)


def table_of(values: np.ndarray) -> pd.DataFrame:
    """Activation table of one layer, by NumPy."""
    percentiles = grid()
    quantiles = np.percentile(values, percentiles)
    return pd.DataFrame({"layer": "conv1", "population": "all", "percentile": percentiles, "value": quantiles})
