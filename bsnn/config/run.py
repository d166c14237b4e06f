"""What is run, how it is computed here, and the configuration as a whole."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from bsnn.config.experiment import Experiment
from bsnn.config.values import AnyPercentile, Engine, Name, Percentile, Section, Several, Weights, off_grid, on_grid
from bsnn.errors import meant

VARIANT = r"-(average|max)-(before|after)$"  # names of a pooling ablation's experiments (loading.variant_name)
RESERVED = ("data", "reference", "checkpoints", "benchmarks")  # folders of results/ that no experiment may take


class Paper(Section):
    """The paper's results (`snakemake paper`), beside an experiment's own tables and figures."""

    percentile: Several[Percentile] = Field(
        default=[99.0, 99.5, 99.7, 99.9, 99.95, 99.99, 100.0],
        description="Sweep of percentiles; those of `percentile` belong to it too.",
    )
    chosen: Percentile = Field(
        99.9, description="Percentile of the tables that show one alone: the one of the authors' sample commands."
    )
    time: PositiveInt | None = Field(
        None, description="Time steps of these tables; without it those of the authors' sample command, or all."
    )
    within: Several[PositiveFloat] = Field(
        default=[0.5, 1.0, 2.0], description="Latency is the time to within so many points of the ANN."
    )


class Compute(Section):
    """How jobs run here. No part of any artifact's identity, except the engine's name for full-precision networks."""

    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device kind, in Fabric's words.")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto",
        description="Of training, in Fabric's words; `auto` takes bf16-mixed where the device multiplies bfloat16 "
        "natively, and 32-true elsewhere.",
    )
    devices: PositiveInt = Field(1, le=64, description="Devices a training job uses, on each node.")
    nodes: PositiveInt = Field(1, description="Nodes of a SLURM cluster a training job uses (docs/cluster.md).")
    engine: Engine = Field("auto", description="Simulation engine; `auto` chooses and says why.")
    batch_size: PositiveInt = Field(256, description="Most images simulated at once; less where memory asks for it.")
    memory_mib: PositiveInt = Field(2048, description="Memory budget of the simulation, in MiB.")
    threads: PositiveInt = Field(2, description="CPU threads a job uses.")
    dynamic_threads: bool = Field(
        True,
        description="Training on a CPU uses fewer threads while other processes take its cores; false keeps the "
        "number, with which a seed gives the same weights to the last bit.",
    )
    workers: int = Field(2, ge=0, description="Processes that decode images.")

    @property
    def processes(self) -> int:
        """Processes of a training job, one for each device."""
        return self.nodes * self.devices


class Config(Section):
    """Everything: what to run, and every experiment's definition."""

    run: Several[Name] = Field(description="Experiments to run; names from `experiments`.")
    percentile: Several[AnyPercentile] = Field(description="Percentiles at which to convert.")
    time: Several[PositiveInt] = Field(
        description="Reported time steps; the largest must not exceed the simulated time."
    )
    seeds: Several[Annotated[int, Field(ge=0)]] = Field(default=[0], description="One trained network for each.")
    weights: Several[Weights] = Field(default=["full", "binary"], description="Kinds of network.")
    compute: Compute = Compute()
    paper: Paper = Paper()
    experiments: dict[Name, Experiment]

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for name in self.run:
            if name not in self.experiments:
                known = sorted(self.experiments)
                written = [one for one in known if not re.search(VARIANT, one)]
                raise ValueError(
                    f"run: there is no experiment '{name}'{meant(name, known)}; experiments: {', '.join(written)}"
                )
            simulated = self.experiments[name].simulation.time
            if max(self.time) > simulated:
                raise ValueError(
                    f"time: {max(self.time)} steps cannot be reported, experiment '{name}' simulates {simulated}; "
                    f"raise experiments.{name}.simulation.time or report at most {simulated}"
                )
            if (self.paper.time or 0) > simulated:
                raise ValueError(f"paper.time: experiment '{name}' simulates {simulated} steps, not {self.paper.time}")
            self._has_percentiles(name)
            self._can_be_computed(name)
            self._has_such_a_module(name)
            self._leaves_early(name)
        for name in self.experiments:
            if name in RESERVED:
                raise ValueError(f"experiments: '{name}' is a folder of results/ already; choose another name")
            self._shares_networks(name)
        return self

    def _has_percentiles(self, name: str) -> None:
        held = self.experiments[name].activations.percentiles
        for value in self.percentile:
            if not on_grid(value) and value not in held:
                raise ValueError(
                    f"percentile: {off_grid(value)}; or name it in experiments.{name}.activations.percentiles, "
                    "for one more pass over the calibration images; all of its simulations are made again then"
                )

    def _can_be_computed(self, name: str) -> None:
        """Devices share each batch evenly; an engine that needs integer sums is asked for binary networks only."""
        for stage in ("train", "binarize"):
            batch = getattr(self.experiments[name], stage).batch_size
            if batch % self.compute.processes:
                raise ValueError(
                    f"compute.devices: {self.compute.processes} devices (of all compute.nodes) cannot share a batch of "
                    f"{batch} evenly (experiments.{name}.{stage}.batch_size)"
                )
        if self.compute.engine == "triton" and "full" in self.weights:
            raise ValueError(
                "compute.engine: 'triton' takes binary networks only; "
                "set weights to binary, or the engine to auto, which takes it wherever it can"
            )
        if self.compute.engine == "triton" and self.compute.accelerator == "cpu":
            raise ValueError("compute.engine: 'triton' needs a GPU, and compute.accelerator is cpu")

    def _has_such_a_module(self, name: str) -> None:
        """A module of one's own is one network, of one kind."""
        if self.experiments[name].own is None:
            return
        if len(self.weights) > 1 or len(self.seeds) > 1:
            raise ValueError(
                f"weights: the network of experiment '{name}' is a module, of one kind of weights and without a seed: "
                "set weights to full, or to binary where all its weights after the first layer are +-alpha per output "
                "channel, and give one seed"
            )
        if self.compute.engine == "triton":
            raise ValueError(
                f"compute.engine: 'triton' takes the VGG family only, and the network of experiment '{name}' is a "
                "module: set the engine to auto, packed, torch or bindsnet"
            )

    def _leaves_early(self, name: str) -> None:
        settings = self.experiments[name].latency
        chosen = settings.early_exit.method
        if "binary" in self.weights and chosen in settings.names and chosen not in settings.names_for("binary"):
            raise ValueError(
                f"experiments.{name}.latency.early_exit.method: '{chosen}' is for full-precision networks alone; take "
                "another, or set weights to full"
            )

    def _shares_networks(self, name: str) -> None:
        own = self.experiments[name]
        if own.networks_of is None:
            return
        other = self.experiments.get(own.networks_of)
        where = f"experiments.{name}.networks_of"
        if other is None or other.networks_of is not None:
            raise ValueError(f"{where}: there is no experiment '{own.networks_of}' with networks of its own")
        for section in ("data", "network", "train", "binarize", "imported"):
            if getattr(own, section) != getattr(other, section):
                raise ValueError(f"{where}: {section} is not that of '{own.networks_of}'; set networks_of to null")
