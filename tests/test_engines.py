"""Engines against a plain reference and against each other: equal spikes for every layer, step and image.

The engines that run on a CPU take part, each with every network: one that refuses fails.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache

import engine_checks as checks
import networks_for_tests as networks
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsnn import engines
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines.base import Block
from bsnn.engines.bindsnet_engine import BindsnetEngine
from bsnn.engines.torch_engine import TOLERANCE, TorchEngine
from bsnn.errors import EngineError
from bsnn.simulation.readout import Readout

HERE = ("torch", "bindsnet", "packed")  # on any CPU; `triton` has tests of its own


@cache
def _case(name: str, seed: int, count: int, steps: int) -> tuple[SpikingNetwork, Tensor, Block]:
    network = checks.member(name, seed)
    images = networks.images(seed, count, network.input_shape[-1])
    return network, images, checks.reference(network, images, steps)


def _by_hand(**changes: object) -> SpikingNetwork:
    """One channel whose current is the pixel itself, then two linear neurons."""
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = 1
    first = SpikingLayer("conv1", "conv", (1, 2, 2), kernel, threshold=torch.tensor([1.0]))
    weight = torch.tensor([[1, 1, 1, -1], [1, -1, -1, -1]], dtype=torch.int8)
    second = SpikingLayer("fc1", "linear", (2,), weight, threshold=torch.tensor([2.0, 0.5]))
    layers = (replace(first, **changes), replace(second, **changes))  # type: ignore[arg-type]
    return SpikingNetwork(layers, torch.eye(2, dtype=torch.float64), (1, 2, 2))


PIXELS = torch.tensor([[[[0.5, 0.375], [1.5, -1.0]]]])


@pytest.mark.parametrize("name", HERE)
def test_by_hand(name: str) -> None:
    """Soft reset, firing at equality, at most one spike per step.

    Pixel 0.5 fires at steps 2, 4, 6; 0.375 at 3 (1.125, left 0.125) and 6 (1.25); 1.5 always; -1 never.
    Neuron 0 sums +p0 +p1 +p2, V = 2:   1, 2, 2, 2, 1, 3 -> v 1, 3*, 3*, 3*, 2*, 3* (* fires and loses 2).
    Neuron 1 sums +p0 -p1 -p2, V = 0.5: -1, 0, -2, 0, -1, -1 -> never.
    """
    block = checks.run(engines.create(name, _by_hand()), PIXELS, [6])
    assert block.counts[:, :, 0].tolist() == [[1, 0], [2, 1], [2, 1], [2, 1], [1, 1], [3, 1]]
    assert block.spikes[:, 0].tolist() == [[0, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize("name", HERE)
def test_initial_potential_by_hand(name: str) -> None:
    """Pixel 0.5 from 0.5 fires at steps 1, 3, 5; 0.375 from 0.5 at 2 (1.25, left 0.25) and 4 (1.0); 1.5 always."""
    network = _by_hand()
    first = replace(network.layers[0], initial=torch.tensor([0.5]))
    block = checks.run(engines.create(name, replace(network, layers=(first, network.layers[1]))), PIXELS, [6])
    assert block.counts[:, 0, 0].tolist() == [2, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("name", HERE)
def test_negative_spikes_by_hand(name: str) -> None:
    """A neuron may take back what it has sent.

    Pixels 1, 0.25, 0.25, 0: the first fires at every step, the next two at steps 4 and 8.
    Neuron 0 sums +p0 +p1 +p2, V = 4: 1 1 1 3 1 1 1 3 -> v 1, 2, 3, 6*, 3, 4*, 1, 4*  (* fires and loses 4).
    Neuron 1 sums +p0 -p1 -p2, V = 1: 1 1 1 -1 1 1 1 -1 -> fires three times, then v = -1 <= -V sends -1.
    """
    images = torch.tensor([[[[1.0, 0.25], [0.25, 0.0]]]])
    network = _by_hand(signed=True)
    second = replace(network.layers[1], threshold=torch.tensor([4.0, 1.0]))
    block = checks.run(engines.create(name, replace(network, layers=(network.layers[0], second))), images, [4, 4])
    assert block.spikes[:, 0, 0].tolist() == [0, 0, 0, 1, 0, 1, 0, 1]
    assert block.spikes[:, 0, 1].tolist() == [1, 1, 1, -1, 1, 1, 1, -1]
    assert block.counts[:, 0, 0].tolist() == [1, 1, 1, 3, 1, 1, 1, 3]
    assert block.counts[:, 1, 0].tolist() == [1, 1, 1, 2, 1, 2, 1, 2]  # of either sign


@pytest.mark.parametrize("name", HERE)
def test_nothing_to_take_back(name: str) -> None:
    """However negative a membrane, a neuron that has sent nothing sends nothing."""
    network = _by_hand(signed=True)
    block = checks.run(engines.create(name, network), -10 * torch.ones(1, 1, 2, 2), [6])
    assert not block.counts.any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("member", checks.MEMBERS)
@pytest.mark.parametrize("name", HERE)
def test_equal_to_the_reference(name: str, member: str, seed: int) -> None:
    network, images, expected = _case(member, seed, 3, 10)
    assert expected.counts.sum(2).any(0).all(), "a silent layer would prove nothing"
    checks.assert_equal(checks.run(engines.create(name, network), images, [10]), expected)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("blocks", [[1] * 10, [3, 1, 6], [9, 1]])
def test_any_block_size(name: str, blocks: list[int]) -> None:
    network, images, expected = _case("average-before", 1, 3, 10)
    checks.assert_equal(checks.run(engines.create(name, network), images, blocks), expected)


@pytest.mark.parametrize("count", [1, 2, 5, 17])
@pytest.mark.parametrize("name", HERE)
def test_any_number_of_images(name: str, count: int) -> None:
    """Images together equal the same images of a larger batch: no image sees another."""
    network, images, expected = _case("average-before", 2, 17, 8)
    found = checks.run(engines.create(name, network), images[:count], [8])
    checks.assert_equal(found, Block(expected.spikes[:, :count], expected.counts[:, :, :count]))


@pytest.mark.parametrize("member", ["average-before", "max-after", "half-threshold"])
@pytest.mark.parametrize("name", HERE)
def test_images_that_leave(name: str, member: str) -> None:
    """The rest go on as if they had been alone from the start."""
    network, images, expected = _case(member, 3, 7, 12)
    engine = engines.create(name, network)
    state, before = engine.advance(engine.start(images), 5)
    before = Block(before.spikes.clone(), before.counts.clone())
    staying = torch.tensor([0, 2, 6])
    _, after = engine.advance(engine.keep(state, staying), 7)
    checks.assert_equal(before, Block(expected.spikes[:5], expected.counts[:5]))
    checks.assert_equal(after, Block(expected.spikes[5:, staying], expected.counts[5:, :, staying]))


@pytest.mark.parametrize("name", HERE)
def test_currents_of_each_step_by_hand(name: str) -> None:
    """Every step adds a current of its own, also where a block ends between them; there is none for a fifth.

    Pixel 0.5 with 0.5, 0, -0.5 and 0.5 more: 1*, 0.5, 0.5, 1.5* (* fires and loses 1). Pixel 1.5 always fires.
    Neuron 0 sums 2, 1, 1, 2 - 2, V = 2: 2*, 1, 2*, 0. Neuron 1 sums 0, -1, -1, 0 + 1 -> never.
    """
    network = _by_hand()
    first = replace(network.layers[0], schedule=torch.tensor([[0.5], [0.0], [-0.5], [0.5]]))
    second = replace(network.layers[1], schedule=torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-2.0, 1.0]]))
    engine = engines.create(name, replace(network, layers=(first, second)))
    pixels = torch.tensor([[[[0.5, -9.0], [1.5, -9.0]]]])
    block = checks.run(engine, pixels, [1, 3])
    assert block.counts[:, 0, 0].tolist() == [2, 1, 1, 2]
    assert block.spikes[:, 0, 0].tolist() == [1, 0, 1, 0]
    assert block.spikes[:, 0, 1].tolist() == [0, 0, 0, 0]
    state, _ = engine.advance(engine.start(pixels), 4)
    with pytest.raises(EngineError, match=r"'conv1' has currents for 4 time steps, and step 5"):
        engine.advance(state, 1)


@pytest.mark.parametrize("change", ["signed", "biased", "both", "scheduled", "all"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HERE)
def test_options_of_the_neuron(name: str, seed: int, change: str) -> None:
    network = checks.member("average-before" if seed else "max-before", seed)
    network = checks.biased(network, seed) if change in ("biased", "both", "all") else network
    network = checks.signed(network) if change in ("signed", "both", "all") else network
    network = checks.scheduled(network, seed, 14) if change in ("scheduled", "all") else network
    images = networks.images(seed, 4)
    expected = checks.reference(network, images, 14)
    checks.assert_equal(checks.run(engines.create(name, network), images, [6, 8]), expected)
    assert change in ("biased", "scheduled") or (expected.counts.sum() > expected.spikes.clamp(min=0).sum())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", HERE)
def test_an_engine_starts_afresh(name: str, count: int) -> None:
    """Images that follow find the potentials that the first ones found."""
    network = checks.signed(checks.member("half-threshold", 18))
    batch, engine = networks.images(18, count), engines.create(name, network)
    expected = checks.reference(network, batch, 9)
    for _ in range(2):
        checks.assert_equal(checks.run(engine, batch, [9]), expected)


@pytest.mark.parametrize("name", HERE)
def test_two_simulations_at_once_and_again(name: str) -> None:
    """Simulations of one engine do not share their state; images are left as they are."""
    network, images, expected = _case("average-before", 4, 4, 9)
    before = images.clone()
    engine = engines.create(name, network)
    one, other = engine.start(images), engine.start(images[:2])
    one, first = engine.advance(one, 4)
    first = Block(first.spikes.clone(), first.counts.clone())
    _, small = engine.advance(other, 9)
    checks.assert_equal(small, Block(expected.spikes[:, :2], expected.counts[:, :, :2]))
    _, second = engine.advance(one, 5)
    checks.assert_equal(checks.joined([first, second]), expected)
    checks.assert_equal(checks.run(engine, images, [9]), expected)
    assert torch.equal(images, before)


def test_a_second_simulation_after_bindsnets_reset() -> None:
    """BindsNET's reset zeroes the tensor that its input was given; the state must not be that tensor."""
    network, images, expected = _case("average-before", 0, 3, 10)
    engine = BindsnetEngine(network)
    state, _ = engine.advance(engine.start(images), 4)
    engine.simulator.reset_state_variables()
    _, block = engine.advance(state, 6)
    checks.assert_equal(block, Block(expected.spikes[4:], expected.counts[4:]))


