"""Terms of the engine `packed` in which each output channel reads the input channel of its own.

They are depthwise convolutions; and, with weights of one, the spikes themselves and pools of them.
"""

from __future__ import annotations

import numpy as np

from bsnn.engines.compiled import inlined
from bsnn.engines.packed_sums import clear, raise_sums, spread
from bsnn.engines.packed_vectors import NEURONS


@inlined
def channelwise(shape, term, y0, y1, step0, steps, lanes, channel0, weights, work):  # type: ignore[no-untyped-def]
    """Currents of `lanes` channels in rows `y0` to `y1` of the output: [place, step, lane]."""
    words, signs = work.spikes.view(np.uint32), weights.view(np.uint32)  # bit c of a word: channel c of 32
    size = steps * lanes
    spare = (y1 - y0) * shape.out_width * size  # for the windows of a maximum pool, one after the other
    for y in range(y0, y1):
        for x in range(shape.out_width):
            place = ((y - y0) * shape.out_width + x) * size
            for lane in range(0, size, NEURONS):
                clear(work.currents, place + lane)
            written = False
            for turn in range(term.pool_rows):
                for fold in range(term.pool_columns):
                    row = y * term.pool_down - term.pool_top + turn
                    column = x * term.pool_across - term.pool_left + fold
                    if 0 <= row < term.sums_height and 0 <= column < term.sums_width:
                        # a maximum sums its first window in place, each later one in the spare place, and compares
                        target = spare if written and term.largest else place
                        if target == spare:
                            for lane in range(0, size, NEURONS):
                                clear(work.currents, spare + lane)
                        top, left = row * term.down - term.top, column * term.across - term.left
                        _window(term, top, left, step0, steps, shape.steps, lanes, channel0, words, signs, target, work)
                        if target == spare:
                            for lane in range(0, size, NEURONS):
                                raise_sums(work.currents, place + lane, spare + lane)
                        written = True


@inlined
def _window(term, y, x, step0, steps, all_steps, lanes, channel0, words, signs, target, work):  # type: ignore[no-untyped-def]
    """Add the spikes in the window at row `y` and column `x`, each times its weight, to the currents at `target`."""
    # from here on in words of 32 channels: a place has whole words of them (Map.bytes)
    size = term.bytes // 4
    plane = term.height * term.width * all_steps * size
    for tap in range(term.rows):
        line = y + tap * term.row_gap
        if 0 <= line < term.height:
            for over in range(term.columns):
                column = x + over * term.column_gap
                if 0 <= column < term.width:
                    # weights lie [tap, word], spikes [plane, row, column, step, word]
                    weight = term.weights // 4 + (tap * term.columns + over) * size + channel0 // 32
                    first = (line * term.width + column) * all_steps + step0
                    first = term.source // 4 + first * size + channel0 // 32
                    for step in range(steps):
                        for lane in range(0, lanes, NEURONS):
                            place, word = target + step * lanes + lane, first + step * size + lane // 32
                            sign = signs[weight + lane // 32]
                            spread(words[word], sign, work.currents, place)
                            if term.planes == 2:
                                spread(words[word + plane], ~sign, work.currents, place)  # -1 times the weight
