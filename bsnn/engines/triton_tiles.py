"""How much of a layer one GPU program of the engine `triton` takes: as much as its registers hold, less if idle.

A large tile re-reads spikes and weights less often; too large a tile leaves processors without a program, or spills
registers. Sums take 4 * rows x columns registers and membranes rows x columns, of 65,536 on a processor.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from bsnn.engines.triton_lowering import Lowered


class Tile(NamedTuple):
    """Work of one program: output positions x channels, input channels a step of the sum, warps, pipeline stages."""

    rows: int
    columns: int
    chunk: int
    warps: int
    stages: int


class Chip(NamedTuple):
    """What the choice of tiles depends on."""

    processors: int  # programs should be at least as many
    shared: int  # bytes of shared memory that one program may use
    hopper: bool  # matrix instructions of four warps and 64 rows, sums in their registers

    @classmethod
    def of(cls, device: torch.device) -> Chip:
        """Chip of a CUDA device; for the interpreter one that asks for large tiles."""
        if device.type != "cuda":
            return cls(1, 2**18, hopper=True)
        from triton.runtime import driver

        index = torch.cuda.current_device() if device.index is None else device.index
        found = driver.active.utils.get_device_properties(index)
        hopper = torch.cuda.get_device_capability(device)[0] == 9
        return cls(found["multiprocessor_count"], found["max_shared_mem"], hopper=hopper)


def tile_for(item: Lowered, images: int, chip: Chip) -> Tile:
    """Tile for a layer."""
    if item.weight is None:  # bound by memory
        return Tile(64, math.gcd(item.target.stored, 64), 0, 4, 1)
    rows, columns = (64, 128) if chip.hopper else (32, 128)
    # with a power of two: the largest one up to it that divides a number of stored channels
    columns = math.gcd(item.target.stored, columns)
    chunk = math.gcd(item.source.stored, 128 if chip.hopper else 64)
    while rows > 16 and programs(item, images, rows, columns) < chip.processors:
        rows //= 2
    while columns > 32 and programs(item, images, rows, columns) < chip.processors:
        columns //= 2
    # on Hopper four warps take up to 128 of the 4 * rows rows of a product; elsewhere a thread has up to 64 sums
    warps = max(4, rows // 8) if chip.hopper else max(4, rows * columns // 512)
    return Tile(rows, columns, chunk, warps, _stages(rows, columns, chunk, chip.shared))


def programs(item: Lowered, images: int, rows: int, columns: int) -> int:
    """Programs that cover a layer of so many images."""
    return -(-images * item.target.positions // rows) * (item.target.stored // columns)


def _stages(rows: int, columns: int, chunk: int, shared: int) -> int:
    """Tiles of spikes and weights in flight, beside what the neurons exchange between threads."""
    spare = 12 * 1024
    # a stage holds int8 tiles of spikes, [4 * rows, chunk], and of weights, [chunk, columns]
    return min(4, max(2, (shared - spare) // ((4 * rows + columns) * chunk)))
