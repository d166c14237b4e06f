"""Stages that make data sets and networks: prepare, train, fine-tune, or import a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn.config import Checkpoint
from bsnn.errors import ArtifactError
from bsnn.pipeline import columns
from bsnn.pipeline.job import Job
from bsnn.stages import common

if TYPE_CHECKING:
    import pandas as pd

    from bsnn.config import Own
    from bsnn.datasets import DataSet
    from bsnn.networks.own import OwnNetwork
    from bsnn.networks.vgg import Trained

logger = logging.getLogger(__name__)

DOWNLOADS = Path("data")
NEGLIGIBLE = 0.02  # share of a filter's norm that centring takes away; rounding to bfloat16 leaves less
COMPARED = 128  # calibration images on which a network of one's own is compared with its module


def data(job: Job, *, downloads: Path = DOWNLOADS) -> None:
    """Prepare and verify the data set; archives are downloaded into a folder of their own."""
    from bsnn import datasets

    path, stands_for = job.pipeline.path("data", job.place), job.pipeline.identity("data", job.place)
    datasets.prepare(job.experiment.data, path, stands_for, cache=downloads, workers=job.config.compute.workers)


def train(job: Job) -> None:
    """Train the full-precision network, or import it from a checkpoint."""
    network(Job(job.pipeline, job.place._replace(weights="full")))


def binarize(job: Job) -> None:
    """Fine-tune the binary network from the full-precision one, or import it from a checkpoint."""
    network(Job(job.pipeline, job.place._replace(weights="binary")))


def network(job: Job) -> None:
    """Make the job's kind of network."""
    from bsnn.networks import binary, files

    common.settle(job)
    pipeline, place = job.pipeline, job.place
    images = job.data_set()
    if job.experiment.own is not None:
        _bring(job, images, job.experiment.own)
        return
    given = job.experiment.imported.of(place.weights)
    trained, history, *precision = _fitted(job, images) if given is None else _imported(job, images, given)
    if place.weights == "binary":
        pipeline.write("network", place, binary.summary(trained), "summary")
    pipeline.write("network", place, history, "history", common.left_out(images.train))
    extra: dict[str, Any] = {"test_accuracy": float(history["test_accuracy"].iloc[-1])} if len(history) else {}
    extra |= {"precision": precision[0]} if precision else {}
    files.save(pipeline.path("network", place), trained, pipeline.identity("network", place), extra)


def _bring(job: Job, images: DataSet, settings: Own) -> None:
    """A network of one's own; its history has no epochs.

    Raises:
        ArtifactError: it is another than the settings' digest says, or of the other kind of weights.
    """
    from bsnn.graphs import plain
    from bsnn.networks import binary, own

    pipeline, place = job.pipeline, job.place
    network = own_network(job, images, settings)
    found, where = plain.digest(network.graph), f"experiments.{place.experiment}.network"
    if found != settings.content:
        raise ArtifactError(
            f"{settings.module}: layers and weights have SHA-256 {found}, but {where}.content asks for "
            f"{settings.content}; bring that network back, or change the setting"
        )
    kind = own.kind(network.graph)
    if kind != place.weights:
        raise ArtifactError(
            f"{settings.module}: its weights are {kind} (binary ones: {', '.join(network.graph.binary) or 'none'}); "
            f"set weights to {kind}"
        )
    if kind == "binary":
        pipeline.write("network", place, binary.summary(network.graph), "summary")
    empty = columns.schema(columns.HISTORY).empty_table().to_pandas()
    pipeline.write("network", place, empty, "history", common.left_out(images.train))
    own.save(pipeline.path("network", place), network, pipeline.identity("network", place))


def own_network(job: Job, images: DataSet, settings: Own) -> OwnNetwork:
    """The experiment's network of one's own, read with calibration images, on which logits are compared."""
    import torch

    from bsnn.datasets import Normalise, evenly, protocol
    from bsnn.networks import own

    data = job.experiment.data
    mean, std = tuple(data.mean or images.mean), tuple(data.std or images.std)
    order = protocol.calibration(job.experiment, len(images.train))
    order = order[evenly(len(order), COMPARED)]
    shown = images.train.batches(order, COMPARED, torch.device("cpu"), job.config.compute.workers)
    batch = torch.cat([Normalise(mean, std)(some) for some, _ in shown])
    graph = own.read(settings, batch, len(images.classes))
    return own.OwnNetwork(own.Computed(graph), images.classes, mean, std)


