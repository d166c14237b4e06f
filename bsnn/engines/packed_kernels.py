"""Compiled loops of the engine `packed`: one call takes one layer of one image through a block of time steps.

Spikes lie as uint8 [planes, positions, steps, bytes]: bit c of a place is channel c; a second plane holds the negative
spikes of signed layers.

A tile is what one row of weights reaches: the channels of a block at one place of the output; where they are few, at
2x2 places, or at the 2x2 places that a pool takes together. Its window is all places of the input that it reads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bsnn.engines.compiled import compiled, inlined
from bsnn.engines.packed_lists import join, list_spikes
from bsnn.engines.packed_neurons import scan_currents, scan_currents_signed
from bsnn.engines.packed_sums import (
    add_currents,
    raise_currents,
    sum_carries_128,
    sum_carries_256,
    sum_carries_512,
    sum_rows_128,
    sum_rows_256,
    sum_rows_512,
    write_currents,
)
from bsnn.engines.packed_vectors import NEURONS


class Shape(NamedTuple):
    """A layer for the kernels; all sizes are of one image."""

    height: int  # map that it reads
    width: int
    bytes: int  # of one place there, for each sign
    planes: int
    out_height: int
    out_width: int
    out_bytes: int
    out_planes: int
    rows: int  # of the window
    columns: int
    pad: int  # places of the first window outside the map, on each side
    stride: int  # from one window to the next
    side: int  # places of the output that a tile is high and wide
    parts: int  # places that a row of weights holds: 1 or 2x2
    turns: int  # 4 where a row holds one of 2x2 places, which come one after the other
    folds: int  # 4 where a row holds the sum over 2x2 places, which are listed together
    largest: bool  # the largest of 2x2 places counts, not their sum
    shift: int  # a row of weights has 2**shift bytes
    block: int  # output channels of a row
    bias_stride: int  # 0 where all places have one bias, else the output channels
    schedule_stride: int  # 0 where all steps have one row of zeros, else the output channels
    steps: int  # of the whole block
    chunk: int  # steps at once
    band: int  # rows of tiles at once


class Work(NamedTuple):
    """Memory of one thread."""

    entries: np.ndarray  # uint32 [row, step, spike]: numbers of the channels that spike, from place to place
    starts: np.ndarray  # int32 [row, step, place]: where the list of each place begins
    joined: np.ndarray  # uint32: where the rows of weights of all spikes in one window begin
    carries: np.ndarray  # uint8
    planes: np.ndarray  # uint8: bits of the counters
    currents: np.ndarray  # int16 [place, step, channel]


@inlined
def _list(shape, row0, row1, step0, steps, bits, ones, work):  # type: ignore[no-untyped-def]
    """List the spikes of rows `row0` to `row1`."""
    size = shape.bytes
    room = 8 * size * shape.planes
    for row in range(row0, row1):
        for step in range(steps):
            number = (row - row0) * steps + step
            first = number * shape.width * room
            starts = number * (shape.width + 1)
            count = 0
            for column in range(shape.width):
                work.starts[starts + column] = count
                for plane in range(shape.planes):
                    place = (plane * shape.height + row) * shape.width + column
                    count += list_spikes(
                        bits, (place * shape.steps + step0 + step) * size, size, column * room + 8 * size * plane, ones,
                        work.entries, first + count,
                    )  # fmt: skip
            work.starts[starts + shape.width] = count


@inlined
def _window(shape, y, x, row0, step, steps, count, work):  # type: ignore[no-untyped-def]
    """Append the rows of weights of all spikes in the window at row `y` and column `x` to the first `count` ones."""
    room = 8 * shape.bytes * shape.planes
    left, right = max(x, 0), min(x + shape.columns, shape.width)
    for row in range(max(0, -y), min(shape.rows, shape.height - y)):
        number = (y + row - row0) * steps + step
        starts = number * (shape.width + 1)
        first, end = work.starts[starts + left], work.starts[starts + right]
        offset = ((row * shape.columns - x) * room) << shape.shift
        count = join(
            work.entries, number * shape.width * room + first, end - first, shape.shift, offset, work.joined, count
        )
    return count


@inlined
def _spikes(shape, y, x, row0, step, steps, work):  # type: ignore[no-untyped-def]
    """Number of spikes in the 3x3 places from row `y` and column `x` on."""
    count = 0
    left, right = max(x, 0), min(x + 3, shape.width)
    for row in range(max(0, y), min(y + 3, shape.height)):
        starts = ((row - row0) * steps + step) * (shape.width + 1)
        count += work.starts[starts + right] - work.starts[starts + left]
    return count


@inlined
def _sum(shape, count, weights, offset, work):  # type: ignore[no-untyped-def]
    """Counters of the first `count` joined rows; returns the number of their levels."""
    nothing = (shape.rows * shape.columns * 8 * shape.bytes * shape.planes) << shape.shift
    for number in range(count, count + 8):
        work.joined[number] = nothing
    groups = (count + 7) // 8
    level, bound = 1, 8
    if shape.shift == 6:
        sum_rows_512(work.joined, groups, weights, offset, work.carries, work.planes)
    elif shape.shift == 5:
        sum_rows_256(work.joined, groups, weights, offset, work.carries, work.planes)
    else:
        sum_rows_128(work.joined, groups, weights, offset, work.carries, work.planes)
    while count >= bound:
        if shape.shift == 6:
            sum_carries_512(work.carries, groups, work.planes, level)
        elif shape.shift == 5:
            sum_carries_256(work.carries, groups, work.planes, level)
        else:
            sum_carries_128(work.carries, groups, work.planes, level)
        groups = (groups + 7) // 8
        level, bound = level + 1, bound * 8
    return level


@inlined
def _write(shape, part, lanes, levels, total, place, keep, work):  # type: ignore[no-untyped-def]
    """Currents of one place of a tile; with `keep` they are added to what is there, or the largest one stays."""
    for lane in range(0, lanes, NEURONS):
        first = (part * shape.block + lane) // 8
        if not keep:
            write_currents(work.planes, first, levels, total, work.currents, place + lane)
        elif shape.largest:
            raise_currents(work.planes, first, levels, total, work.currents, place + lane)
        else:
            add_currents(work.planes, first, levels, total, work.currents, place + lane)


@inlined
def _tiles(shape, y0, y1, row0, steps, lanes, weights, offset, work):  # type: ignore[no-untyped-def]
    """Currents of `lanes` output channels in rows `y0` to `y1` of tiles: [place, step, lane]."""
    pooled = shape.parts > shape.side * shape.side
    for y in range(y0, y1):
        for x in range((shape.out_width + shape.side - 1) // shape.side):
            top, left = shape.stride * y - shape.pad, shape.stride * x - shape.pad
            for step in range(steps):
                for turn in range(shape.turns):
                    count = 0
                    for fold in range(shape.folds):
                        shift = turn + fold
                        count = _window(shape, top + shift // 2, left + shift % 2, row0, step, steps, count, work)
                    levels = _sum(shape, count, weights, offset, work)
                    for part in range(shape.parts):
                        total = count
                        if shape.parts > 1:
                            total = _spikes(shape, top + part // 2, left + part % 2, row0, step, steps, work)
                        row, column = shape.side * (y - y0), shape.side * x
                        if not pooled:
                            row, column = row + part // 2, column + part % 2
                        if shape.side * y0 + row < shape.out_height and column < shape.out_width:
                            place = ((row * shape.out_width + column) * steps + step) * lanes
                            _write(shape, part, lanes, levels, total, place, turn > 0 or (pooled and part > 0), work)


@inlined
def fire(shape, y0, y1, step0, steps, lanes, channel0, bias, schedule, v, sent, threshold, out, counts, work):  # type: ignore[no-untyped-def]
    """Advance the neurons of `lanes` output channels at rows `y0` to `y1`."""
    channels = 8 * shape.out_bytes
    positions = shape.out_height * shape.out_width
    plane = positions * shape.steps * shape.out_bytes
    for place in range((y1 - y0) * shape.out_width):
        position = y0 * shape.out_width + place
        for lane in range(0, lanes, NEURONS):
            channel = channel0 + lane
            at = position * channels + channel
            to = (position * shape.steps + step0) * shape.out_bytes + channel // 8
            first = place * steps * lanes + lane
            offset = position * shape.bias_stride + channel
            row = step0 * shape.schedule_stride + channel
            if shape.out_planes == 1:
                scan_currents(
                    work.currents, first, lanes, steps, bias, offset, schedule, row, shape.schedule_stride,
                    v, sent, at, threshold, channel,
                    out, to, shape.out_bytes, plane, counts[step0:],
                )  # fmt: skip
            else:
                scan_currents_signed(
                    work.currents, first, lanes, steps, bias, offset, schedule, row, shape.schedule_stride,
                    v, sent, at, threshold, channel,
                    out, to, shape.out_bytes, plane, counts[step0:],
                )  # fmt: skip


@compiled
def weighted(  # type: ignore[no-untyped-def]
    shape, y0, y1, block0, block1, bits, weights, ones, bias, schedule, v, sent, threshold, out, counts, work
):
    """A convolution or linear layer: rows `y0` to `y1` of tiles and blocks `block0` to `block1` of its output."""
    channels = 8 * shape.out_bytes
    room = 8 * shape.bytes * shape.planes
    size = (shape.rows * shape.columns * room + 1) << shape.shift
    reach = shape.rows + (1 if shape.turns + shape.folds > 2 else 0)
    for top in range(y0, y1, shape.band):
        low = min(y1, top + shape.band)
        row0 = max(0, shape.stride * top - shape.pad)
        row1 = min(shape.height, shape.stride * (low - 1) - shape.pad + reach)
        for step0 in range(0, shape.steps, shape.chunk):
            steps = min(shape.chunk, shape.steps - step0)
            _list(shape, row0, row1, step0, steps, bits, ones, work)
            for block in range(block0, block1):
                channel = block * shape.block
                lanes = min(shape.block, channels - channel)
                _tiles(shape, top, low, row0, steps, lanes, weights, block * size, work)
                first, last = shape.side * top, min(shape.side * low, shape.out_height)
                fire(
                    shape,
                    first,
                    last,
                    step0,
                    steps,
                    lanes,
                    channel,
                    bias,
                    schedule,
                    v,
                    sent,
                    threshold,
                    out,
                    counts,
                    work,
                )
