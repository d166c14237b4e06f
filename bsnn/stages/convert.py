"""Stages from a trained network to counted spikes: activations, thresholds, simulation by percentile or by method."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from bsnn.config import Method
from bsnn.pipeline.declarations import simulation_of
from bsnn.pipeline.job import Job
from bsnn.stages import common

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from torch import Tensor

    from bsnn.stages.evaluation import Converted, Evaluation

logger = logging.getLogger("bsnn")


def activations(job: Job) -> None:
    """Percentiles of every layer's activations; clean: over training images as they are, with dropout off."""
    from bsnn.conversion import activations
    from bsnn.datasets import protocol
    from bsnn.networks import own

    experiment, device, seed = job.experiment, common.device(job), job.place.seed
    trained = job.source()
    trained.module.to(device)
    split = job.data_set().train
    order = protocol.calibration(experiment, len(split))
    how = (order, experiment.activations.batch_size, device, job.config.compute.workers)
    batches = partial(protocol.batches, experiment, trained, seed, "calibration", split, *how)
    dropout_seed, percentiles = protocol.dropout_seed(experiment, seed), experiment.activations.percentiles
    table = activations.collect(own.convertible(trained), batches, dropout_seed=dropout_seed, percentiles=percentiles)
    noted = {"images": len(order), **common.left_out(split)}
    job.pipeline.write("activations", job.place, table, extra=noted)


def thresholds(job: Job) -> None:
    """Thresholds at one percentile, from the activation table alone."""
    from bsnn.conversion import thresholds

    table, _ = job.pipeline.read("activations", job.place)
    found = thresholds.from_table(table, job.place.percentile, job.experiment.thresholds.population)
    job.pipeline.write("thresholds", job.place, found)


def simulate(job: Job) -> None:
    """Simulate one shard of the test set for all time steps, unless a submission that failed had finished it."""
    from bsnn.cluster import kept_shards
    from bsnn.stages.evaluation import Evaluation

    pipeline, place, settings = job.pipeline, job.place, job.experiment.simulation
    made = {kind: pipeline.path("simulate", place, kind) for kind in ("spikes", "predictions")}
    kept = pipeline.scratch("simulate", place)
    if kept_shards.take(kept, made, pipeline.identity("simulate", place), place.shard, settings.shards):
        logger.info("taken from a former try, which finished it: %s (`bsnn clean` removes it)", kept)
        return
    evaluation = Evaluation(job, shard=True)
    converted = evaluation.converted(Method(initial=settings.initial), settings.time, job.thresholds())
    _, tables, noted = evaluation.tables(converted)
    for kind, table in tables.items():
        pipeline.write("simulate", place, table, kind, noted)
    kept_shards.keep(kept, made.values())


def method(job: Job) -> None:
    """Convert by a method, and simulate one shard of the test set; operations and errors by layer beside it.

    What a simulation at a percentile already shows is read from there.
    """
    from bsnn.simulation import accounting
    from bsnn.stages.evaluation import Evaluation

    place = job.place
    evaluation = Evaluation(job, shard=True)
    converted = evaluation.converted(job.experiment.latency.method(place.method), place.steps)
    source = simulation_of(job.pipeline, place)
    if source is None:
        result, tables, noted = evaluation.tables(converted)
        counts, images = result.counts, result.images
    else:
        tables, noted = _first_steps(Job(job.pipeline, source), place.steps)
        counts, images = _counts(tables["spikes"], place.steps)
    # A shard without images has no weight in the mean over all: its operations are those of one silent image.
    tables["operations"] = accounting.table(converted.network, counts, images if len(evaluation.order) else images + 1)
    tables["errors"] = _errors(evaluation, converted)
    for kind in ("operations", "errors", "spikes", "predictions"):
        job.pipeline.write("method", place, tables[kind], kind, noted)


def ideal(job: Job) -> None:
    """What a method's thresholds and rounding would reach with even input, on one shard of the test set."""
    import pyarrow as pa

    from bsnn.stages.evaluation import Evaluation

    settings = job.experiment.latency
    evaluation = Evaluation(job, shard=True)
    found = evaluation.even(settings.curve(job.place.method, job.place.weights), sorted(settings.time))
    table = pa.table(
        {
            "image": pa.array(evaluation.order.int().numpy()),
            "label": pa.array(evaluation.labels.short().numpy()),
            "ann": pa.array(evaluation.predicted.short().numpy()),
            "predicted": pa.array(found.tolist(), pa.list_(pa.int16())),
        }
    )
    job.pipeline.write("ideal", job.place, table, extra=evaluation.placed)


def _first_steps(job: Job, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Predictions and spikes of a simulation as one of fewer steps would have written them; what it noted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    predictions, noted = job.pipeline.read("simulate", job.place, "predictions", whole=True)
    spikes, _ = job.pipeline.read("simulate", job.place, "spikes", whole=True)
    logger.info("the first %d steps of %s", steps, job.pipeline.path("simulate", job.place))
    for name in ("predicted", "margin"):
        rows = pc.list_slice(predictions[name], 0, steps).cast(predictions.schema.field(name).type)
        predictions = predictions.set_column(predictions.schema.get_field_index(name), name, rows)
    taken = pa.array([steps] * len(predictions), predictions.schema.field("steps").type)
    predictions = predictions.set_column(predictions.schema.get_field_index("steps"), "steps", taken)
    return {"predictions": predictions, "spikes": spikes.filter(pc.field("step") <= steps)}, noted["extra"]


def _counts(spikes: pa.Table, steps: int) -> tuple[Tensor, Tensor]:
    """Spikes of each layer and step, [layers, steps], and images of each step, [steps]."""
    import torch

    counts = torch.tensor(spikes["spikes"].to_pylist(), dtype=torch.int64).reshape(-1, steps)
    return counts, torch.tensor(spikes["images"].to_pylist()[:steps], dtype=torch.int64)


def _errors(evaluation: Evaluation, converted: Converted) -> pd.DataFrame:
    """Errors by layer on calibration images; none for two passes, of which each image has its own network."""
    from bsnn.conversion import errors_by_layer

    method, images = converted.method, evaluation.calibration
    times = [converted.steps] if method.per_time else sorted(evaluation.job.experiment.latency.time)
    initial = 0.5 if method.shift else method.initial
    batches = images.split(32) if method.second_pass == "none" else ()
    theta = converted.theta
    return errors_by_layer.errors(evaluation.convertible, converted.network, theta, lambda: batches, times, initial)
