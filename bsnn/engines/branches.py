"""Networks whose layers are sums of paths (bsnn.conversion.from_graph): their currents over blocks of time steps.

The order is part of the result: sum of a path, rounded to the nearest integer where a library may be inexact, pooled,
times its scale; the paths' terms one after another; then the offset. Each product and each sum is rounded to float32 on
its own (no fused multiply-add), which gives the same bits everywhere.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bsnn.conversion.graph_currents import times_scale
from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork
from bsnn.engines.base import direct_sums
from bsnn.graphs.description import IMAGE, Path
from bsnn.graphs.forward import per_channel, pooled, unpooled


def path_term(path: Path, spikes: Tensor, *, binary: bool, direct: bool) -> Tensor:
    """Term of a path for spikes [N, *shape of its source], float32.

    Args:
        path: with weights in float32.
        spikes: float32.
        binary: whether the weights are integers.
        direct: whether sums of integers come out exact here (bsnn.engines.base.direct_sums).
    """
    sums = unpooled(path, spikes)
    if binary and not direct:
        sums = sums.round()
    return times_scale(path, pooled(sums, path.pool))


def total(layer: SpikingLayer, terms: list[Tensor]) -> Tensor:
    """The terms of a layer added up in their order, then the offset: a new tensor [..., *shape]."""
    found = terms[0].clone() if len(terms) == 1 else terms[0] + terms[1]
    for term in terms[2:]:
        found = found + term
    return found if layer.offset is None else found.add_(per_channel(layer.offset, len(layer.shape)))


class Branches:
    """Paths of a network, ready for blocks of time steps.

    Args:
        network: on the device where it is simulated.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        self.paths = [[_ready(path) for path in layer.paths] for layer in network.layers]
        self.binary = [[path.binary for path in layer.paths] for layer in network.layers]
        readers = [(path.source, index) for index, layer in enumerate(network.layers) for path in layer.paths]
        self.last = dict(readers)  # place of each layer's last reader, since later ones replace earlier ones
        self.state = sum(layer.neurons * (3 if layer.signed else 2) for layer in network.layers)
        self.step = sum(layer.neurons for layer in network.layers) + 4 * max(map(self._largest, network.layers))

    @staticmethod
    def _largest(layer: SpikingLayer) -> int:
        """Values of a layer's largest term for one image and step, before its pool."""
        windows = [path.pool.stride[0] * path.pool.stride[1] for path in layer.paths if path.pool is not None]
        return layer.neurons * max([1, *windows])

    def block(self, image: list[Tensor], steps: int) -> BlockOfBranches:
        """A block of steps. `image`: of `image_terms`."""
        return BlockOfBranches(self, image, steps)


class BlockOfBranches:
    """Currents of all layers over one block, in the network's order; outputs are kept until their last reader."""

    def __init__(self, branches: Branches, image: list[Tensor], steps: int) -> None:
        self.branches = branches
        self.image = iter(image)
        self.steps = steps
        self.outputs: dict[str, Tensor] = {}

    def current(self, index: int) -> Tensor:
        """Currents [steps, N, *shape] of a layer, in memory of their own."""
        layer = self.branches.network.layers[index]
        pairs = zip(self.branches.paths[index], self.branches.binary[index], strict=True)
        found = total(layer, [self._term(path, binary) for path, binary in pairs])
        constant = found.dim() == 1 + len(layer.shape)  # all paths read the image
        return found.expand(self.steps, *found.shape).clone() if constant else found

    def _term(self, path: Path, binary: bool) -> Tensor:
        if path.source == IMAGE:
            return next(self.image)
        spikes = self.outputs[path.source]
        direct = direct_sums(spikes.device)
        return path_term(path, spikes.flatten(0, 1), binary=binary, direct=direct).unflatten(0, spikes.shape[:2])

    def keep(self, index: int, output: Tensor) -> None:
        """Remember a layer's spikes [steps, N, *shape] for its readers, and forget those that nobody reads again."""
        self.outputs[self.branches.network.layers[index].name] = output
        for name in [name for name in self.outputs if self.branches.last.get(name, -1) <= index]:
            del self.outputs[name]


def _ready(path: Path) -> Path:
    if path.weight is None:
        return path
    weight = path.weight.float()
    return replace(path, weight=weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight)