FAST = ("torch", "packed")


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    stages=st.lists(st.tuples(st.integers(2, 9), st.booleans()), min_size=1, max_size=3),
    hidden=st.lists(st.integers(2, 12), max_size=2),
    pool=st.sampled_from(["average", "max"]),
    place=st.sampled_from(["before", "after"]),
    keep_full=st.booleans(),
    initial=st.sampled_from([0.0, 0.5, 0.3]),
    count=st.integers(1, 5),
    blocks=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_random_networks(
    seed: int,
    stages: list[tuple[int, bool]],
    hidden: list[int],
    pool: str,
    place: str,
    keep_full: bool,
    initial: float,
    count: int,
    blocks: list[int],
) -> None:
    """BindsNET equals every other engine on random members of the family, of binary weights and of real ones."""
    features = [item for channels, pooled in stages for item in ([channels, "P"] if pooled else [channels])]
    network = networks.spiking(
        seed, initial=initial, features=features, hidden=hidden, pool=pool, place=place, keep_full=keep_full
    )
    images = networks.images(seed + 1, count)
    expected = checks.run(BindsnetEngine(network), images, [sum(blocks)])
    for name in FAST:
        checks.assert_equal(checks.run(engines.create(name, network), images, blocks), expected)
    real = checks.in_eighths(network, seed)
    expected = checks.run(BindsnetEngine(real), images, [sum(blocks)])
    for name in FAST:
        checks.assert_equal(checks.run(engines.create(name, real), images, blocks), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HERE)
