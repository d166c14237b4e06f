"""Compiled loop of the engine `packed`: one call takes one layer of one image through a block of time steps.

The terms of a layer's current are integers from bits, but for those of real weights. One that is not multiplied goes to
the neurons as it is; several are each multiplied by their scale, rounded to float32, and added up in their order.
"""

from __future__ import annotations

from bsnn.engines.compiled import compiled, inlined
from bsnn.engines.packed_channels import channelwise
from bsnn.engines.packed_neurons import add_scaled, scan_currents, scan_currents_signed
from bsnn.engines.packed_shapes import CHANNELWISE, CONSTANT, LISTED, term_of
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
from bsnn.engines.packed_weighted import weighted
from bsnn.engines.packed_windows import count_spikes, join_window, list_rows, reach


@inlined
def _sum(term, count, weights, offset, work):  # type: ignore[no-untyped-def]
    """Counters of the first `count` joined rows; returns the number of their levels."""
    # the row of zeros behind a block's weights makes whole groups of 8: it adds nothing to P, and S stays `count`
    nothing = (term.halves * term.rows * term.columns * 8 * term.bytes * term.planes) << term.shift
    for number in range(count, count + 8):
        work.joined[number] = nothing
    groups = (count + 7) // 8
    level, bound = 1, 8
    if term.shift == 6:
        sum_rows_512(work.joined, groups, weights, offset, work.carries, work.planes)
    elif term.shift == 5:
        sum_rows_256(work.joined, groups, weights, offset, work.carries, work.planes)
    else:
        sum_rows_128(work.joined, groups, weights, offset, work.carries, work.planes)
    # A pass leaves three bits of the counters and carries worth 8**level: a sum below 8**level is complete. 5 passes
    # are the most: their 15 bits hold 2**15 - 1.
    while count >= bound:
        if term.shift == 6:
            sum_carries_512(work.carries, groups, work.planes, level)
        elif term.shift == 5:
            sum_carries_256(work.carries, groups, work.planes, level)
        else:
            sum_carries_128(work.carries, groups, work.planes, level)
        groups = (groups + 7) // 8
        level, bound = level + 1, bound * 8
    return level


@inlined
def _write(term, first, lanes, levels, total, place, keep, work):  # type: ignore[no-untyped-def]
    """Currents of one place of a tile; with `keep` they are added to what is there, or the largest one stays."""
    half = term.halves - 1  # places that 2 P - S is shifted to the right
    for lane in range(0, lanes, NEURONS):
        byte = first + lane // 8
        if not keep:
            write_currents(work.planes, byte, levels, total, half, work.currents, place + lane)
        elif term.largest:
            raise_currents(work.planes, byte, levels, total, half, work.currents, place + lane)
        else:
            add_currents(work.planes, byte, levels, total, half, work.currents, place + lane)


