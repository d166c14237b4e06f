"""Where the time of engine `packed` goes: milliseconds and products per second by layer, and the machine's popcount.

    python benchmarks/profile_packed.py [--batch 16] [--steps 32] [--size 32] [--repeats 5]

Products are those of the plain layer, border and silent spikes included: what the engine leaves out makes it faster
than counting them all. One thread, so that layers can be distinguished; each number is the best of the repeats.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import popcount
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from networks_for_tests import VGG15, images, spiking

from bsnn.engines.packed import PackedEngine
from bsnn.engines.packed_run import Run


class Clock(dict[str, float]):
    """Seconds of each layer of one run."""

    def __init__(self) -> None:
        self.method = Run._fire
        clock = self

        def timed(run: Run, stage: Any, *arguments: Any) -> None:
            begin = time.perf_counter()
            clock.method(run, stage, *arguments)
            clock[stage.layer.name] = clock.get(stage.layer.name, 0.0) + time.perf_counter() - begin

        Run._fire = timed  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("batch", 16), ("steps", 32), ("size", 32), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = spiking(0, size=args.size, classes=100, features=VGG15, hidden=[4096])
    batch, engine, clock = images(1, args.batch, args.size), PackedEngine(network), Clock()
    best: dict[str, float] = {}
    whole = float("inf")
    for _ in range(args.repeats):
        clock.clear()
        begin = time.perf_counter()
        _, block = engine.advance(engine.start(batch), args.steps)
        whole = min(whole, time.perf_counter() - begin)
        best = {name: min(seconds, best.get(name, seconds)) for name, seconds in clock.items()}
    ceiling = popcount.rate(1)
    work = args.batch * args.steps
    shares = block.counts.double().mean((0, 2))
    rows, inner = [], [0.0, 0.0]
    for index, layer in enumerate(network.layers):
        products = 0 if index == 0 or layer.weight is None else layer.weight.numel() * work
        if layer.op == "conv" and products:
            source = network.layers[index - 1].shape
            products *= source[1] * source[2]
            inner = [inner[0] + products, inner[1] + best[layer.name]]
        rate = products / best[layer.name] or None
        spikes = float(shares[index]) / layer.neurons
        rows.append((layer.name, spikes, 1e3 * best[layer.name], rate and rate / 1e9, rate and rate / ceiling))
    rows.append(("inner convolutions", None, 1e3 * inner[1], inner[0] / inner[1] / 1e9, inner[0] / inner[1] / ceiling))
    head = ("layer", "spikes a neuron and step", "ms", "G products / s", "of popcount")
    print(tabulate(rows, head, tablefmt="github", floatfmt=(None, ".3f", ".2f", ".0f", ".2f")))
    print(f"{args.batch} images, {args.steps} steps, one thread: {whole:.3f} s, {work / whole:.0f} images x steps / s")
    print(f"popcount of this machine, one thread: {ceiling / 1e9:.0f} G products a second")


if __name__ == "__main__":
    main()
