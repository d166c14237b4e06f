"""What decides an artifact: which settings, and the paths that carry their key.

The key of an artifact is 12 hex digits of SHA-256 over the canonical form of the settings and stage versions that it
depends on, its own and all upstream. A changed setting is a new path, hence a missing file, hence a job; nothing
depends on file times or on Snakemake's records. Display and resource settings are no part of it. A stage's VERSION
is raised when its outputs change for the same settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bsnn.config import Checkpoint, Config, Experiment, Latency, Weights, format_percentile

VERSION = {
    "data": 1,
    "train": 1,
    "binarize": 1,
    "activations": 2,  # 2: those of the first layer are of the sum that it is simulated with
    "thresholds": 1,
    "simulate": 2,  # 2: a finer current of the first layer
    "results": 2,  # 2: rates as shares of activations, layer by layer
    "method": 2,  # 2: as simulate
    "latency": 2,  # 2: standard error of the drop, agreement, Pareto front
    "search": 3,  # 2: begins with all methods of the experiment, and tries the shift; 3: as simulate
    "exit": 4,  # 2: beside the bounds, fewer steps for all images; 3: columns split and method; 4: as simulate
    "exits": 1,
    "paper": 1,
}
KEY_LENGTH = 12
METHOD_FILES = ("predictions", "spikes", "operations", "errors")  # of one method, steps and shard
RESULTS = Path("results")
VERIFIED = ("digits", "cifar10", "cifar100")  # content is fixed by a checksum: where it lies does not matter


CALIBRATION = ("augmented_calibration", "calibration_dropout", "first_images", "original_normalisation")
TEST = ("augmented_test", "stretched_test")  # and the normalisation, through the thresholds
SHOWN = ("delayed",)  # a shift of the time axis: no other simulation


def _quirks(experiment: Experiment, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of some quirks of the original that are on; nothing if none is, so that clean keys stay what they are."""
    found = [name for name in names if name in experiment.quirks]
    return {"quirks": found} if found else {}


def _tested(experiment: Experiment) -> dict[str, Any]:
    """Which test images are simulated, and how they are shown."""
    images = experiment.simulation.images
    return {**_quirks(experiment, TEST), **({} if images is None else {"test_images": images})}


def canonical(section: BaseModel) -> dict[str, Any]:
    """Settings that differ from their defaults, so that a new optional setting leaves old keys alone.

    A default that changes in bsnn.config changes no key: raise the VERSION of the stages that read it.
    """
    return section.model_dump(mode="json", exclude_defaults=True)


