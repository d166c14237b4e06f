"""Terms of the engine `packed` with real weights: a spike adds a row of float32 weights to the sums across channels.

Silent inputs cost nothing, so that a step takes as much as spikes come: with one neuron in ten firing, a tenth of a
convolution. Sums are float32, in the order of the lists: rows of the window, columns, channels. They depend on nothing
else, neither on the batch nor on threads or blocks of steps. (A place lists its positive spikes before its negative
ones; pools other than 2x2 averages go window by window first.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bsnn.engines.compiled import inlined
from bsnn.engines.packed_vectors import F32, I64, NEURONS, arrays, constant, pointer, vector
from bsnn.engines.packed_windows import join_window

SET, ADD, HOLD, RAISE = range(4)
"""Sums times their scales, as totals or added to them; and bare sums, of one window or the largest so far"""


def _weighted_sum(lanes: int) -> Any:
    """The function `sum_weights` for a number of channels."""

    @intrinsic
    def sum_weights(
        typing: Any, joined: Any, count: Any, weights: Any, offset: Any, scales: Any, channel: Any, totals: Any,
        place: Any, mode: Any,
    ) -> Any:  # fmt: skip
        """Add up rows of weights, and put the sums into the totals from `place` on.

        Args:
            joined: uint32, the byte at which each of `count` rows begins.
            weights: uint8, float32 numbers from `offset` on.
            scales: float32, from `channel` on.
            totals: float32.
            mode: SET, ADD, HOLD or RAISE.
        """
        i = types.intp
        signature = types.void(joined, i, weights, i, scales, i, totals, i, i)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            values = arrays(context, builder, signature, arguments)
            joined, count, weights, offset, scales, channel, totals, place, mode = values
            kind = vector(F32, NEURONS)
            zero = ir.Constant(kind, [0.0] * NEURONS)
            # With AVX-512 sums stay in registers through all rows: 128 channels are 8 of its vectors, as many as
            # additions are under way at once. AVX2 has room for all but one of them.
            sums = [cgutils.alloca_once_value(builder, zero) for _ in range(lanes // NEURONS)]
            weights = builder.gep(weights, [offset])
            with cgutils.for_range(builder, count) as loop:
                row = builder.zext(builder.load(builder.gep(joined, [loop.index])), I64)
                for number, some in enumerate(sums):
                    begin = builder.add(row, constant(4 * NEURONS * number))
                    value = builder.load(pointer(builder, weights, begin, kind), align=4)
                    builder.store(builder.fadd(builder.load(some), value), some)
            adds, raises = (builder.icmp_signed("==", mode, constant(other)) for other in (ADD, RAISE))
            bare = builder.icmp_signed(">=", mode, constant(HOLD))
            for number, some in enumerate(sums):
                shift = constant(NEURONS * number)
                scale = builder.load(pointer(builder, scales, builder.add(channel, shift), kind), align=4)
                found = builder.load(some)
                term = builder.select(bare, found, builder.fmul(found, scale))
                target = pointer(builder, totals, builder.add(place, shift), kind)
                old = builder.load(target, align=4)
                larger = builder.select(builder.fcmp_ordered(">", old, term), old, term)
                # chosen, not computed with: where totals begin, memory may hold infinity or no number
                kept = builder.select(adds, builder.fadd(old, term), builder.select(raises, larger, term))
                builder.store(kept, target, align=4)
            return context.get_dummy_value()

        return signature, generate

    return sum_weights


sum_weights_32, sum_weights_64, sum_weights_128 = _weighted_sum(32), _weighted_sum(64), _weighted_sum(128)


@inlined
def weighted(  # type: ignore[no-untyped-def]
    shape, term, y0, y1, row0, steps, lanes, weights, offset, scales, channel, fresh, work
):
    """Add a term to the totals [place, step, lane] of `lanes` channels in rows `y0` to `y1` of the output."""
    spare = (y1 - y0) * shape.out_width * steps * lanes  # the largest sums of a maximum pool, which are scaled then
    for y in range(y0, y1):
        for x in range(shape.out_width):
            for step in range(steps):
                place = (((y - y0) * shape.out_width + x) * steps + step) * lanes
                count = 0
                mode = HOLD if term.largest else SET if fresh else ADD
                for turn in range(term.pool_rows):
                    for fold in range(term.pool_columns):
                        row = y * term.pool_down - term.pool_top + turn
                        column = x * term.pool_across - term.pool_left + fold
                        inside = 0 <= row < term.sums_height and 0 <= column < term.sums_width
                        if inside:
                            top, left = row * term.down - term.top, column * term.across - term.left
                            count = join_window(term, top, left, row0, step, steps, count, work)
                        # as in `_tiles`: a maximum needs each window's sum, a sum takes the spikes of all together
                        last = turn + 1 == term.pool_rows and fold + 1 == term.pool_columns
                        if inside if term.largest else last:
                            target = spare if term.largest else place
                            _sum(count, lanes, weights, offset, scales, channel, target, mode, work)
                            mode = RAISE
                            count = 0
                if term.largest:
                    for lane in range(lanes):
                        found = work.totals[spare + lane] * scales[channel + lane]
                        work.totals[place + lane] = found if fresh else work.totals[place + lane] + found


@inlined
def _sum(count, lanes, weights, offset, scales, channel, place, mode, work):  # type: ignore[no-untyped-def]
    lane = 0
    while lane < lanes:
        begin = offset + 4 * lane
        if lanes - lane >= 128:
            sum_weights_128(work.joined, count, weights, begin, scales, channel + lane, work.totals, place + lane, mode)
            lane += 128
        elif lanes - lane >= 64:
            sum_weights_64(work.joined, count, weights, begin, scales, channel + lane, work.totals, place + lane, mode)
            lane += 64
        else:
            sum_weights_32(work.joined, count, weights, begin, scales, channel + lane, work.totals, place + lane, mode)
            lane += 32
