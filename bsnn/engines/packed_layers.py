"""A spiking network as the kernels of the engine `packed` want it: channels last and padded, each layer a sum of terms.

A channel's place is padded to whole words; silent channels have no weights and the largest threshold. Spikes lie in one
memory, in which a layer's are kept until its last reader has run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines.packed_shapes import CONSTANT, LISTED, WEIGHTED, Shape, Term
from bsnn.engines.packed_sums import GROUP
from bsnn.engines.packed_terms import Map, block_of, maps, real, term_and_weights
from bsnn.engines.packed_vectors import LINE, aligned
from bsnn.graphs.description import IMAGE, Path

LARGEST = torch.finfo(torch.float32).max
HELD = 2**18  # bytes of lists and currents at once for one thread: a small part of a second-level cache, beside weights
DENSITY = 4  # at most every so many-th channel is expected to spike, for what is held at once
LISTS = (LISTED, WEIGHTED)  # kinds of terms that list the spikes that they read
STEPS = 8  # steps at once at least, before fewer rows are taken


class Sizes(NamedTuple):
    """Elements of the arrays of packed_shapes.Work that depend on the layer."""

    entries: int
    starts: int
    joined: int
    carries: int
    currents: int
    totals: int


@dataclass(frozen=True)
class Stage:
    """One layer, made ready. Arrays are flat; `channels` is padded."""

    layer: SpikingLayer
    map: Map
    shape: Shape  # for blocks of one step; `planned` fits it to others
    terms: tuple[Term, ...]
    constant: int | None  # element of the image's currents where this layer's begins, if it has no other
    images: int  # terms of the image that `current` has for it
    weights: np.ndarray  # uint8, of all terms: a bit each, or float32
    scales: np.ndarray  # float32 [terms, channels]
    offsets: np.ndarray  # float32 [channels]
    threshold: np.ndarray  # float32 [channels]
    lower: np.ndarray  # float32 [channels]: negative threshold of signed neurons
    bias: np.ndarray  # float32 [channels] or [positions, channels]
    initial: Tensor  # float32 [1, positions * channels]
    schedule: np.ndarray  # float32 [steps, channels] of all steps that have currents, or zeros [channels]

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

    def planned(self, steps: int) -> tuple[Shape, np.ndarray]:
        """Shape and table of terms for blocks of `steps` steps; what is done at once stays in the caches."""
        side = self.shape.side
        # Three tries to stay within HELD: the whole map, for STEPS steps or as many more as fit; fewer rows, for STEPS
        # steps; and where one row of tiles takes too much, that row for fewer steps.
        fixed, band = min(steps, STEPS), -(-self.shape.out_height // side) * side
        chunk = fixed
        if self._bytes(band) * fixed <= HELD:
            chunk = min(steps, HELD // self._bytes(band))
        else:
            while band > side and self._bytes(band) * fixed > HELD:
                band -= side
            chunk = max(1, min(fixed, HELD // self._bytes(band)))
        # a layer's spikes of all steps lie together: each beginning is that of a single step times the steps
        shape = self.shape._replace(out=self.shape.out * steps, steps=steps, chunk=chunk, band=band)
        table, entries, starts = [], 0, 0
        for term in self.terms:
            if term.kind != CONSTANT:
                term = term._replace(source=term.source * steps, entries=entries, starts=starts)
            table.append(term)
            if term.kind in LISTS:
                # Lists of all terms lie one after another. There is room for a spike of every input, though few will
                # come; each row has a start for every place, and one more for its end.
                rows = _rows_read(term, band) * chunk
                entries, starts = entries + rows * term.width * _inputs(term), starts + rows * (term.width + 1)
        return shape, np.array(table, np.int64).flatten()

    def work(self, shape: Shape) -> Sizes:
        """Elements of each array of a thread's memory."""
        listed = [term for term in self.terms if term.kind in LISTS]
        rows = [_rows_read(term, shape.band) * shape.chunk for term in listed]
        windows = [_rows_joined(term) for term in listed]
        currents = self._outputs(shape.band) * shape.chunk * shape.block
        return Sizes(
            entries=sum(row * term.width * _inputs(term) for row, term in zip(rows, listed, strict=True)),
            starts=sum(row * (term.width + 1) for row, term in zip(rows, listed, strict=True)),
            joined=max(windows, default=0),
            # a carry for each group of rows, and up to GROUP - 1 zeros after them (`sum_carries`)
            carries=max(
                (
                    (window // GROUP + 2 * GROUP) << term.shift
                    for window, term in zip(windows, listed, strict=True)
                    if term.kind == LISTED
                ),
                default=0,
            ),
            currents=currents + shape.chunk * shape.block,  # and a spare place (packed_channels)
            totals=0 if shape.single else currents + shape.block,  # and a spare place (packed_weighted)
        )

    def _outputs(self, band: int) -> int:
        """Places of the output in so many of its rows."""
        return min(band, self.shape.out_height) * self.shape.out_width

    def _bytes(self, band: int) -> int:
        """Bytes of lists and currents for one step."""
        listed = [term for term in self.terms if term.kind in LISTS]
        lists = sum(4 * _rows_read(term, band) * term.width * _inputs(term) // DENSITY for term in listed)
        # currents have 2 bytes; float32 totals, where terms are added up, 4 more
        return lists + (2 if self.shape.single else 6) * self.shape.block * self._outputs(band)


def _inputs(term: Term) -> int:
    """Stored channels that a term reads, those for negative spikes counted too."""
    return 8 * term.bytes * term.planes


def _rows_read(term: Term, band: int) -> int:
    """Rows of the input that so many rows of the output read, at most."""
    # rows of windows under the pools: 3 rows of tiles and a 2x2 pool of stride 2 take (3 - 1) * 2 + 2 = 6
    windows = (-(-band // term.side) - 1) * term.pool_down + term.pool_rows
    windows = min(windows, term.sums_height)
    # from the first tap of the first window to the last tap of the last one, dilation counted
    return min(term.height, (windows - 1) * term.down + (term.rows - 1) * term.row_gap + 1)


def _rows_joined(term: Term) -> int:
    """Rows of weights that are added up at once, at most."""
    pool = 1 if term.largest else term.pool_rows * term.pool_columns
    return pool * term.rows * term.columns * _inputs(term) * term.halves


def stages(network: SpikingNetwork) -> list[Stage]:
    """Layers of a network in order."""
    outputs, paths = maps(network), network.sums
    begins = dict(zip(outputs, memory(network)[0], strict=True))
    found: list[Stage] = []
    constants = 0  # elements of the image's currents so far
    for layer, some in zip(network.layers, paths, strict=True):
        stage = _stage(layer, some, outputs, begins, constants)
        constants += stage.places * stage.images
        found.append(stage)
    return found


def memory(network: SpikingNetwork) -> tuple[list[int], int]:
    """Byte of one step at which each layer's spikes begin, and how many bytes there are: the first gap that fits."""
    outputs, paths = maps(network), network.sums
    readers = {path.source: number for number, some in enumerate(paths) for path in some}  # the last one stays
    held: list[tuple[int, int, str]] = []
    begins, size = [], 0
    for number, layer in enumerate(network.layers):
        # what this layer reads is still held, so it never gets the memory of its own sources
        begin, wanted = 0, outputs[layer.name].size
        # the first gap between those held that is wide enough, or else the place after the last one
        for low, top, _ in sorted(held):
            if begin + wanted <= low:
                break
            begin = top
        begins.append(begin)
        size = max(size, begin + wanted)
        held = [some for some in [*held, (begin, begin + wanted, layer.name)] if readers.get(some[2], -1) > number]
    return begins, size


def channels_last(values: Tensor, channels: int) -> Tensor:
    """Values [N, channels, height, width] or [N, units] as [N, positions * stored channels], 0 in the silent ones."""
    maps = values.flatten(2) if values.dim() > 2 else values[..., None]
    return F.pad(maps.transpose(1, 2), (0, channels - maps.shape[1])).flatten(1)


def channels_first(bits: np.ndarray, output: Map, steps: int) -> np.ndarray:
    """Spikes int8 [steps, neurons] of one image in the order of the network, from the bits of its output."""
    planes = bits[: output.size * steps].reshape(output.planes, -1, steps, output.bytes)  # bit c: channel c
    spikes = np.unpackbits(planes, axis=-1, count=output.channels, bitorder="little").view(np.int8)
    signed = spikes[0] - spikes[1] if output.planes == 2 else spikes[0]  # [positions, steps, channels]
    return signed.transpose(1, 2, 0).reshape(steps, -1)


def _stage(
    layer: SpikingLayer, paths: tuple[Path, ...], outputs: dict[str, Map], begins: dict[str, int], constants: int
) -> Stage:
    output = outputs[layer.name]
    channels = 8 * output.bytes
    # a layer that reads the image alone has no terms: its current is added up once, before the first step
    images = [path for path in paths if path.source == IMAGE]
    constant = constants if len(images) == len(paths) else None
    terms, weights = _terms(paths if constant is None else (), outputs, output, begins, constants)
    # `single`: integers go to the neurons as int16, with no float32 totals. `side`: bands and threads cut the output
    # between tiles, hence between those of the term with the largest ones.
    shape = Shape(
        output.height, output.width, output.bytes, output.planes, begins[layer.name], len(terms),
        single=len(terms) == 1 and paths[0].scale is None and not real(paths),
        side=max((term.side for term in terms), default=1),
        block=block_of(channels, paths, outputs),
        bias_stride=0, schedule_stride=0, steps=1, chunk=1, band=output.height,
    )  # fmt: skip
    threshold = torch.ones(layer.shape[0]) if layer.threshold is None else layer.threshold
    lower = layer.negative_threshold if layer.signed else -threshold  # never read if unsigned
    bias, initial, schedule = torch.zeros(channels), torch.zeros(layer.shape), torch.zeros(channels)
    if layer.bias is not None:
        # one bias a channel is a map of one place, and a stride of 0 reads it at every place
        by_place = layer.bias.shape == layer.shape and len(layer.shape) > 1
        given = layer.bias if by_place else layer.bias.reshape(-1, 1, 1)
        bias = channels_last(given[None], channels)[0]
        shape = shape._replace(bias_stride=channels if by_place else 0)
    if layer.initial is not None:
        initial = per_output(layer.initial, layer.shape).expand(layer.shape)
    if layer.schedule is not None:
        schedule = _padded(layer.schedule, channels)
        shape = shape._replace(schedule_stride=channels)
    # a row for each path, so that a term's number finds its own; terms of the image come scaled and skip theirs
    scales = [torch.ones(layer.shape[0]) if path.scale is None else path.scale.float() for path in paths]
    return Stage(
        layer, output, shape, terms, constant,
        images=len(images) if constant is None else 1,
        weights=weights,
        scales=_flat(torch.stack([_padded(scale, channels) for scale in scales])),
        offsets=_flat(_padded(torch.zeros(layer.shape[0]) if layer.offset is None else layer.offset, channels)),
        # silent channels have bits of 0 alone, and so no current above 0: they never reach their threshold,
        # the largest number, not infinity: 0 * infinity is no number
        threshold=_flat(_padded(threshold, channels, LARGEST)),
        lower=_flat(_padded(lower, channels, -LARGEST)),
        bias=_flat(bias),
        initial=channels_last(initial[None], channels),
        schedule=_flat(schedule),
    )  # fmt: skip


def _terms(
    paths: tuple[Path, ...], outputs: dict[str, Map], output: Map, begins: dict[str, int], constants: int
) -> tuple[tuple[Term, ...], np.ndarray]:
    """Terms of paths in their order, and the weights of all of them."""
    block, floats = block_of(8 * output.bytes, paths, outputs), real(paths)
    found: list[Term] = []
    blocks: list[tuple[int, np.ndarray]] = []
    size = 0
    for path in paths:
        if path.source == IMAGE:
            found.append(Term(CONSTANT, constants))
            constants += 8 * output.bytes * output.height * output.width
            continue
        source, begin = outputs[path.source], begins[path.source]
        term, weights = term_and_weights(path, source, output, begin, block, floats=floats)
        found.append(term._replace(weights=size))
        blocks.append((size, weights))
        size += -(-weights.size // LINE) * LINE  # each begins with a line of the cache; nothing reads the gaps
    together = aligned(size)
    for begin, weights in blocks:
        together[begin : begin + weights.size] = weights
    return tuple(found), together


def _padded(values: Tensor, channels: int, value: float = 0.0) -> Tensor:
    """Values [..., channels] with those of the silent ones."""
    return F.pad(values, (0, channels - values.shape[-1]), value=value)


def _flat(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.cpu().flatten().numpy())
