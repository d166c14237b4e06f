"""Read-out: potentials, predictions and margins by hand; the same bits in any order, batch and block."""

from __future__ import annotations

from dataclasses import replace

import engine_checks as checks
import networks_for_tests as networks
import pytest
import torch
from bindsnet.network.monitors import Monitor
from hypothesis import given, settings
from hypothesis import strategies as st

from bsnn import config
from bsnn.conversion import spiking
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines.bindsnet_engine import build, inputs, labels
from bsnn.errors import EngineError
from bsnn.networks.vgg import plan
from bsnn.simulation.readout import Readout, Skipped, accuracy, decide, on_grid, propagation_delays


def _network(weight: torch.Tensor) -> SpikingNetwork:
    return SpikingNetwork((), weight.double(), (1, 2, 2))


def test_by_hand() -> None:
    """Two images, three steps, two units, three classes."""
    network = _network(torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.25, 0.25]]))
    spikes = torch.tensor([[[0, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 1], [1, 1]]], dtype=torch.int8)
    # image 0: (0,0,0) (1,0,.25) (1,.5,.5); image 1: (0,.5,.25) (0,1,.5) (1,1.5,1)
    reading = Readout(network, 2).advance(spikes)
    assert reading.predicted.tolist() == [[0, 1], [0, 1], [0, 1]]
    expected = [[0.0, 0.25], [0.75 / 2, 0.5 / 2], [0.5 / 3, 0.5 / 3]]
    assert torch.equal(reading.margin, torch.tensor(expected))
    assert reading.predicted.dtype == torch.int16
    assert reading.margin.dtype == torch.float32


def test_negative_spikes_count_back() -> None:
    network = _network(torch.tensor([[0.0], [1.0]]))
    reading = Readout(network, 1).advance(torch.tensor([[[1]], [[-1]], [[4]]], dtype=torch.int8))
    assert reading.predicted.flatten().tolist() == [1, 0, 1]
    assert torch.equal(reading.margin.flatten(), torch.tensor([1.0, 0.0, 4 / 3]))


def test_ties_go_to_the_lowest_class() -> None:
    potential = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0], [3.0, 1.0, 3.0], [-2.0, -1.0, -1.0]]).double()
    predicted, margin = decide(potential)
    assert predicted.tolist() == [0, 1, 0, 1]
    assert margin.tolist() == [0.0] * 4


def test_many_classes_tied() -> None:
    predicted, _ = decide(torch.zeros(3, 1000, dtype=torch.float64))
    assert predicted.tolist() == [0, 0, 0]