def test_membranes_that_meet_their_thresholds(name: str, seed: int) -> None:
    """With whole thresholds, equality decides often; it must fire, on every engine."""
    network, images = checks.tied(checks.member("average-before", seed)), networks.images(seed, 3)
    expected = checks.reference(network, images, 20)
    checks.assert_equal(checks.run(engines.create(name, network), images, [20]), expected)


def _scaled(network: SpikingNetwork) -> SpikingNetwork:
    """The original's form: all thresholds 1, real weights that carry alpha and lambda."""
    layers = [network.layers[0]]
    for layer in network.layers[1:]:
        scale = layer.threshold.reshape(-1, *[1] * (layer.weight.dim() - 1))  # type: ignore[union-attr]
        one = torch.ones_like(layer.threshold)  # type: ignore[arg-type]
        layers.append(replace(layer, weight=layer.weight / scale, threshold=one))
    return replace(network, layers=tuple(layers))


def test_scaled_weights_are_not_exact() -> None:
    """The contrast: folding alpha and lambda into float32 weights moves spikes on some seed, so equality can fail."""
    differing = []
    for seed in range(5):
        network, images = checks.tied(checks.member("average-before", seed)), networks.images(seed, 8)
        expected = checks.run(TorchEngine(network), images, [20])
        found = checks.run(TorchEngine(_scaled(network)), images, [20])
        differing.append(int((found.counts - expected.counts).abs().sum()))
    assert any(differing)


