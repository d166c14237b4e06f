"""Training of full-precision and binary networks: one readable loop on Fabric's devices.

Every random choice (initial weights, order, augmentation, dropout) comes from a seed for that purpose and epoch, and a
checkpoint within an epoch holds the states of its generators: a killed or stopped run goes on to the same weights (bit
for bit on the CPU with the same number of threads).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
import torch.utils.deterministic
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bsnn import artifacts, config, log
from bsnn.datasets import DataSet, Normalise, evenly
from bsnn.errors import BsnnError
from bsnn.networks import binary
from bsnn.networks.files import assemble
from bsnn.networks.vgg import VGG, Trained, scale_to_unit_variance_
from bsnn.training import checkpoint, folding, processes, recipe, stopping
from bsnn.training.folding import FoldableVGG
from bsnn.training.loop import Job, Loop, State

logger = logging.getLogger(__name__)

HANDED_OVER = "result.pt"  # beside the checkpoints
INITIAL_IMAGES = 128  # for an initialisation that looks at images


class Fitted(NamedTuple):
    """What a training gives."""

    trained: Trained  # after the last epoch, on the CPU
    history: pd.DataFrame  # one row per epoch, see `fit`
    precision: str  # that steps were computed in, in Fabric's words


def fit(
    experiment: config.Experiment,
    weights: config.Weights,
    seed: int,
    data: DataSet,
    compute: config.Compute,
    checkpoints: Path,
    start: Trained | None,
    *,
    stands_for: Mapping[str, Any] | None = None,
    elsewhere: Callable[[], None] | None = None,
) -> Fitted:
    """Train a network, or go on where a killed run stopped.

    Args:
        experiment: network, data and recipes.
        weights: full or binary; the binary network starts from `start` unless its recipe says from scratch.
        seed: of every random choice.
        data: training and test images. The test images are evaluated after each epoch and decide nothing.
        compute: devices. With several, each takes its part of the recipe's (global) batch.
        checkpoints: folder of the checkpoints; nobody else trains in it at the same time.
        start: trained full-precision network: what binary weights are made from; a full-precision network starts afresh
            without it.
        stands_for: identity of the network. A checkpoint of another one is not gone on from.
        elsewhere: with several nodes, has them all `take_part`, instead of the devices of this machine.

    Returns:
        The network, its precision in training, and its history with columns epoch (from 1), lr (at the middle of the
        epoch), train_loss, train_accuracy and test_accuracy (0..1, on images of the size that the epoch trained on, in
        the precision of training; the last one in float32), seconds of the training part, images_per_second.

        On a CPU the process keeps memory that it frees, from then on (bsnn.training.memory).

    Raises:
        ConfigError: devices or nodes that are not there, or that the batch cannot be spread over.
        BsnnError: the loss is no longer finite; or binary weights without a network to start from.
        ArtifactError: a checkpoint cannot be written.
        Interrupted: SIGTERM or SIGINT came; a checkpoint of the step at hand is written.
    """
    job = Job(experiment, weights, seed, data, compute, checkpoints, start, stands_for or {})
    with checkpoint.exclusive(checkpoints):
        found = take_part(job, log.files()) if elsewhere is None else elsewhere()
        found = found or torch.load(checkpoints / HANDED_OVER, weights_only=True)
    shape = (3, data.image_size, data.image_size)
    trained = assemble(experiment.family, shape, data.classes, *job.normalisation, *found["parts"])
    history = pd.DataFrame(found["history"]).astype({"epoch": "int64"})
    return Fitted(trained, history, found["precision"])


def take_part(job: Job, logs: Sequence[str]) -> processes.Found:
    """Train on the devices of this machine: all that there are, or those of one node among several.

    Args:
        job: what to train, the same on all nodes.
        logs: the job's log files.

    Returns:
        The result of one process alone; the first of several leaves it in a file, HANDED_OVER.

    Raises:
        BsnnError: as `fit`.
    """
    return processes.run(partial(_run, job=job), job.recipe, job.compute, logs)


def _run(fabric: Fabric, job: Job) -> dict[str, Any] | None:
    """What each process does: build, restore, train the epochs that are left.

    Several processes leave the result in a file: Fabric joins them before it reads what they return, and a result
    larger than a pipe's buffer would wait for ever.
    """
    with _reproducible(fabric.device):
        state = _state(fabric, job)
        networks = {"model": state.module} | ({} if state.averaged is None else {"averaged": state.averaged})
        history, position = checkpoint.restore(job.checkpoints, job.stands_for, networks, state.optimiser, fabric)
        checkpoint.require_same(job.checkpoints, fabric, len(history), position)
        if history or position is not None:
            steps = "" if position is None else f" and {position.steps} steps of the next"
            logger.log(log.NOTICE, "going on after epoch %d of %d%s", len(history), job.recipe.epochs, steps)
        # `history` is the list that the loop below adds to: each checkpoint has what is in it by then.
        save = partial(checkpoint.save, job.checkpoints, job.stands_for, networks, state.optimiser, history)
        pauses = stopping.Pauses(fabric, save)
        loop = Loop(fabric, job, state, pauses)
        with stopping.on_signal(pauses.ask):
            for epoch in range(len(history), job.recipe.epochs):
                history.append(loop.epoch(epoch, position))
                position = None  # only the first epoch is begun in its midst
                if fabric.is_global_zero:
                    save()
                pauses.restart()
        trained = job.stored(state.result)
    full = {layer.name: trained.weight(layer.name)[0] for layer in trained.plan if layer.name not in trained.signs}
    found = {
        "parts": [full, dict(trained.signs), dict(trained.alphas)],
        "history": history,
        "precision": processes.precision(fabric),
    }
    if fabric.world_size == 1:
        return found
    if fabric.is_global_zero:
        with artifacts.replacing(job.checkpoints / HANDED_OVER) as temporary, temporary.open("wb") as file:
            torch.save(found, file)  # to a path, a full disk is a failed assertion
    fabric.barrier()  # srun ends whoever outlives the others for long
    return None


def _state(fabric: Fabric, job: Job) -> State:
    """Network and optimiser on the device, before the first step."""
    module = cast(VGG, fabric.to_device(_initial(job))).to(memory_format=torch.channels_last)
    # Before the average copies the latents; a checkpoint, if there is one, replaces both.
    binary.project_(module)
    averaged = None
    if job.recipe.averaging is not None:
        averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(job.recipe.averaging), use_buffers=True)
    optimiser = recipe.optimiser(job.recipe, module)
    return State(module, averaged, optimiser, *fabric.setup(module, optimiser))


def _initial(job: Job) -> VGG:
    """The network before the first step: fresh, or with the trained weights; latents of binary layers included."""
    torch.manual_seed(job.random("initial weights"))
    family = FoldableVGG if job.recipe.form == "foldable" else VGG
    module = family(job.experiment.family, (3, job.data.image_size, job.data.image_size), len(job.data.classes))
    if job.weights == "full":
        if job.start is not None:
            _take(module, job.start, job)
        elif job.experiment.family.init == "unit_variance":
            scale_to_unit_variance_(module, _some_images(job))
        return module
    settings = job.experiment.binarize
    if not settings.from_scratch:
        if job.start is None:
            raise BsnnError(
                "a binary network starts from the trained full-precision one, and none was given; "
                "train it first, or set binarize.from_scratch"
            )
        _take(module, job.start, job)
    binary.prepare(module, settings)
    return module


def _take(module: VGG, start: Trained, job: Job) -> None:
    """Take a trained network's weights, in place."""
    if isinstance(module, FoldableVGG):
        folding.begin_from_(module, start, _some_images(job))
    else:
        module.load_state_dict(start.module.state_dict())


def _some_images(job: Job) -> Tensor:
    """Training images, evenly spaced, for a start that looks at images: normalised [N, 3, height, width]."""
    order = evenly(len(job.data.train), INITIAL_IMAGES)
    images, _ = next(iter(job.data.train.batches(order, INITIAL_IMAGES, torch.device("cpu"), 0)))
    return Normalise(*job.normalisation)(images)


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms on the CPU, and the caller's generators put back at the end."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling: Any = torch.utils.deterministic  # a debugging aid that costs time
    fill = filling.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch.use_deterministic_algorithms(device.type == "cpu" or before[0], warn_only=before[1])
            filling.fill_uninitialized_memory = False
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            filling.fill_uninitialized_memory = fill
