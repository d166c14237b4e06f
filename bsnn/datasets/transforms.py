"""Augmentation and normalisation of whole batches, on the device on which the batch lies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bsnn import config
from bsnn.errors import DataError


class Normalise:
    """`(x / 255 - mean) / std`, channel by channel: uint8 [B, C, H, W] to float32 of the same shape and device.

    Every operand is a tensor on the device: dividing by a Python number is a multiplication by its reciprocal on
    CUDA, and the last bit would depend on the device.

    Raises:
        DataError: a mean is not finite, or a deviation no positive number.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        constants = torch.tensor([[255.0] * len(mean), list(mean), list(std)], dtype=torch.float32)
        if not bool(constants.isfinite().all() and (constants[2] > 0).all()):
            raise DataError(
                f"normalisation by mean {list(mean)} and std {list(std)}: means must be finite, deviations positive; "
                "they come with the network or the data set: make that file again, or set data.mean and data.std"
            )
        self._constants = {torch.device("cpu"): constants.reshape(3, 1, -1, 1, 1)}

    def __call__(self, batch: Tensor) -> Tensor:
        """Normalised images; the batch stays as it is."""
        if batch.device not in self._constants:
            self._constants[batch.device] = self._constants[torch.device("cpu")].to(batch.device)
        scale, mean, std = self._constants[batch.device]
        return batch.to(torch.float32).div_(scale).sub_(mean).div_(std)


def augment(batch: Tensor, settings: config.Augment, generator: torch.Generator) -> Tensor:
    """Random crop and random flip, drawn for each image by itself.

    A crop of the image's own size is taken after zero padding by `settings.crop` pixels at each side; a flip is
    horizontal and has probability 1/2. `settings.resized_crop` happens while decoding, not here.

    Args:
        batch: uint8 [B, C, H, W], on any device.
        settings: what to do.
        generator: the only source of randomness; one on the CPU gives the same images on every device.

    Returns:
        uint8 of the same shape and device; the batch itself if there is nothing to do.
    """

    def draw(high: int, *shape: int) -> Tensor:
        """Integers below `high`, drawn on the generator's device."""
        return torch.randint(high, shape, generator=generator, device=generator.device).to(batch.device)

    if settings.crop:
        batch = _windowed(batch, settings.crop, *draw(2 * settings.crop + 1, 2, len(batch)))
    if settings.flip:
        batch = _turned(batch, draw(2, len(batch)).bool())
    return batch


class FixedAugment:
    """Random crop after padding, and random flip, drawn once for each image of a split.

    An image looks the same in every batch, order and shard.

    Args:
        count: images of the split.
        padding: pixels at each side, as in `augment`.
        seed: decides all crops and flips.
    """

    def __init__(self, count: int, padding: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.padding = padding
        self.places = torch.randint(2 * padding + 1, (2, count), generator=generator)
        self.flips = torch.randint(2, (count,), generator=generator).bool()

    def __call__(self, batch: Tensor, index: Tensor) -> Tensor:
        """The batch, uint8 [B, C, H, W], whose images have these indices (int64 [B]) in the split, as drawn."""
        top, left = self.places[:, index].to(batch.device)
        return _turned(_windowed(batch, self.padding, top, left), self.flips[index].to(batch.device))


def _windowed(batch: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """All places of the window are views of the padded batch; one of them is copied for each image."""
    height, width = batch.shape[2:]
    windows = torch.nn.functional.pad(batch, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    # From [B, C, places, places, height, width]: with a slice between the indices, B comes first, then what is left.
    return windows[torch.arange(len(batch), device=batch.device), :, top, left]


def _turned(batch: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen.reshape(-1, 1, 1, 1), batch.flip(3), batch)
