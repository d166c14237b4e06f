"""GPU kernels of the engine `triton`: a layer's currents and the scan over a block of time steps in one launch.

A program owns a tile of ROWS output positions (of consecutive images) x COLUMNS channels and goes through all steps
of the block: membranes stay in registers, only spikes are written. Spikes are int8, channels last,
[steps, images, height, width, channels], channels padded with silent ones to a multiple of 32.

The sum over taps and input channels is a matrix product of int8 with int32 sums (implicit: no columns are stored),
so it is exact in any order; the conversion to float32 is exact below 2^24. What rounds is `v + x` and
`v - s * V`, each a single float32 operation on one element, as in every other engine. Contracting the latter to a
fused multiply-add changes nothing, since s is -1, 0 or 1. Counts are integer atomics: any order gives the same sum.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (parameters are Triton's: pointers, integers, and compile-time constants in capitals)
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows_and_columns(OUTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Tile of this program. Channels run fastest, so that neighbours read the same spikes at about the same time."""
    across: tl.constexpr = OUTER // COLUMNS
    tile = tl.program_id(0)
    row0 = (tile // across) * ROWS
    return row0, row0 + tl.arange(0, ROWS), (tile % across) * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def _fire(v, sent, x, threshold, lower, SIGNED: tl.constexpr):
    """One step of the neurons: potential, spikes sent so far (net; only if signed) and spikes (int32).

    `lower`: negative threshold; only if signed.
    """
    v = v + x
    if SIGNED:
        spike = (v >= threshold).to(tl.int32) - ((v <= lower) & (sent > 0)).to(tl.int32)
        sent = sent + spike
    else:
        spike = (v >= threshold).to(tl.int32)
    return v - spike.to(tl.float32) * threshold, sent, spike


@triton.jit
def _count(spike, counts, row0, total, POSITIONS: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr):
    """Add a tile's spikes to the counts of its images. GROUP divides POSITIONS: a group of rows is of one image."""
    groups: tl.constexpr = ROWS // GROUP
    sent = tl.sum(tl.abs(spike), axis=1)
    if GROUP > 1:
        sent = tl.sum(tl.reshape(sent, (groups, GROUP)), axis=1)
    row = row0 + tl.arange(0, groups) * GROUP
    tl.atomic_add(counts + row // POSITIONS, sent, mask=(row < total) & (sent > 0), sem="relaxed")


@triton.jit
def _membrane(membrane, sent, cells, inside, SIGNED: tl.constexpr):
    """Potentials of a tile, and its spikes sent so far."""
    v = tl.load(membrane + cells, mask=inside, other=0.0)
    if SIGNED:  # noqa: SIM108 (Triton compiles one branch of an if statement alone)
        number = tl.load(sent + cells, mask=inside, other=0)
    else:
        number = tl.zeros((1, 1), tl.int32)
    return v, number


@triton.jit
def _save(membrane, sent, cells, inside, v, number, SIGNED: tl.constexpr):
    """Potentials of a tile, and its spikes sent so far, for the next block."""
    tl.store(membrane + cells, v, mask=inside)
    if SIGNED:
        tl.store(sent + cells, number, mask=inside)


@triton.jit
def _scheduled(x, schedule, column, SCHEDULED: tl.constexpr):
    """Currents with those of each channel at this step, where there are any."""
    if SCHEDULED:
        x = x + tl.load(schedule + column)[None, :]
    return x


@triton.jit(do_not_specialize=["steps", "images", "layer", "layers"])
def constant_scan(
    current, schedule, threshold, lower, membrane, sent, out, counts,
    steps, images, layer, layers,
    POSITIONS: tl.constexpr, OUTER: tl.constexpr, SIGNED: tl.constexpr, SCHEDULED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """First layer: float32 currents [images, positions, channels], the same at every step but for a schedule."""
    row0, row, column = _rows_and_columns(OUTER, ROWS, COLUMNS)
    total = images * POSITIONS
    inside = (row < total)[:, None]  # the last tile may reach beyond the last image
    cells = row.to(tl.int64)[:, None] * OUTER + column[None, :]  # int64: beyond 2^31 for many images
    x = tl.load(current + cells, mask=inside, other=0.0)
    level, floor = tl.load(threshold + column)[None, :], tl.load(lower + column)[None, :]
    v, number = _membrane(membrane, sent, cells, inside, SIGNED)  # in registers from here to _save
    step_cells = total.to(tl.int64) * OUTER
    # schedule is [steps, OUTER], out [steps, images, positions, OUTER], counts [steps, firing layers, images]
    for step in range(steps):
        added = _scheduled(x, schedule + step * OUTER, column, SCHEDULED)
        v, number, spike = _fire(v, number, added, level, floor, SIGNED)
        tl.store(out + step * step_cells + cells, spike.to(tl.int8), mask=inside)
        _count(spike, counts + (step * layers + layer) * images, row0, total, POSITIONS, ROWS, GROUP)
    _save(membrane, sent, cells, inside, v, number, SIGNED)


@triton.jit
def _part_of_row(M: tl.constexpr):
    """Part (0..3) and row of the quarter for each row of a matrix product of four parts with M rows in all.

    The parts are distinguished by the highest bit of the row and by bit 3: on Hopper's layout of sums both number
    registers of one thread, so that taking the product apart moves nothing between threads.
    """
    m = tl.arange(0, M)  # rows 0-7: part 0, 8-15: part 1, 16-23: part 0 again, ...; from M / 2 on: parts 2 and 3
    half: tl.constexpr = M // 2
    return m // half * 2 + (m // 8) % 2, (m % half) // 16 * 8 + m % 8


@triton.jit
def _parts(sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The four parts [ROWS, COLUMNS] of sums [4 * ROWS, COLUMNS] whose rows are numbered as in `_part_of_row`."""
    # rows are (high bit, ROWS // 8, bit 3, 8); the two bits go last, where tl.split takes an axis of 2 apart
    parted = tl.permute(tl.reshape(sums, (2, ROWS // 8, 2, 8, COLUMNS)), (1, 3, 4, 2, 0))
    first, second = tl.split(parted)  # by the high bit: parts 0 and 1, parts 2 and 3
    part0, part1 = tl.split(first)  # by bit 3
    part2, part3 = tl.split(second)
    shape: tl.constexpr = (ROWS, COLUMNS)
    return tl.reshape(part0, shape), tl.reshape(part1, shape), tl.reshape(part2, shape), tl.reshape(part3, shape)


@triton.jit
def _taps_inside(
    y, x, inside, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIDE: tl.constexpr
):  # fmt: skip
    """Bit mask of the taps that lie on the map, for each row; y and x are those of the first tap."""
    bits = inside.to(tl.int32) * 0  # one zero for each row; SIDE is at most 4, so 16 bits
    for tap in tl.static_range(SIDE * SIDE):
        ky = y + tap // SIDE
        kx = x + tap % SIDE
        valid = inside & (ky >= 0) & (ky < HEIGHT) & (kx >= 0) & (kx < WIDTH)
        bits = bits | (valid.to(tl.int32) << tap)
    return bits


@triton.jit
def _sums(
    spikes, weight, base, bits, column,
    WIDTH: tl.constexpr, INNER: tl.constexpr, SIDE: tl.constexpr,
    M: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Sums [M, COLUMNS], int32. `base` is where the first tap of each row lies in `spikes`.

    Taps run fastest: neighbouring ones read mostly the same spikes, and soon after each other.
    """
    k = tl.arange(0, CHUNK)
    source = spikes + base[:, None] + k[None, :]  # [M, CHUNK]: channels of a place lie side by side
    weights = weight + column[None, :] * (SIDE * SIDE * INNER) + k[:, None]  # [CHUNK, COLUMNS] of [out, tap, in]
    sums = tl.zeros((M, COLUMNS), tl.int32)
    for part in range(SIDE * SIDE * (INNER // CHUNK)):  # CHUNK divides INNER
        tap = part % (SIDE * SIDE)
        first = part // (SIDE * SIDE) * CHUNK
        valid = ((bits >> tap) & 1) != 0
        cell = (tap // SIDE * WIDTH + tap % SIDE) * INNER + first  # from the first tap to this one and these channels
        a = tl.load(source + cell, mask=valid[:, None], other=0)
        b = tl.load(weights + (tap * INNER + first))  # no mask: tiles divide the padded channels
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
    return sums


@triton.jit
def _current(total, bias, position, column, OUTER: tl.constexpr, BIAS: tl.constexpr):
    """Current from the exact sum: float32 plus the bias, one per channel (BIAS 1) or one per neuron (BIAS 2)."""
    x = total.to(tl.float32)
    if BIAS == 1:
        x = x + tl.load(bias + column)[None, :]
    if BIAS == 2:
        x = x + tl.load(bias + position[:, None] * OUTER + column[None, :])
    return x


@triton.jit
def _advance(
    total, v, number, level, floor, bias, schedule, position, column, cells, inside, row0, rows, out, counts,
    POSITIONS: tl.constexpr, OUTER: tl.constexpr, BIAS: tl.constexpr, SIGNED: tl.constexpr,
    SCHEDULED: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One step of a tile from its exact sums; `schedule`, `out` and `counts` are those of the step."""
    x = _current(total, bias, position, column, OUTER, BIAS)
    x = _scheduled(x, schedule, column, SCHEDULED)
    v, number, spike = _fire(v, number, x, level, floor, SIGNED)
    tl.store(out + cells, spike.to(tl.int8), mask=inside)
    _count(spike, counts, row0, rows, POSITIONS, ROWS, GROUP)
    return v, number


@triton.jit(do_not_specialize=["steps", "images", "layer", "layers"])
def product_scan(
    spikes, weight, bias, schedule, threshold, lower, membrane, sent, out, counts,
    steps, images, layer, layers,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr,
    OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr, OUTER: tl.constexpr,
    SIDE: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr, MAX: tl.constexpr,
    BIAS: tl.constexpr, SIGNED: tl.constexpr, SCHEDULED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Layer with int8 weights [out, side, side, in]: sums, neurons and spikes. A linear layer has maps of 1 x 1.

    Each matrix product has 4 * ROWS rows: four steps at once, or (MAX) the four positions of a 2x2 window at one step.
    """
    POSITIONS: tl.constexpr = OUT_HEIGHT * OUT_WIDTH
    M: tl.constexpr = 4 * ROWS
    row0, row, column = _rows_and_columns(OUTER, ROWS, COLUMNS)
    rows = images * POSITIONS
    inside = (row < rows)[:, None]
    position = row % POSITIONS
    cells = row.to(tl.int64)[:, None] * OUTER + column[None, :]
    level, floor = tl.load(threshold + column)[None, :], tl.load(lower + column)[None, :]
    v, number = _membrane(membrane, sent, cells, inside, SIGNED)
    step_in = images.to(tl.int64) * (HEIGHT * WIDTH * INNER)
    step_out = rows.to(tl.int64) * OUTER

    # row m of the product reads for output row row0 + row_of_part; its window and taps are the same at every step
    part, row_of_part = _part_of_row(M)
    source = row0 + row_of_part
    y = (source % POSITIONS) // OUT_WIDTH * STRIDE - PAD
    x = (source % POSITIONS) % OUT_WIDTH * STRIDE - PAD
    if MAX:  # STRIDE is 2, and a part one window of the pool
        y += part // 2
        x += part % 2
    bits = _taps_inside(y, x, source < rows, HEIGHT, WIDTH, SIDE)
    base = (((source // POSITIONS).to(tl.int64) * HEIGHT + y) * WIDTH + x) * INNER  # may lie off the map: bits masks
    if MAX:
        for step in range(steps):
            here = spikes + step * step_in
            sums = _sums(here, weight, base, bits, column, WIDTH, INNER, SIDE, M, COLUMNS, CHUNK)
            sums0, sums1, sums2, sums3 = _parts(sums, ROWS, COLUMNS)
            total = tl.maximum(tl.maximum(sums0, sums1), tl.maximum(sums2, sums3))
            v, number = _advance(
                total, v, number, level, floor, bias, schedule + step * OUTER,
                position, column, cells, inside, row0, rows,
                out + step * step_out, counts + (step * layers + layer) * images,
                POSITIONS, OUTER, BIAS, SIGNED, SCHEDULED, ROWS, GROUP,
            )  # fmt: skip
    else:
        for step in range(0, steps, 4):  # one pass over the weights serves four steps
            # steps past the last are computed from the last one's spikes, and not used
            at = base + tl.minimum(part, steps - 1 - step) * step_in
            here = spikes + step * step_in
            sums = _sums(here, weight, at, bits, column, WIDTH, INNER, SIDE, M, COLUMNS, CHUNK)
            four = _parts(sums, ROWS, COLUMNS)
            for offset in tl.static_range(4):  # one after the other: v is carried on
                if step + offset < steps:
                    v, number = _advance(
                        four[offset], v, number, level, floor, bias, schedule + (step + offset) * OUTER,
                        position, column, cells, inside, row0, rows,
                        out + (step + offset) * step_out, counts + ((step + offset) * layers + layer) * images,
                        POSITIONS, OUTER, BIAS, SIGNED, SCHEDULED, ROWS, GROUP,
                    )  # fmt: skip
    _save(membrane, sent, cells, inside, v, number, SIGNED)


@triton.jit(do_not_specialize=["steps", "images", "layer", "layers"])
def pool_scan(
    spikes, bias, schedule, threshold, lower, membrane, sent, out, counts,
    steps, images, layer, layers,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUTER: tl.constexpr,
    MAX: tl.constexpr, FIRES: tl.constexpr, BIAS: tl.constexpr, SIGNED: tl.constexpr,
    SCHEDULED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """2x2 pool of spikes: their sum or maximum, passed on as it is or fed to neurons."""
    OUT_WIDTH: tl.constexpr = WIDTH // 2
    POSITIONS: tl.constexpr = (HEIGHT // 2) * OUT_WIDTH
    row0, row, column = _rows_and_columns(OUTER, ROWS, COLUMNS)
    total = images * POSITIONS
    inside = (row < total)[:, None]
    position = row % POSITIONS
    cells = row.to(tl.int64)[:, None] * OUTER + column[None, :]
    corner = ((row // POSITIONS).to(tl.int64) * HEIGHT + position // OUT_WIDTH * 2) * WIDTH + position % OUT_WIDTH * 2
    source = spikes + corner[:, None] * OUTER + column[None, :]  # corner: top left of the 2x2; odd edges are unread
    if FIRES:
        level, floor = tl.load(threshold + column)[None, :], tl.load(lower + column)[None, :]
        v, number = _membrane(membrane, sent, cells, inside, SIGNED)
    step_in = images.to(tl.int64) * (HEIGHT * WIDTH * OUTER)
    step_cells = total.to(tl.int64) * OUTER
    for step in range(steps):
        spike = tl.load(source + step * step_in, mask=inside, other=0).to(tl.int32)
        for window in tl.static_range(1, 4):
            cell = ((window // 2) * WIDTH + window % 2) * OUTER
            more = tl.load(source + step * step_in + cell, mask=inside, other=0).to(tl.int32)
            spike = tl.maximum(spike, more) if MAX else spike + more
        if FIRES:
            x = _current(spike, bias, position, column, OUTER, BIAS)
            x = _scheduled(x, schedule + step * OUTER, column, SCHEDULED)
            v, number, spike = _fire(v, number, x, level, floor, SIGNED)
            _count(spike, counts + (step * layers + layer) * images, row0, total, POSITIONS, ROWS, GROUP)
        tl.store(out + step * step_cells + cells, spike.to(tl.int8), mask=inside)
    if FIRES:
        _save(membrane, sent, cells, inside, v, number, SIGNED)