def test_a_single_class_has_no_rival() -> None:
    predicted, margin = decide(torch.ones(2, 1, dtype=torch.float64))
    assert predicted.tolist() == [0, 0]
    assert margin.tolist() == [float("inf")] * 2


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), units=st.integers(1, 300), exponent=st.integers(-20, 20))
def test_potentials_are_exact_in_any_order(seed: int, units: int, exponent: int) -> None:
    """Units in another order, images alone, steps one by one: the same bits, equal to integer arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, units, generator=generator).double() * 2.0**exponent
    spikes = torch.randint(-1, 5, (6, 3, units), generator=generator, dtype=torch.int8)
    whole = Readout(_network(weight), 3)
    reading = whole.advance(spikes)
    order = torch.randperm(units, generator=generator)
    other = Readout(_network(weight[:, order]), 3)
    assert torch.equal(other.advance(spikes[:, :, order]).margin, reading.margin)
    assert torch.equal(other.potential, whole.potential)
    alone = Readout(_network(weight), 1)
    parts = [alone.advance(spikes[step : step + 1, 1:2]) for step in range(6)]
    assert torch.equal(torch.cat([part.margin for part in parts])[:, 0], reading.margin[:, 1])
    assert torch.equal(torch.cat([part.predicted for part in parts])[:, 0], reading.predicted[:, 1])
    step = float(on_grid(weight)[on_grid(weight) != 0].abs().min())
    unit = 2.0 ** (torch.tensor(float(weight.abs().max())).frexp().exponent.item() - 24)
    assert step % unit == 0
    integers = (on_grid(weight) / unit).round().long()
    assert torch.equal(whole.potential, (spikes.long().sum(0) @ integers.T).double() * unit)


def test_plain_float64_does_depend_on_the_order() -> None:
    """The contrast: off the grid, permuted sums differ in last bits on some seed."""
    differing = 0
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(7, 300, generator=generator, dtype=torch.float64)
        counts = torch.randint(0, 50, (300,), generator=generator).double()
        order = torch.randperm(300, generator=generator)
        differing += int((weight @ counts != weight[:, order] @ counts[order]).sum())
    assert differing > 0


def test_grid_moves_weights_by_less_than_float32_does() -> None:
    weight = torch.randn(10, 50, generator=torch.Generator().manual_seed(0)).double()
    assert float((on_grid(weight) - weight).abs().max()) <= float(weight.abs().max()) * 2.0**-24
    assert torch.equal(on_grid(on_grid(weight)), on_grid(weight))
    assert torch.equal(on_grid(torch.zeros(2, 3)), torch.zeros(2, 3, dtype=torch.float64))


def test_long_blocks_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network(torch.randn(5, 20, generator=torch.Generator().manual_seed(1)))
    spikes = torch.randint(0, 2, (9, 4, 20), dtype=torch.int8, generator=torch.Generator().manual_seed(2))
    whole = Readout(network, 4).advance(spikes)
    monkeypatch.setattr("bsnn.simulation.readout._CHUNK_VALUES", 2 * 4 * 20)
    chunked = Readout(network, 4).advance(spikes)
    assert torch.equal(whole.predicted, chunked.predicted)
    assert torch.equal(whole.margin, chunked.margin)


def test_images_that_leave() -> None:
    network = _network(torch.randn(5, 20, generator=torch.Generator().manual_seed(1)))
    spikes = torch.randint(0, 2, (8, 4, 20), dtype=torch.int8, generator=torch.Generator().manual_seed(2))
    expected = Readout(network, 4).advance(spikes)
    readout = Readout(network, 4)
    readout.advance(spikes[:3])
    staying = torch.tensor([0, 3])
    readout.keep(staying)
    rest = readout.advance(spikes[3:, staying])
    assert torch.equal(rest.margin, expected.margin[3:, staying])
    assert torch.equal(rest.predicted, expected.predicted[3:, staying])


def test_more_steps_than_are_exact_are_refused() -> None:
    readout = Readout(_network(torch.ones(2, 4096)), 1)
    readout.steps = 2**29 // (4 * 4096) - 1
    readout.advance(torch.ones(1, 1, 4096, dtype=torch.int8))
    with pytest.raises(EngineError, match="4096 units is exact for at most 32768 time steps"):
        readout.advance(torch.ones(1, 1, 4096, dtype=torch.int8))


def test_a_large_bias_leaves_the_weights_as_they_are() -> None:
    """Of a class that is never to win, as is customary."""
    network = _network(torch.randn(5, 20, generator=torch.Generator().manual_seed(1)))
    spikes = torch.randint(0, 2, (8, 4, 20), dtype=torch.int8, generator=torch.Generator().manual_seed(2))
    masked = replace(network, readout_bias=torch.tensor([-1e5, 0.0, 0.0, 0.0, 0.0]))
    without = replace(network, readout=network.readout[1:])
    found = Readout(masked, 4).advance(spikes)
    assert torch.equal(found.predicted, Readout(without, 4).advance(spikes).predicted + 1)
    too_large = replace(network, readout_bias=torch.tensor([-1e9, 0.0, 0.0, 0.0, 0.0]))
    with pytest.raises(EngineError, match=r"bias of up to 1e\+09, is exact for at most 2 time steps.*a smaller bias"):
        Readout(too_large, 4).advance(spikes)


def test_accuracy_at_every_step() -> None:
    predicted = torch.tensor([[0, 1, 1], [2, 2, 0], [1, 1, 1], [0, 0, 3]], dtype=torch.int16)
    assert accuracy(predicted, torch.tensor([1, 2, 1, 3])).tolist() == [0.5, 0.75, 0.75]


def test_delays_of_the_papers_network() -> None:
    """As observed by running the original's code on VGG-15 (average pool before ReLU)."""
    settings_ = config.Network.model_validate({"features": networks.VGG15, "hidden": [4096]})
    # only the structure counts here: shapes and pools of the plan, no weights
    layers = tuple(
        SpikingLayer(layer.name, layer.op, layer.shape, pool=layer.pool, threshold=torch.ones(1))
        for layer in plan(settings_, (3, 32, 32), 100)[:-1]
    )
    found = propagation_delays(SpikingNetwork(layers, torch.zeros(100, 4096), (3, 32, 32)))
    assert found == [1, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20]


