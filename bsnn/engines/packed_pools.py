"""Compiled loop of the engine `packed` for maximum pools that pass spikes on."""

from __future__ import annotations

from bsnn.engines.compiled import compiled
from bsnn.engines.packed_shapes import term_of


@compiled
def passed(shape, terms, y0, y1, work):  # type: ignore[no-untyped-def]
    """Maximum over windows of spikes, passed on without neurons: rows `y0` to `y1`.

    It is 1 where any spike is, and -1 where all are.
    """
    term = term_of(terms, 0)
    size = shape.steps * term.bytes  # all steps of a place lie together, and go through at once
    # OR for the positive plane, AND for the negative one: the maximum of -1, 0 and 1, bit by bit. No channel gets both:
    # where one place has +1, not all have -1.
    for sign in range(term.planes):
        for y in range(y0, y1):
            for x in range(shape.out_width):
                to = shape.out + ((sign * shape.out_height + y) * shape.out_width + x) * size
                out = work.spikes[to : to + size]
                written = False
                for turn in range(term.pool_rows):
                    for fold in range(term.pool_columns):
                        row = y * term.pool_down - term.pool_top + turn
                        column = x * term.pool_across - term.pool_left + fold
                        if 0 <= row < term.height and 0 <= column < term.width:
                            place = term.source + ((sign * term.height + row) * term.width + column) * size
                            some = work.spikes[place : place + size]
                            for byte in range(size):
                                if not written:
                                    out[byte] = some[byte]
                                elif sign:
                                    out[byte] &= some[byte]
                                else:
                                    out[byte] |= some[byte]
                            written = True
