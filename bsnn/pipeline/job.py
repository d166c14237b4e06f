"""What one job of the pipeline works on: the checked configuration, the experiment, and which of its networks.

Paths follow from it (identity.Paths), so a stage is the same whoever starts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from bsnn.config import Config, Experiment, Method, Weights, check_percentile
from bsnn.errors import ConfigError
from bsnn.pipeline import identity


@dataclass(frozen=True)
class Job:
    """What one job works on."""

    WILDCARDS: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "weights": str,
        "seed": int,
        "percentile": float,
        "shard": int,
    }

    config: Config
    name: str
    weights: Weights = "full"
    seed: int = 0
    percentile: float = 100.0
    shard: int = 1
    root: Path = field(default=identity.RESULTS, kw_only=True)  # folder of all artifacts

    def __post_init__(self) -> None:
        if self.name not in self.config.experiments:
            known = ", ".join(sorted(self.config.experiments))
            raise ConfigError(f"there is no experiment '{self.name}'; experiments: {known}")
        check_percentile(self.percentile)
        shards = self.experiment.simulation.shards
        if not 1 <= self.shard <= shards:
            raise ConfigError(f"shard {self.shard} does not exist: experiment '{self.name}' has 1 to {shards}")

    @classmethod
    def of(cls, config: Config, wildcards: Mapping[str, str]) -> Self:
        """The job that an artifact's path names.

        Args:
            config: the checked configuration.
            wildcards: texts by name: `experiment`, and those of WILDCARDS that the path has. Others (`key`, `shards`)
                follow from the settings, and are passed over.

        Raises:
            ConfigError: when there is no such experiment, percentile or shard.
        """
        place = {name: read(wildcards[name]) for name, read in cls.WILDCARDS.items() if name in wildcards}
        return cls(config, wildcards["experiment"], **place)

    @property
    def experiment(self) -> Experiment:
        """The experiment's settings."""
        return self.config.experiments[self.name]

    @property
    def paths(self) -> identity.Paths:
        """Where artifacts lie."""
        return identity.Paths(self.config, self.root)


@dataclass(frozen=True)
class MethodJob(Job):
    """What one job of a method works on."""

    WILDCARDS: ClassVar[Mapping[str, Callable[[str], Any]]] = {**Job.WILDCARDS, "method": str, "steps": int}

    method: str = "baseline"
    steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = self.experiment.latency
        settings.method(self.method)
        if self.method not in settings.names_for(self.weights):
            raise ConfigError(f"method '{self.method}' is for full-precision networks only, not for binary weights")
        if self.steps not in settings.runs(self.method):
            raise ConfigError(
                f"method '{self.method}' is simulated for {settings.runs(self.method)} steps, not {self.steps}; "
                f"see experiments.{self.name}.latency.time"
            )

    @property
    def switches(self) -> Method:
        """The method's switches."""
        return self.experiment.latency.method(self.method)
