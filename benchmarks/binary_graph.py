"""A binary ResNet-20 for 32x32 images on the engines `packed` and `torch`: seconds of both in one run, and their ratio.

    python benchmarks/binary_graph.py [--batch 16] [--steps 32] [--width 16] [--threads 1] [--repeats 3]

Weights are random, thresholds at the 99th percentile of the network's own activations. Seconds are those of the clock
and of the processor (all threads), the best of the repeats; the latter are less moved by other work on the machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from graphs_for_tests import images, spiking
from modules_for_tests import ResNet, binarised, randomised

from bsnn import engines
from bsnn.graphs.reading import from_module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("batch", 16), ("steps", 32), ("width", 16), ("threads", 1), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    graph = from_module(binarised(randomised(ResNet(blocks=3, width=args.width))), images(2, 32))
    network = spiking(graph, images(16, 32, seed=1))
    batch = images(args.batch, 32, seed=2)
    sides = {name: engines.create(name, network) for name in ("packed", "torch")}
    best = {name: (float("inf"), float("inf")) for name in sides}
    counts = {}
    for _ in range(args.repeats):
        for name, engine in sides.items():
            begin = time.perf_counter(), time.process_time()
            _, block = engine.advance(engine.start(batch), args.steps)
            spent = time.perf_counter() - begin[0], time.process_time() - begin[1]
            best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
            counts[name] = block.counts
    assert torch.equal(counts["packed"], counts["torch"]), "spikes differ"
    work = args.batch * args.steps
    rows = [(name, *seconds, work / seconds[0]) for name, seconds in best.items()]
    print(
        tabulate(rows, ("engine", "s", "s of the processor", "images x steps / s"), tablefmt="github", floatfmt=".3f")
    )
    ratios = [slow / fast for slow, fast in zip(best["torch"], best["packed"], strict=True)]
    print(f"torch / packed: {ratios[0]:.2f} by the clock, {ratios[1]:.2f} of the processor's time")


if __name__ == "__main__":
    main()