def key(identity: Mapping[str, Any]) -> str:
    """12 hex digits over the sorted JSON of an identity."""
    text = json.dumps(dict(identity), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def data(experiment: Experiment) -> dict[str, Any]:
    """Identity of the data set. Where verified files lie is no part of it; normalisation belongs to later stages."""
    settings = canonical(experiment.data)
    hidden = {"mean", "std"} | ({"path"} if experiment.data.name in VERIFIED else set())
    return {
        "stage": "data",
        "version": VERSION["data"],
        "settings": {name: value for name, value in settings.items() if name not in hidden},
    }


def train(experiment: Experiment, seed: int) -> dict[str, Any]:
    """Identity of the full-precision network."""
    if experiment.imported.full is not None:
        return _imported("train", experiment, experiment.imported.full, seed)
    return {
        "stage": "train",
        "version": VERSION["train"],
        "settings": canonical(experiment.train),
        "network": canonical(experiment.network),
        "normalisation": _normalisation(experiment),
        "seed": seed,
        "upstream": data(experiment),
    }


def _normalisation(experiment: Experiment) -> dict[str, Any]:
    return {name: value for name, value in canonical(experiment.data).items() if name in ("mean", "std")}


def _imported(stage: str, experiment: Experiment, checkpoint: Checkpoint, seed: int) -> dict[str, Any]:
    """Identity of a network from a checkpoint: its content counts, not where it lies, and no recipe."""
    return {
        "stage": stage,
        "version": VERSION[stage],
        "checkpoint": checkpoint.sha256,
        "network": canonical(experiment.network),
        "normalisation": _normalisation(experiment),
        "seed": seed,
        "upstream": data(experiment),
    }


def binarize(experiment: Experiment, seed: int) -> dict[str, Any]:
    """Identity of the binary network: depends on the full one even from scratch, for a simple chain."""
    if experiment.imported.binary is not None:
        return _imported("binarize", experiment, experiment.imported.binary, seed)
    return {
        "stage": "binarize",
        "version": VERSION["binarize"],
        "settings": canonical(experiment.binarize),
        "upstream": train(experiment, seed),
    }


def network(experiment: Experiment, weights: Weights, seed: int) -> dict[str, Any]:
    """Identity of the network of a kind."""
    return train(experiment, seed) if weights == "full" else binarize(experiment, seed)


def activations(experiment: Experiment, weights: Weights, seed: int) -> dict[str, Any]:
    """Identity of the activation table; answers every percentile and both populations."""
    return {
        "stage": "activations",
        "version": VERSION["activations"],
        "settings": canonical(experiment.activations),
        **_quirks(experiment, CALIBRATION),
        "upstream": network(experiment, weights, seed),
    }


def thresholds(experiment: Experiment, weights: Weights, seed: int, percentile: float) -> dict[str, Any]:
    """Identity of the thresholds."""
    return {
        "stage": "thresholds",
        "version": VERSION["thresholds"],
        "settings": canonical(experiment.thresholds),
        "percentile": format_percentile(percentile),
        "upstream": activations(experiment, weights, seed),
    }


def simulate(config: Config, experiment: Experiment, weights: Weights, seed: int, percentile: float) -> dict[str, Any]:
    """Identity of the simulation. All engines give the same spikes for binary weights; for full ones the engine counts.

    The number of shards is a matter of resources: it stands in the path, not in the key.
    """
    settings = {k: v for k, v in canonical(experiment.simulation).items() if k != "shards"}
    engine = {"engine": config.compute.engine} if weights == "full" else {}
    return {
        "stage": "simulate",
        "version": VERSION["simulate"],
        "settings": settings,
        **engine,
        **_quirks(experiment, TEST),
        "upstream": thresholds(experiment, weights, seed, percentile),
    }


def results(config: Config, name: str) -> dict[str, Any]:
    """Identity of an experiment's tables, figures and report: everything that they show."""
    experiment = config.experiments[name]
    simulations = [
        key(simulate(config, experiment, weights, seed, percentile))
        for weights in config.weights
        for seed in config.seeds
        for percentile in config.percentile
    ]
    return {
        "stage": "results",
        "version": VERSION["results"],
        "experiment": name,
        "time": sorted(config.time),
        "percentile": [format_percentile(p) for p in config.percentile],
        "weights": list(config.weights),
        "seeds": list(config.seeds),
        "description": experiment.description,
        "simulations": simulations,
        **_quirks(experiment, SHOWN),
    }


def method(
    config: Config, experiment: Experiment, weights: Weights, seed: int, name: str, steps: int
) -> dict[str, Any]:
    """Identity of a method's conversion and simulation for some steps: its switches count, not its name."""
    chosen = experiment.latency.method(name)
    own = chosen.percentile_at(steps, experiment.latency.percentile)
    by_percentile = {
        "percentile": format_percentile(own),
        "thresholds": canonical(experiment.thresholds),
    }
    switches = {k: v for k, v in canonical(chosen).items() if k not in ("percentile", "percentiles")}
    return {
        "stage": "method",
        "version": VERSION["method"],
        "switches": switches,
        "steps": steps,
        "images": experiment.latency.images,
        **(by_percentile if chosen.threshold == "percentile" else {}),
        **(_channels(experiment) if chosen.channels else {}),
        **({"engine": config.compute.engine} if weights == "full" else {}),
        **_tested(experiment),
        "upstream": activations(experiment, weights, seed),
    }


def _channels(experiment: Experiment) -> dict[str, Any]:
    """How thresholds of channels are measured, where it is not the customary way."""
    return {"channels": "with dropout"} if "calibration_dropout" in experiment.quirks else {}


def search(config: Config, experiment: Experiment, weights: Weights, seed: int) -> dict[str, Any]:
    """Identity of a search for the best switches."""
    settings = experiment.latency
    times = sorted(settings.time) if settings.search.drop is not None else []
    return {
        "stage": "search",
        "version": VERSION["search"],
        "settings": canonical(settings.search),
        "times": times,
        **{k: v for k, v in canonical(settings).items() if k == "percentile"},
        "starts": [canonical(settings.method(name)) for name in settings.names_for(weights)],
        "images": settings.images,
        "thresholds": canonical(experiment.thresholds),
        **({"engine": config.compute.engine, "tried": "channels, bursts"} if weights == "full" else {}),
        **(_channels(experiment) if weights == "full" else {}),
        **_tested(experiment),
        "upstream": activations(experiment, weights, seed),
    }


def early_exit(config: Config, experiment: Experiment, weights: Weights, seed: int) -> dict[str, Any]:
    """Identity of a curve of early exit."""
    settings = experiment.latency
    steps = max(settings.time)
    return {
        "stage": "exit",
        "version": VERSION["exit"],
        "settings": {k: v for k, v in canonical(settings.early_exit).items() if k != "method"},
        "times": sorted(settings.time),
        "upstream": method(config, experiment, weights, seed, exit_method(settings), steps),
    }


def early_exits(config: Config, name: str) -> dict[str, Any]:
    """Identity of an experiment's table and figures of early exit."""
    networks = {
        f"{weights} {seed}": key(early_exit(config, config.experiments[name], weights, seed))
        for weights in config.weights
        for seed in config.seeds
    }
    return {"stage": "exits", "version": VERSION["exits"], "experiment": name, "networks": networks}


def exit_method(settings: Latency) -> str:
    """Method whose images leave early: the baseline where an experiment's own methods lack the default's."""
    return settings.early_exit.method if settings.early_exit.method in settings.names else "baseline"


def latency(config: Config, name: str) -> dict[str, Any]:
    """Identity of an experiment's tables and figures of methods."""
    experiment = config.experiments[name]
    runs = {
        f"{weights} {seed} {chosen} {steps}": key(method(config, experiment, weights, seed, chosen, steps))
        for weights in config.weights
        for seed in config.seeds
        for chosen in experiment.latency.names_for(weights)
        for steps in experiment.latency.runs(chosen)
    }
    time = sorted(experiment.latency.time)
    return {"stage": "latency", "version": VERSION["latency"], "experiment": name, "time": time, "runs": runs}


class Paths:
    """Where each artifact of a configuration lies, relative to the working directory."""

    def __init__(self, config: Config, root: Path = RESULTS) -> None:
        self.config = config
        self.root = root

    def _folder(self, name: str, weights: Weights, seed: int) -> Path:
        return self.root / name / weights / f"seed{seed}"

    def _trained(self, name: str, weights: Weights, seed: int) -> Path:
        """Folder of what training makes: an experiment may use the networks of another."""
        return self._folder(self.config.experiments[name].networks_of or name, weights, seed)

    def _percentile(self, name: str, weights: Weights, seed: int, percentile: float) -> Path:
        return self._folder(name, weights, seed) / f"p{format_percentile(percentile)}"

    def data(self, name: str) -> Path:
        """Data set: arrays as safetensors, or a Parquet index of image files."""
        experiment = self.config.experiments[name]
        suffix = "safetensors" if experiment.data.name in VERIFIED else "parquet"
        return self.root / "data" / f"{experiment.data.name}-{key(data(experiment))}.{suffix}"

    def network(self, name: str, weights: Weights, seed: int) -> Path:
        """Trained network."""
        identity = network(self.config.experiments[name], weights, seed)
        return self._trained(name, weights, seed) / f"ann-{key(identity)}.safetensors"

    def history(self, name: str, weights: Weights, seed: int) -> Path:
        """Loss and accuracy of each epoch."""
        identity = network(self.config.experiments[name], weights, seed)
        return self._trained(name, weights, seed) / f"history-{key(identity)}.parquet"

    def summary(self, name: str, seed: int) -> Path:
        """Weights, memory and MACs of the binary network, by layer."""
        identity = binarize(self.config.experiments[name], seed)
        return self._trained(name, "binary", seed) / f"summary-{key(identity)}.parquet"

    def checkpoints(self, name: str, weights: Weights, seed: int) -> Path:
        """Folder of the resumable checkpoint; no declared output, so a killed job keeps it."""
        identity = network(self.config.experiments[name], weights, seed)
        owner = self.config.experiments[name].networks_of or name
        return self.root / "checkpoints" / owner / weights / f"seed{seed}" / key(identity)

    def tries(self, name: str, weights: Weights, seed: int, percentile: float) -> Path:
        """Folder of finished shards, for another try of their group; no declared output, as the checkpoints."""
        identity = simulate(self.config, self.config.experiments[name], weights, seed, percentile)
        return self.root / "checkpoints" / name / weights / f"seed{seed}" / f"shards-{key(identity)}"

    def activations(self, name: str, weights: Weights, seed: int) -> Path:
        """Percentiles of every layer's activations."""
        identity = activations(self.config.experiments[name], weights, seed)
        return self._folder(name, weights, seed) / f"activations-{key(identity)}.parquet"

    def thresholds(self, name: str, weights: Weights, seed: int, percentile: float) -> Path:
        """Threshold of every layer."""
        identity = thresholds(self.config.experiments[name], weights, seed, percentile)
        return self._percentile(name, weights, seed, percentile) / f"thresholds-{key(identity)}.parquet"

    def _shard(self, what: str, name: str, weights: Weights, seed: int, percentile: float, shard: int) -> Path:
        experiment = self.config.experiments[name]
        identity = simulate(self.config, experiment, weights, seed, percentile)
        file = f"{what}-{key(identity)}.{shard}of{experiment.simulation.shards}.parquet"
        return self._percentile(name, weights, seed, percentile) / file

    def predictions(self, name: str, weights: Weights, seed: int, percentile: float, shard: int) -> Path:
        """Class and margin of each image at each step, of one shard (1, 2, ...)."""
        return self._shard("predictions", name, weights, seed, percentile, shard)

    def spikes(self, name: str, weights: Weights, seed: int, percentile: float, shard: int) -> Path:
        """Spike counts of each layer at each step, of one shard (1, 2, ...)."""
        return self._shard("spikes", name, weights, seed, percentile, shard)

    def method(self, what: str, name: str, weights: Weights, seed: int, chosen: str, steps: int, shard: int) -> Path:
        """Predictions, spikes, operations or errors (`what`) of a method simulated for some steps, of one shard."""
        experiment = self.config.experiments[name]
        identity = method(self.config, experiment, weights, seed, chosen, steps)
        file = f"{what}-{key(identity)}.{shard}of{experiment.simulation.shards}.parquet"
        return self._folder(name, weights, seed) / "methods" / chosen / f"T{steps}" / file

    def search(self, name: str, weights: Weights, seed: int) -> Path:
        """Settings that a search tried, and the chosen one."""
        identity = search(self.config, self.config.experiments[name], weights, seed)
        return self._folder(name, weights, seed) / f"search-{key(identity)}.parquet"

    def early_exit(self, name: str, weights: Weights, seed: int) -> Path:
        """Accuracy against mean steps."""
        identity = early_exit(self.config, self.config.experiments[name], weights, seed)
        return self._folder(name, weights, seed) / f"exit-{key(identity)}.parquet"

    def tables(self, name: str) -> Path:
        """Folder of an experiment's tables."""
        return self.root / name / "tables"

    def figures(self, name: str) -> Path:
        """Folder of an experiment's figures."""
        return self.root / name / "figures"

    def report(self, name: str) -> Path:
        """Report of an experiment."""
        return self.root / name / "report.html"

    def paper(self, name: str) -> Path:
        """Folder of the paper's results; their report lies beside it, as paper.html."""
        return self.root / name / "paper"
