"""The pipeline of one configuration: what `declarations` says, filled in.

The only code that knows keys, paths and the grid of jobs. Identities are cached: they nest, and many places share one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn import artifacts
from bsnn.config import Config, Experiment, Section, Weights, check_percentile, format_percentile
from bsnn.errors import ArtifactError, ConfigError, meant
from bsnn.paper import plan
from bsnn.pipeline import identity, notes, possible
from bsnn.pipeline.columns import schema
from bsnn.pipeline.declarations import STAGES, TARGETS, VERIFIED, data_settings
from bsnn.pipeline.stage import Need, Place, Stage

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

RESULTS = Path("results")


class Pipeline:
    """All stages of one configuration.

    Args:
        config: the checked configuration.
        root: folder of all artifacts.
    """

    def __init__(self, config: Config, root: Path = RESULTS) -> None:
        self.config = config
        self.root = root
        self._identities: dict[tuple[str, Place], dict[str, Any]] = {}
        self._keys: dict[tuple[str, Place], str] = {}
        self._words: dict[tuple[str, Place], dict[str, str]] = {}
        self._sections: dict[int, tuple[Section, dict[str, Any]]] = {}

    # What is there to be made.

    @property
    def networks(self) -> list[tuple[Weights, int]]:
        """Kind and seed of each network."""
        return [(weights, seed) for weights in self.config.weights for seed in self.config.seeds]

    def shards(self, name: str) -> range:
        """Shards of an experiment's test set: 1, 2, ..."""
        return range(1, self.config.experiments[name].simulation.shards + 1)

    def places(self, stage: str, name: str, percentiles: list[float] | None = None) -> Iterator[Place]:
        """Every job of a stage for an experiment; at the percentiles of the configuration, unless others are given."""
        config, settings = self.config, self.config.experiments[name].latency
        names = settings.ideals if stage == "ideal" else settings.names_for
        values: Mapping[str, Callable[[Place], Iterable[Any]]] = {
            "weights": lambda one: config.weights,
            "seed": lambda one: config.seeds,
            "percentile": lambda one: config.percentile if percentiles is None else percentiles,
            "shard": lambda one: self.shards(name),
            "method": lambda one: names(one.weights),
            "steps": lambda one: settings.runs(one.method),
            "result": lambda one: plan.results_of(config, name),
        }
        found = [Place(name)]
        # Axis by axis, since methods depend on the kind of weights, and steps on the method.
        for axis in ("weights", "seed") if stage == "network" else STAGES[stage].over:
            found = [one._replace(**{axis: value}) for one in found for value in values[axis](one)]
        yield from (self.at(stage, place) for place in found if self._trained(stage, name))

    def _trained(self, stage: str, name: str) -> bool:
        """Whether an experiment has such networks: full-precision ones for binary ones to start from, too."""
        weights = self.config.weights
        starts = "binary" in weights and not self.config.experiments[name].given("binary")
        return {"train": "full" in weights or starts, "binarize": "binary" in weights}.get(stage, True)

    def target(self, name: str) -> list[tuple[str, Place]]:
        """Jobs whose files `snakemake TARGET` asks for.

        Raises:
            ConfigError: there is no such target, no experiment of `run` has that result of the paper, or one cannot
                have it (`possible.check`).
        """
        if name not in TARGETS:
            raise ConfigError(f"there is no target '{name}'{meant(name, TARGETS)}; targets: {', '.join(TARGETS)}")
        result = name.removeprefix("paper_") if name.startswith("paper_") else ""
        every = [(stage, at) for one in self.config.run for stage in TARGETS[name] for at in self.places(stage, one)]
        found = [(stage, place) for stage, place in every if place.result == result]
        if not found:
            experiments = [self.config.experiments[one] for one in self.config.run]
            if all(one.own is not None for one in experiments):  # modules of one's own cannot have ablations either
                possible.check(STAGES["paper_result"], experiments[0], Place(self.config.run[0]))
            raise ConfigError(f"no experiment of `run` has the result {result}: set experiments.NAME.ablation to true")
        for stage, place in found:
            possible.check(self.stage(stage, place), self.experiment(place), place)
        return found

    # Keys and paths.

    def experiment(self, place: Place) -> Experiment:
        """Settings of the experiment."""
        return self.config.experiments[place.experiment]

    def stage(self, name: str, place: Place | None = None) -> Stage:
        """Declaration of a stage; `network` is the one that makes the place's kind of network."""
        return STAGES[self.rule(name, place)]

    def rule(self, name: str, place: Place | None) -> str:
        """Name of the rule of a stage."""
        if name != "network":
            return name
        return "train" if place is None or place.weights == "full" else "binarize"

    def at(self, name: str, place: Place) -> Place:
        """The place as a stage knows it: without coordinates that it does not have, of whose networks it uses."""
        return self._at(name, place, shard=True)

    def _at(self, name: str, place: Place, *, shard: bool) -> Place:
        stage = STAGES[self.rule(name, place)]
        own = {axis: getattr(place, axis) for axis in stage.over}
        if not shard:
            own.pop("shard", None)
        if stage.weights is not None:
            own["weights"] = stage.weights
        experiment = place.experiment
        if stage.shared:
            experiment = self.experiment(place).networks_of or experiment
        return Place(self.data_owners[experiment] if name == "data" else experiment, **own)

    @cached_property
    def data_owners(self) -> dict[str, str]:
        """For each experiment, the one that stands for all with its data set: by a path that it names, or that runs."""
        run, every = self.config.run, self.config.experiments

        def rank(name: str) -> int:
            path = every[name].data.path
            if path is None:
                return 2
            return 0 if name in run else 1 if os.path.exists(path) else 3  # what runs stops for no path of another

        names = sorted([*run, *every], key=rank)  # stable: of equals those that run first
        first: dict[str, str] = {}
        content = {name: json.dumps(data_settings(self, every[name].data), sort_keys=True) for name in names}
        for name in names:
            first.setdefault(content[name], name)
        return {name: first[content[name]] for name in names}

    def own(self, section: Section, *hidden: str) -> dict[str, Any]:
        """A section's settings in canonical form, without those that decide nothing."""
        if id(section) not in self._sections:  # kept, too, lest another section get its number
            self._sections[id(section)] = section, identity.canonical(section)
        return {name: value for name, value in self._sections[id(section)][1].items() if name not in hidden}

    def identity(self, name: str, place: Place) -> dict[str, Any]:
        """What decides a stage's outputs: its version and settings, and those of all that lies upstream.

        Raises:
            ConfigError: the configuration has no such place.
        """
        rule = self.rule(name, place)
        rule = STAGES[rule].identity_of or rule
        at = rule, self._at(rule, place, shard=False)
        if at not in self._identities:
            self.check(*at)
            stage = STAGES[rule]
            found = {"stage": stage.name or rule, "version": stage.version, **stage.settings(self, at[1])}
            above = stage.upstream(self, at[1])
            self._identities[at] = {**found, **({"upstream": self.identity(*above)} if above else {})}
        return self._identities[at]

    def key(self, name: str, place: Place) -> str:
        """Key of a stage's outputs."""
        at = name, self._at(name, place, shard=False)
        if at not in self._keys:
            self._keys[at] = identity.key(self.identity(name, place))
        return self._keys[at]

    def path(self, name: str, place: Place, kind: str = "") -> Path:
        """One file of a stage, the first one unless another is named."""
        files = self.stage(name, place).files
        kind = kind or next(iter(files))
        if kind == "note":
            return notes.path(self, name, place)
        return Path(f"{self.root}/{self.filled(files[kind].path, name, place)}")

    def scratch(self, name: str, place: Place) -> Path:
        """Folder of what a killed job leaves for the next one: a training's checkpoints, a group's finished shards."""
        return self.root / self.filled(self.stage(name, place).scratch, name, place)

    def filled(self, pattern: str, name: str, place: Place, **more: str) -> str:
        """A pattern with coordinates, key and `more` filled in."""
        return pattern.format(**self.words(name, place) | {"shard": str(place.shard)} | more)

    def words(self, name: str, place: Place) -> dict[str, str]:
        """Texts of all wildcards of a stage's paths, but that of the shard: shards differ in their number alone."""
        at = self._at(name, place, shard=False)
        if (name, at) not in self._words:
            experiment = self.experiment(at)
            coordinates = {axis: str(value) for axis, value in at._asdict().items() if axis != "shard"}
            self._words[name, at] = {
                **coordinates,
                "percentile": format_percentile(at.percentile),
                "key": self.key(name, at),
                "shards": str(experiment.simulation.shards),
                "data": experiment.data.name,
                "suffix": "safetensors" if experiment.data.name in VERIFIED else "parquet",
            }
        return self._words[name, at]

    def files(self, name: str, place: Place) -> list[Path]:
        """All files of one job that Snakemake knows."""
        return [self.path(name, place, kind) for kind in self.stage(name, place).files]

    def check(self, name: str, place: Place) -> None:
        """Raise ConfigError where the configuration has no such place."""
        if place.experiment not in self.config.experiments:
            known = sorted(self.config.experiments)
            hint = meant(place.experiment, known)
            raise ConfigError(f"there is no experiment '{place.experiment}'{hint}; experiments: {', '.join(known)}")
        stage, settings = self.stage(name, place), self.experiment(place).latency
        check_percentile(place.percentile, self.experiment(place).activations.percentiles)
        if place.shard not in self.shards(place.experiment):
            shards = self.experiment(place).simulation.shards
            raise ConfigError(f"shard {place.shard} does not exist: experiment '{place.experiment}' has 1 to {shards}")
        if name == "ideal":
            settings.curve(place.method, place.weights)
        elif "method" in stage.over:
            settings.method(place.method)
            if place.method not in settings.names_for(place.weights):
                raise ConfigError(
                    f"method '{place.method}' is for full-precision networks only, not for binary weights"
                )
            if place.steps not in settings.runs(place.method):
                raise ConfigError(
                    f"method '{place.method}' is simulated for {settings.runs(place.method)} steps, not "
                    f"{place.steps}; see experiments.{place.experiment}.latency.time"
                )
        results = plan.results_of(self.config, place.experiment)
        if "result" in stage.over and place.result not in results:
            raise ConfigError(
                f"experiment '{place.experiment}' has no result '{place.result}' of the paper; "
                f"it has {', '.join(results)}"
            )

    # What a job reads and writes.

    def need(self, name: str, place: Place, kind: str = "") -> Need:
        """One file that a job reads, the first one of its stage unless another is named."""
        rule = self.rule(name, place)
        return Need(rule, self.at(rule, place), kind or next(iter(STAGES[rule].files)))

    def reads(self, name: str, place: Place) -> list[Need]:
        """All files that a job reads, each once."""
        return list(dict.fromkeys(self.stage(name, place).reads(self, place)))

    def read(self, name: str, place: Place, kind: str = "", *, whole: bool = False) -> tuple[pa.Table, dict[str, Any]]:
        """A table as its stage declares it (any width of integer or string will do), and its document.

        `whole`: with all columns, as they were written.

        Raises:
            ArtifactError: missing, damaged, of another kind, identity or shard, or with other columns.
        """
        import pyarrow as pa

        files = self.stage(name, place).files
        kind = kind or next(iter(files))
        path, columns = self.path(name, place, kind), {} if whole else files[kind].columns
        table, document = artifacts.read_table(path, kind, {}, self.identity(name, place))
        if "shard" in self.stage(name, place).over:
            artifacts.check_shard(path, document, place.shard, len(self.shards(place.experiment)))
        again = artifacts.again(path)
        if absent := [column for column in columns if column not in table.schema.names]:
            raise ArtifactError(f"{path}: column '{absent[0]}' is missing, has {table.schema.names}; {again}")
        try:
            return (table.select(list(columns)).cast(schema(columns)) if columns else table), document
        except (pa.ArrowException, ValueError) as error:
            raise ArtifactError(f"{path}: columns have other types than expected ({error}); {again}") from error

    def write(
        self,
        name: str,
        place: Place,
        table: pd.DataFrame | pa.Table,
        kind: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a table of a stage, with what it stands for; also as CSV, where the stage has a text for people."""
        files = self.stage(name, place).files
        kind = kind or next(iter(files))
        if "text" in files:
            artifacts.write_csv(self.path(name, place, "text"), table)
        artifacts.write_table(self.path(name, place, kind), table, kind, self.identity(name, place), extra)