@inlined
def _tiles(shape, term, y0, y1, row0, steps, lanes, weights, offset, work):  # type: ignore[no-untyped-def]
    """Currents of `lanes` output channels in rows `y0` to `y1` of the output: [place, step, lane]."""
    side = term.side
    # four parts of a tile of one place are the windows of its pool; of a tile of 2x2 they are its places
    pooled = term.parts > side * side
    for tile in range(y0 // side, (y1 + side - 1) // side):
        for across in range((shape.out_width + side - 1) // side):
            for step in range(steps):
                count = 0
                written = False
                for turn in range(term.pool_rows):
                    for fold in range(term.pool_columns):
                        y = tile * term.pool_down - term.pool_top + turn
                        x = across * term.pool_across - term.pool_left + fold
                        inside = 0 <= y < term.sums_height and 0 <= x < term.sums_width
                        top, left = y * term.down - term.top, x * term.across - term.left
                        if inside:
                            count = join_window(term, top, left, row0, step, steps, count, work)
                        last = turn + 1 == term.pool_rows and fold + 1 == term.pool_columns
                        # a maximum needs the sum of each window; a sum takes the spikes of all as one list, ended here
                        if inside if term.largest else last:
                            levels = _sum(term, count, weights, offset, work)
                            for part in range(term.parts):
                                # S of a part is of its own 3x3 places: other spikes met zeros in its P
                                total = count
                                if term.parts > 1:
                                    total = count_spikes(
                                        term, top + part // 2, left + part % 2, row0, step, steps, work
                                    )
                                row, column = side * tile - y0, side * across
                                if not pooled:
                                    row, column = row + part // 2, column + part % 2
                                if y0 + row < shape.out_height and column < shape.out_width:  # not beyond an odd map
                                    place = ((row * shape.out_width + column) * steps + step) * lanes
                                    first = part * shape.block // 8
                                    keep = written or (pooled and part > 0)
                                    _write(term, first, lanes, levels, total, place, keep, work)
                            written = True
                            count = 0


@inlined
def _add_scaled(places, steps, lanes, scales, first, fresh, work):  # type: ignore[no-untyped-def]
    """Add a term's currents [place, step, lane] to the totals, each times the scale of its channel."""
    for place in range(places):
        for lane in range(0, lanes, NEURONS):
            at = place * steps * lanes + lane
            add_scaled(work.currents, work.totals, at, lanes, steps, scales, first + lane, fresh)


@inlined
def _add_constant(places, steps, lanes, current, first, channels, fresh, work):  # type: ignore[no-untyped-def]
    """Add a term of the image, from `first` on, to the totals of all steps."""
    for place in range(places):
        terms = current[first + place * channels : first + place * channels + lanes]
        for step in range(steps):
            at = (place * steps + step) * lanes
            totals = work.totals[at : at + lanes]
            for lane in range(lanes):
                totals[lane] = terms[lane] if fresh else totals[lane] + terms[lane]


@inlined
def _fire(shape, currents, y0, y1, step0, steps, lanes, channel0, neurons, work):  # type: ignore[no-untyped-def]
    """Advance the neurons of `lanes` output channels at rows `y0` to `y1`."""
    channels = 8 * shape.out_bytes
    positions = shape.out_height * shape.out_width
    plane = positions * shape.steps * shape.out_bytes
    for place in range((y1 - y0) * shape.out_width):
        position = y0 * shape.out_width + place
        for lane in range(0, lanes, NEURONS):
            channel = channel0 + lane
            # potentials [position, channel]; spikes [plane, position, step, byte]; currents [place in band, step, lane]
            at = position * channels + channel
            to = shape.out + (position * shape.steps + step0) * shape.out_bytes + channel // 8
            first = place * steps * lanes + lane
            more = position * shape.bias_stride + channel  # stride 0: one row for all places
            row = step0 * shape.schedule_stride + channel
            if shape.out_planes == 1:
                scan_currents(
                    currents, first, lanes, steps, neurons.offsets, neurons.bias, more,
                    neurons.schedule, row, shape.schedule_stride,
                    neurons.v, neurons.sent, at, neurons.threshold, neurons.lower, channel,
                    work.spikes, to, shape.out_bytes, plane, neurons.counts[step0:],
                )  # fmt: skip
            else:
                scan_currents_signed(
                    currents, first, lanes, steps, neurons.offsets, neurons.bias, more,
                    neurons.schedule, row, shape.schedule_stride,
                    neurons.v, neurons.sent, at, neurons.threshold, neurons.lower, channel,
                    work.spikes, to, shape.out_bytes, plane, neurons.counts[step0:],
                )  # fmt: skip


@compiled
def advance(  # type: ignore[no-untyped-def]
    shape, terms, y0, y1, block0, block1, weights, ones, scales, current, neurons, work
):
    """A layer with neurons: rows `y0` to `y1` and blocks `block0` to `block1` of its output.

    Args:
        shape: Shape.
        terms: int64, rows for `term_of`, in the order in which they are added.
        weights: uint8, of all terms: bits, or float32.
        ones: of packed_lists.ones_of_bytes.
        scales: float32 [terms, channels].
        current: float32, terms of the image [positions, channels].
        neurons: Neurons.
        work: Work.
    """
    # Layers before have done all steps of the block already, so rows and channels may come in any order; only steps
    # must follow each other. Bands and chunks keep lists and currents in the cache, and all blocks share the lists.
    channels = 8 * shape.out_bytes
    for top in range(y0, y1, shape.band):
        low = min(y1, top + shape.band)
        places = (low - top) * shape.out_width
        for step0 in range(0, shape.steps, shape.chunk):
            steps = min(shape.chunk, shape.steps - step0)
            for block in range(block0, block1):
                channel = block * shape.block
                lanes = min(shape.block, channels - channel)
                for number in range(shape.terms):
                    term = term_of(terms, number)
                    if term.kind == CONSTANT:  # comes scaled, of `image_terms`
                        first = term.source + top * shape.out_width * channels + channel
                        _add_constant(places, steps, lanes, current, first, channels, number == 0, work)
                        continue
                    first = number * channels + channel
                    if term.kind == CHANNELWISE:
                        channelwise(shape, term, top, low, step0, steps, lanes, channel, weights, work)
                    else:
                        row0, row1 = reach(term, top, low)
                        if block == block0:  # lists do not depend on output channels
                            list_rows(term, row0, row1, step0, steps, shape.steps, ones, work)
                        room = 8 * term.bytes * term.planes
                        size = (term.halves * term.rows * term.columns * room + 1) << term.shift  # + 1: the zeros
                        offset = term.weights + block * size
                        if term.kind == LISTED:
                            _tiles(shape, term, top, low, row0, steps, lanes, weights, offset, work)
                        else:  # real weights: sums are scaled and added up at once
                            fresh = number == 0
                            weighted(
                                shape, term, top, low, row0, steps, lanes, weights, offset, scales, first, fresh, work
                            )
                            continue
                    if not shape.single:
                        _add_scaled(places, steps, lanes, scales, first, number == 0, work)
                if shape.single:
                    _fire(shape, work.currents, top, low, step0, steps, lanes, channel, neurons, work)
                else:
                    _fire(shape, work.totals, top, low, step0, steps, lanes, channel, neurons, work)
