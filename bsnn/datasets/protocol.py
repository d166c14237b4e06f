"""Images as a protocol shows them to a network: clean, or with quirks of the original's code (config.Protocol).

Every random choice follows from the network's seed and, for crops and flips, from the image's place in its split, so
that batches, shards and devices do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from bsnn.config import Experiment
from bsnn.datasets import Normalise, Split, evenly
from bsnn.datasets.base import Channels
from bsnn.datasets.transforms import FixedAugment
from bsnn.networks.own import OwnNetwork
from bsnn.networks.vgg import Trained
from bsnn.seeds import derived_seed

Use = Literal["calibration", "test"]
PADDING = 4  # of the original's RandomCrop
CONSTANTS: dict[str, tuple[Channels, Channels]] = {
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def calibration(experiment: Experiment, count: int) -> Tensor:
    """Indices of the calibration images among `count` training images: evenly spaced, or the first ones."""
    wanted = experiment.activations.images
    return torch.arange(min(wanted, count)) if "first_images" in experiment.quirks else evenly(count, wanted)


def dropout_seed(experiment: Experiment, seed: int) -> int | None:
    """Seed of the dropout that is active while activations are collected; None: dropout is off, as it should be."""
    return derived_seed(seed, "calibration", "dropout") if "calibration_dropout" in experiment.quirks else None


def normalisation(experiment: Experiment, trained: Trained | OwnNetwork) -> tuple[Channels, Channels]:
    """Mean and deviation for evaluation: the network's own, or the original's constants."""
    if "original_normalisation" in experiment.quirks:
        return CONSTANTS[experiment.data.name]
    return trained.mean, trained.std


def batches(
    experiment: Experiment,
    trained: Trained | OwnNetwork,
    seed: int,
    use: Use,
    split: Split,
    order: Tensor,
    size: int,
    device: torch.device,
    workers: int,
) -> Iterator[Tensor]:
    """Normalised float32 batches [N, 3, height, width] on the device.

    Args:
        experiment: whose protocol holds.
        trained: the network that will see them.
        seed: of the network.
        use: what the images are for.
        split: training images for calibration, else test images.
        order: indices of images, int64.
        size: images a batch.
        device: where they are wanted.
        workers: processes that decode image files.
    """
    normalise = Normalise(*normalisation(experiment, trained))
    augmented = f"augmented_{use}" in experiment.quirks
    change = FixedAugment(len(split), PADDING, derived_seed(seed, use, "augmentation")) if augmented else None
    shown = split.stretched() if use == "test" and "stretched_test" in experiment.quirks else split
    done = 0
    for images, _ in shown.batches(order, size, device, workers):
        index = order[done : done + len(images)]
        done += len(images)
        yield normalise(images if change is None else change(images, index))
