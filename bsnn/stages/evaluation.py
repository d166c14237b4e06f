"""What all simulating stages do: convert a trained network by a method, choose an engine, show it images.

A percentile is a method with that field alone. The images are a shard of the test set, the whole of it, or held-out
training images, by which methods and bounds are chosen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from bsnn import datasets
from bsnn.config import Method
from bsnn.conversion import ideal
from bsnn.conversion import method as conversion
from bsnn.conversion.layers import SpikingNetwork, Thresholds
from bsnn.datasets import protocol
from bsnn.engines.base import Engine
from bsnn.errors import ConfigError
from bsnn.graphs.description import Graph
from bsnn.networks import own
from bsnn.networks.vgg import Trained
from bsnn.pipeline.job import Job
from bsnn.simulation import readout
from bsnn.simulation import run as simulation
from bsnn.simulation.readout import Skipped
from bsnn.simulation.run import Simulation
from bsnn.stages import common

logger = logging.getLogger("bsnn")


@dataclass(frozen=True)
class Converted:
    """A network as a method converts it for some time steps, and what runs it."""

    method: Method
    steps: int
    theta: Thresholds
    network: SpikingNetwork
    engine: Engine
    reason: str  # why this engine


class Evaluation:
    """One trained network, and images to try methods on.

    Args:
        job: which network.
        held_out: number of training images, none of which calibrates; None: test images.
        shard: the job's shard of the test images alone.
    """

    def __init__(self, job: Job, held_out: int | None = None, *, shard: bool = False) -> None:
        self.job, self.device = job, common.device(job)
        self.trained = job.source()
        self.trained.module.to(self.device)
        self.data = job.data_set()
        self.held_out = held_out is not None
        self.split = self.data.train if self.held_out else self.data.test
        count, settings = len(self.split), job.experiment.simulation
        order = datasets.evenly(count, settings.images) if held_out is None else held_out_images(job, count, held_out)
        self.chosen = len(order)
        self.shard, self.shards = (job.place.shard, settings.shards) if shard else (1, 1)
        self.order = order.tensor_split(self.shards)[self.shard - 1]
        self.labels = self.split.labels[self.order]
        self._balanced: Thresholds | None = None

    def batches(self) -> Iterator[Tensor]:
        """The images, normalised."""
        return self._batches(self.order, self.job.config.compute.batch_size, held_out=self.held_out)

    def _batches(self, order: Tensor, size: int, *, held_out: bool) -> Iterator[Tensor]:
        job, split = self.job, self.data.train if held_out else self.data.test
        use: protocol.Use = "calibration" if held_out else "test"
        how = (order, size, self.device, job.config.compute.workers)
        return protocol.batches(job.experiment, self.trained, job.place.seed, use, split, *how)

    @cached_property
    def calibration(self) -> Tensor:
        """Images that corrections are measured on, evenly from those that the percentiles are of; normalised."""
        settings = self.job.experiment
        order = protocol.calibration(settings, len(self.data.train))
        order = order[datasets.evenly(len(order), settings.latency.images)]
        return torch.cat(list(self._batches(order, settings.activations.batch_size, held_out=True)))

    @property
    def convertible(self) -> Trained | Graph:
        """The network as functions of the conversion take it."""
        return own.convertible(self.trained)

    @cached_property
    def predicted(self) -> Tensor:
        """Classes that the ANN predicts, int64 [N], on the CPU."""
        with torch.no_grad():
            found = [self.trained.module(batch).argmax(1).cpu() for batch in self.batches()]
        return torch.cat([torch.zeros(0, dtype=torch.int64), *found])

    @property
    def ann(self) -> float:
        """Accuracy of the ANN, in percent."""
        return self.correct(self.predicted)

    def correct(self, predicted: Tensor) -> float:
        """Accuracy in percent."""
        return 100 * float((predicted == self.labels).double().mean())

    def converted(self, method: Method, steps: int, theta: Thresholds | None = None) -> Converted:
        """The network as a method converts it for some steps; its own thresholds, unless others are given."""
        compute, images = self.job.config.compute, self.calibration if method.calibrated else None
        theta = self.thresholds(method, steps) if theta is None else theta
        network = conversion.convert(self.convertible, theta, method, steps, images)
        engine, reason = conversion.engine(compute.engine, network, method, self.device, compute.memory_mib)
        return Converted(method, steps, theta, network, engine, reason)

    def thresholds(self, method: Method, steps: int) -> Thresholds:
        """Thresholds of a method: from the activation table, or measured on calibration images."""
        balanced = method.threshold == "balanced"
        if balanced and self._balanced is not None:
            return self._balanced
        job, settings = self.job, self.job.experiment
        table, _ = job.pipeline.read("activations", job.place)
        found = conversion.thresholds(
            self.convertible,
            table,
            method,
            steps,
            self.calibration if balanced or method.channels else None,
            percentile=settings.latency.percentile,
            population=settings.thresholds.population,
            dropout_seed=protocol.dropout_seed(settings, job.place.seed),
        )
        self._balanced = found if balanced else self._balanced  # for any number of steps
        return found

    def run(self, converted: Converted, *, early_exit: float | None = None) -> Simulation:
        """Simulate the images."""
        return simulation.run(
            converted.engine,
            self.batches(),
            converted.steps,
            early_exit=early_exit,
            total=len(self.order),
            skipped=self._skipped(converted),
        )

    def _skipped(self, converted: Converted) -> Skipped | None:
        """First steps that the read-out leaves out.

        Under delayed propagation nothing arrives in the first of them: those are in no simulation, whose steps are
        shifted later on.
        """
        skipped = conversion.skipped(converted.method)
        if skipped is None or skipped.restarts or "delayed" not in self.job.experiment.quirks:
            return skipped
        return Skipped(max(skipped.most - readout.propagation_delays(converted.network)[-1], 0))

    def even(self, method: Method, times: list[int], *, clipped: bool = True) -> Tensor:
        """Classes of the images by a method's thresholds and rounding with even input, int16 [N, times].

        Args:
            method: of thresholds and rounding alone (`Method.even`).
            times: numbers of steps.
            clipped: as many columns more, of activations that are clipped at the thresholds of each time, and exact.
        """
        columns: dict[float, list[int]] = {}  # by what decides the thresholds: the columns of their times
        for column, steps in enumerate(times):
            percentile = method.percentile_at(steps, self.job.experiment.latency.percentile)
            columns.setdefault(steps if method.threshold == "squared-error" else percentile, []).append(column)
        networks = []
        for places in columns.values():
            # Any of their times will do: thresholds are the same, and nothing else of an even method depends on it.
            theta = self.thresholds(method, times[places[0]])
            network = conversion.convert(self.convertible, theta, method, times[places[0]])
            networks.append((network.to(self.device), places))
        width = len(times) * (2 if clipped else 1)
        parts = [torch.zeros(0, width, dtype=torch.int16)]
        for batch in self.batches():
            found = torch.empty(len(batch), width, dtype=torch.int16)
            for network, places in networks:
                wanted = [times[column] for column in places] + [ideal.INFINITE] * clipped
                classes = ideal.predicted(network, batch, wanted)
                found[:, places] = classes[:, : len(places)]
                if clipped:
                    # One column of clipping for all times of the same thresholds.
                    found[:, [len(times) + column for column in places]] = classes[:, -1:]
            parts.append(found)
        return torch.cat(parts)

    def tables(self, converted: Converted) -> tuple[Simulation, dict[str, pa.Table], dict[str, Any]]:
        """Simulate: what came out, as tables of predictions and spikes, and what is noted of it."""
        logger.info("engine %s on %s: %s", converted.engine.name, self.device, converted.reason)
        started = time.monotonic()
        result = self.run(converted)
        seconds = time.monotonic() - started
        predictions, spikes = simulation.to_tables(result, images=self.order, labels=self.labels, ann=self.predicted)
        noted = {
            "engine": converted.engine.name,
            "reason": converted.reason,
            "device": str(self.device),
            "seconds": seconds,
            **self.placed,
            **({} if converted.network.branched else {"delays": readout.propagation_delays(converted.network)}),
        }
        return result, {"spikes": spikes, "predictions": predictions}, noted

    @property
    def placed(self) -> dict[str, Any]:
        """Which images these are: shard, number, the first and the last (None of an empty shard), `total` of all.

        Also how many were chosen, where not all are shown, and broken files that the split does without.
        """
        count = len(self.order)
        first, last = (int(self.order[0]), int(self.order[-1])) if count else (None, None)
        chosen = {} if self.job.experiment.simulation.images is None else {"chosen": self.chosen}
        shard = {"shard": self.shard, "shards": self.shards}
        images = {"images": count, "first": first, "last": last, "total": self.chosen}
        return {**shard, **images, **chosen, **common.left_out(self.split)}


def held_out_images(job: Job, count: int, wanted: int) -> Tensor:
    """Training images that calibrate nothing, evenly spaced.

    Raises:
        ConfigError: when all training images calibrate.
    """
    left = torch.ones(count, dtype=torch.bool)
    left[protocol.calibration(job.experiment, count)] = False
    others = left.nonzero()[:, 0]
    if not len(others):
        used = job.experiment.activations.images
        raise ConfigError(
            f"experiments.{job.place.experiment}.activations.images is {used}, and there are {count} training images: "
            "none is left that does not calibrate, to choose by; use fewer"
        )
    if len(others) < wanted:
        logger.warning("%d held-out images asked for, %d do not calibrate: all of them are taken", wanted, len(others))
    return others[datasets.evenly(len(others), wanted)]
