"""Stages from a trained network to counted spikes: activations, thresholds, simulation."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from bsnn import artifacts
from bsnn.pipeline import identity, inputs
from bsnn.stages import common

if TYPE_CHECKING:
    from bsnn.pipeline.job import Job

logger = logging.getLogger("bsnn")


def activations(job: Job) -> None:
    """Percentiles of every layer's activations; clean: over training images as they are, with dropout off."""
    from bsnn.conversion import activations as rooms
    from bsnn.datasets import protocol

    common.settle(job)
    experiment, device = job.experiment, common.device(job)
    trained = inputs.network(job)
    trained.module.to(device)
    split = inputs.data_set(job).train
    order = protocol.calibration(experiment, len(split))
    how = (order, experiment.activations.batch_size, device, job.config.compute.workers)
    batches = partial(protocol.batches, experiment, trained, job.seed, "calibration", split, *how)
    table = rooms.collect(trained, batches, dropout_seed=protocol.dropout_seed(experiment, job.seed))
    stands_for = identity.activations(experiment, job.weights, job.seed)
    path = job.paths.activations(job.name, job.weights, job.seed)
    artifacts.write_table(path, table, "activations", stands_for, {"images": len(order), **common.left_out(split)})


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

    common.settle(job)
    where = (job.name, job.weights, job.seed, job.percentile, job.shard)
    made = {"spikes": job.paths.spikes(*where), "predictions": job.paths.predictions(*where)}
    stands_for = identity.simulate(job.config, job.experiment, job.weights, job.seed, job.percentile)
    kept = job.paths.tries(job.name, job.weights, job.seed, job.percentile)
    if kept_shards.take(kept, made, stands_for):
        logger.info("taken from a former try, which finished it: %s (`bsnn clean` removes it)", kept)
        return
    experiment, device, compute = job.experiment, common.device(job), job.config.compute
    trained = inputs.network(job)
    network = spiking.convert(trained, inputs.thresholds(job), initial=experiment.simulation.initial)
    chosen, reason = engines.choose(network, device) if compute.engine == "auto" else (compute.engine, "as configured")
    logger.info("engine %s on %s: %s", chosen, device, reason)
    engine = engines.create(chosen, network, device, compute.memory_mib)
    split = inputs.data_set(job).test
    order, noted = common.simulated(job, len(split))
    how = (order, compute.batch_size, device, compute.workers)
    batches = partial(protocol.batches, experiment, trained, job.seed, "test", split, *how)
    started = time.monotonic()
    result = simulation.run(engine, batches(), experiment.simulation.time, total=len(order))
    seconds = time.monotonic() - started
    ann = common.predictions(trained.module.to(device), batches())
    predictions, spikes = simulation.to_tables(result, images=order, labels=split.labels[order], ann=ann)
    extra = {"engine": chosen, "reason": reason, "device": str(device), "seconds": seconds, "images": len(order)}
    extra |= {"delays": readout.propagation_delays(network), **noted, **common.left_out(split)}
    for kind, table in {"spikes": spikes, "predictions": predictions}.items():
        artifacts.write_table(made[kind], table, kind, stands_for, extra)
    kept_shards.keep(kept, made.values())
