"""What the kernels of the engine `packed` are told: a layer, the terms of its current, and a thread's memory.

Spikes of all layers of one image share one memory. Those of a layer are uint8 [planes, positions, steps, bytes]: bit c
of a place is channel c; a second plane holds the negative spikes of signed layers.

Terms of the kinds LISTED and WEIGHTED list the spikes that they read, and add a row of weights for each. A tile is what
one row of weights reaches: the channels of a block at one place of the output; where bits are few, at 2x2 places, or at
the 2x2 places that a pool takes together. Its window is all places of the input that it reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from bsnn.engines.packed_vectors import arrays, constant

LISTED, CHANNELWISE, CONSTANT, WEIGHTED = range(4)
"""Kinds of terms: a sum over input channels; over places of each channel's own; of the image, the same at every step;
and with real weights, a sum over input channels"""


class Shape(NamedTuple):
    """A layer for the kernels; all sizes are of one image."""

    out_height: int
    out_width: int
    out_bytes: int  # of one place, for each sign
    out_planes: int
    out: int  # byte where its spikes begin
    terms: int
    single: bool  # one term of integers, which nothing multiplies
    side: int  # rows of the output that stay together
    block: int  # output channels at once
    bias_stride: int  # 0 where all places have one bias, else the output channels
    schedule_stride: int  # 0 where all steps have one row of zeros, else the output channels
    steps: int  # of the whole block
    chunk: int  # steps at once
    band: int  # rows of the output at once


class Term(NamedTuple):
    """A path for the kernels; all numbers are integers."""

    kind: int
    source: int  # byte where the spikes that it reads begin; CONSTANT: element where its values do
    height: int = 1  # map that it reads
    width: int = 1
    bytes: int = 0  # of one place there, for each sign
    planes: int = 1
    rows: int = 1  # of the window
    columns: int = 1
    top: int = 0  # places of the first window outside the map
    left: int = 0
    down: int = 1  # from one window to the next
    across: int = 1
    row_gap: int = 1  # dilation
    column_gap: int = 1
    sums_height: int = 1  # windows, before the pool
    sums_width: int = 1
    pool_rows: int = 1
    pool_columns: int = 1
    pool_top: int = 0
    pool_left: int = 0
    pool_down: int = 1
    pool_across: int = 1
    largest: int = 0  # the largest of a pool's windows counts, not their sum
    side: int = 1  # places of the output that a tile is high and wide
    parts: int = 1  # places that a row of weights holds: 1 or 2x2
    shift: int = 0  # a row of weights has 2**shift bytes
    halves: int = 1  # rows of weights for each spike: 2 where some weights are 0
    weights: int = 0  # byte where its weights begin
    entries: int = 0  # where its lists begin in Work.entries, and in Work.starts
    starts: int = 0


class Neurons(NamedTuple):
    """A layer's neurons of one image; what is added to their currents comes in this order."""

    offsets: np.ndarray  # float32 [channels]
    bias: np.ndarray  # float32 [channels] or [positions, channels]
    schedule: np.ndarray  # float32 [steps, channels], or zeros [channels]
    threshold: np.ndarray  # float32 [channels]
    lower: np.ndarray  # float32 [channels]: negative threshold of signed ones
    v: np.ndarray  # float32 [positions, channels]: potentials
    sent: np.ndarray  # float32 [positions, channels]: spikes sent so far with their sign; unsigned ones use none
    counts: np.ndarray  # int64 [steps]: the number of spikes is added


class Work(NamedTuple):
    """Memory of one thread."""

    spikes: np.ndarray  # uint8: of all layers
    entries: np.ndarray  # uint32 [row, step, spike]: numbers of the channels that spike, from place to place
    starts: np.ndarray  # int32 [row, step, place]: where the list of each place begins
    joined: np.ndarray  # uint32: where the rows of weights of all spikes in one window begin
    carries: np.ndarray  # uint8
    planes: np.ndarray  # uint8: bits of the counters
    currents: np.ndarray  # int16 [place, step, channel]: of one term
    totals: np.ndarray  # float32 [place, step, channel]: of several terms, or of real weights


@intrinsic
def term_of(typing: Any, table: Any, number: Any) -> Any:
    """The Term in row `number` of a table, int64 [terms * fields]."""
    fields = len(Term._fields)
    kind = types.NamedTuple([types.int64] * fields, Term)  # type: ignore[attr-defined]

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        table, number = arrays(context, builder, signature, arguments)
        # fields lie side by side in their order in Term, as `Stage.planned` flattens them
        row = builder.gep(table, [builder.mul(number, constant(fields))])
        values = [builder.load(builder.gep(row, [constant(field)])) for field in range(fields)]
        return context.make_tuple(builder, kind, values)

    return kind(table, types.intp), generate
