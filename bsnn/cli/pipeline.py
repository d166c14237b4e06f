"""Commands that run one stage each."""

from __future__ import annotations

from typing import Annotated

import typer

from bsnn.cli.options import (
    CONFIG_FILE,
    Changes,
    ConfigFile,
    Experiment,
    Kind,
    MethodName,
    Percentile,
    Seed,
    Shard,
    run,
)


def data(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Fetch, verify and store the data set."""
    run("data", config_file, changes, experiment)


def train(
    experiment: Experiment, seed: Seed = 0, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None
) -> None:
    """Train the full-precision network."""
    run("train", config_file, changes, experiment, seed=seed)


def binarize(
    experiment: Experiment, seed: Seed = 0, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None
) -> None:
    """Fine-tune the binary network from the full-precision one."""
    run("binarize", config_file, changes, experiment, seed=seed)


def activations(
    experiment: Experiment,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Collect every percentile of every layer's activations."""
    run("activations", config_file, changes, experiment, weights=weights, seed=seed)


def thresholds(
    experiment: Experiment,
    percentile: Percentile,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Read thresholds at one percentile from the activation table."""
    run("thresholds", config_file, changes, experiment, weights=weights, seed=seed, percentile=percentile)


def simulate(
    experiment: Experiment,
    percentile: Percentile,
    weights: Kind = "full",
    seed: Seed = 0,
    shard: Shard = 1,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Simulate the spiking network on one shard of the test set."""
    run("simulate", config_file, changes, experiment, weights=weights, seed=seed, percentile=percentile, shard=shard)


def method(
    experiment: Experiment,
    name: MethodName,
    steps: Annotated[int, typer.Option(help="Time steps T.")],
    weights: Kind = "full",
    seed: Seed = 0,
    shard: Shard = 1,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Convert by a method and simulate it on one shard of the test set."""
    run("method", config_file, changes, experiment, weights=weights, seed=seed, shard=shard, method=name, steps=steps)


def latency(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Write tables and figures of all methods of conversion, side by side."""
    run("latency_tables", config_file, changes, experiment)
    run("latency_figures", config_file, changes, experiment)


def search(
    experiment: Experiment,
    weights: Kind = "binary",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Search the best switches for a wanted time or drop (latency.search), on held-out training images."""
    run("find_switches", config_file, changes, experiment, weights=weights, seed=seed)


def early_exit(
    experiment: Experiment,
    weights: Kind = "binary",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Accuracy against mean steps, the bound chosen on held-out training images (latency.early_exit)."""
    run("find_exit", config_file, changes, experiment, weights=weights, seed=seed)


def exit_results(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Write table and figures of the early exit of all networks, side by side."""
    run("exit_results", config_file, changes, experiment)


def tables(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Write the tables (CSV, Parquet, Markdown)."""
    run("tables", config_file, changes, experiment)


def figures(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Draw the figures (SVG, PNG)."""
    run("figures", config_file, changes, experiment)


def report(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Write the report (one HTML file)."""
    run("report", config_file, changes, experiment)
