"""Weighted sums of the image, exact: one arithmetic for activations and for simulation.

What is said here of the first layer, a 3x3 convolution in the VGG family, holds for every path that reads the image, in
any kernel, stride, dilation and groups.

The threshold of the first layer is a percentile of its activations, hence often an activation itself, and images
repeat patches: many neurons then sit exactly on the threshold. Whether they fire must not depend on rounding, so the
percentile is taken from the values that the simulation adds up.

Why the sum is exact. Image values are multiples of `IMAGE_STEP` = 2^-26 within +-`IMAGE_LIMIT` = 2^6, so they are
integers of at most 32 bits. A weight is a sum of parts, each on a grid of its own, which is an integer of at most
`bits` bits: parts are cut off one after another, until what is left is below 2^-28 of the largest weight. An output
adds up n = 9 C products of each part (C input channels), 4 n where four of them are averaged, and

    32 + bits + ceil(log2(n)) = 53,

so every product and every sum, in whatever order and with or without fused steps, is a multiple of one power of two and
has at most 53 bits: float64 holds it exactly. C = 3 leaves 16 bits for a part (14 before an average pool). Sums of the
parts are then added up element by element, smallest first, which rounds the same way everywhere, far below float32's
last bit; the result is rounded once to float32. Grids depend on the weights alone, not on the images.

Against float32 values as they are, an image value is moved by at most 2^-27, and a weight by 2^-28 of the largest one.
This is finer than float32's own sums, each of which rounds by up to 2^-24 of itself.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.errors import ConversionError
from bsnn.graphs import description as graph
from bsnn.graphs.forward import pooled

Pool = Literal["average", "max"]
IMAGE_STEP = 2.0**-26
IMAGE_LIMIT = 2.0**6
SIGNIFICANT = 53  # bits of a float64
_WEIGHT_BITS = 28  # the parts of a weight reach down to 2^-28 of the largest weight
_TOGETHER = 8  # images whose float64 columns and sums are held at once: 0.7 GiB at 224 x 224


@torch.no_grad()
def image_term(path: graph.Path, images: Tensor) -> Tensor:
    """Weighted and pooled sum of a path that reads the image, without its scale: the same bits in any batch.

    An average pool gives its window's sum.

    Args:
        path: whose source is the image; its weights lie on the images' device.
        images: float32 [N, channels, height, width] or [N, units], normalised.

    Returns:
        float32 [N, *shape of the path's term].

    Raises:
        ConversionError: image values beyond `IMAGE_LIMIT`, NaN, or sums of too many products.
    """
    if path.weight is None:
        return torch.cat([pooled(on_grid(some), path.pool).float() for some in images.split(_TOGETHER)])
    kind, window = (path.pool.kind, path.pool.kernel[0] * path.pool.kernel[1]) if path.pool else (None, 1)
    parts = weight_parts(path.weight, kind, window)
    return torch.cat([_together(_products(path, parts, on_grid(some)), path) for some in images.split(_TOGETHER)])


def _products(path: graph.Path, parts: list[Tensor], values: Tensor) -> list[Tensor]:
    """Sums of products of each part, float64 [N, out, ...].

    By a matrix product, since a convolution may choose an algorithm that is not a direct sum.
    """
    if path.op == "linear":
        return [values.flatten(1) @ part.T for part in parts]
    kernel = tuple(parts[0].shape[-2:])
    # im2col: [N, channels * taps, places], channels outermost, as in flattened weights; so a group's are one run
    columns = F.unfold(values, kernel, path.dilation, path.padding, path.stride)
    grouped = columns.unflatten(1, (path.groups, -1))  # [N, groups, products, places]
    # all parts are one matrix [groups, parts * outputs, products] (outputs of one group): columns are read once
    stacked = torch.stack([part.flatten(1).unflatten(0, (path.groups, -1)) for part in parts], 1)
    sums = stacked.flatten(1, 2) @ grouped  # [N, groups, parts * outputs, places]
    size = (*(_places(path, axis, values.shape[axis - 2], kernel[axis]) for axis in (0, 1)),)
    each = sums.unflatten(2, (len(parts), -1)).unbind(2)  # [N, groups, outputs, places] for each part
    return [part.flatten(1, 2).unflatten(-1, size) for part in each]


def _places(path: graph.Path, axis: int, size: int, kernel: int) -> int:
    """Places of a convolution along one axis."""
    reach = path.dilation[axis] * (kernel - 1) + 1
    return (size + 2 * path.padding[axis] - reach) // path.stride[axis] + 1


def _together(sums: list[Tensor], path: graph.Path) -> Tensor:
    """Exact sums of each part, largest part first, as one current: pooled, rounded to float32."""
    kind = path.pool.kind if path.pool is not None else None
    if kind == "average":  # sums of exact sums are exact, as long as their parts are apart
        sums = [pooled(some, path.pool) for some in sums]
    *larger, total = sums
    for part in reversed(larger):
        total = total + part
    return (pooled(total, path.pool) if kind == "max" else total).float()


def on_grid(images: Tensor) -> Tensor:
    """Images as multiples of `IMAGE_STEP`, float64.

    Raises:
        ConversionError: values beyond `IMAGE_LIMIT`, or NaN.
    """
    largest = images.abs().amax() if images.numel() else images.new_zeros(())
    if not bool(largest <= IMAGE_LIMIT):  # not `>`, which NaN would pass
        raise ConversionError(
            f"normalised images reach {float(largest):g}, and the first layer takes values up to {IMAGE_LIMIT:g}; "
            "check the images, and the mean and std that they are normalised with"
        )
    return torch.round(images.double() / IMAGE_STEP) * IMAGE_STEP  # a power of two: only `round` rounds


def weight_parts(weight: Tensor, pool: Pool | None, window: int = 4) -> list[Tensor]:
    """Weights [out, channels, ...] as float64 parts that add up to them, the largest part first.

    Weights of the same size give the same grids, whatever the device. An average pool adds up `window` sums.

    Raises:
        ConversionError: so many input channels that no bit is left for a part.
    """
    inputs = math.prod(weight.shape[1:]) * (window if pool == "average" else 1)
    # what 32 bits of an image value and ceil(log2(inputs)) bits of carries leave of 53
    bits = SIGNIFICANT - int(math.log2(IMAGE_LIMIT / IMAGE_STEP)) - (inputs - 1).bit_length()
    if bits < 1:
        raise ConversionError(f"the first layer adds up {inputs} products, too many for exact sums; 2^20 are possible")
    rest = weight.double()
    exponent = math.frexp(float(rest.abs().amax()))[1]  # largest weight < 2^exponent
    kept = 0
    parts: list[Tensor] = []
    while not parts or kept < _WEIGHT_BITS:
        kept += bits + bool(parts)  # what is left of a part is at most half its step: one more bit
        step = 2.0 ** (exponent - kept)
        # integers up to 2^bits, that one too: sums reach 2^53 at most, which float64 holds
        parts.append(torch.round(rest / step) * step)
        rest = rest - parts[-1]  # exact: no bit of a weight is lost between parts
    return parts
