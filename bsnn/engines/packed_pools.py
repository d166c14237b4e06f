"""Compiled loops of the engine `packed` for pools of spikes: with neurons of their own, and passed on."""

from __future__ import annotations

import numpy as np

from bsnn.engines.compiled import compiled
from bsnn.engines.packed_kernels import fire
from bsnn.engines.packed_sums import spread
from bsnn.engines.packed_vectors import NEURONS

POOLED = 128  # channels whose spikes are summed at once


@compiled
def pooled(shape, y0, y1, bits, bias, schedule, v, sent, threshold, out, counts, work):  # type: ignore[no-untyped-def]
    """Neurons fed by the sum, or the largest, of 2x2 places of spikes: rows `y0` to `y1`."""
    channels = 8 * shape.out_bytes
    words = bits.view(np.uint32)
    size = shape.bytes // 4
    plane = shape.height * shape.width * shape.steps * size
    for y in range(y0, y1):
        for step0 in range(0, shape.steps, shape.chunk):
            steps = min(shape.chunk, shape.steps - step0)
            for channel in range(0, channels, POOLED):
                lanes = min(POOLED, channels - channel)
                work.currents[: shape.out_width * steps * lanes] = 0
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
                                if shape.largest:
                                    spread(a & b & c & d if sign else a | b | c | d, amount, work.currents, at)
                                else:
                                    for word in (a, b, c, d):
                                        spread(word, amount, work.currents, at)
                                place += plane
                fire(
                    shape, y, y + 1, step0, steps, lanes, channel, bias, schedule, v, sent, threshold, out, counts, work
                )


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
