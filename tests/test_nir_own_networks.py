"""Graphs of layers written as NIR and read back send the same spikes; NIR's own nodes say what the network computes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_checks import assert_equal, run
from modules_for_tests import RandomNet, enlarging, random_images
from test_graphs_spiking import described, images, near, spiking
from torch import Tensor, nn

from bsnn import engines, nir_graph, own
from bsnn.conversion.layers import SpikingNetwork
from bsnn.errors import ArtifactError, ConversionError
from bsnn.graphs.reading import from_module

SWITCHES = [
    {},
    {"initial": 0.5, "signed": True},
    {"initial": 0.5, "signed": True, "negative_threshold": 0.25},
    {"shift": True},
]


def through(network: SpikingNetwork, folder: Path) -> SpikingNetwork:
    nir_graph.write(folder / "network.nir", network)
    return nir_graph.read(folder / "network.nir")


class Wide(nn.Module):
    """Strides, a 5x5 kernel, biases, a branch of two convolutions, and a sum of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 5, stride=2, padding=1)
        self.left, self.right = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(6, 8, 1, 2)
        self.norm = nn.BatchNorm2d(8)
        self.one, self.two = nn.Linear(8 * 2 * 2, 5), nn.Linear(8 * 2 * 2, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(F.avg_pool2d(self.norm(self.left(x)), 2) + F.avg_pool2d(self.right(x), 2)).flatten(1)
        return self.last(F.relu(self.one(x) - 0.5 * self.two(x)))


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("name", ["resnet", "depthwise", "strided, averages"])
def test_the_same_spikes(name: str, switches: dict[str, object], tmp_path: Path) -> None:
    network = spiking(described(name), images(8, seed=1), **switches)
    batch = images(4, seed=2)
    found = through(network, tmp_path)
    assert found.exact
    assert [layer.name for layer in found.layers] == [layer.name for layer in network.layers]
    expected = run(engines.create("torch", network), batch, [9])
    assert_equal(run(engines.create("torch", found), batch, [4, 5]), expected)
    assert torch.equal(found.readout, network.readout)
    assert torch.equal(found.readout_bias, network.readout_bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [seed for seed in range(20) if "max" not in RandomNet(seed).stages])
def test_random_graphs(seed: int, tmp_path: Path) -> None:
    module = RandomNet(seed)
    batch = random_images(seed)
    network = spiking(from_module(module, batch), random_images(seed, 6))
    found = through(network, tmp_path)
    assert_equal(run(engines.create("torch", found), batch, [8]), run(engines.create("torch", network), batch, [8]))


def test_tensors_and_shapes_come_back(tmp_path: Path) -> None:
    network = spiking(from_module(Wide().eval(), images(4)), images(4))
    for one, other in zip(through(network, tmp_path).layers, network.layers, strict=True):
        assert torch.equal(one.threshold, other.threshold)  # type: ignore[arg-type]
        assert torch.equal(one.offset, other.offset)  # type: ignore[arg-type]
        assert one.shape == other.shape
        for path, before in zip(one.paths, other.paths, strict=True):
            kept = ("source", "op", "stride", "padding", "dilation", "groups", "binary")
            assert [getattr(path, field) for field in kept] == [getattr(before, field) for field in kept]
            assert torch.equal(path.weight, before.weight)  # type: ignore[arg-type]
            assert (path.scale is None) == (before.scale is None)
            assert path.scale is None or torch.equal(path.scale, before.scale)  # type: ignore[arg-type]


def test_signs_that_were_added_up_come_back_as_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = spiking(from_module(enlarging(), images(2, 8)), images(8, 8))
    found, batch = through(network, tmp_path), images(4, 8, seed=2)
    assert torch.equal(found.layers[1].paths[0].weight, network.layers[1].paths[0].weight.float())  # type: ignore[union-attr, arg-type]
    assert_equal(run(engines.create("torch", found), batch, [9]), run(engines.create("torch", network), batch, [9]))


def test_the_order_of_a_sum_comes_back(tmp_path: Path) -> None:
    found = through(near(), tmp_path)
    assert run(engines.create("torch", found), torch.ones(1, 1), [2]).counts[:, 1, 0].tolist() == [0, 1]


class Misleading(nn.Module):
    """Weights in a module named as the node of a path's factors, and full-precision weights of +-1."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"affine": nn.Linear(4, 4)})
        self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        signs = torch.tensor([[1.0, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, 1], [1, 1, 1, -1]])
        self.second.weight.data = signs

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.second(F.relu(self.block["affine"](x)))))


def test_a_map_is_what_the_file_says_and_not_what_it_looks_like(tmp_path: Path) -> None:
    batch = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    network = spiking(from_module(Misleading().eval(), batch), batch)
    assert network.layers[0].paths[0].name == "block.affine"
    of_floats = replace(network.layers[1].paths[0], weight=network.layers[1].paths[0].weight.float())  # type: ignore[union-attr]
    network = replace(network, layers=(network.layers[0], replace(network.layers[1], paths=(of_floats,))))
    for one, other in zip(through(network, tmp_path).layers, network.layers, strict=True):
        assert torch.equal(one.paths[0].weight, other.paths[0].weight)  # type: ignore[arg-type]
        assert one.paths[0].binary == other.paths[0].binary
        assert not one.paths[0].binary


def test_maps_that_were_changed_are_refused(tmp_path: Path) -> None:
    for holds, change in (("signs", lambda weight: 0.9 * weight), ("factors", lambda weight: weight + 1)):
        graph = nir_graph.graph(spiking(described("resnet"), images(8, seed=1)))
        maps = [node for node in graph.nodes.values() if not isinstance(node, nir.IF)]
        node = next(node for node in maps if node.metadata.get("bsnn", {}) == {"holds": holds})
        node.weight = change(node.weight)
        nir.write(tmp_path / "network.nir", graph)
        with pytest.raises(ArtifactError, match="changed since"):
            nir_graph.read(tmp_path / "network.nir")


def test_files_that_do_not_say_what_a_map_holds(tmp_path: Path) -> None:
    network = spiking(described("resnet"), images(8, seed=1))
    graph = nir_graph.graph(network)
    for node in graph.nodes.values():
        if not isinstance(node, nir.IF):
            node.metadata.pop("bsnn", None)
    nir.write(tmp_path / "network.nir", graph)
    expected = run(engines.create("torch", network), images(4, seed=2), [9])
    assert_equal(
        run(engines.create("torch", nir_graph.read(tmp_path / "network.nir")), images(4, seed=2), [9]), expected
    )


def interpreted(graph: nir.NIRGraph, batch: Tensor, steps: int) -> dict[str, int]:
    """Spikes of each IF node by NIR's definitions in float64, with soft reset at the threshold: no metadata is read."""
    before: dict[str, list[str]] = {}
    for one, other in graph.edges:
        before.setdefault(other, []).append(one)
    potential: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for _ in range(steps):
        values: dict[str, Tensor] = {"input": batch.double()}

        def value(name: str, values: dict[str, Tensor] = values) -> Tensor:
            if name not in values:
                x = torch.stack([value(source) for source in before[name]]).sum(0)
                values[name] = _node(name, graph.nodes[name], x, potential, counts)
            return values[name]

        value("output")
    return counts


def _node(name: str, node: nir.NIRNode, x: Tensor, potential: dict[str, Tensor], counts: dict[str, int]) -> Tensor:
    def tensor(given: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(given)).double()

    if isinstance(node, nir.Conv2d):
        pairs = [tuple(map(int, np.broadcast_to(given, 2))) for given in (node.stride, node.padding, node.dilation)]
        return F.conv2d(x, tensor(node.weight), tensor(node.bias), *pairs, int(node.groups))
    if isinstance(node, nir.Affine | nir.Linear):
        return F.linear(x, tensor(node.weight), tensor(node.bias) if isinstance(node, nir.Affine) else None)
    if isinstance(node, nir.SumPool2d):
        pairs = [tuple(map(int, given)) for given in (node.kernel_size, node.stride, node.padding)]
        return F.avg_pool2d(x, *pairs, divisor_override=1)
    if isinstance(node, nir.Scale):
        return x * tensor(node.scale)
    if isinstance(node, nir.Flatten):
        return x.flatten(1)
    if isinstance(node, nir.IF):
        threshold = tensor(node.v_threshold)
        v = potential.get(name, torch.zeros_like(x)) + x
        s = (v >= threshold).double()
        potential[name] = v - s * threshold
        counts[name] = counts.get(name, 0) + int(s.sum())
        return s
    assert isinstance(node, nir.Output), node
    return x


@pytest.mark.parametrize("name", ["resnet", "strided, averages"])
def test_nirs_own_nodes_say_what_the_network_computes(name: str, tmp_path: Path) -> None:
    network = spiking(described(name), images(8, seed=1))
    batch = images(4, seed=2)
    nir_graph.write(tmp_path / "network.nir", network)
    found = interpreted(nir.read(tmp_path / "network.nir", type_check=False), batch, 10)
    expected = run(engines.create("torch", network), batch, [10]).counts.sum((0, 2))
    for layer, count in zip(network.firing, expected.tolist(), strict=True):
        assert found[f"{layer.name}.neurons"] == pytest.approx(count, rel=0.01), layer.name


def test_what_other_simulators_see(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = spiking(described("resnet"), images(4))
    with caplog.at_level(logging.WARNING, logger="bsnn"):
        nir_graph.write(tmp_path / "network.nir", network)
    assert "the order of sums" in caplog.text
    assert "signed" not in caplog.text  # this network has none
    assert "type_check" not in caplog.text
    graph = nir.read(tmp_path / "network.nir")
    assert {("blocks.1.conv2.path0.scale", "blocks.1.conv2.neurons"), ("conv", "conv.neurons")} <= set(graph.edges)
    assert ("blocks.1.conv2.path1.affine", "blocks.1.conv2.neurons") in graph.edges
    assert set(np.unique(graph.nodes["blocks.1.conv1"].weight)) == {-1.0, 1.0}
    assert tuple(graph.nodes["blocks.1.conv1"].stride) == (2, 2)
    assert type(graph.nodes["readout"]).__name__ == "Affine"


def test_nirs_check_is_told_of_where_it_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = spiking(described("depthwise"), images(4))
    with caplog.at_level(logging.WARNING, logger="bsnn"):
        nir_graph.write(tmp_path / "network.nir", network)
    assert "type_check=False" in caplog.text
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(tmp_path / "network.nir")
    assert "blocks.0.0.neurons" in nir.read(tmp_path / "network.nir", type_check=False).nodes


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="maximum pool"):
        nir_graph.graph(spiking(described("strided"), images(4)))
    full = spiking(described("resnet", binary=False), images(4), burst=3)
    with pytest.raises(ConversionError, match="sends bursts"):
        nir_graph.graph(full)
    for name in ("output", "input"):
        named = nn.Sequential(OrderedDict({name: nn.Linear(4, 8), "relu": nn.ReLU(), "last": nn.Linear(8, 2)}))
        batch = torch.rand(4, 4)
        with pytest.raises(ConversionError, match=rf"NIR's node '{name}': rename a module"):
            nir_graph.graph(own.to_spiking(from_module(named, batch), [batch]))
    graph = nir_graph.graph(spiking(described("resnet"), images(4)))
    graph.edges = [edge for edge in graph.edges if edge[1] != "blocks.1.conv1"] + [("blocks.1.conv1",) * 2]
    nir.write(tmp_path / "circle.nir", graph)
    with pytest.raises(ArtifactError, match="runs in a circle"):
        nir_graph.read(tmp_path / "circle.nir")
