"""2x2 average pools as part of the kernel before them.

The sum of four neighbouring outputs of a convolution of stride 1 is one output of a convolution of stride 2, whose
kernel is larger by 1: 16 products in place of 36 for a 3x3 kernel. Its weights are sums of up to four: whole numbers
from -4 to 4 for signs, as exact as these.
"""

from __future__ import annotations

from torch import Tensor

from bsnn.graphs.description import Path, Pool


def has_one(path: Path) -> bool:
    """Whether a path's pool can be part of its kernel; either leaves out an odd last row or column of sums."""
    pool = path.pool
    if pool is None or path.op != "conv" or not path.stride == path.dilation == (1, 1):
        return False
    return pool.kind == "average" and is_2x2(pool)


def is_2x2(pool: Pool) -> bool:
    """Whether a pool's windows are 2x2, side by side."""
    return (pool.kernel, pool.stride, pool.padding) == ((2, 2), (2, 2), (0, 0))


def of(weight: Tensor) -> Tensor:
    """Kernel [out, in, rows + 1, columns + 1] of the sums, with the same padding, of [out, in, rows, columns].

    In the type of the weights, which must hold sums of four.
    """
    rows, columns = weight.shape[2:]
    found = weight.new_zeros(*weight.shape[:2], rows + 1, columns + 1)
    for top, left in ((0, 0), (0, 1), (1, 0), (1, 1)):  # an output of the pool sees the kernel at these places
        found[..., top : top + rows, left : left + columns] += weight
    return found
