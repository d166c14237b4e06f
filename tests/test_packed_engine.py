"""Engine `packed`: the same spikes as the definition, for everything that a network's data can say."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_checks import MEMBERS, assert_equal, biased, member, reference, run, signed
from hypothesis import given, settings
from hypothesis import strategies as st
from networks_for_tests import VGG15, images, spiking
from random_networks import random_images, random_network
from torch import Tensor

from bsnn import engines
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines import packed, packed_layers
from bsnn.engines.base import Block
from bsnn.engines.packed import PackedEngine
from bsnn.engines.packed_lists import ones_of_bytes
from bsnn.engines.torch_engine import TorchEngine
from bsnn.errors import ConversionError, EngineError
from bsnn.simulation.run import run as simulate

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def check(network: SpikingNetwork, batch: Tensor, blocks: tuple[int, ...] = (7, 5)) -> Block:
    expected = reference(network, batch, sum(blocks))
    assert int(expected.counts.sum()) > 0
    found = run(PackedEngine(network), batch, blocks)
    assert_equal(found, expected)
    return found


def batch_of(network: SpikingNetwork, seed: int, count: int) -> Tensor:
    return images(seed, count, network.input_shape[1])


@pytest.mark.parametrize("part", range(10))
def test_a_thousand_random_networks(part: int) -> None:
    """Any layers, channels, odd sizes, pools, signs, biases and potentials; thresholds that sums often meet exactly."""
    sent = 0
    for seed in range(100 * part, 100 * part + 100):
        network, batch = random_network(seed), random_images(seed)
        expected = reference(network, batch, 7)
        blocks = ((7,), (3, 4), (1, 5, 1))[seed % 3]
        try:
            assert_equal(run(PackedEngine(network), batch, blocks), expected)
        except AssertionError as error:
            raise AssertionError(f"random_network({seed}): {error}") from error
        sent += bool(expected.counts[:, -1].any())
    assert sent > 50, "networks that are silent at the end prove little"


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_members_of_the_family_with_every_option(name: str, seed: int) -> None:
    network = member(name, seed)
    batch = batch_of(network, seed, 5)
    check(network, batch)
    check(signed(network), batch, (9, 11))
    check(biased(network, seed), batch)
    check(biased(signed(network), seed), batch[:2])


def test_negative_spikes_occur() -> None:
    network = signed(member("average-before", 4))
    assert {-1, 0, 1} == set(check(network, batch_of(network, 4, 8), (40,)).spikes.unique().tolist())


def test_some_layers_signed_and_others_not() -> None:
    network = member("average-after", 8)
    layers = [replace(layer, signed=layer.fires and index % 2 == 0) for index, layer in enumerate(network.layers)]
    check(replace(network, layers=tuple(layers)), batch_of(network, 8, 3), (20,))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 9), st.sampled_from(sorted(MEMBERS)))
def test_any_blocks_and_image_counts(blocks: list[int], count: int, name: str) -> None:
    network = member(name, 10)
    batch = batch_of(network, 11, count)
    assert_equal(run(PackedEngine(network), batch, blocks), reference(network, batch, sum(blocks)))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_any_number_of_threads(threads: int, count: int) -> None:
    """Images in threads of their own, and threads that share the rows or the channels of one."""
    network = biased(signed(spiking(12, features=[8, 8, "P", 130, 300, "P"], hidden=[400])), 13)
    batch = batch_of(network, 12, count)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(network, batch)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [100, 3000, 20000])
def test_bands_of_rows_and_chunks_of_steps_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_layers, "HELD", size)
    for name in ("average-before", "max-before", "average-after", "odd-channels"):
        network = biased(signed(member(name, 12)), 13)
        check(network, batch_of(network, 12, 3), (10, 1))


def test_images_leave_between_blocks() -> None:
    network = signed(member("average-before", 14))
    batch = batch_of(network, 14, 6)
    stay = torch.tensor([1, 2, 5])
    engine = PackedEngine(network)
    state, _ = engine.advance(engine.start(batch), 4)
    state, after = engine.advance(engine.keep(state, stay), 6)
    whole = reference(network, batch, 10)
    assert_equal(after, Block(whole.spikes[4:, stay], whole.counts[4:, :, stay]))
    assert state.steps == 10


def _all_fire(op: str, inputs: int, outputs: int, size: int, pool: str | None = None) -> SpikingNetwork:
    """A first layer whose neurons all fire at every step, then one whose weights all are +1."""
    first = SpikingLayer(
        "first", "conv", (inputs, size, size), torch.ones(inputs, 1, 3, 3), threshold=torch.ones(inputs)
    )
    shape = (outputs, 1, 3, 3) if op == "linear" else (outputs, inputs, 3, 3)
    weight = torch.ones(shape if op == "conv" else (outputs, inputs * size * size), dtype=torch.int8)
    out = (outputs,) if op == "linear" else (outputs, *[size // (2 if pool else 1)] * 2)
    second = SpikingLayer("second", op, out, weight, pool, torch.full((outputs,), 1000.0))  # type: ignore[arg-type]
    return SpikingNetwork((first, second), torch.zeros(2, second.neurons, dtype=torch.float64), (1, size, size))


@pytest.mark.parametrize(
    ("op", "inputs", "size", "pool"),
    [
        ("conv", 512, 4, "average"),
        ("conv", 900, 4, "average"),
        ("conv", 512, 4, "max"),
        ("linear", 1999, 4, None),
        ("conv", 2050, 4, None),
    ],
)
def test_largest_sums(op: str, inputs: int, size: int, pool: str | None) -> None:
    """All spikes and all weights one: sums far beyond a byte, near the end of 16 bits."""
    network = _all_fire(op, inputs, 3, size, pool)
    network = replace(
        network, layers=(network.layers[0], replace(network.layers[1], threshold=torch.tensor([9e3] * 3)))
    )
    check(network, torch.ones(1, 1, size, size), (3,))
    opposite = replace(network.layers[1], weight=-network.layers[1].weight, initial=torch.full((3,), 9.9e4))  # type: ignore[operator]
    check(replace(network, layers=(network.layers[0], opposite)), torch.ones(1, 1, size, size), (3,))


def test_places_of_the_ones_of_a_byte() -> None:
    places = ones_of_bytes().reshape(256, 8)
    assert places[0b00100101].tolist() == [0, 2, 5, 0, 0, 0, 0, 0]
    assert places[255].tolist() == list(range(8))


def test_vgg15_on_cifar_shape_equals_engine_torch() -> None:
    network = spiking(20, size=32, classes=100, features=VGG15, hidden=[4096])
    easy = [replace(layer, threshold=layer.threshold * 0.3) for layer in network.layers]  # type: ignore[operator]
    network = replace(network, layers=tuple(easy))  # so that 8 steps reach the last layer
    batch = images(20, 3, 32)
    expected = run(TorchEngine(network), batch, (8,))
    assert bool((expected.counts.sum((0, 2)) > 0).all())
    assert_equal(run(PackedEngine(network), batch, (5, 3)), expected)


def test_refuses_what_it_cannot_do() -> None:
    network = member("no-pool", 1)
    bursts = tuple(replace(layer, burst=2) for layer in spiking(1, binary=False).layers)
    with pytest.raises(EngineError, match="sends bursts"):
        PackedEngine(replace(network, layers=bursts))
    assert PackedEngine.refuses(network, CPU) is None
    assert "CPU" in str(PackedEngine.refuses(network, torch.device("cuda")))
    silent = replace(network, layers=(network.layers[0], replace(network.layers[1], threshold=None)))
    assert "no neurons" in str(PackedEngine.refuses(silent, CPU))
    passing = member("average-after", 1)
    summed = [layer if layer.weight is not None else replace(layer, threshold=None) for layer in passing.layers]
    assert "passes on more than spikes" in str(PackedEngine.refuses(replace(passing, layers=tuple(summed)), CPU))
    zero = replace(network.layers[1], weight=torch.zeros_like(network.layers[1].weight))
    assert "other than +-1" in str(PackedEngine.refuses(replace(network, layers=(network.layers[0], zero)), CPU))
    assert "36000 spikes" in str(PackedEngine.refuses(_all_fire("conv", 1000, 3, 4, "average"), CPU))


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ConversionError, match=r"\[3, 9, 9\]"):
        PackedEngine(member("no-pool", 1)).start(images(0, 2, 9))


def test_a_forked_process_has_threads_of_its_own() -> None:
    """An engine that has already run in several threads, used by a process that was forked then."""
    network = member("average-before", 15)
    batch = batch_of(network, 15, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine = PackedEngine(network)
    finally:
        torch.set_num_threads(before)
    expected = run(engine, batch, (6,))
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a process that waits for threads of its parent
        os._exit(0 if torch.equal(run(engine, batch, (6,)).counts, expected.counts) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_image_is_left() -> None:
    network = signed(member("average-before", 16))
    engine = PackedEngine(network)
    state, _ = engine.advance(engine.start(batch_of(network, 16, 2)), 3)
    state, block = engine.advance(engine.keep(state, torch.zeros(0, dtype=torch.int64)), 2)
    assert block.spikes.shape == (2, 0, network.layers[-1].neurons)
    assert block.counts.shape == (2, len(network.firing), 0)


def test_a_block_uses_the_budget_by_its_own_account() -> None:
    network = spiking(1, size=32, features=[64, 64, "P"], hidden=[32])
    largest, state = 64 * 32 * 32 // 8, 4 * (2 * 64 * 32 * 32 + 64 * 16 * 16 + 32)
    both = largest + 64 * 16 * 16 // 8  # spikes of the first layer, and of the one that reads them
    engine = PackedEngine(network, memory_mib=32)
    assert engine._state == state
    work = engine._threads * sum(array.nbytes for array in engine._work(engine._planned(1), 1))
    for count in (1, 7, 20):
        step = engine._threads * both + count * (32 + 3 * 8)
        expected = (32 * 2**20 - count * state - work) // step
        assert engine.block(count) == max(1, min(2**23 // largest, expected))
    assert engine.block(10**6) == 1


def test_large_batches_are_simulated_in_groups() -> None:
    """The driver asks the engine; results do not depend on it."""
    network = member("average-before", 3)
    batch = images(3, 11)
    engine, other = PackedEngine(network), PackedEngine(network)
    other.together = lambda images: 4  # type: ignore[method-assign]
    one, two = simulate(engine, [batch], 12), simulate(other, [batch], 12)
    assert torch.equal(one.predicted, two.predicted)
    assert torch.equal(one.counts, two.counts)
    assert engine.together(10**6) * engine._state <= max(packed.TOGETHER, 2 * engine._threads * engine._state)


def test_auto_takes_it_for_binary_networks() -> None:
    assert engines.choose(member("average-before", 1), "cpu")[0] == "packed"
