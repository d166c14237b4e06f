"""One process's training loop: epochs of steps, with evaluation on the test images after each.

Every random choice comes from a seed for its purpose and epoch (see bsnn.seeds), and what is summed up over
an epoch stays on the device: a step never waits for it. Between steps a run may be stopped, and go on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.utils import parametrize
from tqdm import tqdm

from bsnn import config
from bsnn.datasets import DataSet, Normalise, augment
from bsnn.errors import BsnnError
from bsnn.networks import binary
from bsnn.networks.vgg import VGG, Trained
from bsnn.seeds import derived_seed
from bsnn.training.position import Position, Running
from bsnn.training.stopping import Pauses

logger = logging.getLogger(__name__)

CHECK_STEPS = 100  # steps between looks at the loss, each of which waits for the device
TEST_BATCH = 256


@dataclass(frozen=True)
class Job:
    """What a process needs to train; sent to every device's process."""

    experiment: config.Experiment
    weights: config.Weights
    seed: int
    data: DataSet
    compute: config.Compute
    checkpoints: Path
    start: Trained | None

    @property
    def recipe(self) -> config.Train:
        """Recipe of the kind of network."""
        return self.experiment.train if self.weights == "full" else self.experiment.binarize

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Channel means and deviations: the settings', or the data set's own."""
        settings = self.experiment.data
        return tuple(settings.mean or self.data.mean), tuple(settings.std or self.data.std)

    def random(self, *purpose: str | int) -> int:
        """Seed of this network for one purpose."""
        return derived_seed(self.seed, self.weights, *purpose)


class Loop:
    """The training loop of one process."""

    def __init__(self, fabric: Fabric, job: Job, module: VGG, network: Any, optimiser: Any, pauses: Pauses) -> None:
        self.fabric, self.job, self.module = fabric, job, module
        self.network, self.optimiser = network, optimiser  # as wrapped by Fabric: precision, gradients averaged
        self.pauses = pauses
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.normalise = Normalise(*job.normalisation)

    def epoch(self, epoch: int, rate: float, position: Position | None) -> dict[str, float]:
        """Train for one epoch, or from a position in it, and evaluate; gives the row of the history."""
        augmentation, dropout = (self.job.random(epoch, what, self.rank) for what in ("augmentation", "dropout"))
        running = Running(self.fabric, augmentation, dropout, position)
        loss, accuracy, images = self._train(epoch, rate, running)
        running.trained()
        row = {
            "epoch": epoch + 1,
            "lr": rate,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_accuracy": self._evaluate(running),
            "seconds": running.seconds,
            "images_per_second": images / running.seconds,
        }
        if self.fabric.is_global_zero:
            self._report(row)
        return row

    def _train(self, epoch: int, rate: float, running: Running) -> tuple[float, float, int]:
        """Mean loss and accuracy over the epoch's training images, as they were seen; and their number."""
        self.module.train()
        order = self._order(epoch)
        for batch, labels in self._batches(order, epoch, running.steps):
            images = self._input(augment(batch, self.job.recipe.augment, running.augmenting))
            running.total += self._step(images, labels)
            running.steps += 1
            if running.steps % CHECK_STEPS == 0:
                self._require_finite(running.total[0], epoch, rate)
            self.pauses.look(running)
        total = self._sum(running.total.clone())
        self._require_finite(total[0] + sum(p.detach().sum() for p in self.module.parameters()), epoch, rate)
        count = len(order) * self.world
        loss, correct = (total / count).tolist()
        return loss, correct, count

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; gives the batch's summed loss and its number of correct images."""
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad()
        self.fabric.backward(loss)
        self.optimiser.step()
        binary.project_(self.module)
        correct = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([loss.detach().double() * len(labels), correct.double()])

    def _order(self, epoch: int) -> Tensor:
        """This process's part of the epoch's order: every world-th image, so that global batches stay what they are."""
        shuffling = torch.Generator().manual_seed(self.job.random(epoch, "order"))
        order = torch.randperm(len(self.job.data.train), generator=shuffling)
        whole = len(order) - len(order) % self.world  # each process takes the same number of steps
        return order[self.rank : whole : self.world]

    def _batches(self, order: Tensor, epoch: int, done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches but for the first `done`."""
        settings, share = self.job.recipe, self.job.recipe.batch_size // self.world
        batches = self.job.data.train.batches(
            order[done * share :],
            share,
            self.fabric.device,
            self.job.compute.workers,
            resized_crop=settings.augment.resized_crop,
            seed=self.job.random(epoch, "decoding", 0),  # of every process: the image decides its part, not the device
        )
        quiet = None if self.fabric.is_global_zero else True  # None: silent unless standard error is a terminal
        steps = -(-len(order) // share)
        label = f"{self.job.weights} seed {self.job.seed}, epoch {epoch + 1}/{settings.epochs}"
        yield from tqdm(batches, label, steps, initial=done, unit="batch", leave=False, disable=quiet)

    def _input(self, batch: Tensor) -> Tensor:
        """Normalised images, channels last: faster on GPUs and on the CPU."""
        return self.normalise(batch).contiguous(memory_format=torch.channels_last)

    def _require_finite(self, value: Tensor, epoch: int, rate: float) -> None:
        if not bool(torch.isfinite(value)):
            section = "train" if self.job.weights == "full" else "binarize"
            raise BsnnError(
                f"{self.job.weights} network, seed {self.job.seed}: the loss is not finite in epoch {epoch + 1} at "
                f"learning rate {rate:g}; try a lower {section}.optimiser.lr, or precision 32-true"
            )

    @torch.no_grad()
    def _evaluate(self, running: Running) -> float:
        """Accuracy on the test images, in float32: of the network as it is stored."""
        self.module.eval()
        test = self.job.data.test
        order = torch.arange(self.rank, len(test), self.world)
        common = len(test) // self.world // TEST_BATCH  # batches that every process has
        correct = torch.zeros(1, dtype=torch.int64, device=self.fabric.device)
        with parametrize.cached():
            batches = test.batches(order, TEST_BATCH, self.fabric.device, self.job.compute.workers)
            for done, (batch, labels) in enumerate(batches, 1):
                correct += (self.module(self._input(batch)).argmax(1) == labels).sum()
                if done <= common:
                    self.pauses.look(running)
        return int(self._sum(correct)) / len(test)

    def _sum(self, total: Tensor) -> Tensor:
        return cast(Tensor, self.fabric.all_reduce(total, reduce_op="sum"))

    def _report(self, row: dict[str, float]) -> None:
        logger.info(
            "%s seed %d: epoch %d/%d, lr %g, loss %.4f, train %.2f %%, test %.2f %%, %.0f images/s",
            self.job.weights,
            self.job.seed,
            row["epoch"],
            self.job.recipe.epochs,
            row["lr"],
            row["train_loss"],
            100 * row["train_accuracy"],
            100 * row["test_accuracy"],
            row["images_per_second"],
        )
