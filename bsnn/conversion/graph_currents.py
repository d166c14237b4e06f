"""Currents of paths that read the image: exact, as a first layer's, in any kernel, stride, dilation and groups."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.conversion.currents import on_grid, weight_parts
from bsnn.graphs.description import Path
from bsnn.graphs.forward import per_channel, pooled

_TOGETHER = 8  # images whose float64 columns and sums are held at once


@torch.no_grad()
def image_term(path: Path, images: Tensor) -> Tensor:
    """Weighted and pooled sum of a path that reads the image, without its scale: the same bits in any batch.

    The arithmetic is that of bsnn.conversion.currents: image and weights on grids on which float64 sums are exact,
    rounded once to float32. An average pool gives its window's sum.

    Args:
        path: whose source is the image; its weights lie on the images' device.
        images: float32 [N, channels, height, width] or [N, units], normalised.

    Raises:
        ConversionError: image values beyond `currents.IMAGE_LIMIT`, NaN, or sums of too many products.
    """
    return torch.cat([_of_some(path, some) for some in images.split(_TOGETHER)])


def _of_some(path: Path, images: Tensor) -> Tensor:
    values = on_grid(images)
    if path.weight is None:
        return pooled(values, path.pool).float()
    kind, window = (path.pool.kind, path.pool.kernel[0] * path.pool.kernel[1]) if path.pool else (None, 1)
    sums = [_weighted(path, part, values) for part in weight_parts(path.weight, kind, window)]
    if kind == "average":  # sums of exact sums are exact, as long as their parts are apart
        sums = [pooled(some, path.pool) for some in sums]
    *larger, total = sums
    for part in reversed(larger):
        total = total + part
    return (pooled(total, path.pool) if kind == "max" else total).float()


def _weighted(path: Path, weight: Tensor, values: Tensor) -> Tensor:
    """Products added up by a matrix product, since a convolution may choose an algorithm that is not a direct sum."""
    if path.op == "linear":
        return values.flatten(1) @ weight.T
    kernel = tuple(weight.shape[-2:])
    columns = F.unfold(values, kernel, path.dilation, path.padding, path.stride)
    grouped = columns.unflatten(1, (path.groups, -1))  # [N, groups, products, places]
    sums = weight.flatten(1).unflatten(0, (path.groups, -1)) @ grouped
    found: Tensor = sums.flatten(1, 2).unflatten(-1, _size(path, values, kernel))
    return found


def _size(path: Path, values: Tensor, kernel: tuple[int, ...]) -> tuple[int, ...]:
    each = zip(values.shape[-2:], kernel, path.stride, path.padding, path.dilation, strict=True)
    return tuple(
        (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for size, k, stride, padding, dilation in each
    )


def times_scale(path: Path, sums: Tensor) -> Tensor:
    """Sums [N, channels, ...] times the path's scale: each product rounded once to float32."""
    return sums if path.scale is None else sums * per_channel(path.scale, sums.dim() - 1)
