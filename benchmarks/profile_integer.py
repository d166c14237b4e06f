"""Where the time of engine `integer` goes: seconds and GOPS of each layer's sums, seconds of its scan over time.

    python benchmarks/profile_integer.py [--batch 16] [--steps 32] [--size 32] [--repeats 5]

The ceiling is the machine's own int8 matrix product, the best of several sizes. Operations are two a
multiply-accumulate: `done` counts those that the engine's form of the layer asks for (a fused pool or a dense product
asks for fewer), `GOPS` is done over time, and `nominal` what the plain 3x3 convolution would have asked for, over the
same time. Each number is the best of the repeats, layer by layer, so that other load on the machine does little harm.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from networks_for_tests import VGG15, images, spiking

from bsnn.conversion.spiking import SpikingLayer
from bsnn.engines.integer import IntegerEngine

PRODUCTS = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 1024, 1024), (4096, 4096, 4096))


def ceiling(repeats: int) -> tuple[float, float]:
    """Best GOPS of int8 (`torch._int_mm`) and of float32 matrix products."""
    best = [0.0, 0.0]
    for rows, inner, columns in PRODUCTS:
        a = torch.randint(0, 2, (rows, inner), dtype=torch.int8)
        b = torch.randint(-1, 2, (inner, columns), dtype=torch.int8)
        operations = 2e-9 * rows * inner * columns
        best[0] = max(best[0], operations / fastest(lambda a=a, b=b: torch._int_mm(a, b), 2 * repeats))
        a, b = a.float(), b.float()
        best[1] = max(best[1], operations / fastest(lambda a=a, b=b: a @ b, repeats))
    return best[0], best[1]


def fastest(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the best run after one to warm up."""
    function()
    return min(timed(function) for _ in range(repeats))


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


class Clock:
    """Sums the time of a method over the calls of one run."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method, self.seconds = method, 0.0

    def __call__(self, *args: Any) -> Any:
        begin = time.perf_counter()
        found = self.method(*args)
        self.seconds += time.perf_counter() - begin
        return found


def nominal(layer: SpikingLayer, source: tuple[int, ...]) -> int:
    """Multiply-accumulates of the plain layer for one image and step, the border counted as if it were inside."""
    if layer.weight is None:
        return 0
    places = prod(source[1:]) if layer.op == "conv" else 1
    return layer.weight.numel() * places


def profile(engine: IntegerEngine, batch: torch.Tensor, steps: int, block: int, repeats: int) -> tuple[list, float]:
    """Rows of layer, sums and scan seconds (best of the repeats), and the best seconds of a whole run."""
    clocks = []
    for stage in engine._stages:
        stage.currents, stage.fire = Clock(stage.currents), Clock(stage.fire)  # type: ignore[method-assign]
        clocks.append((stage.currents, stage.fire))
    best = [[float("inf"), float("inf")] for _ in clocks]
    whole = float("inf")
    for _ in range(repeats):
        for pair in clocks:
            for clock in pair:
                clock.seconds = 0.0
        state = engine.start(batch)
        begin = time.perf_counter()
        for done in range(0, steps, block):
            state, _ = engine.advance(state, min(block, steps - done))
        whole = min(whole, time.perf_counter() - begin)
        best = [
            [min(b, c.seconds) for b, c in zip(old, pair, strict=True)] for old, pair in zip(best, clocks, strict=True)
        ]
    rows = [
        (stage.layer.name, stage.macs, nominal(stage.layer, stage.source) if stage.macs else 0, stage.neurons, *seconds)
        for stage, seconds in zip(engine._stages, best, strict=True)
    ]
    return rows, whole


def table(rows: list, work: int) -> str:
    """Layers with their rates; `work` is images times steps."""
    rows = [*rows, ("all", *(sum(row[i] for row in rows) for i in range(1, 6)))]
    lines = [
        (
            name,
            2e-9 * macs * work,
            1e3 * sums,
            2e-9 * macs * work / sums if sums and macs else None,
            2e-9 * plain * work / sums if sums and macs else None,
            1e3 * scan,
            1e9 * scan / (neurons * work),
        )
        for name, macs, plain, neurons, sums, scan in rows
    ]
    head = ("layer", "done, GOP", "sums, ms", "GOPS", "nominal", "scan, ms", "ns a neuron and step")
    return tabulate(lines, head, tablefmt="github", floatfmt=(None, ".2f", ".2f", ".0f", ".0f", ".2f", ".3f"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("batch", 16), ("steps", 32), ("size", 32), ("classes", 100), ("repeats", 5), ("memory", 2048)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--block", type=int, help="time steps at once; without it the engine's own choice")
    args = parser.parse_args()
    int8, float32 = ceiling(args.repeats)
    print(f"{torch.get_num_threads()} threads; matrix products: int8 {int8:.0f} GOPS, float32 {float32:.0f} GOPS")
    network = spiking(0, size=args.size, classes=args.classes, features=VGG15, hidden=[4096])
    engine = IntegerEngine(network, memory_mib=args.memory)
    block = args.block or min(args.steps, engine.block(args.batch))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, whole = profile(engine, images(1, args.batch, args.size), args.steps, block, args.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work = args.batch * args.steps
    print(table(rows, work))
    done, spent, scan = (sum(row[i] for row in rows) for i in (1, 4, 5))
    rate = 2e-9 * done * work / spent
    print(f"{args.batch} images, {args.steps} steps in blocks of {block}: {whole:.3f} s")
    print(f"{work / whole:.0f} images x steps a second")
    print(f"sums {spent:.3f} s at {rate:.0f} GOPS, {rate / int8:.0%} of the matrix product; scan {scan:.3f} s")
    print(f"peak memory {peak / 1024:.0f} MiB, {(peak - before) / 1024:.0f} MiB above that before the run")


if __name__ == "__main__":
    main()
