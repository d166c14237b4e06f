"""Paths of a network as the kernels of the engine `packed` want them: their geometry, and weights as rows.

A linear layer is a convolution as large as the map that it reads. A 2x2 sum after a 3x3 convolution of few channels is
taken by one row of weights; every other average pool before the neurons is one longer list of spikes. Convolutions in
groups have weights of 0 between their groups, except depthwise ones, which are channelwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines import summed_kernels
from bsnn.engines.packed_rows import bit_rows, dense, float_rows
from bsnn.engines.packed_shapes import CHANNELWISE, LISTED, WEIGHTED, Term
from bsnn.engines.packed_vectors import NEURONS, width
from bsnn.graphs.description import IMAGE, Path, Pool

PARTS = 4  # 2x2 places
ROWS = (128, 256, 512)  # bits of a row of weights
LANES = (32, 64, 128)  # real weights of a row
CACHED = 2**20  # bytes of real weights that are used at once: about half of a second-level cache
MOST_INPUTS = 2**15 - 1  # rows that may be added up for a neuron at once: currents have 16 bits


class Map(NamedTuple):
    """Output of a layer for one image, as its spikes lie in memory; sizes of one step."""

    height: int
    width: int
    channels: int
    planes: int

    @property
    def bytes(self) -> int:
        """Bytes of one place: whole words, so with silent channels."""
        return -(-self.channels // NEURONS) * NEURONS // 8

    @property
    def size(self) -> int:
        """Bytes of all places and signs."""
        return self.height * self.width * self.bytes * self.planes


def maps(network: SpikingNetwork) -> dict[str, Map]:
    """Outputs of all layers, by name."""
    found: dict[str, Map] = {}
    for layer, paths in zip(network.layers, network.sums, strict=True):
        # a pool that passes spikes on has the planes of what it reads
        before = found.get(paths[0].source)
        planes = before.planes if before is not None and not layer.fires else 1 + layer.signed
        height, columns = (*layer.shape[1:], 1, 1)[:2]  # (units,): one place with a channel for each
        found[layer.name] = Map(height, columns, layer.shape[0], planes)
    return found


def _rows_added(path: Path, source: Map) -> int:
    """Rows of weights, or spikes, that may reach a neuron through a path at once."""
    pool = path.pool
    windows = pool.kernel[0] * pool.kernel[1] if pool is not None and pool.kind == "average" else 1
    if path.weight is None:
        return windows
    if path.op == "linear":
        return len(path.weight[0])
    # no more taps than the map has places; planes do not count, since a neuron sends one spike at a time, of either
    # sign
    places = min(path.weight.shape[2], source.height) * min(path.weight.shape[3], source.width)
    return windows * places * (1 if _depthwise(path, source) else source.channels * _halves(path))


def unfit(network: SpikingNetwork) -> str | None:
    """What in a network the kernels have no form for; None when they have."""
    outputs = maps(network)
    for layer, paths in zip(network.layers, network.sums, strict=True):
        if not layer.fires and not _passes(layer, paths):
            return f"layer '{layer.name}' has no neurons and passes on more than spikes (engine 'torch' takes it)"
        for path in paths:
            if path.source == IMAGE:
                continue
            if path.weight is not None and real([path]):
                if not bool(path.weight.isfinite().all()):
                    return f"layer '{layer.name}' has weights that are NaN or infinite"
                if path.groups > 1:
                    return f"'{path.name}' has real weights in groups (engine 'torch' takes it)"
                continue
            if path.weight is not None and not path.signs:
                return f"layer '{layer.name}' has weights other than +-1"
            rows = _rows_added(path, outputs[path.source])
            if rows > MOST_INPUTS:  # S of 2 P - S, which lies within +-S and so in 16 bits
                several = " (each counts twice because of groups)" if path.groups > 1 else ""
                return (
                    f"{rows} spikes{several} may reach a neuron of layer '{layer.name}' at once, and currents have "
                    "16 bits"
                )
    return None


def _passes(layer: SpikingLayer, paths: tuple[Path, ...]) -> bool:
    """Whether a layer is a maximum pool of spikes, and nothing else."""
    first = paths[0]
    plain = len(paths) == 1 and first.source != IMAGE and first.weight is None and first.scale is None
    return plain and first.pool is not None and first.pool.kind == "max" and layer.offset is None


def term_and_weights(
    path: Path, source: Map, target: Map, begin: int, block: int, *, floats: bool
) -> tuple[Term, np.ndarray]:
    """Term of a path that reads spikes which begin at byte `begin`, and its weights, uint8.

    `block`: output channels of one row of weights; `floats`: whether rows are of real weights.
    """
    term = _geometry(path, source, target)._replace(source=begin)
    if path.weight is None or (path.op == "conv" and _depthwise(path, source)):
        # [channels, 1, rows, columns] as a bit for each tap and channel, in the order of the spikes' bits; silent ones
        # keep 0, a weight of -1 that no spike meets
        weight = torch.ones(source.channels, 1, 1, 1) if path.weight is None else path.weight
        bits = np.zeros((term.rows, term.columns, 8 * source.bytes), np.bool_)
        bits[..., : source.channels] = (weight[:, 0] > 0).permute(1, 2, 0).numpy()
        return term._replace(kind=CHANNELWISE), np.packbits(bits, bitorder="little")
    weight = path.weight
    if path.op == "linear":
        weight = weight.unflatten(1, (-1, source.height, source.width))  # [out, in, rows, columns], as of a convolution
    if floats:
        return _weighted(path, term, dense(weight, path.groups).float(), target, block)
    channels, widest = 8 * target.bytes, width()
    # A 4x4 window holds the 3x3 windows of 2x2 places, and is 2 places away from the next one. Its spikes are listed
    # once, in 16 places instead of 4 * 9, and the row of each has its weights for all four.
    if _squares(path, source, channels, widest):
        term = term._replace(rows=4, columns=4, parts=PARTS)
        if path.pool is None:
            # a tile is 2x2 places of the output, and may reach beyond an odd map
            size = {"sums_height": -(-target.height // 2), "sums_width": -(-target.width // 2)}
            term = term._replace(down=2, across=2, side=2, **size)
        else:
            # a tile is one place, and its parts are the pool's windows: `_tiles` adds them up, or takes the largest
            size = {"sums_height": target.height, "sums_width": target.width}
            term = term._replace(down=2, across=2, **size, **_NO_POOL)
    # the narrowest vector that holds them: 40 channels are stored as 64, which take 128 bits, or 256 in four parts
    lanes = next(lanes for lanes in ROWS if lanes >= min(term.parts * channels, widest))
    term = term._replace(kind=LISTED, shift=(lanes // 8).bit_length() - 1, halves=_halves(path))
    return term, bit_rows(dense(weight, path.groups), term, block, lanes)


def real(paths: Iterable[Path]) -> bool:
    """Whether any of a layer's paths multiplies spikes by real weights."""
    return any(path.source != IMAGE and path.weight is not None and path.weight.is_floating_point() for path in paths)


