"""Stages of the methods of conversion, beside those of bsnn.stages: simulate a method, gather tables, draw figures."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from bsnn import artifacts
from bsnn.config import Method
from bsnn.pipeline import identity, inputs
from bsnn.pipeline.job import Job, MethodJob
from bsnn.stages import common

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

    from bsnn.conversion.spiking import SpikingNetwork, Thresholds
    from bsnn.datasets import Split
    from bsnn.networks.vgg import Trained

logger = logging.getLogger("bsnn")


def method(job: MethodJob) -> None:
    """Convert by a method, and simulate one shard of the test set; operations and errors by layer beside it."""
    from bsnn.conversion import method as conversion
    from bsnn.datasets import protocol
    from bsnn.simulation import accounting
    from bsnn.simulation import run as simulation

    common.settle(job)
    experiment, device, compute = job.experiment, common.device(job), job.config.compute
    trained = inputs.network(job)
    trained.module.to(device)
    data = inputs.data_set(job)
    images = calibration_images(job, trained, data.train, device)
    theta = thetas(job, trained, job.switches, job.steps, images)
    network = conversion.convert(trained, theta, job.switches, job.steps, images)
    engine, reason = conversion.engine(compute.engine, network, job.switches, device, compute.memory_mib)
    logger.info("engine %s on %s: %s", engine.name, device, reason)
    order, noted = common.simulated(job, len(data.test))
    how = (order, compute.batch_size, device, compute.workers)
    batches = partial(protocol.batches, experiment, trained, job.seed, "test", data.test, *how)
    started = time.monotonic()
    result = simulation.run(engine, batches(), job.steps, skipped=conversion.skipped(job.switches))
    seconds = time.monotonic() - started
    ann = common.predictions(trained.module, batches())
    predictions, spikes = simulation.to_tables(result, images=order, labels=data.test.labels[order], ann=ann)
    found = {
        "operations": accounting.table(network, result.counts, result.images),
        "errors": _errors(job, trained, network, theta, images),
        "spikes": spikes,
        "predictions": predictions,
    }
    stands_for = identity.method(job.config, experiment, job.weights, job.seed, job.method, job.steps)
    extra = {"engine": engine.name, "reason": reason, "device": str(device), "seconds": seconds, "images": len(order)}
    extra |= noted
    for what, table in found.items():
        path = job.paths.method(what, job.name, job.weights, job.seed, job.method, job.steps, job.shard)
        artifacts.write_table(path, table, what, stands_for, extra)


def _errors(
    job: MethodJob, trained: Trained, network: SpikingNetwork, theta: Thresholds, images: Tensor
) -> pd.DataFrame:
    """Errors by layer on calibration images; none for two passes, of which each image has its own network."""
    from bsnn.conversion import errors_by_layer

    two = job.switches.second_pass != "none"
    times = sorted(job.experiment.latency.time) if not job.switches.per_time else [job.steps]
    initial = 0.5 if job.switches.shift else job.switches.initial
    batches = images[:0] if two else images
    return errors_by_layer.errors(
        trained, network, theta, lambda: batches.split(32) if len(batches) else (), times, initial
    )


def lambdas(job: Job, switches: Method, steps: int) -> dict[str, float]:
    """Thresholds of a method, from the activation table."""
    from bsnn.conversion import method as conversion

    settings = job.experiment
    percentile, population = settings.latency.percentile, settings.thresholds.population
    return conversion.lambdas(inputs.activations(job), switches, steps, percentile=percentile, population=population)


def thetas(job: Job, trained: Trained, switches: Method, steps: int, images: Tensor) -> Thresholds:
    """Thresholds of a method: of whole layers from the activation table, of channels from calibration images."""
    from bsnn.conversion import channel_thresholds
    from bsnn.datasets import protocol

    whole = lambdas(job, switches, steps)
    if not switches.channels:
        return whole
    settings = job.experiment
    percentile = switches.percentile_at(steps, settings.latency.percentile)
    dropout = protocol.dropout_seed(settings, job.seed)
    how = (percentile, settings.thresholds.population, whole)
    return channel_thresholds.thresholds(trained, images.split(16), *how, dropout_seed=dropout)


def calibration_images(job: Job, trained: Trained, split: Split, device: torch.device) -> Tensor:
    """Images that corrections are measured on, evenly from those that the percentiles are of; normalised."""
    import torch

    from bsnn import datasets
    from bsnn.datasets import protocol

    order = protocol.calibration(job.experiment, len(split))
    order = order[datasets.evenly(len(order), job.experiment.latency.images)]
    how = (order, job.experiment.activations.batch_size, device, job.config.compute.workers)
    return torch.cat(list(protocol.batches(job.experiment, trained, job.seed, "calibration", split, *how)))


def tables(job: Job) -> None:
    """Gather all methods of the experiment into tables."""
    from bsnn.tables import latency

    latency.write(job.config, job.name, job.paths)


def figures(job: Job) -> None:
    """Draw the figures of methods from their tables."""
    from bsnn.figures import latency as figures_latency
    from bsnn.tables import latency

    folder = job.paths.figures(job.name)
    figures_latency.draw(latency.load(job.paths.tables(job.name)), folder)
    artifacts.copy(job.paths.tables(job.name) / latency.SETTINGS, folder / latency.SETTINGS)
