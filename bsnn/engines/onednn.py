"""Sums of spikes over integer weights, exact, by oneDNN's int8 convolution and matrix product.

Spikes come as bytes `s + zero` (zero: 0, or 1 where negative spikes occur, so that the bytes are never negative), one
flat row an image and step, channels last. Sums leave as float32: integers below 2^24, so the conversion is exact.

CPUs without VNNI add pairs of byte products in 16 bits with saturation. Nothing saturates here: weights are -4..4 and
bytes at most 127, so a pair is at most 1,016.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer

Sum = Callable[[Tensor], Tensor]  # uint8 [rows, inputs] -> float32 [rows, outputs], both channels last and flat


def prepare(layer: SpikingLayer, source: tuple[int, ...], zero: int) -> tuple[Sum, tuple[int, ...], int]:
    """Summed input of a layer with weights, in the cheapest form.

    A 2x2 sum after the convolution is fused into one 4x4 convolution of stride 2. On small images (up to 2x2, or 4x4
    with a fused sum) a dense matrix product needs fewer operations than the convolution, since it holds no border.

    Args:
        layer: of op conv or linear.
        source: shape of its input for one image, channels first.
        zero: byte that stands for no spike.

    Returns:
        The function; the shape of its output for one image, channels first (before a maximum pool); its number of
        multiply-accumulates for one image and step.
    """
    weight = cast(Tensor, layer.weight).to(torch.int8)
    if layer.op == "linear":
        dense = weight if len(source) == 1 else weight.unflatten(1, source).movedim(1, -1).flatten(1)
        return _product(dense, zero), layer.shape, dense.numel()
    stride = 2 if layer.pool == "average" else 1
    if stride == 2:
        weight = _with_sum(weight)
    height, width = source[1] // stride, source[2] // stride
    shape = (len(weight), height, width)
    macs = weight.numel() * height * width
    if weight.shape[0] * weight.shape[1] * source[1] * source[2] * height * width <= macs:
        dense = _dense(weight, source, stride)
        return _product(dense, zero), shape, dense.numel()
    return _convolution(weight, source, stride, zero), shape, macs


def _with_sum(weight: Tensor) -> Tensor:
    """3x3 convolution and 2x2 sum as one 4x4 convolution of stride 2: weights added at their four offsets."""
    fused = weight.new_zeros(*weight.shape[:2], 4, 4)
    for row in (0, 1):
        for column in (0, 1):
            fused[:, :, row : row + 3, column : column + 3] += weight
    return fused


def _dense(weight: Tensor, source: tuple[int, ...], stride: int) -> Tensor:
    """The convolution (padding 1) as a matrix [outputs, inputs], both sides flat and channels last."""
    height, width = source[1] // stride, source[2] // stride
    size = weight.shape[-1]
    dense = weight.new_zeros(height, width, len(weight), source[1], source[2], source[0])
    for y in range(height):
        for x in range(width):
            for row in range(max(0, y * stride - 1), min(source[1], y * stride - 1 + size)):
                for column in range(max(0, x * stride - 1), min(source[2], x * stride - 1 + size)):
                    dense[y, x, :, row, column] = weight[:, :, row - y * stride + 1, column - x * stride + 1]
    return dense.reshape(height * width * len(weight), -1)


def _convolution(weight: Tensor, source: tuple[int, ...], stride: int, zero: int) -> Sum:
    """oneDNN's int8 convolution, padding 1. The border holds `zero`, that is: no spikes."""
    channels, height, width = source
    ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    geometry = ([stride, stride], [1, 1], [1, 1], 1)  # stride, padding, dilation, groups
    example = [16, channels, height, width]
    packed = torch.ops.onednn.qconv_prepack(weight.contiguous(), ones, 1.0, zero, *geometry, example)

    def sums(spikes: Tensor) -> Tensor:
        images = spikes.view(-1, height, width, channels).permute(0, 3, 1, 2)
        out = torch.ops.onednn.qconv2d_pointwise(
            images, 1.0, zero, packed, ones, zeros, None, *geometry, 1.0, 0, torch.float32, "none", [], ""
        )
        return out.permute(0, 2, 3, 1).reshape(len(spikes), -1)

    return sums


def _product(weight: Tensor, zero: int) -> Sum:
    """oneDNN's int8 matrix product with weights [outputs, inputs]."""
    ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    packed = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)

    def sums(spikes: Tensor) -> Tensor:
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            spikes, 1.0, zero, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return out

    return sums


@lru_cache(maxsize=1)
def missing() -> str | None:
    """What this build of torch lacks for int8 sums; None when a small trial gave the right ones."""
    spikes = torch.tensor([[2, 1, 0, 1] * 9], dtype=torch.uint8)
    weight = torch.tensor([1, -1, -1, 1], dtype=torch.int8).expand(4, 4)
    try:
        dense = _product(weight.repeat(1, 9), 1)(spikes)
        image = _convolution(weight[:, :, None, None].repeat(1, 1, 3, 3), (4, 3, 3), 1, 1)(spikes)
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        return f"this build of torch {torch.__version__} lacks oneDNN's int8 operations ({str(error).splitlines()[0]})"
    taps = torch.tensor([4, 6, 4, 6, 9, 6, 4, 6, 4]).repeat_interleave(4)
    if not (bool((dense == 18).all()) and bool((image == 2 * taps).all())):
        return f"oneDNN's int8 operations give wrong sums in this build of torch {torch.__version__}"
    return None
