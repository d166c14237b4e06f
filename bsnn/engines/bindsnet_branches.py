"""A network whose layers are sums of paths, in BindsNET's own Network.

Every path has nodes of its own that hold its weighted sums (`Conv2dConnection` and `Connection` bring them, where
BindsNET has such connections), and a `TermConnection` that pools and scales them on their way to the neurons. BindsNET
adds up the connections of a layer in the order in which they were added: that of the paths. A path that reads the image
is an `Input` that holds its constant term.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from bindsnet.conversion.nodes import PassThroughNodes
from bindsnet.network import Network
from bindsnet.network.nodes import Input, Nodes
from bindsnet.network.topology import AbstractConnection, Connection, Conv2dConnection
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines.base import direct_sums
from bsnn.engines.bindsnet_nodes import IdentityConnection, IFNodes, WithoutWeights
from bsnn.graphs.description import IMAGE, Path
from bsnn.graphs.forward import pooled, times_scale, unpooled


class TermConnection(WithoutWeights):
    """From a path's weighted sums to its term: rounded where they may be inexact, pooled, scaled."""

    def __init__(self, source: Nodes, target: Nodes, path: Path, *, rounds: bool) -> None:
        super().__init__(source, target)
        self.path = path
        self.rounds = rounds

    def compute(self, s: Tensor) -> Tensor:
        """Current of the target."""
        sums = s.float()
        return times_scale(self.path, pooled(sums.round() if self.rounds else sums, self.path.pool))


class ConvolutionConnection(WithoutWeights):
    """A convolution with groups or dilation, which `Conv2dConnection` has not."""

    def __init__(self, source: Nodes, target: Nodes, path: Path, weight: Tensor) -> None:
        super().__init__(source, target)
        self.path = path
        self.weight = weight

    def compute(self, s: Tensor) -> Tensor:
        """Current of the target."""
        path = self.path
        return F.conv2d(s.float(), self.weight, None, path.stride, path.padding, path.dilation, path.groups)


def labels(network: SpikingNetwork) -> list[str]:
    """Names of all layers in the BindsNET network, whose names must not hold a dot; the number keeps them apart."""
    return [f"{layer.name.replace('.', '_')}_{index}" for index, layer in enumerate(network.layers)]


def inputs(network: SpikingNetwork) -> list[str]:
    """Names of the inputs, one for each path that reads the image, in the order of `image_terms`."""
    found = sum(path.source == IMAGE for layer in network.layers for path in layer.paths)
    return [f"input_{index}" for index in range(found)]


def build(network: SpikingNetwork, device: torch.device) -> Network:
    """BindsNET network, fed with the terms of the paths that read the image at `inputs`."""
    made = Network(learning=False)
    names = dict(zip([layer.name for layer in network.layers], labels(network), strict=True))
    shapes = {layer.name: layer.shape for layer in network.layers}
    images = iter(inputs(network))
    direct = direct_sums(device)
    for layer in network.layers:
        target = _nodes(layer)
        terms: list[tuple[str, AbstractConnection]] = []
        for number, path in enumerate(layer.paths):
            if path.source == IMAGE:
                name = next(images)
                made.add_layer(Input(shape=list(layer.shape)), name)
                terms.append((name, IdentityConnection(made.layers[name], target)))
                continue
            sums = PassThroughNodes(shape=list(_sums_shape(path, shapes[path.source])))
            name = f"{names[layer.name]}_path_{number}"
            source = made.layers[names[path.source]]
            made.add_layer(sums, name)
            made.add_connection(_weights(source, sums, path, device), names[path.source], name)
            terms.append((name, TermConnection(sums, target, path, rounds=path.binary and not direct)))
        made.add_layer(target, names[layer.name])
        for name, connection in terms:
            made.add_connection(connection, name, names[layer.name])
    return made.to(device)


def _nodes(layer: SpikingLayer) -> Nodes:
    if layer.fires:
        return IFNodes(layer, exact_sums=True)
    return PassThroughNodes(shape=list(layer.shape))


def _sums_shape(path: Path, source: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a path's weighted sums for one image, before its pool."""
    return tuple(unpooled(path, torch.zeros(1, *source)).shape[1:])


def _weights(source: Nodes, target: Nodes, path: Path, device: torch.device) -> AbstractConnection:
    if path.weight is None:
        return IdentityConnection(source, target)
    weight = path.weight.to(device).float()
    if path.op == "linear":
        return Connection(source, target, w=weight.T.contiguous())
    if path.groups > 1 or path.dilation != (1, 1):
        return ConvolutionConnection(source, target, path, weight)
    settings: dict[str, Any] = {"kernel_size": tuple(weight.shape[-2:]), "stride": path.stride, "padding": path.padding}
    return Conv2dConnection(source, target, w=weight, **settings)
