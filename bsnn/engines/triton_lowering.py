"""A spiking network as the GPU kernels want it: channels last and padded, each layer one int8 matrix product.

- Spikes are [steps, images, height, width, stored channels], with silent channels up to a multiple of 32.
- Weights are int8 [stored out, side, side, stored in]; a linear layer is a 1 x 1 kernel on a 1 x 1 map.
- A 3x3 convolution and the 2x2 sum after it are one 4x4 convolution of stride 2 with weights of -4..4: exact, and 16
  instead of 36 products for each output and input channel.
- On a map with fewer positions than the kernel has taps most taps lie outside: there a convolution is written out as a
  linear layer (2.25 times fewer products on a map of 2 x 2, 16 times fewer where that is pooled to one position).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines import summed_kernels

UNIT = 32  # channels are padded to a multiple of this: the inner size of an int8 tensor-core instruction


class Map(NamedTuple):
    """Outputs of a layer for one image, as they lie in memory."""

    height: int
    width: int
    channels: int

    @property
    def positions(self) -> int:
        """Places on the map."""
        return self.height * self.width

    @property
    def stored(self) -> int:
        """Channels with the silent ones that fill up to a multiple of UNIT."""
        return -(-self.channels // UNIT) * UNIT

    @property
    def values(self) -> int:
        """Stored values."""
        return self.positions * self.stored

    @property
    def flat(self) -> Map:
        """The same memory as one position."""
        return Map(1, 1, self.values)


@dataclass(frozen=True)
class Lowered:
    """A layer for the kernels. `source` and `target` are what the kernel sees; `result` is what lies in the target."""

    layer: SpikingLayer
    source: Map
    target: Map
    result: Map
    threshold: Tensor | None = None  # float32 [stored channels of target]
    lower: Tensor | None = None  # the same: negative threshold of signed neurons
    initial: Tensor | None = None  # float32 [positions, stored channels of result]
    bias: Tensor | None = None  # float32 [stored channels of target] or [positions, stored channels]
    schedule: Tensor | None = None  # float32 [steps, stored channels of target]
    weight: Tensor | None = None  # int8 [stored out, side, side, stored in]
    side: int = 1
    stride: int = 1
    pad: int = 0

    @property
    def kernel(self) -> str:
        """Name of the kernel that runs the layer."""
        if self.weight is not None:
            return "product_scan"
        return "pool_scan" if self.layer.op == "pool" else "constant_scan"


def lower(network: SpikingNetwork) -> list[Lowered]:
    """Layers of an exact network in order; the first gets its current from outside and has no weights here."""
    first = network.layers[0]
    lowered = [_with_neurons(first, as_map(first), as_map(first), as_map(first))]
    for layer in network.layers[1:]:
        lowered.append(_lowered(layer, lowered[-1].result))
    return lowered


def as_map(layer: SpikingLayer) -> Map:
    """The layer's shape for one image as a map; units of a linear layer are channels."""
    channels, *size = layer.shape
    return Map(size[0], size[1], channels) if size else Map(1, 1, channels)


def channels_last(maps: Tensor, target: Map) -> Tensor:
    """Values [..., channels, height, width] as [..., positions, stored channels], 0 in the silent ones."""
    values = maps.reshape(*maps.shape[: maps.dim() - 3], target.channels, target.positions)
    return F.pad(values.transpose(-1, -2), (0, target.stored - target.channels)).contiguous()


def channels_first(spikes: Tensor, result: Map) -> Tensor:
    """Stored spikes [steps, images, values] in the units' order of the network: [steps, images, neurons]."""
    stored = spikes.unflatten(-1, (result.positions, result.stored))
    return stored[..., : result.channels].transpose(-1, -2).flatten(2)


