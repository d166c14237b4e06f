"""A spiking network as the kernels of the engine `packed` want it: channels last and padded, weights as nibbles.

A channel's place is padded to blocks of 128, the last one of 32, 64 or 128; silent channels have no weights and the
largest threshold. A linear layer is a convolution as large as the map that it reads. A 2x2 sum after a convolution is
taken before it, on the spikes: sums of four places are listed once and read by all taps (9 taps instead of 36).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines.packed_kernels import Shape
from bsnn.engines.packed_pools import POOLED
from bsnn.engines.packed_sums import GROUP
from bsnn.engines.packed_vectors import NEURONS, aligned, width

HELD = 2**18  # bytes of lists and currents at once for one thread: half of a common second-level cache
DENSITY = 4  # at most every so many-th channel is expected to spike, for what is held at once
PARTS = 4  # 2x2 places
ROWS = (128, 256, 512)  # bits of a row of weights
STEPS = 8  # steps at once at least, before fewer rows are taken


class Sizes(NamedTuple):
    """Elements of the arrays of packed_kernels.Work that depend on the layer."""

    entries: int
    starts: int
    joined: int
    carries: int
    currents: int


@dataclass(frozen=True)
class Stage:
    """One layer, made ready. Arrays are flat; `channels` is padded."""

    layer: SpikingLayer
    shape: Shape  # for blocks of one step; `planned` fits it to others
    weights: np.ndarray | None = None  # uint8 [block, window's rows x columns x inputs + 1, bytes]: a bit each
    threshold: np.ndarray | None = None  # float32 [channels]
    bias: np.ndarray | None = None  # float32 [channels] or [positions, channels]
    initial: Tensor | None = None  # float32 [1, positions * channels]
    schedule: np.ndarray | None = None  # float32 [steps, channels] of all steps that have currents, or zeros [channels]

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
        return -(-self.channels // self.shape.block)

    @property
    def tiles(self) -> int:
        """Rows of tiles."""
        return -(-self.shape.out_height // self.shape.side)

    @property
    def bits(self) -> int:
        """Bytes of the output of one image and step."""
        return self.places // 8 * self.shape.out_planes

    def planned(self, steps: int) -> Shape:
        """The shape for blocks of `steps` steps; what is done at once is chosen to stay in the caches."""
        fixed, band = min(steps, STEPS), self.tiles
        if self._bytes(band) * fixed <= HELD:
            return self.shape._replace(steps=steps, chunk=min(steps, HELD // self._bytes(band)), band=band)
        while band > 1 and self._bytes(band) * fixed > HELD:
            band -= 1
        return self.shape._replace(steps=steps, chunk=max(1, min(fixed, HELD // self._bytes(band))), band=band)

    def work(self, shape: Shape) -> Sizes:
        """Elements of each array of a thread's memory."""
        if self.weights is None:
            return Sizes(0, 0, 0, 0, shape.out_width * shape.chunk * POOLED)
        rows = self._rows(shape.band) * shape.chunk
        window = shape.folds * shape.rows * shape.columns * self.inputs
        return Sizes(
            entries=rows * shape.width * self.inputs,
            starts=rows * (shape.width + 1),
            joined=window,
            carries=(window // GROUP + 2 * GROUP) << shape.shift,
            currents=self._outputs(shape.band) * shape.chunk * shape.block,
        )

    @property
    def inputs(self) -> int:
        """Stored channels of the input, those for negative spikes counted too."""
        return 8 * self.shape.bytes * self.shape.planes

    def _rows(self, band: int) -> int:
        """Rows of the input that so many rows of tiles read."""
        shape = self.shape
        extra = 1 if shape.turns + shape.folds > 2 else 0
        return min(shape.height, shape.stride * (band - 1) + shape.rows + extra)

    def _outputs(self, band: int) -> int:
        """Places of the output in so many rows of tiles."""
        return min(band * self.shape.side, self.shape.out_height) * self.shape.out_width

    def _bytes(self, band: int) -> int:
        """Bytes of lists and currents for one step."""
        lists = 4 * self._rows(band) * self.shape.width * self.inputs // DENSITY
        return lists + 2 * self.shape.block * self._outputs(band)


def stages(network: SpikingNetwork) -> list[Stage]:
    """Layers of a network in order; the first one gets its current from outside and has no weights here."""
    found: list[Stage] = []
    for layer in network.layers:
        found.append(_stage(layer, found[-1].shape if found else None))
    return found


def stored(channels: int) -> int:
    """Channels with the silent ones: whole words, and whole rows where there are many."""
    return -(-channels // NEURONS) * NEURONS


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
        rows=0, columns=0, pad=0, stride=2, side=1, parts=1, turns=1, folds=1, largest=layer.pool == "max", shift=0,
        block=POOLED, bias_stride=0, schedule_stride=0, steps=1, chunk=1, band=height,
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
    schedule = torch.zeros(channels)
    if layer.schedule is not None:
        schedule = F.pad(layer.schedule, (0, channels - layer.shape[0]))
        shape = shape._replace(schedule_stride=channels)
    return Stage(layer, shape, weights, _flat(threshold), _flat(bias), initial, _flat(schedule))


def _weighted(layer: SpikingLayer, shape: Shape) -> tuple[Shape, np.ndarray]:
    """Shape and rows of weights of a convolution or linear layer."""
    weight, channels, widest = cast(Tensor, layer.weight), 8 * shape.out_bytes, width()
    if layer.op == "linear":
        weight = weight.unflatten(1, (-1, shape.height, shape.width))
        shape = shape._replace(rows=shape.height, columns=shape.width, stride=1)
    else:
        parts = PARTS if PARTS * channels <= widest else 1
        several = 1 if layer.pool is None or parts > 1 else PARTS
        turns, folds = (several, 1) if layer.pool == "max" else (1, several)
        side, stride = (2, 2) if parts > 1 and layer.pool is None else (1, 1 if layer.pool is None else 2)
        shape = shape._replace(
            rows=3 + (parts > 1), columns=3 + (parts > 1), pad=1, stride=stride, side=side, parts=parts, turns=turns,
            folds=folds,
        )  # fmt: skip
    used = min(shape.parts * channels, widest)
    lanes = next(lanes for lanes in ROWS if lanes >= used)
    shape = shape._replace(shift=(lanes // 8).bit_length() - 1, block=min(channels, lanes // shape.parts))
    return shape, _rows(weight, shape, lanes)


def _rows(weight: Tensor, shape: Shape, lanes: int) -> np.ndarray:
    """Weights of +-1 [out, in, rows, columns] as rows of `lanes` bits, silent channels added.

    They are uint8 [block, window's row, window's column, input, lane / 8], with a row of zeros after each block; inputs
    of signed layers come twice, the second time with all signs turned.
    """
    blocks = []
    for some in weight.split(shape.block):
        tap = (some > 0).permute(2, 3, 1, 0).numpy()
        taps = np.concatenate([_wide(tap, 8 * shape.bytes), _wide(~tap, 8 * shape.bytes)][: shape.planes], 2)
        bits = np.zeros((shape.rows, shape.columns, taps.shape[2], lanes), np.bool_)
        for part in range(shape.parts):
            down, right, lane = part // 2, part % 2, part * shape.block
            bits[down : down + taps.shape[0], right : right + taps.shape[1], :, lane : lane + len(some)] = taps
        blocks += [np.packbits(bits, bitorder="little"), np.zeros(lanes // 8, np.uint8)]
    found = aligned(sum(block.size for block in blocks))
    return np.concatenate(blocks, out=found)


def _wide(taps: np.ndarray, inputs: int) -> np.ndarray:
    """Taps [rows, columns, in, out] with the inputs that never spike."""
    return np.pad(taps, ((0, 0), (0, 0), (0, inputs - taps.shape[2]), (0, 0)))


def _flat(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.cpu().flatten().numpy())
