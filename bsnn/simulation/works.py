"""Which operations a converted network has: for each path with weights, what one spike that it receives causes.

A layer of the VGG family is one path (SpikingNetwork.sums). An average pool of spikes counts as a binary AC for each
window that a spike belongs to, and a spike that comes by a shortcut as an AC, since it adds a real number. Products of
sums with a path's factor belong to the neurons' own arithmetic, which is not counted. A maximum pool of spikes has no
operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.graphs.description import IMAGE, Path
from bsnn.simulation.energy import READOUT

Kind = Literal["effective_macs", "effective_acs", "effective_binary_acs"]


@dataclass(frozen=True)
class Work:
    """Operations of one path for one image and step."""

    layer: str
    kind: Kind
    source: int | None  # whose spikes it receives, as a place in network.firing; None: the image
    received: str  # name of the layer whose output it receives: that of a maximum pool, where one comes between
    inputs: tuple[int, ...]  # shape of what it receives
    fan_out: Tensor  # operations that one spike causes, at each place of the input: int64, broadcasts over `inputs`
    op: Literal["conv", "linear", "pool"]
    footprint: int  # bytes of weights, thresholds, initial potentials and biases

    @property
    def dense(self) -> int:
        """Operations with every input present; zeros beyond the borders are none."""
        return int(self.fan_out.sum()) * (math.prod(self.inputs) // self.fan_out.numel())


def works(network: SpikingNetwork) -> tuple[Work, ...]:
    """Paths that have operations, from the first to the read-out.

    A maximum pool of spikes is taken to pass on all of them.
    """
    found: list[Work] = []
    shapes = {IMAGE: tuple(network.input_shape)}
    places: dict[str, int | None] = {IMAGE: None}
    # Counts are by layer with neurons; a maximum pool has those of the layer before it.
    firing = 0
    for layer, paths in zip(network.layers, network.sums, strict=True):
        if layer.fires:
            found += _of_layer(layer, paths, shapes, places)
            places[layer.name] = firing
            firing += 1
        else:
            places[layer.name] = places[paths[0].source]
        shapes[layer.name] = layer.shape
    last = network.layers[-1].name
    classes, units = network.readout.shape
    fan_out = torch.tensor(classes)
    return (
        *found,
        Work(READOUT, "effective_acs", places[last], last, (units,), fan_out, "linear", 4 * classes * units),
    )


def _of_layer(
    layer: SpikingLayer, paths: tuple[Path, ...], shapes: dict[str, tuple[int, ...]], places: dict[str, int | None]
) -> Iterator[Work]:
    # What all paths of a layer share is counted with the first of them. Potentials and biases of 0 need no memory.
    neurons = (layer.threshold, layer.initial, layer.offset, layer.bias, layer.schedule)
    own = 4 * sum(values.numel() for values in neurons if values is not None and bool(values.any()))
    for path in paths:
        inputs, source = shapes[path.source], places[path.source]
        plain = path.binary or (path.weight is None and path.pool is not None)
        kind: Kind = "effective_macs" if source is None else "effective_binary_acs" if plain else "effective_acs"
        name = layer.name if len(paths) == 1 else f"{layer.name}: {path.name}"
        op: Literal["conv", "linear", "pool"] = "pool" if path.op == "identity" else path.op
        yield Work(name, kind, source, path.source, inputs, _fan_out(path, inputs), op, own + _parameters(path))
        own = 0


def _fan_out(path: Path, inputs: tuple[int, ...]) -> Tensor:
    """Operations that one value of the input causes: one number, or one for each place of its map."""
    if path.op == "identity" and path.pool is None:
        return torch.tensor(1)
    if path.weight is None:
        assert path.pool is not None
        outputs, kernel, dilation = 1, tuple(path.pool.kernel), (1, 1)
        stride, padding = path.pool.stride, path.pool.padding
    elif path.op == "linear":
        return torch.tensor(len(path.weight))
    else:
        outputs, kernel = len(path.weight) // path.groups, tuple(path.weight.shape[2:])
        stride, padding, dilation = path.stride, path.padding, path.dilation
    axes = zip(inputs[1:], kernel, stride, padding, dilation, strict=True)
    height, width = (_reached(*axis) for axis in axes)  # windows are rectangles: the axes are independent
    return outputs * height[:, None] * width


def _reached(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """How many pairs of an output and a place of the kernel meet each place, along one axis: int64 [size]."""
    # Windows begin at `starts`, as long as the dilated kernel lies within the padded axis; `met` has the place of each
    # of its elements in each window, of which those beyond the borders do not count.
    last = size + 2 * padding - dilation * (kernel - 1)
    starts = torch.arange(-padding, last - padding, stride)
    met = (starts[:, None] + dilation * torch.arange(kernel)).flatten()
    return torch.bincount(met[(met >= 0) & (met < size)], minlength=size)


def _parameters(path: Path) -> int:
    """Bytes of a path's weights and factors; signs take a bit each."""
    weights = 0
    if path.weight is not None:
        weights = -(-path.weight.numel() // 8) if path.signs else path.weight.numel() * path.weight.element_size()
    return weights + (0 if path.scale is None else 4 * path.scale.numel())