def block_of(channels: int, paths: tuple[Path, ...], outputs: dict[str, Map]) -> int:
    """Output channels of one row of weights; of real ones as many as a cache holds for all inputs of a window."""
    if not real(paths):
        return min(channels, width())
    inputs = max(_inputs(path, outputs[path.source]) for path in paths if path.source != IMAGE)
    return max((lanes for lanes in LANES if lanes <= channels and 4 * lanes * inputs <= CACHED), default=LANES[0])


def _inputs(path: Path, source: Map) -> int:
    """Stored inputs of a window, those for negative spikes counted too."""
    if path.weight is None:
        return 0
    rows, columns = (
        (source.height, source.width)
        if path.op == "linear"
        else (side + summed_kernels.has_one(path) for side in _kernel(path))
    )
    return rows * columns * 8 * source.bytes * source.planes


def _weighted(path: Path, term: Term, weight: Tensor, target: Map, block: int) -> tuple[Term, np.ndarray]:
    """Term of real weights [out, in, rows, columns], and these as rows."""
    if summed_kernels.has_one(path):
        # In float64, and rounded once: a sum of four weights may differ from four products' by a last bit.
        weight = summed_kernels.of(weight.double()).float()
        size = {"sums_height": target.height, "sums_width": target.width}
        term = term._replace(rows=term.rows + 1, columns=term.columns + 1, down=2, across=2, **size, **_NO_POOL)
    term = term._replace(kind=WEIGHTED, shift=(4 * block).bit_length() - 1)
    return term, float_rows(weight, term, block)


_NO_POOL = {"pool_rows": 1, "pool_columns": 1, "pool_top": 0, "pool_left": 0, "pool_down": 1, "pool_across": 1}


def _geometry(path: Path, source: Map, target: Map) -> Term:
    """The window and the pool."""
    term = Term(LISTED, 0, source.height, source.width, source.bytes, source.planes)
    if path.op == "linear":
        # one window as large as the map, and no pool: the defaults of Term
        return term._replace(rows=source.height, columns=source.width)
    kernel = (1, 1) if path.weight is None else cast(tuple[int, int], tuple(path.weight.shape[2:]))
    sizes = zip((source.height, source.width), kernel, path.stride, path.padding, path.dilation, strict=True)
    # windows in each direction, as torch counts them; what is left at the end is not read
    sums = [(size + 2 * padding - gap * (side - 1) - 1) // stride + 1 for size, side, stride, padding, gap in sizes]
    # no pool is a pool of one window, so that the kernels need no case of its own for it
    pool = path.pool or Pool("average", (1, 1), (1, 1))
    return term._replace(
        rows=kernel[0], columns=kernel[1], top=path.padding[0], left=path.padding[1],
        down=path.stride[0], across=path.stride[1], row_gap=path.dilation[0], column_gap=path.dilation[1],
        sums_height=sums[0], sums_width=sums[1],
        pool_rows=pool.kernel[0], pool_columns=pool.kernel[1], pool_top=pool.padding[0], pool_left=pool.padding[1],
        pool_down=pool.stride[0], pool_across=pool.stride[1], largest=int(pool.kind == "max"),
    )  # fmt: skip


def _squares(path: Path, source: Map, channels: int, widest: int) -> bool:
    """Whether a row of weights holds 2x2 places: of few channels, and of the plain 3x3 convolution.

    The spikes of a window of 4x4 places are added up for them at once, which counters of a sum must hold.
    """
    if path.op != "conv" or PARTS * channels > widest or path.groups > 1 or 16 * source.channels > MOST_INPUTS:
        return False
    pool = path.pool
    taken = pool is None or summed_kernels.is_2x2(pool)
    return taken and _kernel(path) == (3, 3) and path.stride == (1, 1) == path.dilation


def _kernel(path: Path) -> tuple[int, ...]:
    return tuple(cast(Tensor, path.weight).shape[2:])


def _depthwise(path: Path, source: Map) -> bool:
    return path.groups == source.channels == len(cast(Tensor, path.weight)) and path.groups > 1


def _halves(path: Path) -> int:
    """Rows of weights for each spike: weights of -1, 0 and 1 need two."""
    return 2 if path.groups > 1 else 1
