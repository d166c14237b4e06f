"""Descriptions as spiking networks: equal spikes on every engine that takes them, and against the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_checks import assert_equal, run
from graphs_for_tests import MODULES, described, images, near, reference, spiking, thetas
from modules_for_tests import RandomNet, ResNet, binarised, random_images, randomised
from torch import nn

from bsnn import config, engines
from bsnn.conversion import activations, from_graph, method
from bsnn.errors import BsnnError, ConversionError, EngineError
from bsnn.graphs.forward import forward
from bsnn.graphs.reading import from_module
from bsnn.simulation.readout import Readout, propagation_delays


@pytest.mark.parametrize("switches", [{}, {"initial": 0.5, "signed": True}, {"shift": True}])
@pytest.mark.parametrize("name", MODULES)
def test_engines_send_equal_spikes_for_binary_graphs(name: str, switches: dict[str, object]) -> None:
    graph = described(name)
    network = spiking(graph, images(8, seed=1), **switches)
    assert network.exact
    batch = images(4, seed=2)
    expected = reference(network, batch, 12)
    for engine in ("torch", "bindsnet", "packed"):
        assert_equal(run(engines.create(engine, network), batch, [5, 7]), expected)
    assert bool((expected.counts.sum((0, 2)) > 0).all())


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_engines_send_equal_spikes_for_random_graphs(count: int) -> None:
    for seed in range(count):
        graph = from_module(binarised(RandomNet(seed)), random_images(seed))
        network = spiking(graph, random_images(seed, 6), initial=0.5 * (seed % 2), signed=seed % 3 == 0)
        batch = random_images(seed, 2)
        expected = reference(network, batch, 8)
        for engine in ("torch", "bindsnet", "packed"):
            assert_equal(run(engines.create(engine, network), batch, [8]), expected)


@pytest.mark.parametrize("name", ["torch", "bindsnet", "packed"])
def test_a_wrong_order_of_the_sum_is_caught(name: str) -> None:
    image = torch.ones(1, 1)
    right, wrong = (reference(near(), image, 2, order) for order in (None, (1, 2, 0)))
    assert right.counts[:, 1, 0].tolist() == [0, 1]
    assert wrong.counts[:, 1, 0].tolist() == [1, 1]
    assert_equal(run(engines.create(name, near()), image, [2]), right)


@pytest.mark.parametrize("name", ["torch", "packed"])
def test_spike_counts_do_not_depend_on_the_batch(name: str) -> None:
    network = spiking(described("resnet"), images(8, seed=1))
    batch = images(5, seed=4)
    engine = engines.create(name, network)
    together = run(engine, batch, [10])
    for index in range(5):
        alone = run(engine, batch[index : index + 1], [10])
        assert torch.equal(alone.counts[:, :, 0], together.counts[:, :, index])


def test_images_may_leave_between_blocks() -> None:
    network = spiking(described("resnet"), images(8, seed=1), signed=True)
    batch = images(4, seed=5)
    whole = run(engines.create("torch", network), batch, [12])
    for name in ("torch", "bindsnet", "packed"):
        engine = engines.create(name, network)
        state, _ = engine.advance(engine.start(batch), 5)
        state, block = engine.advance(engine.keep(state, torch.tensor([1, 3])), 7)
        assert torch.equal(block.counts, whole.counts[5:, :, [1, 3]])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", [name for name in MODULES if name != "strided"])  # a maximum of spikes is biased
def test_rates_come_to_the_activations(name: str, binary: bool) -> None:
    """At the maximum as threshold, mean spikes over many steps are the activations, and potentials the logits."""
    graph = described(name, binary=binary)
    batch = images(4, seed=6)
    network = method.convert(graph, thetas(graph, batch, 100.0), config.Method(initial=0.5), 1)
    engine = engines.create("torch", network)
    steps = 2000
    readout = Readout(network, len(batch))
    state = engine.start(batch)
    for _ in range(10):
        state, block = engine.advance(state, steps // 10)
        readout.advance(block.spikes)
    logits = forward(graph, batch)
    error = (readout.potential / steps - logits).abs().max() / logits.abs().max()
    assert float(error) < 0.02


def test_one_path_is_in_threshold_form_and_keeps_its_signs() -> None:
    graph = described("resnet")
    network = from_graph.convert(graph, dict.fromkeys(graph.observed, 2.0))
    layer = next(layer for layer in network.layers if layer.name == "blocks.0.conv1")
    path, source = layer.paths[0], graph.layer("blocks.0.conv1")
    assert path.scale is None
    assert path.weight is not None
    assert set(path.weight.flatten().tolist()) == {-1, 1}
    scale = source.paths[0].scale
    assert torch.equal(layer.threshold, (2.0 / (scale * 2.0)).float())  # type: ignore[operator, arg-type]
    assert torch.equal(layer.offset, (source.bias / (scale * 2.0)).float())  # type: ignore[operator, arg-type]


@pytest.mark.parametrize("factor", [0.0, 1e-40, 1 / 3e38])
def test_a_channel_whose_batch_norm_is_off_sends_its_shift_alone(factor: float) -> None:
    """Also where float32 does not hold the threshold over the factor, or not the potential."""
    torch.manual_seed(0)
    module = randomised(ResNet(blocks=1, width=4))
    module.bn.running_var[1] = 1
    module.bn.weight.data[1] = factor
    module.bn.bias.data[1] = 0.6
    graph = from_module(module, images(2))
    network = from_graph.convert(graph, dict.fromkeys(graph.observed, 1.0))
    engine = engines.create("torch", network)
    sent = {}
    engine.observe = lambda layer, spikes: sent.setdefault(layer.name, spikes)  # type: ignore[attr-defined]
    engine.advance(engine.start(images(1)), 8)
    assert sent["conv"][:, 0, 1].flatten(1).sum(0).unique().tolist() == [4.0]


def test_the_read_out_has_the_pool_and_the_bias() -> None:
    graph = described("resnet")
    network = from_graph.convert(graph, dict.fromkeys(graph.observed, 3.0))
    last = graph.layers[-1]
    weight = last.paths[0].weight
    assert network.readout.shape == (10, 16 * 4 * 4)
    assert torch.allclose(network.readout[:, ::16], weight.double() * 3 / 16)  # type: ignore[union-attr]
    assert network.readout_bias is last.bias
    silent = torch.zeros(5, 1, network.readout.shape[1], dtype=torch.int8)
    assert Readout(network, 1).advance(silent).predicted.unique().tolist() == [int(last.bias.argmax())]  # type: ignore[union-attr]


def test_activations_are_exact_percentiles_of_the_modules_own() -> None:
    torch.manual_seed(0)
    module = randomised(ResNet(blocks=1, width=4))
    batch = images(6, seed=1)
    table = activations.collect(from_module(module, batch), lambda: batch.split(2))
    with torch.no_grad():
        expected = F.relu(module.bn(module.conv(batch))).double().numpy()
    rows = table[(table["layer"] == "conv") & (table["population"] == "all")]
    found = rows.set_index("percentile")["value"]
    for percentile in (90.0, 99.0, 99.9, 100.0):
        assert found[percentile] == pytest.approx(np.percentile(expected, percentile), rel=1e-5)
    assert int(rows["count"].iloc[0]) == expected.size


def test_what_is_not_for_graphs_yet_is_refused() -> None:
    graph = described("resnet")
    batch = images(4)
    network = spiking(graph, batch)
    with pytest.raises(EngineError, match="a graph of layers"):
        engines.create("triton", network)
    with pytest.raises(ConversionError, match="VGG family so far"):
        propagation_delays(network)
    with pytest.raises(BsnnError, match="has no dropout"):
        activations.collect(graph, lambda: [batch], dropout_seed=1)
    with pytest.raises(ConversionError, match="has no threshold"):
        from_graph.convert(graph, {})
    with pytest.raises(ConversionError, match="bursts are for full-precision"):
        spiking(graph, batch, burst=2)


def test_a_second_pass_runs_on_graphs() -> None:
    network = spiking(described("resnet"), images(8, seed=1), initial=0.5)
    chosen = config.Method(initial=0.5, second_pass="srp")
    engine, _ = method.engine("auto", network, chosen)
    plain = run(engines.create("torch", network), images(2), [20])
    found = run(engine, images(2), [20])
    assert torch.equal(found.counts[: chosen.first_pass], plain.counts[: chosen.first_pass])
    assert not torch.equal(found.counts, plain.counts)


def test_max_pool_of_a_turned_channel_is_of_the_values_as_they_are() -> None:
    """A negative factor of batch norm before a maximum pool: signs are turned, so the maximum is the right one."""
    torch.manual_seed(0)
    conv, norm, tail = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), (nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    module = randomised(nn.Sequential(conv, norm, nn.MaxPool2d(2), *tail))
    module[1].weight.data[:2] = -1
    graph = from_module(module, images(2, 8))
    network = from_graph.convert(graph, dict.fromkeys(graph.observed, 1.0))
    engine = engines.create("torch", network)
    state, _ = engine.advance(engine.start(images(1, 8)), 1)
    with torch.no_grad():
        expected = module[:3](images(1, 8))
    current = state.tensors["current"][0] + network.layers[0].offset[:, None, None]
    amplitude = 1.0 / network.layers[0].threshold[:, None, None]
    assert torch.allclose(current * amplitude, expected, atol=1e-5)


def test_moving_a_network_moves_its_paths() -> None:
    network = spiking(described("resnet"), images(4))
    moved = network.to("meta")
    assert {path.weight.device.type for layer in moved.layers for path in layer.paths if path.weight is not None} == {
        "meta"
    }
    assert replace(network).branched
