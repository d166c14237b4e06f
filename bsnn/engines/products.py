"""Sums of weights over spikes in float32, by the fastest way here whose terms are all exact.

- **Native bfloat16.** A CPU that multiplies bfloat16 natively (AMX, AVX-512 bf16) forms products of bfloat16 numbers
  exactly and adds them up in float32. Spikes are small whole numbers, and weights of +-1, or rounded to bfloat16 when
  they were trained (`train.rounding`, as in the networks that come with the repository), lose nothing by being read as
  bfloat16. So there float32 products of spikes are given to these instructions; for other weights they are not. Nor are
  strided convolutions: oneDNN 3.x adds up wrong sums for some of them then (horizontal stride 2 on narrow maps).
- **Few places.** Convolutions of maps of few places are one product of matrices, of which one has the values under the
  kernel at each place as rows (im2col; Chellapilla et al. 2006): oneDNN leaves most of a CPU unused there.

Both change the order of a float32 sum at most, which sums of integers do not depend on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import RLock

import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.engines.base import direct_sums
from bsnn.networks.columns import columns
from bsnn.training import precision

PLACES = {True: 16, False: 4}  # of a map, at most, that becomes columns: with native bfloat16 products, and without
COLUMNS = 2**25  # bytes of columns at a time
_ALONE = RLock()


def native_bfloat16(weights: Iterable[Tensor], device: torch.device) -> bool:
    """Whether a device has native products of bfloat16 numbers that are exact for all of these weights.

    Only where sums are known to be direct ones: what Winograd adds up of bfloat16 numbers is far from exact.
    """
    return (
        direct_sums(device)
        and precision.native(device)
        and all(torch.equal(weight.float(), weight.bfloat16().float()) for weight in weights)
    )


@contextmanager
def in_bfloat16(wanted: bool) -> Iterator[None]:
    """If wanted, oneDNN's float32 products read their factors as bfloat16, exact where these are bfloat16 numbers."""
    if not wanted:
        yield
        return
    places = torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _ALONE:  # it is a setting of the whole process
        before = [place.fp32_precision for place in places]
        try:
            for place in places:
                place.fp32_precision = "bf16"
            yield
        finally:
            for place, former in zip(places, before, strict=True):
                place.fp32_precision = former


def convolution(x: Tensor, weight: Tensor, *, bfloat16: bool) -> Tensor:
    """Convolution with 3 x 3 kernels, padded by one place.

    Args:
        x: float32 [N, inputs, height, width].
        weight: float32 [outputs, inputs, 3, 3].
        bfloat16: whether the products are native ones of bfloat16 numbers (`native_bfloat16`).

    Returns:
        float32 [N, outputs, height, width], channels last.
    """
    with in_bfloat16(bfloat16):
        return _convolution(x, weight, PLACES[bfloat16])


def linear(x: Tensor, weight: Tensor, *, bfloat16: bool) -> Tensor:
    """Product of float32 [N, inputs] and float32 [outputs, inputs]: [N, outputs]; `bfloat16` as of `convolution`."""
    with in_bfloat16(bfloat16):
        return F.linear(x, weight)


def _convolution(x: Tensor, weight: Tensor, places: int) -> Tensor:
    height, width = x.shape[2:]
    if x.device.type != "cpu" or height * width > places:
        return F.conv2d(x, weight, padding=1)
    if height * width == 1:  # all but the middle of a kernel lies outside
        return F.linear(x.flatten(1), weight[:, :, 1, 1])[:, :, None, None]
    rows = weight.permute(2, 3, 1, 0).flatten(0, 2)  # [9 * inputs, outputs], in the order of columns: taps, then inputs
    images = max(1, COLUMNS // (4 * height * width * len(rows)))
    result = torch.empty(len(x), height, width, len(weight))
    for part, sums in zip(x.split(images), result.split(images), strict=True):
        torch.mm(columns(part), rows, out=sums.flatten(0, 2))
    return result.permute(0, 3, 1, 2)
