"""A spiking network as the kernels of the engine `packed` want it: channels last and padded, weights as nibbles.

A channel's place is padded to blocks of 128, the last one of 32, 64 or 128; silent channels have no weights and the
largest threshold. A linear layer is a convolution as large as the map that it reads. A 2x2 sum after a convolution is
taken before it, on the spikes: sums of four places are listed once and read by all taps (9 taps instead of 36).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines.packed_kernels import BLOCK, SLICE, Shape

LISTS = 2**18  # bytes of lists and sums at once for one thread: half of a common second-level cache
WEIGHTS = 20_000  # bytes of weights at once: they stay in the first-level cache
STEPS = 8  # steps at once at least, before fewer rows are taken


@dataclass(frozen=True)
class Stage:
    """One layer, made ready. Arrays are flat; `channels` is padded."""

    layer: SpikingLayer
    shape: Shape  # for blocks of one step; `planned` fits it to others
    weights: np.ndarray | None = None  # uint8 [block, tap, group of four inputs, lane]: nibbles
    threshold: np.ndarray | None = None  # float32 [channels]
    bias: np.ndarray | None = None  # float32 [channels] or [positions, channels]
    initial: Tensor | None = None  # float32 [1, positions * channels]
    schedule: np.ndarray | None = None  # float32 [steps * channels]: of all steps that it has currents for

    @property
    def channels(self) -> int:
        """Stored channels of the output."""
        return 8 * self.shape.out_bytes

    @property
    def places(self) -> int:
        """Stored neurons of one image."""
        return self.shape.out_height * self.shape.out_width * self.channels

    @property
    def blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.channels // BLOCK)

    @property
    def bits(self) -> int:
        """Bytes of the output of one image and step."""
        return self.places // 8 * self.shape.out_planes

    def planned(self, steps: int) -> Shape:
        """The shape for blocks of `steps` steps; what is done at once is chosen to stay in the caches."""
        rows = self.shape.out_height
        fixed = min(steps, STEPS)
        if self._bytes(rows) * fixed <= LISTS:
            return self.shape._replace(steps=steps, chunk=min(steps, LISTS // self._bytes(rows)), band=rows)
        band = rows
        while band > 1 and self._bytes(band) * fixed > LISTS:
            band -= 1
        return self.shape._replace(steps=steps, chunk=max(1, min(fixed, LISTS // self._bytes(band))), band=band)

    def lists(self, shape: Shape) -> int:
        """Lists at once."""
        return self._list_rows(shape.band) * self._list_columns * -(-shape.bytes // SLICE) * shape.chunk

    def sums(self, shape: Shape) -> int:
        """Places, windows and steps at once, each with a block of sums."""
        return shape.band * shape.out_width * shape.windows * shape.chunk

    @property
    def room(self) -> int:
        """Most entries of a list."""
        return 2 * min(self.shape.bytes, SLICE) * self.shape.planes

    @property
    def _list_columns(self) -> int:
        return 2 * self.shape.out_width + 1 if self.shape.boxes else self.shape.width

    def _list_rows(self, band: int) -> int:
        shape = self.shape
        all_rows = 2 * shape.out_height + 1 if shape.boxes else shape.height
        return min(all_rows, shape.stride * (band - 1) + shape.rows + (1 if shape.windows > 1 else 0))

    def _bytes(self, band: int) -> int:
        """Bytes of lists and sums for one step."""
        lists = self._list_rows(band) * self._list_columns * -(-self.shape.bytes // SLICE) * self.room
        return 4 * lists + 2 * BLOCK * band * self.shape.out_width * self.shape.windows


def stages(network: SpikingNetwork) -> list[Stage]:
    """Layers of a network in order; the first one gets its current from outside and has no weights here."""
    found: list[Stage] = []
    for layer in network.layers:
        found.append(_stage(layer, found[-1].shape if found else None))
    return found


def stored(channels: int) -> int:
    """Channels with the silent ones."""
    rest = channels % BLOCK
    return channels - rest + next(size for size in (0, 32, 64, BLOCK) if size >= rest)


def channels_last(values: Tensor, channels: int) -> Tensor:
    """Values [N, channels, height, width] or [N, units] as [N, positions * stored channels], 0 in the silent ones."""
    maps = values.flatten(2) if values.dim() > 2 else values[..., None]
    return F.pad(maps.transpose(1, 2), (0, channels - maps.shape[1])).flatten(1)


def channels_first(bits: np.ndarray, stage: Stage, steps: int) -> np.ndarray:
    """Spikes int8 [steps, neurons] of one image in the order of the network, from the bits of its output."""
    shape = stage.shape
    planes = bits[: stage.bits * steps].reshape(shape.out_planes, -1, steps, shape.out_bytes)
    spikes = np.unpackbits(planes, axis=-1, count=stage.layer.shape[0], bitorder="little").view(np.int8)
    signed = spikes[0] - spikes[1] if shape.out_planes == 2 else spikes[0]
    return signed.transpose(1, 2, 0).reshape(steps, -1)


_NOTHING = Shape._make([0] * len(Shape._fields))._replace(out_planes=1)  # what lies before the first layer


def _stage(layer: SpikingLayer, before: Shape | None) -> Stage:
    height, width = (*layer.shape[1:], 1, 1)[:2]
    out_bytes = stored(layer.shape[0]) // 8
    if before is None:
        before = _NOTHING
    planes = (2 if layer.signed else 1) if layer.fires else before.out_planes
    shape = Shape(
        height=before.out_height, width=before.out_width, bytes=before.out_bytes, planes=before.out_planes,
        out_height=height, out_width=width, out_bytes=out_bytes, out_planes=planes,
        rows=0, columns=0, pad=0, stride=2, boxes=False, windows=1, bias_stride=0,
        steps=1, chunk=1, band=height, taps=1, scheduled=layer.schedule is not None,
    )  # fmt: skip
    weights = None
    if before.out_bytes and layer.weight is not None:
        shape, weights = _weighted(layer, shape)
    if not layer.fires:
        return Stage(layer, shape)
    channels = 8 * out_bytes
    # the largest number, not infinity: 0 * infinity is no number
    largest = torch.finfo(torch.float32).max
    threshold = F.pad(cast(Tensor, layer.threshold), (0, channels - layer.shape[0]), value=largest)
    bias = torch.zeros(channels)
    if layer.bias is not None:
        by_place = layer.bias.shape == layer.shape and len(layer.shape) > 1
        given = layer.bias if by_place else layer.bias.reshape(-1, 1, 1)
        bias = channels_last(given[None], channels)[0]
        shape = shape._replace(bias_stride=channels if by_place else 0)
    initial = torch.zeros(layer.shape) if layer.initial is None else per_output(layer.initial, layer.shape)
    initial = channels_last(initial.expand(layer.shape)[None], channels)
    schedule = None
    if layer.schedule is not None:
        schedule = _flat(F.pad(layer.schedule, (0, channels - layer.shape[0])))
    return Stage(layer, shape, weights, _flat(threshold), _flat(bias), initial, schedule)


def _weighted(layer: SpikingLayer, shape: Shape) -> tuple[Shape, np.ndarray]:
    """Shape and nibbles of a convolution or linear layer."""
    weight = cast(Tensor, layer.weight)
    if layer.op == "linear":
        weight = weight.unflatten(1, (-1, shape.height, shape.width))
        shape = shape._replace(rows=shape.height, columns=shape.width, stride=1)
    else:
        boxes, windows = layer.pool == "average", 4 if layer.pool == "max" else 1
        pad, stride = 0 if boxes else 1, 1 if layer.pool is None else 2
        shape = shape._replace(rows=3, columns=3, pad=pad, stride=stride, boxes=boxes, windows=windows)
    lanes = min(BLOCK, 8 * shape.out_bytes)
    all_taps = shape.rows * shape.columns
    taps = min(all_taps, max(1, WEIGHTS // (2 * shape.bytes * lanes)))
    return shape._replace(taps=taps), _nibbles(weight, 8 * shape.bytes, 8 * shape.out_bytes)


def _nibbles(weight: Tensor, inputs: int, outputs: int) -> np.ndarray:
    """Weights of +-1 [out, in, rows, columns] as nibbles, uint8 [block, tap, group, lane], silent channels added."""
    blocks: list[Tensor] = []
    for some in weight.split(BLOCK):
        lanes = min(BLOCK, outputs - BLOCK * len(blocks))
        ones = F.pad((some > 0).byte(), (0, 0, 0, 0, 0, inputs - some.shape[1], 0, lanes - len(some)))
        groups = ones.permute(2, 3, 1, 0).reshape(-1, inputs // 4, 4, lanes)
        bits = torch.tensor([1, 2, 4, 8], dtype=torch.uint8)[:, None]
        blocks.append((groups * bits).sum(2, dtype=torch.uint8).flatten())
    return _flat(torch.cat(blocks))


def _flat(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.cpu().flatten().numpy())