def _fitted(job: Job, images: DataSet) -> tuple[Trained, pd.DataFrame, str]:
    """A trained network, its history, and the precision in training."""
    from bsnn.cluster import nodes
    from bsnn.training import train as training

    found = _training(job, images)
    spread = partial(nodes.run, job, "bsnn.stages.node") if job.config.compute.nodes > 1 else None
    return training.fit(**found, elsewhere=spread)


def take_part(job: Job, logs: Sequence[str]) -> None:
    """Train on this node, as one of several; its messages go to the job's log files."""
    from bsnn.training import loop
    from bsnn.training import train as training

    common.settle(job)
    training.take_part(loop.Job(**_training(job, job.data_set())), logs)


def _training(job: Job, images: DataSet) -> dict[str, Any]:
    """Arguments of bsnn.training.loop.Job."""
    experiment = job.experiment
    return {
        "experiment": experiment,
        "weights": job.place.weights,
        "seed": job.place.seed,
        "data": images,
        "compute": job.config.compute,
        "checkpoints": job.pipeline.scratch("network", job.place),
        "stands_for": job.pipeline.identity("network", job.place),
        "start": _start(job, images),
    }


def _start(job: Job, images: DataSet) -> Trained | None:
    """The trained network that training starts from, if it is not a fresh one."""
    experiment = job.experiment
    if job.place.weights == "binary":
        return None if experiment.binarize.from_scratch else job.network("full")
    given = experiment.train.start
    if given is None:
        return None
    start = _from_file(job, images, given, "train.start")
    if experiment.train.form == "foldable":
        _warn_of_means(start, given.path)
    return start


def _warn_of_means(start: Trained, path: Path) -> None:
    from bsnn.training import folding

    lost = folding.share_of_means(start)
    if lost > NEGLIGIBLE:
        logger.warning(
            "%s: its filters are not centred, and train.form foldable centres them: their means, up to %.0f %% of a "
            "filter's norm, are lost; the form plain keeps them",
            path,
            100 * lost,
        )


def _imported(job: Job, images: DataSet, given: Checkpoint) -> tuple[Trained, pd.DataFrame]:
    """A network from a file; its history has no epochs."""
    empty = columns.schema(columns.HISTORY).empty_table().to_pandas()
    return _from_file(job, images, given, f"imported.{job.place.weights}"), empty


def _from_file(job: Job, images: DataSet, given: Checkpoint, setting: str) -> Trained:
    """A trained network of the job's kind, from the file that a setting of the experiment names.

    Raises:
        ArtifactError: the file is missing, unreadable, or another than the setting's SHA-256 says; or its network does
            not suit the experiment.
    """
    from bsnn.networks import original_checkpoint

    found, where = original_checkpoint.sha256(given.path), f"experiments.{job.place.experiment}.{setting}"
    if found != given.sha256:
        raise ArtifactError(
            f"{given.path}: its SHA-256 is {found}, but {where} asks for {given.sha256}; bring that file back, or "
            "change the setting"
        )
    settings, network = job.experiment.data, job.experiment.family
    if given.path.suffix == ".safetensors":
        return _ours(job, images, given.path, f"change the settings, or give {where} another file")
    return original_checkpoint.load(
        given.path,
        network,
        job.place.weights,
        image_size=images.image_size,
        classes=images.classes,
        mean=settings.mean or images.mean,
        std=settings.std or images.std,
    )


def _ours(job: Job, images: DataSet, path: Path, remedy: str) -> Trained:
    """A network of this project's format, which must suit the experiment's data.

    Raises:
        ArtifactError: it is of other data, of the other kind, or of another network than the settings describe.
    """
    from bsnn.networks import files

    settings = job.experiment.data
    trained = files.load(path, job.experiment.family, remedy=remedy)
    kind = "binary" if trained.signs else "full"
    asked = {
        "kind": (kind, job.place.weights),
        "input shape": (trained.input_shape, (3, images.image_size, images.image_size)),
        "classes": (trained.classes, images.classes),
        "mean": (trained.mean, tuple(settings.mean or images.mean)),
        "std": (trained.std, tuple(settings.std or images.std)),
    }
    for what, (found, wanted) in asked.items():
        if found != wanted:
            raise ArtifactError(
                f"{path}: its {what} is {found}, but experiments.{job.place.experiment} has {wanted}; {remedy}"
            )
    return trained
