"""Compiled loops of the engine `packed`: one call takes one layer of one image through a block of time steps.

Spikes lie as uint8 [planes, positions, steps, bytes]: bit c of a place is channel c; a second plane holds the negative
spikes of signed layers. As many bytes of zeros follow as one place has, which stand for what lies outside the map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bsnn.engines.compiled import compiled, inlined
from bsnn.engines.packed_spikes import (
    list_four,
    list_one,
    scan_sums,
    scan_sums_scheduled,
    scan_sums_signed,
    scan_sums_signed_scheduled,
    spread,
)
from bsnn.engines.packed_vectors import NEURONS, add_lists_32, add_lists_64, add_lists_128

BLOCK = 128  # output channels at once; what is left over is a block of 32, 64 or 128
SLICE = 16  # bytes of spikes that become one list


class Shape(NamedTuple):
    """A layer for the kernels; all sizes are of one image. Windows: places whose largest current counts."""

    height: int  # map that it reads
    width: int
    bytes: int  # of one place there, for each sign
    planes: int
    out_height: int
    out_width: int
    out_bytes: int
    out_planes: int
    rows: int  # taps of the weights
    columns: int
    pad: int
    stride: int
    boxes: bool  # lists hold sums over 2x2 places
    windows: int
    bias_stride: int  # 0 where all places have one bias, else the output channels
    steps: int  # of the whole block
    chunk: int  # steps at once
    band: int  # output rows at once
    taps: int  # taps whose weights are kept in the cache
    scheduled: bool  # a current of its own for each step


class Work(NamedTuple):
    """Memory of one thread."""

    entries: np.ndarray  # uint32
    info: np.ndarray  # int32 [lists, 2]: entries, sum of the digits
    signed: np.ndarray  # int32 [lists]: positive minus negative spikes
    sums: np.ndarray  # int16
    totals: np.ndarray  # int32


@inlined
def _lists(shape, row0, row1, columns, step0, steps, bits, pairs, work):  # type: ignore[no-untyped-def]
    """List the spikes of rows `row0` to `row1`: [row, column, slice, step]."""
    size = shape.bytes
    slices = (size + SLICE - 1) // SLICE
    room = 2 * min(size, SLICE) * shape.planes
    outside = shape.planes * shape.height * shape.width * shape.steps * size
    across, down = shape.steps * size, shape.width * shape.steps * size
    number = 0
    for row in range(row0, row1):
        for column in range(columns):
            y, x = (row - 1, column - 1) if shape.boxes else (row, column)
            for part in range(slices):
                count = min(SLICE, size - part * SLICE)
                for step in range(step0, step0 + steps):
                    end = number * room
                    digits, signed = 0, 0
                    for plane in range(shape.planes):
                        one = ((plane * shape.height + y) * shape.width + x) * across + step * size + part * SLICE
                        group = 2 * SLICE * part
                        if shape.boxes:
                            two = one + across if y >= 0 and x + 1 < shape.width else outside
                            three = one + down if y + 1 < shape.height and x >= 0 else outside
                            four = one + down + across if y + 1 < shape.height and x + 1 < shape.width else outside
                            one = one if y >= 0 and x >= 0 else outside
                            found = list_four(
                                bits, one, two, three, four, count, group, plane, pairs, work.entries, end
                            )
                        else:
                            found = list_one(bits, one, one, one, one, count, group, plane, pairs, work.entries, end)
                        end += found & 0xFFFFFFFF
                        digits += found >> 32
                        signed += -(found >> 32) if plane else found >> 32
                    work.info[2 * number] = end - number * room
                    work.info[2 * number + 1] = digits
                    work.signed[number] = signed
                    number += 1


@inlined
def _add(lanes, work, row, weights, offset, tables, room, lists, groups, count, step):  # type: ignore[no-untyped-def]
    if lanes == 128:
        add_lists_128(
            work.sums, row, weights, offset, tables, work.entries, room, work.info, lists, groups, count, step
        )
    elif lanes == 64:
        add_lists_64(work.sums, row, weights, offset, tables, work.entries, room, work.info, lists, groups, count, step)
    else:
        add_lists_32(work.sums, row, weights, offset, tables, work.entries, room, work.info, lists, groups, count, step)


@inlined
def _sums(shape, y0, y1, row0, list_rows, columns, steps, lanes, weights, offset, tables, work):  # type: ignore[no-untyped-def]
    """Sums of `lanes` output channels at rows `y0` to `y1`: [place, window, step, lane]."""
    slices = (shape.bytes + SLICE - 1) // SLICE
    room = 2 * min(shape.bytes, SLICE) * shape.planes
    groups_of_tap = 2 * shape.bytes
    all_taps = shape.rows * shape.columns
    lists = np.empty(shape.taps * slices, np.int64)
    groups = np.empty(shape.taps * slices, np.int64)
    work.sums[: (y1 - y0) * shape.out_width * shape.windows * steps * lanes] = 0
    work.totals[: (y1 - y0) * shape.out_width * shape.windows * steps] = 0
    for tap0 in range(0, all_taps, shape.taps):
        place = 0
        for y in range(y0, y1):
            for x in range(shape.out_width):
                for window in range(shape.windows):
                    count = 0
                    for tap in range(tap0, min(tap0 + shape.taps, all_taps)):
                        row = shape.stride * y + window // 2 + tap // shape.columns - shape.pad
                        column = shape.stride * x + window % 2 + tap % shape.columns - shape.pad
                        if 0 <= row < list_rows and 0 <= column < columns:
                            for part in range(slices):
                                lists[count] = (((row - row0) * columns + column) * slices + part) * steps
                                groups[count] = (tap - tap0) * groups_of_tap
                                count += 1
                    start = offset + tap0 * groups_of_tap * lanes
                    for step in range(steps):
                        total = 0
                        for number in range(count):
                            total += work.signed[lists[number] + step]
                        work.totals[place * steps + step] += total
                        _add(
                            lanes, work, place * steps + step, weights, start, tables, room, lists, groups, count, step
                        )
                    place += 1


@inlined
def _fire(shape, y0, y1, step0, steps, lanes, channel0, doubled, bias, schedule, v, sent, threshold, out, counts, work):  # type: ignore[no-untyped-def]
    """Advance the neurons of `lanes` output channels at rows `y0` to `y1`."""
    channels = 8 * shape.out_bytes
    positions = shape.out_height * shape.out_width
    plane = positions * shape.steps * shape.out_bytes
    place = 0
    for position in range(y0 * shape.out_width, y1 * shape.out_width):
        for lane in range(0, lanes, NEURONS):
            channel = channel0 + lane
            at = position * channels + channel
            to = (position * shape.steps + step0) * shape.out_bytes + channel // 8
            first = place * steps * lanes + lane
            offset = position * shape.bias_stride + channel
            row = step0 * channels + channel
            if shape.scheduled and shape.out_planes == 1:
                scan_sums_scheduled(
                    work.sums, first, lanes, work.totals, place * steps, doubled, shape.windows, steps, bias, offset,
                    schedule, row, channels, v, sent, at, threshold, channel, out, to, shape.out_bytes, plane,
                    counts[step0:],
                )  # fmt: skip
            elif shape.scheduled:
                scan_sums_signed_scheduled(
                    work.sums, first, lanes, work.totals, place * steps, doubled, shape.windows, steps, bias, offset,
                    schedule, row, channels, v, sent, at, threshold, channel, out, to, shape.out_bytes, plane,
                    counts[step0:],
                )  # fmt: skip
            elif shape.out_planes == 1:
                scan_sums(
                    work.sums, first, lanes, work.totals, place * steps, doubled, shape.windows, steps, bias, offset,
                    schedule, row, channels, v, sent, at, threshold, channel, out, to, shape.out_bytes, plane,
                    counts[step0:],
                )  # fmt: skip
            else:
                scan_sums_signed(
                    work.sums, first, lanes, work.totals, place * steps, doubled, shape.windows, steps, bias, offset,
                    schedule, row, channels, v, sent, at, threshold, channel, out, to, shape.out_bytes, plane,
                    counts[step0:],
                )  # fmt: skip
        place += shape.windows


@compiled
def weighted(  # type: ignore[no-untyped-def]
    shape, y0, y1, block0, block1, bits, weights, tables, pairs, bias, schedule, v, sent, threshold, out, counts, work
):
    """A convolution or linear layer: rows `y0` to `y1` and blocks `block0` to `block1` of its output."""
    list_rows = 2 * shape.out_height + 1 if shape.boxes else shape.height
    columns = 2 * shape.out_width + 1 if shape.boxes else shape.width
    channels = 8 * shape.out_bytes
    reach = shape.rows - 1 - shape.pad + (1 if shape.windows > 1 else 0)
    for top in range(y0, y1, shape.band):
        low = min(y1, top + shape.band)
        row0 = max(0, shape.stride * top - shape.pad)
        row1 = min(list_rows, shape.stride * (low - 1) + reach + 1)
        for step0 in range(0, shape.steps, shape.chunk):
            steps = min(shape.chunk, shape.steps - step0)
            _lists(shape, row0, row1, columns, step0, steps, bits, pairs, work)
            for block in range(block0, block1):
                channel = block * BLOCK
                lanes = min(BLOCK, channels - channel)
                offset = 2 * shape.bytes * shape.rows * shape.columns * channel
                _sums(shape, top, low, row0, list_rows, columns, steps, lanes, weights, offset, tables, work)
                _fire(
                    shape, top, low, step0, steps, lanes, channel, 1, bias, schedule, v, sent, threshold, out, counts,
                    work,
                )  # fmt: skip


@compiled
def pooled(shape, y0, y1, largest, bits, bias, schedule, v, sent, threshold, out, counts, work):  # type: ignore[no-untyped-def]
    """Neurons fed by the sum, or the maximum, of 2x2 places of spikes: rows `y0` to `y1`, in blocks as elsewhere."""
    channels = 8 * shape.out_bytes
    words = bits.view(np.uint32)
    size = shape.bytes // 4
    plane = shape.height * shape.width * shape.steps * size
    for y in range(y0, y1):
        for step0 in range(0, shape.steps, shape.chunk):
            steps = min(shape.chunk, shape.steps - step0)
            for channel in range(0, channels, BLOCK):
                lanes = min(BLOCK, channels - channel)
                work.sums[: shape.out_width * steps * lanes] = 0
                work.totals[: shape.out_width * steps] = 0
                for x in range(shape.out_width):
                    one = (2 * y * shape.width + 2 * x) * shape.steps * size
                    down = shape.width * shape.steps * size
                    for step in range(steps):
                        for lane in range(0, lanes, NEURONS):
                            place = one + (step0 + step) * size + (channel + lane) // 32
                            at = (x * steps + step) * lanes + lane
                            for sign in range(shape.planes):
                                a = words[place]
                                b = words[place + shape.steps * size]
                                c = words[place + down]
                                d = words[place + down + shape.steps * size]
                                amount = -1 if sign else 1
                                if largest:
                                    spread(a & b & c & d if sign else a | b | c | d, amount, work.sums, at)
                                else:
                                    for word in (a, b, c, d):
                                        spread(word, amount, work.sums, at)
                                place += plane
                _fire(
                    shape, y, y + 1, step0, steps, lanes, channel, 0, bias, schedule, v, sent, threshold, out, counts,
                    work,
                )  # fmt: skip


@compiled
def passed(shape, y0, y1, bits, out):  # type: ignore[no-untyped-def]
    """Maximum of 2x2 places of spikes, passed on without neurons: rows `y0` to `y1`."""
    across = shape.steps * shape.bytes
    down = shape.width * across
    to = y0 * shape.out_width * across
    for sign in range(shape.planes):
        at = sign * shape.out_height * shape.out_width * across + to
        for y in range(y0, y1):
            for x in range(shape.out_width):
                one = ((sign * shape.height + 2 * y) * shape.width + 2 * x) * across
                for place in range(one, one + across):
                    a, b = bits[place], bits[place + across]
                    c, d = bits[place + down], bits[place + down + across]
                    out[at] = a & b & c & d if sign else a | b | c | d
                    at += 1
