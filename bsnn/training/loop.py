"""One process's training loop: epochs of steps, with evaluation on the test images after each.

Every random choice comes from a seed for its purpose and epoch (see bsnn.seeds), and what is summed up over
an epoch stays on the device: a step never waits for it. Between steps a run may be stopped, and go on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from bsnn import config, log
from bsnn.datasets import DataSet, Normalise, augment
from bsnn.errors import BsnnError
from bsnn.networks import binary
from bsnn.networks.files import assemble
from bsnn.networks.vgg import VGG, Trained
from bsnn.seeds import derived_seed
from bsnn.training import folding, recipe, threads
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
    stands_for: Mapping[str, Any] = field(default_factory=dict)  # identity of the network, which checkpoints carry

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

    def small(self, epoch: int) -> int | None:
        """Size of an epoch's images, where they are smaller than the network's input."""
        small = self.recipe.small_images
        return None if small is None or epoch >= small.epochs else small.size

    def stored(self, module: VGG) -> Trained:
        """The network that a module in training amounts to, as it would be stored; on the CPU."""
        full, signs, alphas = folding.parts(module)
        if isinstance(self.recipe, config.Full) and self.recipe.rounding == "bfloat16":
            full = {name: weight.bfloat16().float() for name, weight in full.items()}
        shape = (3, self.data.image_size, self.data.image_size)
        settings = self.experiment.family
        return assemble(settings, shape, self.data.classes, *self.normalisation, full, signs, alphas)


@dataclass(frozen=True)
class State:
    """What steps change: the network and its optimiser, as they are and as wrapped by Fabric."""

    module: VGG
    averaged: AveragedModel | None  # moving average of the module, where the recipe asks for it
    optimiser: torch.optim.Optimizer
    network: Any  # wrapped: precision, gradients averaged over devices
    stepper: Any  # the wrapped optimiser

    @property
    def result(self) -> VGG:
        """The network that training makes: the averaged one, if there is one."""
        return self.module if self.averaged is None else cast(VGG, self.averaged.module)


class Loop:
    """The training loop of one process."""

    def __init__(self, fabric: Fabric, job: Job, state: State, pauses: Pauses) -> None:
        self.fabric, self.job, self.state = fabric, job, state
        self.pauses = pauses
        alone = fabric.world_size == 1 and fabric.device.type == "cpu"
        self.threads = threads.Dynamic() if alone and job.compute.dynamic_threads else None
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.normalise = Normalise(*job.normalisation)
        teacher = job.recipe.teacher if isinstance(job.recipe, config.Binarize) else None
        self.teacher = None if teacher is None or job.start is None else _Teacher(fabric, job.start, teacher)

    def epoch(self, epoch: int, position: Position | None) -> dict[str, float]:
        """Train for one epoch, or from a position in it, and evaluate; gives the row of the history."""
        # With the rank: processes draw for images of their own. The order, below, is one for all of them.
        augmentation, dropout = (self.job.random(epoch, what, self.rank) for what in ("augmentation", "dropout"))
        running = Running(self.fabric, augmentation, dropout, position)
        loss, accuracy, images = self._train(epoch, running)
        running.trained()
        row = {
            "epoch": epoch + 1,
            "lr": recipe.learning_rate(self.job.recipe, epoch + 0.5),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_accuracy": self._evaluate(epoch, running),
            "seconds": running.seconds,
            "images_per_second": images / running.seconds,
        }
        if self.fabric.is_global_zero:
            self._report(row)
        return row

    def _train(self, epoch: int, running: Running) -> tuple[float, float, int]:
        """Mean loss and accuracy over the epoch's training images, as they were seen; and their number."""
        settings, module = self.job.recipe, self.state.module
        module.train()
        order = self._order(epoch)
        steps = -(-len(order) // (settings.batch_size // self.world))  # the last batch may be smaller
        for batch, labels in self._batches(order, epoch, running.steps):
            images = self._input(augment(batch, settings.augment, running.augmenting), epoch)
            # The rate of a step is that of its middle.
            recipe.set_rates(self.state.optimiser, settings, epoch + (running.steps + 0.5) / steps)
            running.total += self._step(images, labels)
            running.steps += 1
            log.progress((epoch + running.steps / steps) / settings.epochs)
            if running.steps % CHECK_STEPS == 0:
                self._require_finite(running.total[0], epoch)
            # Once the step is counted: a checkpoint goes on with the next one.
            self.pauses.look(running)
            if self.threads is not None:
                self.threads.look()
        # A clone, since reducing is done in place: a checkpoint during evaluation needs this process's own sums. Loss
        # and weights are looked at together, as each NaN or infinity is one of the sum, too.
        total = self._sum(running.total.clone())
        self._require_finite(total[0] + sum(p.detach().sum() for p in module.parameters()), epoch)
        count = len(order) * self.world
        loss, correct = (total / count).tolist()
        return loss, correct, count

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; gives the batch's summed loss and its number of correct images."""
        settings, state = self.job.recipe, self.state
        logits = state.network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        if self.teacher is not None:
            loss = self.teacher.mixed(loss, logits, images)
        state.stepper.zero_grad()
        self.fabric.backward(loss)
        if settings.clip_norm is not None:
            # A norm that is not finite is left to `_require_finite`: looking at it here, each step would wait.
            self.fabric.clip_gradients(
                state.network, state.stepper, max_norm=settings.clip_norm, error_if_nonfinite=False
            )
        state.stepper.step()
        binary.project_(state.module)
        if state.averaged is not None:
            state.averaged.update_parameters(state.module)
        correct = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([loss.detach().double() * len(labels), correct.double()])

    def _order(self, epoch: int) -> Tensor:
        """This process's part of the epoch's order: every world-th image, so that global batches stay what they are."""
        shuffling = torch.Generator().manual_seed(self.job.random(epoch, "order"))
        order = torch.randperm(len(self.job.data.train), generator=shuffling)
        whole = len(order) - len(order) % self.world  # each process takes the same number of steps
        return order[self.rank : whole : self.world]

    def _batches(self, order: Tensor, epoch: int, done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches except the first `done`."""
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

    def _input(self, batch: Tensor, epoch: int) -> Tensor:
        """Normalised images at the epoch's size, channels last: faster on GPUs and on the CPU."""
        images, size = self.normalise(batch), self.job.small(epoch)
        if size is not None:
            images = F.avg_pool2d(images, images.shape[-1] // size)
        return images.contiguous(memory_format=torch.channels_last)

    def _require_finite(self, value: Tensor, epoch: int) -> None:
        if not bool(torch.isfinite(value)):
            rate = recipe.learning_rate(self.job.recipe, epoch + 0.5)
            section = "train" if self.job.weights == "full" else "binarize"
            raise BsnnError(
                f"{self.job.weights} network, seed {self.job.seed}: the loss is not finite in epoch {epoch + 1} at "
                f"learning rate {rate:g}; try a lower {section}.optimiser.lr, or compute.precision 32-true"
            )

    @torch.no_grad()
    def _evaluate(self, epoch: int, running: Running) -> float:
        """Accuracy on the test images: of the network as it would be stored, on images of its epoch.

        In the precision of training, but for the last epoch's, which is the network's: that one in float32.
        """
        for buffer in self.state.result.buffers():  # running means: each process has its own, the first one's count
            buffer.copy_(self.fabric.broadcast(buffer))
        network = self.fabric.to_device(self.job.stored(self.state.result).module)
        test = self.job.data.test
        order = torch.arange(self.rank, len(test), self.world)
        common = len(test) // self.world // TEST_BATCH  # batches that every process has
        correct = torch.zeros(1, dtype=torch.int64, device=self.fabric.device)
        last = epoch + 1 == self.job.recipe.epochs
        batches = test.batches(order, TEST_BATCH, self.fabric.device, self.job.compute.workers)
        for done, (batch, labels) in enumerate(batches, 1):
            with nullcontext() if last else self.fabric.autocast():
                correct += (network(self._input(batch, epoch)).argmax(1) == labels).sum()
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


class _Teacher:
    """The loss of a student that also learns from the trained network's outputs (Hinton et al. 2015, section 2)."""

    def __init__(self, fabric: Fabric, trained: Trained, settings: config.Teacher) -> None:
        self.fabric, self.settings = fabric, settings
        # A copy of its own: whoever else holds the trained network keeps it as it is.
        self.module = fabric.to_device(deepcopy(trained.module)).to(memory_format=torch.channels_last)

    def mixed(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """`(1 - w) * loss + w * T^2 * KL(teacher || student)`, both softened by T, averaged over the batch."""
        share, heat = self.settings.weight, self.settings.temperature
        with torch.no_grad(), self.fabric.autocast():
            taught = self.module(images)
        student, teacher = (F.log_softmax(given.float() / heat, 1) for given in (logits, taught))
        return (1 - share) * loss + share * heat**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
