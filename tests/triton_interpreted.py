"""Cases of test_triton_engine.py that need Triton's interpreter: a process of its own, since Triton reads
TRITON_INTERPRET when its kernels are defined. Prints one JSON object: for each case "equal", or what went wrong.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from engine_checks import MEMBERS, assert_equal, biased, joined, member, reference, run, scheduled, signed
from networks_for_tests import images, spiking

from bsnn.conversion.layers import SpikingNetwork
from bsnn.engines.base import Block
from bsnn.engines.torch_engine import TorchEngine
from bsnn.engines.triton_engine import TritonEngine
from bsnn.engines.triton_tiles import Chip

AMPERE = Chip(processors=1, shared=163 * 1024, hopper=False)  # 32 rows
MANY = Chip(processors=10**6, shared=99 * 1024, hopper=False)  # smallest tiles: 16 rows, 32 columns

Case = Callable[[], None]


def eager(network: SpikingNetwork, divisor: float) -> SpikingNetwork:
    """The same network with lower thresholds: deep layers fire within a few steps."""
    layers = []
    for layer in network.layers:
        if layer.threshold is not None:
            lower = None if layer.lower is None else (layer.lower / divisor).clamp(max=-torch.finfo().tiny)
            layer = replace(layer, threshold=layer.threshold / divisor, lower=lower)
        layers.append(layer)
    return replace(network, layers=tuple(layers))


def check(
    network: SpikingNetwork, count: int, blocks: Sequence[int], chip: Chip | None = None, scale: float = 3
) -> Block:
    """Equal to the definition and to engine torch, with thresholds that make all layers fire."""
    network = eager(network, scale)
    batch = images(7, count, network.input_shape[1])
    engine = TritonEngine(network)
    engine.chip = chip or engine.chip
    found = run(engine, batch, blocks)
    assert_equal(found, reference(network, batch, sum(blocks)))
    assert_equal(found, run(TorchEngine(network), batch, [sum(blocks)]))
    assert found.counts.sum(dim=(0, 2)).min() > 0, "a silent layer shows nothing"
    return found


def potentials_on_the_threshold() -> None:
    """Integer thresholds, so that potentials often equal them: a neuron fires at >=."""
    network = member("average-before", 13)
    layers = [replace(layer, threshold=layer.threshold.round().clamp(1)) for layer in network.layers[1:]]  # type: ignore[union-attr]
    check(replace(network, layers=(network.layers[0], *layers)), 2, [5], scale=1)


def images_that_leave() -> None:
    network = member("average-after", 4)
    batch = images(8, 5)
    expected = reference(network, batch, 6)
    engine = TritonEngine(network)
    state, first = engine.advance(engine.start(batch), 3)
    index = torch.tensor([0, 3, 4])
    state, second = engine.advance(engine.keep(state, index), 3)
    assert_equal(first, Block(expected.spikes[:3], expected.counts[:3]))
    assert_equal(second, Block(expected.spikes[3:, index], expected.counts[3:, :, index]))


def no_image_left() -> None:
    network = member("no-pool", 4)
    engine = TritonEngine(network)
    state, _ = engine.advance(engine.start(images(8, 2, 6)), 2)
    _, block = engine.advance(engine.keep(state, torch.tensor([], dtype=torch.int64)), 3)
    assert block.spikes.shape == (3, 0, 32)
    assert block.counts.shape == (3, 3, 0)


def block_sizes() -> None:
    network = signed(member("half-threshold", 5))
    whole = run(TritonEngine(network), images(7, 2), [6])
    for blocks in ([1, 2, 3], [4, 2]):
        engine = TritonEngine(network)
        assert_equal(run(engine, images(7, 2), blocks), whole)


def batches() -> None:
    network = member("average-before", 6)
    batch = images(7, 7)
    whole = run(TritonEngine(network), batch, [4])
    parts = [run(TritonEngine(network), part, [4]) for part in batch.split([1, 4, 2])]
    assert_equal(
        Block(torch.cat([part.spikes for part in parts], 1), torch.cat([part.counts for part in parts], 2)), whole
    )


def small_budget() -> None:
    network = member("average-before", 9)
    engine = TritonEngine(network, memory_mib=1)
    steps = engine.block(64)
    assert steps < engine.block(8), "a larger batch gets shorter blocks"
    batch = images(7, 3)
    state = engine.start(batch)  # the budget also makes the first current image by image
    found = []
    for _ in range(2):
        state, block = engine.advance(state, 3)
        found.append(block)
    assert_equal(joined(found), reference(network, batch, 6))


def wide() -> SpikingNetwork:
    """Several tiles of channels, sums over several chunks, and a 2 x 2 map that is written out as a linear layer."""
    return spiking(11, size=8, features=[8, 40, "P", 72, "P", 136, 96, "P"], hidden=[100, 70])


CASES: dict[str, Case] = {
    **{name: lambda name=name, seed=seed: check(member(name, seed), 3, [5, 1]) for seed, name in enumerate(MEMBERS)},
    **{f"seed {seed}": lambda seed=seed: check(member("average-before", seed), 1, [5]) for seed in (21, 22, 23)},
    **{
        f"{name}, signed, biased": lambda name=name: check(biased(signed(member(name, 3)), 5), 2, [5])
        for name in ("average-before", "average-after", "max-before", "max-after", "no-pool")
    },
    **{
        f"{name}, scheduled": lambda name=name: check(scheduled(biased(signed(member(name, 3)), 5), 6, 6), 2, [4, 2])
        for name in ("average-before", "average-after", "max-before")
    },
    "wide, scheduled": lambda: check(scheduled(wide(), 6, 5), 2, [5]),
    "wide, large tiles": lambda: check(wide(), 2, [5]),
    "wide, small tiles": lambda: check(wide(), 2, [5], MANY),
    "max of currents, other tiles": lambda: check(signed(member("max-before", 12)), 2, [5], AMPERE),
    "potentials on the threshold": potentials_on_the_threshold,
    "images that leave": images_that_leave,
    "no image left": no_image_left,
    "block sizes": block_sizes,
    "batches": batches,
    "small budget": small_budget,
}


def outcome(case: Case) -> str:
    """What became of a case."""
    try:
        case()
    except Exception:
        return traceback.format_exc()
    return "equal"


if __name__ == "__main__":
    torch.set_num_threads(1)
    outcomes = {name: outcome(case) for name, case in CASES.items()}
    json.dump(outcomes, sys.stdout)
    sys.exit(0 if set(outcomes.values()) == {"equal"} else 1)