@pytest.mark.parametrize("name", ["average-before", "average-after", "max-before", "max-after", "first-layer-pooled"])
def test_delayed_propagation_is_same_step_shifted(name: str) -> None:
    network, images, steps = checks.member(name, 2), networks.images(2, 3), 12
    current = spiking.input_current(network, images)
    firing = [label for label, layer in zip(labels(network), network.layers, strict=True) if layer.fires]
    spikes = {}
    for one_step in (True, False):
        delays = propagation_delays(network)
        time = steps if one_step else steps + delays[-1]
        simulated = build(network)
        for label in firing:
            nodes = simulated.layers[label]
            nodes.set_batch_size(3)
            simulated.add_monitor(Monitor(nodes, ["s"], time=time, batch_size=3), label)
        simulated.batch_size = 3
        for nodes in simulated.layers.values():
            nodes.set_batch_size(3)
        simulated.run(dict.fromkeys(inputs(network), current.clone().expand(time, *current.shape)), time, one_step)
        spikes[one_step] = [simulated.monitors[label].get("s") for label in firing]
    for same, late, delay in zip(spikes[True], spikes[False], delays, strict=False):
        assert same.any()
        assert not late[:delay].any()
        assert torch.equal(late[delay : delay + steps], same)


def test_readout_of_a_network_uses_its_weights() -> None:
    """Equal spikes and twice the weights: the same classes, twice the margins."""
    network = checks.member("average-before", 0)
    spikes = checks.reference(network, networks.images(0, 4), 15).spikes
    once = Readout(network, 4).advance(spikes)
    twice = Readout(replace(network, readout=2 * network.readout), 4).advance(spikes)
    assert torch.equal(once.predicted, twice.predicted)
    assert torch.equal(2 * once.margin, twice.margin)
    assert once.margin.any()


@pytest.mark.parametrize("skipped", [Skipped(0), Skipped(3), Skipped(50), Skipped(4, restarts=True)])
@pytest.mark.parametrize("blocks", [[12], [1, 2, 9], [5, 7]])
def test_skipped_steps_are_as_if_never_sent(skipped, blocks: list[int]) -> None:
    """Against a read-out for every step of its own, that sees the steps that count alone."""
    torch.manual_seed(0)
    network = _network(torch.randn(5, 7))
    spikes = torch.randint(-1, 2, (12, 3, 7), dtype=torch.int8)
    readout = Readout(network, 3, skipped=skipped)
    found = [readout.advance(some) for some in spikes.split(blocks)]
    predicted, margin = (torch.cat([getattr(part, name) for part in found]) for name in ("predicted", "margin"))
    for step in range(1, 13):
        alone = Readout(network, 3).advance(spikes[skipped(step) : step])
        assert torch.equal(predicted[step - 1], alone.predicted[-1])
        assert torch.equal(margin[step - 1], alone.margin[-1])


def test_skipped_steps_of_images_that_leave() -> None:
    torch.manual_seed(1)
    network = _network(torch.randn(5, 7))
    spikes = torch.randint(0, 2, (9, 4, 7), dtype=torch.int8)
    readout, kept = Readout(network, 4, skipped=Skipped(2)), torch.tensor([0, 3])
    readout.advance(spikes[:4])
    readout.keep(kept)
    whole = Readout(network, 4, skipped=Skipped(2)).advance(spikes)
    assert torch.equal(readout.advance(spikes[4:, kept]).margin, whole.margin[4:, kept])
