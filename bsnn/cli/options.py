"""Arguments and options that commands share, and what they make of them: a configuration, and a stage to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bsnn import config, log
from bsnn.config import Config, Weights, reading
from bsnn.errors import ConfigError
from bsnn.pipeline.declarations import TARGETS
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

CONFIG_FILE = Path("config.yaml")


def _experiments(incomplete: str) -> list[str]:
    """Names of experiments for the shell; none where there is no valid configuration."""
    try:
        names = config.load(CONFIG_FILE).experiments
    except ConfigError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _targets(incomplete: str) -> list[str]:
    return [name for name in TARGETS if name.startswith(incomplete)]


Experiment = Annotated[
    str, typer.Argument(help="Experiment, by its name in the configuration.", autocompletion=_experiments)
]
Target = Annotated[
    str, typer.Argument(help="Target of snakemake: all, paper, latency, search, ...", autocompletion=_targets)
]
CheckpointFile = Annotated[Path, typer.Argument(help="The original's checkpoint (.pth.tar), or a .safetensors file.")]
Kind = Annotated[str, typer.Option("--weights", help="full or binary.")]
Seed = Annotated[int, typer.Option(help="Seed of the network.")]
Percentile = Annotated[float, typer.Option(help="Percentile of the activations.")]
Shard = Annotated[int, typer.Option(help="Part of the test set: 1, 2, ...")]
MethodName = Annotated[str, typer.Option("--method", help="Method of conversion: baseline, or one of latency.methods.")]
ConfigFile = Annotated[Path, typer.Option("--config-file", help="Configuration.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting: key=value, with dots for sections; repeatable.")
]
CommonFolder = Annotated[Path, typer.Argument(help="Common folder of finished artifacts.")]


def changes_of(texts: list[str] | None) -> dict[str, Any]:
    """Nested settings from `a.b=value` texts, values as YAML."""
    changes: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected key=value, for example --set compute.engine=torch")
        nested: Any = reading.value(value, f"--set {reading.shortened(text, 60)}")
        for part in reversed(name.split(".")):
            nested = {part: nested}
        changes = config.merge(changes, nested)
    return changes


def load(path: Path, texts: list[str] | None) -> Config:
    """Checked configuration from a file, with the changes of `--set`."""
    return config.load(path, changes_of(texts))


def weights_of(text: str) -> Weights:
    """The kind of network that `--weights` names."""
    if text == "full" or text == "binary":
        return text  # type: ignore[return-value]
    raise ConfigError(f"--weights {text}: expected full or binary")


def job_of(file: Path, changes: list[str] | None, name: str, weights: str = "full", **place: Any) -> Job:
    """The job that options name."""
    return Job(Pipeline(load(file, changes)), Place(name, weights_of(weights), **place))


def run(rule: str, file: Path, changes: list[str] | None, name: str, **place: Any) -> None:
    """Run a stage of an experiment, for one of its networks and percentiles."""
    from bsnn import stages

    with log.job():
        stages.run(rule, job_of(file, changes, name, **place))