@pytest.mark.parametrize("module", ["torch_engine", "bindsnet_engine"])
def test_nearly_exact_sums_are_rounded(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library whose convolution is off by 0.001, as Winograd's is, does no harm unless sums are known as direct."""
    network, images = checks.tied(checks.member("average-before", 1)), networks.images(1, 3)
    expected = checks.reference(network, images, 10)
    generator = torch.Generator().manual_seed(0)
    plain = torch.nn.functional.conv2d

    def inexact(*args: object, **options: object) -> Tensor:
        sums = plain(*args, **options)  # type: ignore[arg-type]
        return sums + 1e-3 * (2 * torch.rand(sums.shape, generator=generator) - 1).to(sums.device)

    monkeypatch.setattr("torch.nn.functional.conv2d", inexact)
    monkeypatch.setattr(f"bsnn.engines.{module}.direct_sums", lambda device: True)
    kind = {"torch_engine": TorchEngine, "bindsnet_engine": BindsnetEngine}[module]
    assert not torch.equal(checks.run(kind(network), images, [10]).counts, expected.counts)
    monkeypatch.setattr(f"bsnn.engines.{module}.direct_sums", lambda device: False)
    checks.assert_equal(checks.run(kind(network), images, [10]), expected)


def test_full_precision_within_the_tolerance() -> None:
    """Sums in another order move few spikes: TOLERANCE of a layer's, and no prediction."""
    for seed in range(4):
        network, images = networks.spiking(seed, binary=False), networks.images(seed, 16)
        expected = checks.run(BindsnetEngine(network), images, [60])
        for name, blocks in (("torch", [60]), ("torch", [7] * 8 + [4]), ("packed", [60])):
            found = checks.run(engines.create(name, network), images, blocks)
            moved = (found.counts - expected.counts).abs().sum((0, 2)) / expected.counts.sum((0, 2))
            assert float(moved.max()) <= TOLERANCE
            readings = [Readout(network, 16).advance(block.spikes).predicted for block in (found, expected)]
            assert torch.equal(*readings)
        assert expected.counts.sum((0, 2)).min() > 1000


def test_full_precision_pools() -> None:
    for name in ("average-after", "max-before", "max-after"):
        network = networks.spiking(5, binary=False, **checks.MEMBERS[name])
        images = networks.images(5, 8)
        expected = checks.reference(network, images, 30)
        for engine in FAST:
            found = checks.run(engines.create(engine, network), images, [30])
            moved = (found.counts - expected.counts).abs().sum((0, 2)) / expected.counts.sum((0, 2))
            assert float(moved.max()) <= TOLERANCE


@pytest.mark.parametrize("name", HERE)
def test_blocks_follow_the_memory(name: str) -> None:
    network = checks.member("average-before", 0)
    small, large = (engines.create(name, network, memory_mib=mib) for mib in (1, 64))
    assert 1 <= small.block(10_000) <= small.block(16) <= large.block(16)
    assert small.block(16) < large.block(16)


def test_unknown_engine_is_named_with_the_known_ones() -> None:
    with pytest.raises(EngineError, match=r"'brian'; engines: bindsnet, torch, packed, triton"):
        engines.create("brian", checks.member("average-before", 0))


class _Refusing(TorchEngine):
    name = "refusing"

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        return "it has the wrong colour"


def test_refusal_is_an_error_that_says_why() -> None:
    with pytest.raises(EngineError, match=r"'refusing' cannot run this network on cpu: it has the wrong colour"):
        _Refusing(checks.member("average-before", 0))


def test_auto_takes_the_fast_engine_unless_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    binary, full = checks.member("average-before", 0), networks.spiking(0, binary=False)
    here = "bsnn.engines.torch_engine:TorchEngine"
    monkeypatch.setitem(engines.ENGINES, "packed", here)
    monkeypatch.setitem(engines.ENGINES, "triton", here)
    assert engines.choose(binary, "cpu")[0] == "packed"
    assert engines.choose(binary, "cuda")[0] == "triton"
    name, reason = engines.choose(full, "cpu")
    assert name == "packed"
    assert "those inputs alone that spike" in reason
    assert engines.choose(binary, "meta")[0] == "torch"
    monkeypatch.setitem(engines.ENGINES, "packed", f"{__name__}:_Refusing")
    name, reason = engines.choose(binary, "cpu")
    assert name == "torch"
    assert "wrong colour" in reason


def test_auto_does_without_an_engine_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "triton", "no_such_module_anywhere:TritonEngine")
    name, reason = engines.choose(checks.member("average-before", 0), "cuda")
    assert name == "torch"
    assert "no_such_module_anywhere" in reason
    with pytest.raises(EngineError, match="'triton' cannot be loaded here"):
        engines.create("triton", checks.member("average-before", 0))


def test_auto_runs_what_it_chose() -> None:
    for network in (checks.member("average-before", 0), networks.spiking(0, binary=False)):
        name, reason = engines.choose(network, "cpu")
        assert reason
        assert engines.create(name, network).name == name


def test_naming_engines_imports_none_of_them() -> None:
    code = "import sys, bsnn.engines; sys.exit(any(m in sys.modules for m in ('torch', 'bindsnet', 'triton')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_torch_keeps_to_its_budget() -> None:
    """A step of 4 x 8 x 8 spikes that are read and 8 x 4 x 4 sums in two layouts, beside potentials and the current."""
    network = networks.spiking(0, features=[4, 8, "P"], hidden=[], size=8, classes=3)
    state, step = (256 + 128) + 256, 256 + 2 * 128
    for images in (1, 3):
        engine = engines.create("torch", network, memory_mib=1)
        assert engine.block(images) == (2**18 // images - state) // step
