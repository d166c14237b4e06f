"""Spiking networks of described modules for tests, and their spikes by the definition."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from modules_for_tests import Depthwise, ResNet, Strided, binarised, randomised
from torch import Tensor, nn

from bsnn import config
from bsnn.conversion import activations, method
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines.base import Block
from bsnn.graphs.description import IMAGE, Graph, Path
from bsnn.graphs.reading import from_module

MODULES = {
    "resnet": lambda: ResNet(blocks=1, width=4),
    "depthwise": Depthwise,
    "strided": Strided,
    "strided, averages": lambda: Strided(nn.AvgPool2d(3, 2, 1)),
}


def images(count: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def described(name: str, seed: int = 0, *, binary: bool = True) -> Graph:
    torch.manual_seed(seed)
    module = randomised(MODULES[name](), seed)
    return from_module(binarised(module) if binary else module, images(2))


def thetas(graph: Graph, batch: Tensor, percentile: float = 99.0) -> dict[str, float]:
    """Percentiles of the positive activations; 1 for a layer that never has any, and sends nothing."""
    table = activations.collect(graph, lambda: [batch])
    rows = table[(table["population"] == "positive") & (table["percentile"] == percentile)]
    return dict(zip(rows["layer"], rows["value"].fillna(1.0), strict=True))


def spiking(graph: Graph, batch: Tensor, **switches: object) -> SpikingNetwork:
    return method.convert(graph, thetas(graph, batch), config.Method(**switches), 16)  # type: ignore[arg-type]


def reference(network: SpikingNetwork, batch: Tensor, steps: int, order: tuple[int, ...] | None = None) -> Block:
    """The definition, neuron by neuron in NumPy's float32; sums over spikes in float64, where they are exact.

    `order`: another order of the terms of sums of so many (the offset is the last term), for the counter-test.
    """
    potential: dict[str, np.ndarray] = {}
    sent: dict[str, np.ndarray] = {}
    counts, last = [], []
    for step in range(steps):
        outputs: dict[str, Tensor] = {}
        row = []
        for layer in network.layers:
            terms = [_term(path, batch if path.source == IMAGE else outputs[path.source]) for path in layer.paths]
            if layer.offset is not None:
                terms.append(np.broadcast_to(_spread(layer.offset, layer), terms[0].shape))
            if order is not None and len(terms) == len(order):
                terms = [terms[place] for place in order]
            x = terms[0]
            for term in terms[1:]:
                x = (x + term).astype(np.float32)
            if layer.bias is not None:
                x = x + _spread(layer.bias, layer)
            if layer.schedule is not None:
                x = x + _spread(layer.schedule[step], layer)
            if layer.threshold is None:
                outputs[layer.name] = torch.from_numpy(x)
                continue
            threshold = _spread(layer.threshold, layer)
            v = potential.get(layer.name)
            if v is None:
                initial = torch.zeros(1) if layer.initial is None else layer.initial
                v = np.broadcast_to(_spread(initial, layer), x.shape).astype(np.float32)
            v = v + x
            s = (v >= threshold).astype(np.float32)
            total = sent.get(layer.name, np.zeros_like(s))
            if layer.signed:
                s -= (v <= _spread(layer.negative_threshold, layer)) & (total > 0)
            sent[layer.name] = total + s
            potential[layer.name] = v - s * threshold
            outputs[layer.name] = torch.from_numpy(s)
            row.append(np.abs(s).reshape(len(s), -1).sum(1).astype(np.int64))
        counts.append(np.stack(row))
        last.append(outputs[network.layers[-1].name].flatten(1).to(torch.int8))
    return Block(torch.stack(last), torch.from_numpy(np.stack(counts)))


def _spread(values: Tensor, layer: SpikingLayer) -> np.ndarray:
    return per_output(values, layer.shape).numpy()


def _term(path: Path, source: Tensor) -> np.ndarray:
    x = source.double()
    if path.weight is not None and path.op == "linear":
        x = x.flatten(1) @ path.weight.double().T
    elif path.weight is not None:
        x = F.conv2d(x, path.weight.double(), None, path.stride, path.padding, path.dilation, path.groups)
    if path.pool is not None and path.pool.kind == "max":
        x = F.max_pool2d(x, path.pool.kernel, path.pool.stride, path.pool.padding)
    elif path.pool is not None:
        x = F.avg_pool2d(x, path.pool.kernel, path.pool.stride, path.pool.padding, divisor_override=1)
    found = x.numpy().astype(np.float32)
    return found if path.scale is None else found * path.scale.numpy().reshape(-1, *[1] * (found.ndim - 2))


def near() -> SpikingNetwork:
    """One neuron that sends at every step, and one that adds up 1 + 2^-24 + 2^-24 at each, with threshold 1 + 2^-23.

    From the left both small terms are rounded away; added up first they reach the threshold.
    """
    scales = (1.0, 2.0**-24)
    paths = tuple(Path("first", "identity", "first", scale=torch.tensor([scale])) for scale in scales)
    first = SpikingLayer("first", "sum", (1,), threshold=torch.ones(1), paths=(Path(IMAGE, "identity", "image"),))
    threshold, offset = torch.tensor([1 + 2.0**-23]), torch.tensor([2.0**-24])
    second = SpikingLayer("second", "sum", (1,), threshold=threshold, paths=paths, offset=offset)
    return SpikingNetwork((first, second), torch.ones(2, 1, dtype=torch.float64), (1,))  # type: ignore[arg-type]
