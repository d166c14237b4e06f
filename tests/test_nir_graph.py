"""Networks written as NIR, in the former layout too, send the same spikes once read; other graphs are refused."""

import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from engine_checks import MEMBERS, assert_equal, member, run, scheduled, signed
from networks_for_tests import images, spiking

from bsnn import engines, nir_graph
from bsnn.conversion import switches
from bsnn.conversion.layers import SpikingNetwork
from bsnn.errors import ArtifactError, ConversionError

WITHOUT_MAX = [name for name, settings in MEMBERS.items() if settings.get("pool") != "max"]


def through(network: SpikingNetwork, folder: Path) -> SpikingNetwork:
    nir_graph.write(folder / "network.nir", network)
    return nir_graph.read(folder / "network.nir")


def shifted(network: SpikingNetwork) -> SpikingNetwork:
    plain = switches.each_neuron(network, lambda layer: replace(layer, initial=None))
    return switches.with_shift(plain, 8)


@pytest.mark.parametrize("change", [lambda network: network, signed, shifted])
@pytest.mark.parametrize("name", WITHOUT_MAX)
def test_the_same_spikes(name: str, change, tmp_path: Path) -> None:
    network = change(member(name, 2))
    batch = images(3, 5, int(MEMBERS[name].get("size", 8)))
    found = through(network, tmp_path)
    assert found.exact
    assert torch.equal(found.readout, network.readout)
    expected = run(engines.create("torch", network), batch, [9])
    assert_equal(run(engines.create("torch", found), batch, [4, 5]), expected)
    assert_equal(run(engines.create("packed", found), batch, [9]), expected)


def former(network: SpikingNetwork) -> nir.NIRGraph:
    """A member of the family in the former layout: the map of a pooled convolution has a quarter of the bias."""
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(network.input_shape)})}
    shape: tuple[int, ...] = network.input_shape
    for layer in network.layers:
        said = {"reset": "subtract", "fires": "at", "signed": int(layer.signed)}
        bias = torch.zeros(layer.shape[0]) if layer.bias is None else layer.bias
        if layer.initial is not None:
            said["initial"] = layer.initial.numpy()
        if layer.op == "conv":
            weight, share = layer.weight.float().numpy(), (bias / (4 if layer.pool else 1)).numpy()
            nodes[layer.name] = nir.Conv2d(shape[1:], weight, 1, 1, 1, 1, share)
        elif layer.op == "linear":
            if len(shape) > 1:
                nodes[f"{layer.name}.flatten"] = nir.Flatten({"input": np.array(shape)}, 0, -1)
            nodes[layer.name] = nir.Affine(layer.weight.float().numpy(), bias.numpy())
        elif layer.bias is not None:
            said["bias"] = bias.numpy()
        if layer.pool:
            nodes[f"{layer.name}.sum"] = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
        shape = layer.shape
        threshold = layer.threshold.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).numpy().copy()
        nodes[f"{layer.name}.neurons"] = nir.IF(np.ones_like(threshold), threshold, metadata={"bsnn": said})
    nodes |= {"readout": nir.Linear(network.readout.numpy()), "output": nir.Output({"output": np.array([10])})}
    return nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)


@pytest.mark.parametrize("change", [lambda network: network, shifted])
@pytest.mark.parametrize("name", ["average-before", "average-after", "half-threshold"])
def test_files_in_the_former_layout(name: str, change, tmp_path: Path) -> None:
    network = change(member(name, 2))
    nir.write(tmp_path / "network.nir", former(network))
    found = nir_graph.read(tmp_path / "network.nir")
    for one, other in zip(found.layers, network.layers, strict=True):
        assert (one.name, one.op, one.pool, one.shape) == (other.name, other.op, other.pool, other.shape)
        assert (one.bias is None) == (other.bias is None)
        assert one.bias is None or torch.equal(one.bias, other.bias)
    batch = images(3, 5)
    expected = run(engines.create("torch", network), batch, [9])
    assert_equal(run(engines.create("torch", found), batch, [9]), expected)


def test_biases_of_single_neurons(tmp_path: Path) -> None:
    network = spiking(4)
    alone = [replace(layer, bias=torch.rand(layer.shape) / 4) for layer in network.layers]
    network = replace(network, layers=tuple(alone))
    batch = images(3, 5)
    found = run(engines.create("torch", through(network, tmp_path)), batch, [9])
    assert_equal(found, run(engines.create("torch", network), batch, [9]))


def test_potentials_of_single_neurons(tmp_path: Path) -> None:
    network = spiking(4)
    generator = torch.Generator().manual_seed(1)
    charged = switches.each_neuron(
        network, lambda layer: switches.with_charge(layer, torch.randn(layer.shape, generator=generator))
    )
    found = through(charged, tmp_path)
    for one, other in zip(found.layers, charged.layers, strict=True):
        assert torch.equal(one.initial, other.initial)


def test_potentials_of_zero_are_what_any_simulator_begins_with() -> None:
    assert "initial potentials" not in nir_graph.unsaid(switches.with_initial(spiking(0), 0.0))
    assert "initial potentials" in nir_graph.unsaid(switches.with_initial(spiking(0), 0.5))


def test_what_other_simulators_see(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="bsnn"):
        through(signed(spiking(0)), tmp_path)
    assert "soft reset" in caplog.text
    graph = nir.read(tmp_path / "network.nir")
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    expected = {
        "input": "Input",
        "conv1": "Conv2d",
        "conv1.neurons": "IF",
        "conv2.sum": "SumPool2d",
        "readout": "Linear",
    }
    assert {name: kinds[name] for name in expected} == expected
    assert kinds["fc1.flatten"] == "Flatten"
    assert set(np.unique(graph.nodes["conv2"].weight)) == {-1.0, 1.0}
    assert ("conv1", "conv1.neurons") in graph.edges
    assert graph.nodes["conv2.neurons"].v_threshold.shape == (8, 4, 4)


def test_full_precision_weights_come_back(tmp_path: Path) -> None:
    network = spiking(1, binary=False)
    found = through(network, tmp_path)
    for one, other in zip(found.layers, network.layers, strict=True):
        assert torch.equal(one.weight, other.weight)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="maximum pool"):
        nir_graph.graph(member("max-before", 0))
    with pytest.raises(ConversionError, match="'conv1' gets another current at each step"):
        nir_graph.graph(scheduled(spiking(0), 1, 4))
    with pytest.raises(ArtifactError, match="no such file"):
        nir_graph.read(tmp_path / "absent.nir")
    (tmp_path / "damaged.nir").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="not a NIR graph"):
        nir_graph.read(tmp_path / "damaged.nir")
    ones = np.ones(2)
    parts = {
        "input": nir.Input({"input": np.array([2])}),
        "if": nir.IF(ones, ones),
        "output": nir.Output({"output": np.array([2])}),
    }
    nir.write(tmp_path / "foreign.nir", nir.NIRGraph(parts, [("input", "if"), ("if", "output")]))
    with pytest.raises(ArtifactError, match="not from bsnn"):
        nir_graph.read(tmp_path / "foreign.nir")
