"""Table of early exit: every network of an experiment, from its checked artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from bsnn import artifacts
from bsnn.config import Config, Weights
from bsnn.pipeline import identity

KIND = "early-exit-table"
SETTINGS = "early_exit.json"


def collect(config: Config, name: str, paths: identity.Paths) -> pd.DataFrame:
    """Rows of every network.

    Returns:
        split (held-out or test), bound on the margin (logit units; NaN: none), T (most steps of an image), accuracy and
        ann (percent), mean_steps, spikes, operations and nanojoules of an image, method, chosen (by held-out images),
        weights, seed.

    Raises:
        ArtifactError: when an artifact is missing, damaged or of other settings.
    """
    parts = []
    for weights, seed in product(config.weights, config.seeds):
        stands_for = identity.early_exit(config, config.experiments[name], weights, seed)
        parts.append(of_network(paths.early_exit(name, weights, seed), "exit", stands_for, weights, seed))
    return pd.concat(parts, ignore_index=True)


def of_network(path: Path, kind: str, stands_for: Mapping[str, Any], weights: Weights, seed: int) -> pd.DataFrame:
    """Table of one network's early exit or search, which must be of these settings, and which network it is."""
    table, _ = artifacts.read_table(path, kind, {}, stands_for)
    return table.to_pandas().assign(weights=weights, seed=seed)


def write(table: pd.DataFrame, folder: Path, stands_for: Mapping[str, Any]) -> None:
    """Write the table as CSV and Parquet, and note what it stands for."""
    artifacts.write_table(folder / "early_exit.parquet", table, KIND, stands_for, {})
    artifacts.write_text(folder / "early_exit.csv", table.to_csv(index=False, lineterminator="\n"))
    settings = {"key": identity.key(stands_for), **stands_for}
    artifacts.write_text(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
