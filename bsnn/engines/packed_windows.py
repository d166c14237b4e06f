"""What a window of the engine `packed` sees: lists of spikes by row, and the rows of weights that they call for."""

from __future__ import annotations

from bsnn.engines.compiled import inlined
from bsnn.engines.packed_lists import join, list_spikes


@inlined
def reach(term, y0, y1):  # type: ignore[no-untyped-def]
    """First row of the input that rows `y0` to `y1` of the output read, and the row after the last one."""
    # rows of windows, from the first one of y0's pool to the last one of that of y1 - 1, without those off the map
    first = max(0, y0 // term.side * term.pool_down - term.pool_top)
    last = min(term.sums_height, ((y1 - 1) // term.side) * term.pool_down - term.pool_top + term.pool_rows) - 1
    end = last * term.down - term.top + (term.rows - 1) * term.row_gap + 1
    return max(0, first * term.down - term.top), min(term.height, end)


@inlined
def list_rows(term, row0, row1, step0, steps, all_steps, ones, work):  # type: ignore[no-untyped-def]
    """List the spikes of rows `row0` to `row1`."""
    size = term.bytes
    room = 8 * size * term.planes
    for row in range(row0, row1):
        for step in range(steps):
            # One list for each row and step, over all columns: any run of columns is one piece of it. An entry is
            # column * room + input, where inputs of the negative plane follow those of the positive one.
            number = (row - row0) * steps + step
            first = term.entries + number * term.width * room
            starts = term.starts + number * (term.width + 1)
            count = 0
            for column in range(term.width):
                work.starts[starts + column] = count
                for plane in range(term.planes):
                    # spikes lie [plane, row, column, step, byte]
                    place = (plane * term.height + row) * term.width + column
                    count += list_spikes(
                        work.spikes, term.source + (place * all_steps + step0 + step) * size, size,
                        column * room + 8 * size * plane, ones, work.entries, first + count,
                    )  # fmt: skip
            work.starts[starts + term.width] = count


@inlined
def join_window(term, y, x, row0, step, steps, count, work):  # type: ignore[no-untyped-def]
    """Append the rows of weights of all spikes in the window at row `y` and column `x` to the first `count` ones.

    Places of a window that lie side by side are one list.
    """
    room = 8 * term.bytes * term.planes
    # columns side by side are one run; where there are gaps, each is a run of its own
    pieces = 1 if term.column_gap == 1 else term.columns
    run = term.columns if term.column_gap == 1 else 1
    half = term.rows * term.columns * room
    for row in range(term.rows):
        line = y + row * term.row_gap
        if 0 <= line < term.height:
            number = (line - row0) * steps + step
            starts = term.starts + number * (term.width + 1)
            entries = term.entries + number * term.width * room
            for piece in range(pieces):
                column = x + piece * term.column_gap
                left, right = max(column, 0), min(column + run, term.width)
                if left < right:
                    first = work.starts[starts + left]
                    size = work.starts[starts + right] - first
                    for turn in range(term.halves):
                        # from entry column' * room + input to the byte of its row of weights: in a window that begins
                        # at x = 5, column' = 6 is tap 1; with gaps, a run is the one column of tap `piece`
                        offset = ((row * term.columns + piece - column) * room + turn * half) << term.shift
                        count = join(work.entries, entries + first, size, term.shift, offset, work.joined, count)
    return count


@inlined
def count_spikes(term, y, x, row0, step, steps, work):  # type: ignore[no-untyped-def]
    """Number of spikes in the 3x3 places from row `y` and column `x` on."""
    count = 0
    left, right = max(x, 0), min(x + 3, term.width)
    for row in range(max(0, y), min(y + 3, term.height)):
        starts = term.starts + ((row - row0) * steps + step) * (term.width + 1)
        count += work.starts[starts + right] - work.starts[starts + left]
    return count
