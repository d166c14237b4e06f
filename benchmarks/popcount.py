"""How fast this machine counts the ones of `spikes AND weights` on data in its cache: products of bits per second.

Two loops over whole vectors, with the instructions that the CPU has for it; the better one counts.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bsnn.engines import packed_vectors

BYTES = 8192  # of spikes and of weights: both stay in the first-level cache
ROUNDS = 20_000
SUMS = 4  # vectors of sums at once


@intrinsic
def _ones_of_byte(typing: Any, value: Any) -> Any:
    return types.uint8(types.uint8), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


@intrinsic
def _ones_of_both(typing: Any, spikes: Any, weights: Any) -> Any:
    """Sum of the ones of `spikes AND weights`, uint64 arrays of BYTES, by the widest vectors."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        spikes, weights = packed_vectors.arrays(context, builder, signature, arguments)
        kind = packed_vectors.vector(packed_vectors.I64, packed_vectors.width() // 64)
        zero = ir.Constant(kind, [0] * kind.count)
        name = f"llvm.ctpop.v{kind.count}i64"
        ones = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(SUMS)]
        with cgutils.for_range(builder, packed_vectors.constant(BYTES // 8 // kind.count // SUMS)) as loop:
            for number, total in enumerate(sums):
                place = builder.mul(loop.index, packed_vectors.constant(SUMS))
                place = builder.mul(
                    builder.add(place, packed_vectors.constant(number)), packed_vectors.constant(kind.count)
                )
                some = [
                    builder.load(packed_vectors.pointer(builder, array, place, kind), align=8)
                    for array in (spikes, weights)
                ]
                builder.store(builder.add(builder.load(total), builder.call(ones, [builder.and_(*some)])), total)
        whole = builder.add(builder.add(*map(builder.load, sums[:2])), builder.add(*map(builder.load, sums[2:])))
        lanes = [builder.extract_element(whole, packed_vectors.constant(lane)) for lane in range(kind.count)]
        return functools.reduce(builder.add, lanes)

    return types.int64(spikes, weights), generate


@numba.njit(nogil=True)
def _words(spikes: np.ndarray, weights: np.ndarray, rounds: int) -> int:
    """Sums of 64-bit words."""
    total = 0
    for number in range(rounds):
        spikes[number % len(spikes)] ^= np.uint64(1)  # so that no round is taken out of the loop
        total += _ones_of_both(spikes, weights)
    return total


@numba.njit(nogil=True)
def _bytes(spikes: np.ndarray, weights: np.ndarray, rounds: int) -> int:
    """Sums of bytes, 28 at most, then of 16 bits."""
    rows = len(weights) // 256 // 4 * 4
    sums = np.zeros(256, np.int64)
    narrow = np.zeros(256, np.uint8)
    for number in range(rounds):
        spikes[number % len(spikes)] ^= np.uint8(1)
        for row in range(0, rows, 4):
            if row % 28 == 0:
                sums += narrow
                narrow[:] = 0
            a, b, c, d = spikes[row], spikes[row + 1], spikes[row + 2], spikes[row + 3]
            one, two, three, four = (
                weights[256 * row : 256 * (row + 1)],
                weights[256 * (row + 1) : 256 * (row + 2)],
                weights[256 * (row + 2) : 256 * (row + 3)],
                weights[256 * (row + 3) : 256 * (row + 4)],
            )
            for lane in range(256):
                narrow[lane] += (
                    _ones_of_byte(a & one[lane])
                    + _ones_of_byte(b & two[lane])
                    + _ones_of_byte(c & three[lane])
                    + _ones_of_byte(d & four[lane])
                )
    return (sums + narrow).sum()


def rate(threads: int) -> float:
    """Products of two bits, counted, a second in so many threads."""
    return max(_rate(_words, np.uint64, threads), _rate(_bytes, np.uint8, threads))


def _rate(loop: Callable[..., int], kind: type[np.integer], threads: int) -> float:
    generator = np.random.default_rng(0)
    data = [[packed_vectors.aligned(BYTES).view(kind) for _ in range(2)] for _ in range(threads)]
    for array in (array for pair in data for array in pair):
        array.view(np.uint8)[:] = generator.integers(0, 256, BYTES, np.uint8)
    loop(*data[0], 1)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            begin = time.perf_counter()
            list(pool.map(lambda pair: loop(*pair, ROUNDS), data))
            best = min(best, time.perf_counter() - begin)
    return 8.0 * BYTES * ROUNDS * threads / best


if __name__ == "__main__":
    import torch

    for threads in sorted({1, torch.get_num_threads()}):
        words, lanes = (_rate(loop, kind, threads) / 1e9 for loop, kind in ((_words, np.uint64), (_bytes, np.uint8)))
        print(f"{threads} threads: {words:.0f} G/s in words, {lanes:.0f} G/s in bytes")
