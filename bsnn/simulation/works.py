"""Which operations a converted network has: for each layer with weights, what one spike that it receives causes.

Of a network whose layers are sums of paths (bsnn.graphs), each path has its own. A path with weights is as a layer with
weights; an average pool of spikes counts as a binary AC for each window that a spike belongs to, and a spike that comes
by a shortcut as an AC, since it adds a real number. Products of sums with a path's factor belong to the neurons'
own arithmetic, which is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork
from bsnn.graphs.description import IMAGE, Path

Kind = Literal["effective_macs", "effective_acs", "effective_binary_acs"]
READOUT = "readout"


@dataclass(frozen=True)
class Work:
    """Operations of one layer for one image and step."""

    layer: str
    kind: Kind
    source: int | None  # whose spikes it receives, as a place in network.firing; None: the image
    inputs: tuple[int, ...]  # shape of what it receives
    dense: int
    outputs: int  # output channels or units; of a pool, 1: an input has one place to go to
    op: Literal["conv", "linear", "pool"]
    footprint: int  # bytes of weights, thresholds, initial potentials and biases

    @property
    def fan_out(self) -> Tensor:
        """Operations that one spike causes, at each place of the input: int64, broadcasts over `inputs`."""
        if self.op != "conv":
            return torch.tensor(self.outputs)
        height, width = (_reached(size) for size in self.inputs[1:])
        return self.outputs * height[:, None] * width


def _reached(size: int) -> Tensor:
    """How many of the three rows (columns) of a kernel meet each row (column) of a map."""
    place = torch.arange(size)
    return (place > 0).long() + 1 + (place < size - 1).long()


def works(network: SpikingNetwork) -> tuple[Work, ...]:
    """Layers that have operations, from the first to the read-out; of a graph of layers, the paths that have."""
    if network.branched:
        return _of_paths(network)
    found: list[Work] = []
    firing, shape = 0, network.input_shape
    for index, layer in enumerate(network.layers):
        if layer.weight is not None or layer.fires:
            found.append(_work(layer, None if index == 0 else firing - 1, tuple(shape)))
        firing += layer.fires
        shape = cast("tuple[int, int, int]", layer.shape)
    return (*found, _read_out(network, firing - 1))


def _read_out(network: SpikingNetwork, source: int | None) -> Work:
    classes, units = network.readout.shape
    return Work(READOUT, "effective_acs", source, (units,), classes * units, classes, "linear", 4 * classes * units)


def _work(layer: SpikingLayer, source: int | None, inputs: tuple[int, ...]) -> Work:
    binary = layer.weight is None or layer.weight.dtype == torch.int8
    kind: Kind = "effective_macs" if source is None else "effective_binary_acs" if binary else "effective_acs"
    values = int(np.prod(inputs))
    outputs = 1 if layer.weight is None else len(layer.weight)
    dense = outputs * values
    if layer.op == "conv":
        dense = outputs * inputs[0] * (3 * inputs[1] - 2) * (3 * inputs[2] - 2)
    op = cast("Literal['conv', 'linear', 'pool']", layer.op)
    return Work(layer.name, kind, source, inputs, dense, outputs, op, _footprint(layer, binary))


def _footprint(layer: SpikingLayer, binary: bool) -> int:
    weights = 0 if layer.weight is None else layer.weight.numel()
    neurons = (layer.threshold, layer.initial, layer.offset, layer.bias, layer.schedule)
    kept = sum(values.numel() for values in neurons if values is not None and bool(values.any()))
    return (-(-weights // 8) if binary else 4 * weights) + 4 * kept


def _of_paths(network: SpikingNetwork) -> tuple[Work, ...]:
    """Works of a network of sums. A maximum pool of spikes is taken to pass on all of them, as in chains."""
    found: list[Work] = []
    shapes = {IMAGE: tuple(network.input_shape)}
    places: dict[str, int | None] = {IMAGE: None}
    firing = 0
    for layer in network.layers:
        shapes[layer.name] = layer.shape
        if layer.fires:
            found += _path_works(layer, shapes, places)
            places[layer.name] = firing
            firing += 1
        else:
            places[layer.name] = places[layer.paths[0].source]
    return (*found, _read_out(network, places[network.layers[-1].name]))


def _path_works(
    layer: SpikingLayer, shapes: dict[str, tuple[int, ...]], places: dict[str, int | None]
) -> Iterator[Work]:
    own = _footprint(layer, binary=False)  # of the neurons: a sum has no weights but its paths'
    for path in layer.paths:
        inputs, source = shapes[path.source], places[path.source]
        plain = path.binary or (path.weight is None and path.pool is not None)
        kind: Kind = "effective_macs" if source is None else "effective_binary_acs" if plain else "effective_acs"
        outputs = 1 if path.weight is None else len(path.weight)
        name = layer.name if len(layer.paths) == 1 else f"{layer.name}: {path.name}"
        op: Literal["conv", "linear", "pool"] = "pool" if path.op == "identity" else path.op
        yield Work(name, kind, source, inputs, _dense(path, inputs), outputs, op, own + _parameters(path))
        own = 0


def _dense(path: Path, inputs: tuple[int, ...]) -> int:
    """Operations of one image and step, with every input present; zeros beyond the borders are none."""
    if path.op == "linear":
        assert path.weight is not None
        return path.weight.numel()
    if path.op == "conv":
        assert path.weight is not None
        outputs, channels, *kernel = path.weight.shape
        each = zip(inputs[1:], kernel, path.stride, path.padding, path.dilation, strict=True)
        return outputs * channels * math.prod(_met(*axis) for axis in each)
    if path.pool is None:
        return math.prod(inputs)
    pool = path.pool
    windows = zip(inputs[1:], pool.kernel, pool.stride, pool.padding, (1, 1), strict=True)
    return inputs[0] * math.prod(_met(*axis) for axis in windows)


def _met(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Pairs of an output and a place of the kernel that meet a value, along one axis."""
    last = size + 2 * padding - dilation * (kernel - 1)
    starts = torch.arange(-padding, last - padding, stride)
    reached = starts[:, None] + dilation * torch.arange(kernel)
    return int(((reached >= 0) & (reached < size)).sum())


def _parameters(path: Path) -> int:
    """Bytes of a path's weights and factors; signs take a bit each."""
    weights = 0
    if path.weight is not None:
        signs = path.binary and bool((path.weight.abs() == 1).all())
        weights = -(-path.weight.numel() // 8) if signs else path.weight.numel() * path.weight.element_size()
    return weights + (0 if path.scale is None else 4 * path.scale.numel())