def _lowered(layer: SpikingLayer, before: Map) -> Lowered:
    result = as_map(layer)
    if layer.op == "pool":
        return _with_neurons(layer, before, result, result)
    if layer.op == "linear":
        weight = _linear_taps(cast(Tensor, layer.weight), before, result)
        return _with_neurons(layer, before.flat, result, result, weight=weight)
    stride = 2 if layer.pool else 1
    taps = convolution_taps(cast(Tensor, layer.weight), summed=layer.pool == "average", stored_in=before.stored)
    taps = F.pad(taps, (0, 0, 0, 0, 0, 0, 0, result.stored - result.channels))
    side = taps.shape[1]
    if before.positions < side * side and layer.pool != "max":  # a maximum needs its windows apart
        written = written_out(taps, before, result, stride)
        return _with_neurons(layer, before.flat, result.flat, result, weight=written)
    return _with_neurons(layer, before, result, result, weight=taps, side=side, stride=stride, pad=1)


def convolution_taps(weight: Tensor, *, summed: bool, stored_in: int) -> Tensor:
    """Weights [out, in, 3, 3] as [out, side, side, stored in]; `summed` joins them with a 2x2 sum (side 4)."""
    if summed:
        weight = summed_kernels.of(weight)
    return F.pad(weight.permute(0, 2, 3, 1), (0, stored_in - weight.shape[1])).contiguous()


def written_out(taps: Tensor, before: Map, result: Map, stride: int) -> Tensor:
    """A convolution with padding 1 as a dense matrix [result.values, 1, 1, before.values], channels last."""
    side = taps.shape[1]
    dense = taps.new_zeros(result.positions, result.stored, before.positions, before.stored)
    for out in range(result.positions):
        for source in range(before.positions):
            # which tap of output place `out` lies at `source`: its window begins one place before out * stride
            y = source // before.width - (out // result.width * stride - 1)
            x = source % before.width - (out % result.width * stride - 1)
            if 0 <= y < side and 0 <= x < side:
                dense[out, :, source] = taps[:, y, x]
    return dense.reshape(result.values, 1, 1, before.values)


def _linear_taps(weight: Tensor, before: Map, result: Map) -> Tensor:
    """Weights [units, channels * positions] as [stored units, 1, 1, positions * stored channels]."""
    # inputs come flattened [channels, positions]; in memory they lie [positions, stored channels]
    last = weight.unflatten(1, (before.channels, before.positions)).transpose(1, 2)
    padded = F.pad(last, (0, before.stored - before.channels, 0, 0, 0, result.stored - result.channels))
    return padded.reshape(result.stored, 1, 1, before.values).contiguous()


def _with_neurons(layer: SpikingLayer, source: Map, target: Map, result: Map, **weights: Tensor | int) -> Lowered:
    threshold = lower = bias = initial = schedule = None
    if layer.threshold is not None:
        # silent channels get the largest threshold, not infinity: 0 * infinity is no number
        fill, silent = torch.finfo(torch.float32).max, (0, result.stored - result.channels)
        # a convolution that is written out has all positions as channels of one, and each needs its threshold
        again = target.stored // result.stored
        threshold = F.pad(layer.threshold, silent, value=fill).repeat(again).contiguous()
        if layer.signed:
            lower = F.pad(layer.negative_threshold, silent, value=-fill).repeat(again).contiguous()
    if layer.bias is not None:
        bias = _of_layer(layer.bias, layer)
        # a bias of neurons [positions, channels] is one of channels where the kernel sees a single position
        if target.positions == 1:
            bias = bias.flatten()
        elif layer.bias.shape != layer.shape:
            bias = bias[0].contiguous()
    if layer.initial is not None:
        initial = _of_layer(layer.initial, layer)
    if layer.schedule is not None:
        schedule = F.pad(layer.schedule, (0, result.stored - result.channels))
        schedule = schedule.repeat(1, target.stored // result.stored).contiguous()
    return Lowered(layer, source, target, result, threshold, lower, initial, bias, schedule, **weights)  # type: ignore[arg-type]


def _of_layer(values: Tensor, layer: SpikingLayer) -> Tensor:
    """Values, one per channel or one per neuron, as [positions, stored channels]."""
    target = as_map(layer)
    full = per_output(values, layer.shape).expand(layer.shape)
    return channels_last(full.reshape(target.channels, target.height, target.width), target)
