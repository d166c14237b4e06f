"""What every data set offers, wherever its images come from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsnn import artifacts
from bsnn.errors import ArtifactError, DataError

Channels = tuple[float, ...]  # one number per channel, of pixels in 0..1
Batches = Iterator[tuple[Tensor, Tensor]]  # images and labels


class Split(ABC):
    """Training or test images of a data set, with their labels."""

    labels: Tensor  # int64 [N], on the CPU
    left_out: int = 0  # broken files that the index does not name

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        device: torch.device | str,
        workers: int = 0,
        *,
        resized_crop: bool = False,
        seed: int = 0,
    ) -> Batches:
        """Images and labels in the given order, the last batch as small as it comes.

        Args:
            order: int64, indices of images; may leave out or repeat some.
            batch_size: images a batch.
            device: where the batches are wanted.
            workers: processes that decode image files; without meaning for images in memory.
            resized_crop: random part of the image at a random scale (folders of images only).
            seed: decides, with an image's index, the part of it that is taken; give each epoch its own.

        Yields:
            uint8 [B, 3, height, width] and int64 [B], both on the device.

        Raises:
            DataError: an image file cannot be decoded, or `resized_crop` where images lie in memory.
        """
        return self._read(order, batch_size, torch.device(device), workers, seed if resized_crop else None)

    @abstractmethod
    def _read(self, order: Tensor, batch_size: int, device: torch.device, workers: int, crop: int | None) -> Batches:
        """What `batches` yields; `crop` is the seed of random parts, None where images are wanted as they are."""

    def stretched(self) -> Split:
        """The same images, brought to size without regard to their aspect ratio (folders of images only).

        Raises:
            DataError: images lie in memory.
        """
        raise DataError("protocol.stretched_test needs a folder of images: this data set lies in memory at one size")


@dataclass(frozen=True, eq=False)
class DataSet:
    """Both splits, and what networks need to know of them."""

    classes: tuple[str, ...]
    mean: Channels  # of the training images' pixels in 0..1, by channel
    std: Channels
    image_size: int  # height and width in pixels
    train: Split
    test: Split


def evenly(count: int, wanted: int | None) -> Tensor:
    """Indices of `wanted` of `count` items, evenly spaced from the first on; all if None, or if there are fewer.

    Returns:
        int64, increasing, without repeats; neighbours differ by `count / wanted` rounded down or up.

    Raises:
        DataError: fewer than one wanted.
    """
    if wanted is not None and wanted < 1:
        raise DataError(f"{wanted} images wanted: ask for at least 1, or leave the number out to use all")
    if wanted is None or wanted >= count:
        return torch.arange(count)
    return torch.arange(wanted) * count // wanted


def histograms(batches: Iterable[Tensor]) -> Tensor:
    """How often each pixel value occurs: int64 [channels, 256], of uint8 batches [B, channels, height, width]."""
    total = torch.zeros(1, 256, dtype=torch.int64)
    for batch in batches:
        total = total + torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in batch.unbind(1)])
    return total


def statistics(histogram: Tensor) -> tuple[Channels, Channels]:
    """Mean and (population) standard deviation of pixels in 0..1, by channel.

    From integer counts, so that batches and devices do not matter.

    Args:
        histogram: int64 [channels, 256], see `histograms`.

    Raises:
        DataError: a channel has one value only, so that it cannot be normalised.
    """
    means, deviations = [], []
    for channel, counts in enumerate(histogram.tolist()):
        pixels = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        variance = (second * pixels - first * first) / pixels**2
        if variance == 0:
            raise DataError(
                f"all training images have the same value everywhere in channel {channel}: check the images"
            )
        means.append(first / pixels / 255)
        deviations.append(math.sqrt(variance) / 255)
    return tuple(means), tuple(deviations)


def refuse(path: str | Path, problem: str) -> ArtifactError:
    """Error for an artifact whose content is not what it should be."""
    return ArtifactError(f"{path}: {problem}; {artifacts.again(path)}")


def description(path: str | Path, extra: Mapping[str, Any]) -> tuple[tuple[str, ...], Channels, Channels]:
    """Classes, mean and deviation from an artifact's metadata.

    Raises:
        ArtifactError: one of them is missing or impossible.
    """
    classes = extra.get("classes")
    if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
        raise refuse(path, f"metadata has no list of class names, but {classes!r}")
    mean, std = _channels(path, extra, "mean"), _channels(path, extra, "std")
    if min(std) <= 0:
        raise refuse(path, f"channel deviations must be positive, found {list(std)}")
    return tuple(classes), mean, std


def _channels(path: str | Path, extra: Mapping[str, Any], name: str) -> Channels:
    values = extra.get(name)
    if not (
        isinstance(values, list)
        and len(values) == 3
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    ):
        raise refuse(path, f"metadata has no three channel values as '{name}', but {values!r}")
    return tuple(values)


def check_labels(path: str | Path, labels: Tensor, split: str, classes: int) -> None:
    """Refuse an empty split, and labels outside of 0..classes-1.

    Raises:
        ArtifactError: with the split and the first bad label.
    """
    if not len(labels):
        raise refuse(path, f"has no {split} images")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise refuse(path, f"{split} label {wrong[0]} is outside of 0..{classes - 1}")
