"""The stages of the pipeline: read artifacts, call one room, write artifacts. What a rule does, also by hand.

Every function takes a `Job`: the checked configuration, the experiment, and which of its networks is meant. Paths
follow from it (bsnn.pipeline.identity.Paths), so a stage is the same whoever starts it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bsnn import artifacts
from bsnn.config import Checkpoint, Config, Experiment, Weights, check_percentile
from bsnn.errors import ArtifactError, ConfigError
from bsnn.pipeline import identity, inputs

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

    from bsnn.datasets import DataSet, Split
    from bsnn.networks.vgg import Trained

logger = logging.getLogger("bsnn")
DOWNLOADS = Path("data")


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


def data(job: Job, *, downloads: Path = DOWNLOADS) -> None:
    """Prepare and verify the data set; archives are downloaded into a folder of their own."""
    from bsnn import datasets

    path, workers = job.paths.data(job.name), job.config.compute.workers
    datasets.prepare(job.experiment.data, path, identity.data(job.experiment), cache=downloads, workers=workers)


def train(job: Job) -> None:
    """Train the full-precision network, fine-tune the binary one from it, or import either from a checkpoint."""
    from bsnn.networks import binary, files

    settle(job)
    paths, experiment = job.paths, job.experiment
    images = inputs.data_set(job)
    given = experiment.imported.of(job.weights)
    trained, history = _fitted(job, images) if given is None else _imported(job, images, given)
    stands_for = identity.network(experiment, job.weights, job.seed)
    if job.weights == "binary":
        summary = binary.summary(trained)
        artifacts.write_table(paths.summary(job.name, job.seed), summary, "summary", stands_for)
    left_out = _left_out(images.train)
    artifacts.write_table(paths.history(job.name, job.weights, job.seed), history, "history", stands_for, left_out)
    extra = {"test_accuracy": float(history["test_accuracy"].iloc[-1])} if len(history) else {}
    files.save(paths.network(job.name, job.weights, job.seed), trained, stands_for, extra)


def _fitted(job: Job, images: DataSet) -> tuple[Trained, pd.DataFrame]:
    """A trained network, and its history."""
    from bsnn.cluster import nodes
    from bsnn.training import train as training

    found = _training(job, images)
    spread = partial(nodes.run, job) if job.config.compute.nodes > 1 else None
    return training.fit(**found, elsewhere=spread)


def take_part(job: Job, logs: Sequence[str]) -> None:
    """Train on this node, as one of several; its messages go to the job's log files."""
    from bsnn.training import loop
    from bsnn.training import train as training

    settle(job)
    training.take_part(loop.Job(**_training(job, inputs.data_set(job))), logs)


def _training(job: Job, images: DataSet) -> dict[str, Any]:
    """What a training is told, by the names of bsnn.training.loop.Job."""
    experiment = job.experiment
    from_full = job.weights == "binary" and not experiment.binarize.from_scratch
    return {
        "experiment": experiment,
        "weights": job.weights,
        "seed": job.seed,
        "data": images,
        "compute": job.config.compute,
        "checkpoints": job.paths.checkpoints(job.name, job.weights, job.seed),
        "start": inputs.network(replace(job, weights="full")) if from_full else None,
    }


def _imported(job: Job, images: DataSet, given: Checkpoint) -> tuple[Trained, pd.DataFrame]:
    """A network from a checkpoint of the original; its history has no epochs."""
    import pyarrow as pa

    from bsnn.networks import original_checkpoint
    from bsnn.tables.gather import HISTORY

    found = original_checkpoint.sha256(given.path)
    if found != given.sha256:
        raise ArtifactError(
            f"{given.path}: its SHA-256 is {found}, but experiments.{job.name}.imported.{job.weights} asks for "
            f"{given.sha256}; bring that file back, or change the setting"
        )
    settings, network = job.experiment.data, job.experiment.network
    trained = original_checkpoint.load(
        given.path,
        network,
        job.weights,
        image_size=images.image_size,
        classes=images.classes,
        mean=settings.mean or images.mean,
        std=settings.std or images.std,
    )
    return trained, pa.schema(list(HISTORY.items())).empty_table().to_pandas()


def activations(job: Job) -> None:
    """Percentiles of every layer's activations; clean: over training images as they are, with dropout off."""
    from bsnn.conversion import activations as rooms
    from bsnn.datasets import protocol

    settle(job)
    experiment, device = job.experiment, _device(job)
    trained = inputs.network(job)
    trained.module.to(device)
    split = inputs.data_set(job).train
    order = protocol.calibration(experiment, len(split))
    how = (order, experiment.activations.batch_size, device, job.config.compute.workers)
    batches = partial(protocol.batches, experiment, trained, job.seed, "calibration", split, *how)
    table = rooms.collect(trained, batches, dropout_seed=protocol.dropout_seed(experiment, job.seed))
    stands_for = identity.activations(experiment, job.weights, job.seed)
    path = job.paths.activations(job.name, job.weights, job.seed)
    artifacts.write_table(path, table, "activations", stands_for, {"images": len(order), **_left_out(split)})


