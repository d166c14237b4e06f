"""Operations of graphs of layers: against the VGG family's own count, convolutions of ones, and numbers by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from engine_checks import MEMBERS, member
from networks_for_tests import trained
from test_graphs_spiking import described, images, spiking
from torch import Tensor, nn

from bsnn.config import Method
from bsnn.conversion import from_graph, method
from bsnn.graphs.reading import from_module
from bsnn.simulation import accounting
from bsnn.simulation.energy import READOUT
from bsnn.simulation.works import works


class Shortcut(nn.Module):
    """4x4 image; a 3x3 convolution of stride 2 with a border; a sum with what it comes from; an average of spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(2, 4, 1, groups=2)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.conv(x) + x)
        x = F.relu(self.grouped(F.avg_pool2d(x, 2)))
        return self.last(x.flatten(1))


def test_a_small_graph_by_hand() -> None:
    torch.manual_seed(0)
    module = Shortcut()
    module.conv.weight.data = torch.where(module.conv.weight >= 0, 0.5, -0.5)
    graph = from_module(module, torch.randn(2, 3, 4, 4))
    network = from_graph.convert(graph, dict.fromkeys(graph.observed, 1.0))
    found = {work.layer: work for work in works(network)}
    # along one axis of 4 places with stride 2 and a border of 1, the two kernels meet 2 and 3 places
    stem, conv, shortcut, pool, grouped, last = found.values()
    assert (stem.kind, stem.dense, stem.source) == ("effective_macs", 2 * 3 * 5 * 5, None)
    # 2x2 places, each reached by all four kernels' middle or border
    assert (conv.layer, conv.kind, conv.dense, conv.source) == ("conv: conv", "effective_binary_acs", 2 * 2 * 4 * 4, 0)
    assert (shortcut.layer, shortcut.kind, shortcut.dense) == ("conv: stem", "effective_acs", 2 * 2 * 2)
    assert (pool.kind, pool.dense, pool.source) == ("effective_binary_acs", 8, 1)
    # each filter has one weight, hence one absolute value
    assert (grouped.kind, grouped.dense, grouped.source) == ("effective_binary_acs", 4, 2)
    assert (last.layer, last.dense, last.source) == (READOUT, 12, 3)
    # 54 float32 weights, 2 thresholds, 2 offsets; 36 signs in 5 bytes, 2 factors, 2 thresholds; 2 factors
    assert [work.footprint for work in (stem, conv, shortcut)] == [4 * 58, 5 + 4 * 4, 4 * 2]
    counts = torch.tensor([[8, 4], [4, 2], [2, 1], [3, 3]])
    operations = accounting.estimated(network, counts)
    assert operations[:, 0].tolist() == [0, 8 * 64 / 8, 8, 4, 2 * 4 / 2, 3 * 12 / 4]


@pytest.mark.parametrize("name", ["resnet", "depthwise", "strided"])
def test_dense_operations_are_products_within_the_map(name: str) -> None:
    network = spiking(described(name), images(8, seed=1))
    shapes = {"(image)": network.input_shape, **{layer.name: layer.shape for layer in network.layers}}
    expected = []
    for layer in network.layers:
        for path in layer.paths:
            ones = torch.ones(1, *shapes[path.source])
            if path.op == "conv":
                weight = torch.ones_like(path.weight, dtype=torch.float32)
                sums = F.conv2d(ones, weight, None, path.stride, path.padding, path.dilation, path.groups)
                expected.append(int(sums.double().sum()))
            elif path.op == "linear":
                expected.append(path.weight.numel())
            elif layer.fires:
                pool = path.pool
                whole = pool and F.avg_pool2d(ones, pool.kernel, pool.stride, pool.padding, divisor_override=1)
                expected.append(int((ones if whole is None else whole).sum()))
    assert [work.dense for work in works(network)[:-1]] == expected


@pytest.mark.parametrize("name", ["average-before", "average-after", "no-pool"])
def test_a_member_of_the_family_counts_the_same_as_a_graph(name: str) -> None:
    chain = member(name, 3)
    source = trained(3, **MEMBERS[name])  # type: ignore[arg-type]
    size = source.input_shape[1]
    graph = from_module(source.module, torch.randn(2, 3, size, size))
    branched = method.convert(graph, dict.fromkeys(graph.observed, 1.0), Method(), 1)
    family = [(work.kind, work.dense) for work in works(chain)]
    assert [(work.kind, work.dense) for work in works(branched)] == family
