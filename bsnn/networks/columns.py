"""Convolutions of images of few places, as one product of matrices.

oneDNN's convolutions in bfloat16 leave most of a CPU unused where images are small, as in the last blocks of VGG-15:
with 512 channels of 2 x 2 places, the gradient of the weights takes ten times as long as the same product of matrices
does. So the nine places under the kernel become the columns of a matrix (im2col; Chellapilla et al. 2006).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PLACES = 16  # of an image, at most: with 64, oneDNN is the faster


def pay(x: Tensor) -> bool:
    """Whether `convolution` of these images [N, channels, height, width] is another than PyTorch's own, and faster."""
    if x.device.type != "cpu" or x.shape[2] * x.shape[3] > PLACES:
        return False
    autocast = torch.is_autocast_enabled("cpu")
    return (torch.get_autocast_dtype("cpu") if autocast else x.dtype) == torch.bfloat16


def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution of images with 3 x 3 kernels, padded by one place, under autocast or not.

    Args:
        x: [N, inputs, height, width].
        weight: [outputs, inputs, 3, 3].

    Returns:
        [N, outputs, height, width]; equal to `torch.nn.functional.conv2d`'s, rounding apart.
    """
    if not pay(x):
        return F.conv2d(x, weight, padding=1)
    if x.shape[2:] == (1, 1):  # all but the middle of a kernel lies outside
        return F.linear(x.flatten(1), weight[:, :, 1, 1])[:, :, None, None]
    result: Tensor = _ByColumns.apply(x.bfloat16(), weight.bfloat16())
    return result


class _ByColumns(torch.autograd.Function):
    """With columns made anew for the gradients: copying them costs less than keeping nine times the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiplied(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].permute(0, 2, 3, 1).flatten(0, 2)
        of_weight = (rows.t() @ columns(x)).unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2)
        # What an input gave to its neighbours comes back from them: the kernels turned by 180 degrees.
        return _multiplied(gradients[0], weight.flip(2, 3).transpose(0, 1)), of_weight


def _multiplied(x: Tensor, weight: Tensor) -> Tensor:
    product = columns(x) @ weight.permute(2, 3, 1, 0).flatten(0, 2)
    images: Tensor = product.unflatten(0, (len(x), *x.shape[2:]))
    return images.permute(0, 3, 1, 2)


def columns(x: Tensor) -> Tensor:
    """Matrix [N * height * width, 9 * channels]: what lies under the kernel at each place."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # [N, height, width, channels, 3, 3]
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