def thresholds(job: Job) -> None:
    """Thresholds at one percentile, from the activation table alone."""
    from bsnn.conversion import thresholds as rooms

    found = rooms.from_table(inputs.activations(job), job.percentile, job.experiment.thresholds.population)
    stands_for = identity.thresholds(job.experiment, job.weights, job.seed, job.percentile)
    target = job.paths.thresholds(job.name, job.weights, job.seed, job.percentile)
    artifacts.write_table(target, found, "thresholds", stands_for)


def simulate(job: Job) -> None:
    """Simulate one shard of the test set for all time steps, unless a submission that failed had finished it."""
    from bsnn import engines
    from bsnn.cluster import kept_shards
    from bsnn.conversion import spiking
    from bsnn.datasets import protocol
    from bsnn.simulation import readout
    from bsnn.simulation import run as simulation

    settle(job)
    where = (job.name, job.weights, job.seed, job.percentile, job.shard)
    made = {"spikes": job.paths.spikes(*where), "predictions": job.paths.predictions(*where)}
    stands_for = identity.simulate(job.config, job.experiment, job.weights, job.seed, job.percentile)
    kept = job.paths.tries(job.name, job.weights, job.seed, job.percentile)
    if kept_shards.take(kept, made, stands_for):
        logger.info("taken from a former try, which finished it: %s (`bsnn clean` removes it)", kept)
        return
    experiment, device, compute = job.experiment, _device(job), job.config.compute
    trained = inputs.network(job)
    network = spiking.convert(trained, inputs.thresholds(job), initial=experiment.simulation.initial)
    chosen, reason = engines.choose(network, device) if compute.engine == "auto" else (compute.engine, "as configured")
    logger.info("engine %s on %s: %s", chosen, device, reason)
    engine = engines.create(chosen, network, device, compute.memory_mib)
    split = inputs.data_set(job).test
    order, noted = simulated(job, len(split))
    how = (order, compute.batch_size, device, compute.workers)
    batches = partial(protocol.batches, experiment, trained, job.seed, "test", split, *how)
    started = time.monotonic()
    result = simulation.run(engine, batches(), experiment.simulation.time, total=len(order))
    seconds = time.monotonic() - started
    ann = _predictions(trained.module.to(device), batches())
    predictions, spikes = simulation.to_tables(result, images=order, labels=split.labels[order], ann=ann)
    extra = {"engine": chosen, "reason": reason, "device": str(device), "seconds": seconds, "images": len(order)}
    extra |= {"delays": readout.propagation_delays(network), **noted, **_left_out(split)}
    for kind, table in {"spikes": spikes, "predictions": predictions}.items():
        artifacts.write_table(made[kind], table, kind, stands_for, extra)
    kept_shards.keep(kept, made.values())


def simulated(job: Job, count: int) -> tuple[Tensor, dict[str, int]]:
    """Indices of the test images of the job's shard, among `count` (int64); what to note where not all are chosen."""
    from bsnn import datasets

    settings = job.experiment.simulation
    chosen = datasets.evenly(count, settings.images)
    noted = {} if settings.images is None else {"chosen": len(chosen)}
    return chosen.tensor_split(settings.shards)[job.shard - 1], noted


def tables(job: Job) -> None:
    """Gather all artifacts of the experiment into tables: CSV, Parquet, Markdown."""
    from bsnn import tables as rooms

    rooms.write(rooms.collect(job.config, job.name, job.paths), job.paths.tables(job.name))


def figures(job: Job) -> None:
    """Draw the figures from the tables: SVG, PNG."""
    from bsnn import figures as rooms
    from bsnn import tables as gathered

    folder = job.paths.figures(job.name)
    source = job.paths.tables(job.name)
    rooms.draw(gathered.read(source), folder)
    artifacts.copy(source / gathered.SETTINGS, folder / gathered.SETTINGS)


def report(job: Job) -> None:
    """Write the report: one HTML file with tables, figures, settings and origins."""
    from bsnn import report as rooms
    from bsnn import tables as gathered

    results = gathered.read(job.paths.tables(job.name))
    rooms.write(results, job.paths.figures(job.name), job.paths.report(job.name))


def _predictions(module: torch.nn.Module, batches: Iterator[Tensor]) -> Tensor:
    """Classes that the network itself predicts, int64 [N], on the CPU."""
    import torch

    with torch.no_grad():
        found = [module(batch).argmax(1).cpu() for batch in batches]
    return torch.cat([torch.zeros(0, dtype=torch.int64), *found])


def _left_out(split: Split) -> dict[str, Any]:
    """For an artifact's metadata: broken files that a split does without, where there are any."""
    return {"left_out": split.left_out} if split.left_out else {}


def _device(job: Job) -> torch.device:
    """The device that `compute.accelerator` asks for.

    Raises:
        ConfigError: when a GPU is asked for and there is none.
    """
    import torch

    wanted = job.config.compute.accelerator
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.accelerator is 'cuda', but no CUDA device is here; use 'auto' or 'cpu'")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def settle(job: Job) -> None:
    """As many threads as the job may use; float32 means float32 (convolutions on a GPU default to TF32)."""
    import torch

    torch.set_num_threads(job.config.compute.threads)
    torch.backends.cudnn.allow_tf32 = False
