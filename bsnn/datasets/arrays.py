"""Data sets that lie in memory: uint8 tensors, in one safetensors artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsnn import artifacts, config
from bsnn.datasets.base import (
    Batches,
    Channels,
    DataSet,
    Split,
    check_labels,
    description,
    evenly,
    histograms,
    refuse,
    statistics,
)
from bsnn.errors import DataError

KIND = "images"
SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as its source gives it."""

    splits: Mapping[str, tuple[Tensor, Tensor]]  # images, uint8 [N, 1 or 3, height, width], and labels, int64 [N]
    classes: tuple[str, ...]
    statistics: tuple[Channels, Channels] | None  # mean and deviation; None: of the training images


def write(path: Path, source: Source, settings: config.Data, identity: dict[str, Any]) -> None:
    """Write the artifact: the wanted images at the wanted size, with three channels."""
    tensors = {}
    for split, wanted in zip(SPLITS, (settings.train_images, settings.test_images), strict=True):
        images, labels = source.splits[split]
        chosen = evenly(len(labels), wanted)
        at_size = resized(images[chosen], settings.image_size)
        tensors[f"{split}_images"] = at_size.expand(-1, 3, -1, -1).contiguous()  # of grey images, thrice the one
        tensors[f"{split}_labels"] = labels[chosen]
    mean, std = source.statistics or statistics(histograms([tensors["train_images"]]))
    extra = {"classes": list(source.classes), "mean": list(mean), "std": list(std)}
    artifacts.write_tensors(path, tensors, KIND, identity, extra)


def resized(images: Tensor, size: int, chunk: int = 1000) -> Tensor:
    """Bilinear resize of uint8 [N, C, h, w] to uint8 [N, C, size, size], smoothed first where it shrinks.

    In float64, rounded half to even: the weights of a doubling, or of any power of two, are exact.
    """
    if tuple(images.shape[2:]) == (size, size):
        return images
    shrinks = size < min(images.shape[2:])
    parts = []
    for part in images.split(chunk):  # in float64 a byte takes eight
        scaled = torch.nn.functional.interpolate(part.double(), (size, size), mode="bilinear", antialias=shrinks)
        parts.append(scaled.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)


class ArraySplit(Split):
    """Images in memory: moved to a device once, and indexed there."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels
        self._there: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def _read(self, order: Tensor, batch_size: int, device: torch.device, workers: int, crop: int | None) -> Batches:
        if crop is not None:
            raise DataError("augment.resized_crop needs a folder of images: this data set lies in memory at one size")
        images, labels = self._on(device)
        for chosen in order.to(device).split(batch_size):
            if len(chosen):
                yield images[chosen], labels[chosen]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._there:
            self._there[device] = (self.images.to(device), self.labels.to(device))
        return self._there[device]


def load(path: Path, stands_for: Mapping[str, Any] | None = None) -> DataSet:
    """Read the artifact.

    Raises:
        ArtifactError: missing, damaged, of another identity than `stands_for` (unless that is None), or with other
            tensors than `write` writes.
    """
    tensors, found = artifacts.read_tensors(path, KIND, stands_for)
    classes, mean, std = description(path, found["extra"])
    train, test = (_split(path, tensors, split, len(classes)) for split in SPLITS)
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{list(train.images.shape)} and {list(test.images.shape)}"
        raise refuse(path, f"training and test images differ in shape: {shapes}")
    return DataSet(classes, mean, std, train.images.shape[-1], train, test)


def _split(path: Path, tensors: Mapping[str, Tensor], split: str, classes: int) -> ArraySplit:
    images, labels = (tensors.get(f"{split}_{what}") for what in ("images", "labels"))
    if images is None or labels is None:
        raise refuse(path, f"{split} images or labels are missing, has {sorted(tensors)}")
    shape = list(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise refuse(path, f"{split}_images is {images.dtype} {shape}, expected torch.uint8 [N, 3, size, size]")
    if labels.dtype != torch.int64 or list(labels.shape) != shape[:1]:
        raise refuse(path, f"{split}_labels is {labels.dtype} {list(labels.shape)}, expected torch.int64 {shape[:1]}")
    check_labels(path, labels, split, classes)
    return ArraySplit(images, labels)
