"""Engine `integer`: the same spikes as the definition, for every member of the family, in any blocks and groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_checks import MEMBERS, assert_equal, biased, member, reference, run, signed
from hypothesis import given, settings
from hypothesis import strategies as st
from networks_for_tests import VGG15, images, spiking
from torch import Tensor

from bsnn.conversion.spiking import SpikingNetwork
from bsnn.engines import integer, onednn, scan
from bsnn.engines.base import Block
from bsnn.engines.integer import IntegerEngine
from bsnn.engines.torch_engine import TorchEngine
from bsnn.errors import EngineError

STEPS = 12


def check(network: SpikingNetwork, batch: Tensor, steps: int = STEPS) -> None:
    found = run(IntegerEngine(network), batch, (steps,))
    expected = reference(network, batch, steps)
    assert int(expected.counts.sum()) > 0
    assert_equal(found, expected)


def batch_of(network: SpikingNetwork, seed: int, count: int) -> Tensor:
    return images(seed, count, network.input_shape[1])


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_member_of_the_family(name: str, seed: int) -> None:
    network = member(name, seed)
    check(network, batch_of(network, seed, 5))


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("seed", [4, 5])
def test_negative_spikes(name: str, seed: int) -> None:
    network = signed(member(name, seed))
    check(network, batch_of(network, seed, 3), 20)


def test_negative_spikes_occur_in_what_the_engine_gives() -> None:
    network = signed(member("average-before", 4))
    found = run(IntegerEngine(network), batch_of(network, 4, 8), (40,))
    assert {-1, 0, 1} == set(found.spikes.unique().tolist())


@pytest.mark.parametrize("name", MEMBERS)
def test_bias_of_channels_and_of_neurons(name: str) -> None:
    network = biased(member(name, 6), 7)
    check(network, batch_of(network, 6, 3))
    check(signed(network), batch_of(network, 6, 2))


def test_some_layers_signed_and_others_not() -> None:
    network = member("average-after", 8)
    layers = [replace(layer, signed=layer.fires and index % 2 == 0) for index, layer in enumerate(network.layers)]
    check(replace(network, layers=tuple(layers)), batch_of(network, 8, 3), 20)


def test_summed_spikes_may_pass_on_without_neurons() -> None:
    network = member("average-after", 9)
    passing = [layer if layer.weight is not None else replace(layer, threshold=None) for layer in network.layers]
    network = replace(network, layers=tuple(passing))
    check(network, batch_of(network, 9, 3))
    check(signed(network), batch_of(network, 9, 3), 20)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 9), st.sampled_from(sorted(MEMBERS)))
def test_any_blocks_and_image_counts(blocks: list[int], count: int, name: str) -> None:
    network = member(name, 10)
    batch = batch_of(network, 11, count)
    assert_equal(run(IntegerEngine(network), batch, blocks), reference(network, batch, sum(blocks)))


@pytest.mark.parametrize("sums", [1, 3000, 20000])
@pytest.mark.parametrize("chunk", [1, 40])
def test_groups_of_images_and_chunks_of_neurons_change_nothing(
    sums: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = biased(signed(member("average-before", 12)), 13)
    batch = batch_of(network, 12, 7)
    expected = reference(network, batch, 5)
    monkeypatch.setattr(integer, "CACHE", sums)
    monkeypatch.setattr(scan, "CHUNK", chunk)
    assert_equal(run(IntegerEngine(network), batch, (4, 1)), expected)


def test_images_leave_between_blocks() -> None:
    network = signed(member("average-before", 14))
    batch = batch_of(network, 14, 6)
    stay = torch.tensor([1, 2, 5])
    engine = IntegerEngine(network)
    state, _ = engine.advance(engine.start(batch), 4)
    state, after = engine.advance(engine.keep(state, stay), 6)
    whole = reference(network, batch, 10)
    assert_equal(after, Block(whole.spikes[4:, stay], whole.counts[4:, :, stay]))
    assert state.steps == 10


def test_vgg15_on_cifar_shape_equals_engine_torch() -> None:
    network = vgg15(seed=20)
    easy = [replace(layer, threshold=layer.threshold * 0.3) for layer in network.layers]  # type: ignore[operator]
    compare(replace(network, layers=tuple(easy)), images(20, 2, 32), (5, 3))  # so that 8 steps reach the last layer


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(21, 26))
def test_vgg15_on_cifar_shape_equals_engine_torch_for_32_steps(seed: int) -> None:
    compare(vgg15(seed), images(seed, 17, 32), (32,))
    compare(vgg15(seed, initial=0.5), images(seed, 1, 32), (20, 12))


def vgg15(seed: int, initial: float = 0.0) -> SpikingNetwork:
    return spiking(seed, initial=initial, size=32, classes=100, features=VGG15, hidden=[4096])


def compare(network: SpikingNetwork, batch: Tensor, blocks: tuple[int, ...]) -> None:
    expected = run(TorchEngine(network), batch, blocks)
    assert bool((expected.counts.sum((0, 2)) > 0).all())  # every layer fires
    assert_equal(run(IntegerEngine(network), batch, blocks), expected)


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(EngineError, match="real weights"):
        IntegerEngine(spiking(1, binary=False))
    assert "CPU" in str(IntegerEngine.refuses(member("no-pool", 1), torch.device("cuda")))
    network = member("no-pool", 1)
    silent = replace(network, layers=(network.layers[0], replace(network.layers[1], threshold=None)))
    assert "no neurons" in str(IntegerEngine.refuses(silent, torch.device("cpu")))
    pools = (replace(member("average-after", 1).layers[2], threshold=None),) * 4
    piled = replace(network, layers=(*network.layers, *pools))
    assert "byte" in str(IntegerEngine.refuses(piled, torch.device("cpu")))
    assert IntegerEngine.refuses(member("no-pool", 1), torch.device("cpu")) is None


def test_says_what_this_torch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "missing", lambda: "no int8 here")
    with pytest.raises(EngineError, match="no int8 here"):
        IntegerEngine(member("no-pool", 1))


def test_a_block_uses_the_budget_and_never_exceeds_it() -> None:
    network = spiking(1, size=32, features=[64, 64, "P"], hidden=[32])
    first, pooled, hidden = 64 * 32 * 32, 64 * 16 * 16, 32
    for count in (1, 7, 20):
        engine = IntegerEngine(network, memory_mib=32)
        group = min(count, engine._group)
        state = 4 * count * (2 * first + pooled + hidden)  # the current, and a potential for each neuron
        step = group * (first + pooled) + count * (hidden + 3 * 8)
        left = 32 * 2**20 - state - 4 * engine._cache
        assert engine.block(count) == max(1, left // step)
        assert IntegerEngine(network, memory_mib=2**14).block(count) == 2**25 // (group * first)
    assert engine.block(10**6) == 1


def test_counts_of_bytes_add_up_whatever_their_number() -> None:
    for units in (1, 5, 8, 24, 8 * 128 * 3, 8 * 257):
        ones = torch.ones(2, 3, units, dtype=torch.uint8)
        assert integer._count(ones, signed=False).tolist() == [[units] * 3] * 2
        assert integer._count(2 * ones, signed=True).tolist() == [[units] * 3] * 2
        assert integer._count(ones, signed=True).tolist() == [[0] * 3] * 2
