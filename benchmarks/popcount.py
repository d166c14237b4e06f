"""How fast this machine counts the ones of `spikes AND weights` on data in its cache: products of bits per second.

Two loops that the compiler makes vectors of, with the instructions that the CPU has for it; the better one counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

BYTES = 8192  # of spikes and of weights: both stay in the first-level cache
ROUNDS = 20_000


@intrinsic
def _ones(typing: Any, value: Any) -> Any:
    return value(value), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


@intrinsic
def _ones_of_byte(typing: Any, value: Any) -> Any:
    return types.uint8(types.uint8), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


@numba.njit(nogil=True)
def _words(spikes: np.ndarray, weights: np.ndarray, rounds: int) -> int:
    """Sums of 64-bit words."""
    total = 0
    for number in range(rounds):
        spikes[number % len(spikes)] ^= np.uint64(1)  # so that no round is taken out of the loop
        for place in range(len(spikes)):
            total += _ones(spikes[place] & weights[place])
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
    data = [[generator.integers(0, 256, BYTES, np.uint8).view(kind) for _ in range(2)] for _ in range(threads)]
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
