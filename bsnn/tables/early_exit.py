"""Table of early exit: every network of an experiment, from its checked artifacts."""

from __future__ import annotations

import json
from itertools import product

import pandas as pd

from bsnn import artifacts, identity
from bsnn.config import Config

KIND = "early-exit-table"
SETTINGS = "early_exit.json"


def collect(config: Config, name: str, paths: identity.Paths) -> pd.DataFrame:
    """Rows of every network.

    Returns:
        images (held-out or test), bound on the margin (logit units; NaN: none, all images run for `mean_steps`),
        accuracy and ann (percent), mean_steps, spikes, operations and nanojoules of an image, chosen (by held-out
        images), weights, seed.

    Raises:
        ArtifactError: when an artifact is missing, damaged or of other settings.
    """
    experiment, parts = config.experiments[name], []
    for weights, seed in product(config.weights, config.seeds):
        path, stands_for = (
            paths.early_exit(name, weights, seed),
            identity.early_exit(config, experiment, weights, seed),
        )
        table, _ = artifacts.read_table(path, "exit", {}, stands_for)
        parts.append(table.to_pandas().assign(weights=weights, seed=seed))
    return pd.concat(parts, ignore_index=True)


def write(config: Config, name: str, paths: identity.Paths) -> None:
    """Write the table as CSV and Parquet, and note what it stands for."""
    folder, stands_for, frame = paths.tables(name), identity.early_exits(config, name), collect(config, name, paths)
    artifacts.write_table(folder / "early_exit.parquet", frame, KIND, stands_for, {})
    artifacts.write_text(folder / "early_exit.csv", frame.to_csv(index=False, lineterminator="\n"))
    settings = {"key": identity.key(stands_for), **stands_for}
    artifacts.write_text(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
