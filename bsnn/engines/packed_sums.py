"""Sums of the engine `packed`: a weight is a bit, 1 for +1, and a spike adds a row of them to counters across channels.

Bit k of the counters of all output channels is one vector, so that two or three instructions on whole vectors add a bit
to hundreds of counters at once. A carry-save adder takes three vectors of one weight, and gives one of that weight and
one of twice as much; seven of them take eight rows to one vector of carries (Harley and Seal's way to count ones). The
carries of all rows are added in the same manner, eight by eight, until none are left.

With P, the sum of a channel's bits over all rows, and S, the number of rows, the current is 2 P - S. A negative spike
has rows of its own, with all signs turned. Where weights are 0 as well (those between groups of channels), each spike
has two rows: of ones for +1, of zeros for -1, and one of each for 0; the current is half of 2 P - S.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bsnn.engines.packed_vectors import (
    I16,
    I32,
    I64,
    NEURONS,
    arrays,
    constant,
    mask,
    pointer,
    splat,
    ternary,
    vector,
)

GROUP = 8  # rows that become one carry
LEVEL = 3  # bits of the counters that one pass over rows or carries gives: GROUP is 2**LEVEL
PLANE = 64  # bytes from one bit of the counters to the next
PLANES = 15  # bits of the counters of as many spikes as may reach a neuron

# bit 4 a + 2 b + c of a table is the result: the parity is 1 for 1, 2, 4 and 7, the majority for 3, 5, 6 and 7
_PARITY, _MAJORITY = 0x96, 0xE8  # tables of truth of three bits


def _adder(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Carry-save adder: sum and carry of three vectors of bits."""
    if ternary():
        kind = a.type
        name = f"llvm.x86.avx512.pternlog.q.{64 * kind.count}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3 + [I32]), name)
        found = [builder.call(function, [a, b, c, constant(table, I32)]) for table in (_PARITY, _MAJORITY)]
        return found[0], found[1]
    either = builder.xor(a, b)
    return builder.xor(either, c), builder.or_(builder.and_(a, b), builder.and_(either, c))


def _pass(
    builder: ir.IRBuilder, row: Callable[[ir.Value], ir.Value], groups: ir.Value, carries: ir.Value, planes: ir.Value
) -> None:
    """Add GROUP * groups rows: LEVEL vectors to `planes`, and one carry for each group to `carries`."""
    kind = carries.type.pointee
    zero = ir.Constant(kind, [0] * kind.count)
    # bits 0 to 2 of the sum over all groups so far: rows add up to one + 2 two + 4 four + 8 times the carries
    one, two, four = (cgutils.alloca_once_value(builder, zero) for _ in range(LEVEL))

    def add(total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        found, carry = _adder(builder, builder.load(total), a, b)
        builder.store(found, total)
        return carry

    with cgutils.for_range(builder, groups) as loop:
        first = builder.mul(loop.index, constant(GROUP))
        rows = [row(builder.add(first, constant(number))) for number in range(GROUP)]
        # Harley and Seal: four adders turn eight rows into four carries worth 2, two turn these into two worth 4, and
        # one turns these into one worth 8; `one`, `two` and `four` take part and keep the sums.
        pairs = [add(one, *rows[number : number + 2]) for number in range(0, GROUP, 2)]
        fours = [add(two, *pairs[number : number + 2]) for number in (0, 2)]
        # in place where rows are carries themselves: number i is written when 8 i to 8 i + 7 have been read
        builder.store(add(four, *fours), builder.gep(carries, [loop.index]), align=1)
    for number, total in enumerate((one, two, four)):
        builder.store(builder.load(total), pointer(builder, planes, constant(number * PLANE), kind), align=1)


def _row_sum(lanes: int) -> Any:
    """The function `sum_rows` for a number of bits in a row."""

    @intrinsic
    def sum_rows(
        typing: Any, joined: Any, groups: Any, weights: Any, offset: Any, carries: Any, planes: Any
    ) -> Any:  # fmt: skip
        """Add GROUP * groups rows of weights: the lowest LEVEL bits of the counters, and carries.

        Args:
            joined: uint32, the byte at which each row begins.
            weights: uint8, from `offset` on.
            carries: uint8, one row for each group.
            planes: uint8, rows, PLANE bytes from one to the next.
        """
        i = types.intp
        signature = types.void(joined, i, weights, i, carries, planes)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            joined, groups, weights, offset, carries, planes = arrays(context, builder, signature, arguments)
            kind = vector(I64, lanes // 64)
            weights = builder.gep(weights, [offset])

            def row(number: ir.Value) -> ir.Value:
                place = builder.zext(builder.load(builder.gep(joined, [number])), I64)
                return builder.load(pointer(builder, weights, place, kind), align=1)

            _pass(builder, row, groups, builder.bitcast(carries, kind.as_pointer()), planes)
            return context.get_dummy_value()

        return signature, generate

    return sum_rows


def _carry_sum(lanes: int) -> Any:
    """The function `sum_carries` for a number of bits in a row."""

    @intrinsic
    def sum_carries(typing: Any, carries: Any, count: Any, planes: Any, level: Any) -> Any:
        """Add `count` carries in place: the next LEVEL bits of the counters, and carries of carries.

        Up to GROUP - 1 carries more are written.
        """
        i = types.intp
        signature = types.void(carries, i, planes, i)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            carries, count, planes, level = arrays(context, builder, signature, arguments)
            kind = vector(I64, lanes // 64)
            carries = builder.bitcast(carries, kind.as_pointer())
            planes = builder.gep(planes, [builder.mul(level, constant(LEVEL * PLANE))])  # from bit LEVEL * level on
            for number in range(GROUP - 1):  # so that they are whole groups
                place = builder.gep(carries, [builder.add(count, constant(number))])
                builder.store(ir.Constant(kind, [0] * kind.count), place, align=1)
            groups = builder.lshr(builder.add(count, constant(GROUP - 1)), constant(LEVEL))

            def row(number: ir.Value) -> ir.Value:
                return builder.load(builder.gep(carries, [number]), align=1)

            _pass(builder, row, groups, carries, planes)
            return context.get_dummy_value()

        return signature, generate

    return sum_carries


sum_rows_128, sum_rows_256, sum_rows_512 = _row_sum(128), _row_sum(256), _row_sum(512)
sum_carries_128, sum_carries_256, sum_carries_512 = _carry_sum(128), _carry_sum(256), _carry_sum(512)


def _doubled_bits(builder: ir.IRBuilder) -> ir.Value:
    """Twice the worth of each bit of the counters, as vectors of NEURONS numbers of 16 bits that wrap around."""
    # Modulo 2**16 is enough, since 2 P - S fits: for P = S = 20,000, 2 P is -25,536 in 16 bits, and less S it is 20,000
    # again. Bit 14 of P is worth 2**15, that is -2**15 here.
    worth = [(2 << bit) % 2**16 for bit in range(PLANES)]
    kind = vector(I16, NEURONS)
    values = ir.Constant(ir.ArrayType(kind, PLANES), [ir.Constant(kind, [value] * NEURONS) for value in worth])
    return cgutils.global_constant(builder, "doubled_bits", values)


def _writer(kept: str | None) -> Any:
    """The function `write_currents`, which keeps nothing, the sum or the largest of what was there."""

    @intrinsic
    def write_currents(
        typing: Any, planes: Any, first: Any, levels: Any, total: Any, half: Any, currents: Any, place: Any
    ) -> Any:  # fmt: skip
        """Currents 2 P - S of NEURONS channels, int16, to `currents` from `place` on.

        Args:
            planes: uint8, bits of the counters P: bit 0 of the channels begins at `first`, bit k `k * PLANE` further.
            levels: the counters have LEVEL bits for each.
            total: S.
            half: 1 where half of that is the current, else 0.
        """
        i = types.intp
        signature = types.void(planes, i, i, i, i, currents, i)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            planes, first, levels, total, half, currents, place = arrays(context, builder, signature, arguments)
            kind = vector(I16, NEURONS)
            # from -S on, each bit of P that is set adds twice its worth; 32 channels at once
            start = builder.neg(splat(builder, builder.trunc(total, I16), NEURONS))
            found = cgutils.alloca_once_value(builder, start)
            amounts = _doubled_bits(builder)
            with cgutils.for_range(builder, levels) as loop:
                value = builder.load(found)
                plane = builder.mul(loop.index, constant(LEVEL))
                for _ in range(LEVEL):
                    word = builder.add(first, builder.mul(plane, constant(PLANE)))
                    # a plane's bits of these channels are the mask of those that get the amount
                    word = builder.load(pointer(builder, planes, word, I32), align=4)
                    amount = builder.load(builder.gep(amounts, [constant(0), plane]))
                    value = builder.select(mask(builder, word), builder.add(value, amount), value)
                    plane = builder.add(plane, constant(1))
                builder.store(value, found)
            # half is exact: two rows for each spike make S even
            value = builder.ashr(builder.load(found), splat(builder, builder.trunc(half, I16), NEURONS))
            target = pointer(builder, currents, place, kind)
            if kept is not None:
                # sums stay in 16 bits: the windows of one pool together have at most MOST_INPUTS rows
                old = builder.load(target, align=2)
                largest = builder.select(builder.icmp_signed(">", old, value), old, value)
                value = largest if kept == "largest" else builder.add(old, value)
            builder.store(value, target, align=2)
            return context.get_dummy_value()

        return signature, generate

    return write_currents


write_currents, add_currents, raise_currents = _writer(None), _writer("sum"), _writer("largest")


@intrinsic
def spread(typing: Any, spikes: Any, signs: Any, sums: Any, place: Any) -> Any:
    """Add +1, or -1 where the bit of `signs` is 0, to those of NEURONS int16 `sums` from `place` on that spike.

    Args:
        spikes: uint32, a bit for each sum; so is `signs`.
    """
    signature = types.void(types.uint32, types.uint32, sums, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        spikes, signs, sums, place = arrays(context, builder, signature, arguments)
        kind = vector(I16, NEURONS)
        one, less, zero = (ir.Constant(kind, [value] * NEURONS) for value in (1, -1, 0))
        amount = builder.select(mask(builder, signs), one, less)
        target = pointer(builder, sums, place, kind)
        more = builder.select(mask(builder, spikes), amount, zero)
        builder.store(builder.add(builder.load(target, align=2), more), target, align=2)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def clear(typing: Any, sums: Any, place: Any) -> Any:
    """Set NEURONS int16 `sums` from `place` on to 0."""
    signature = types.void(sums, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        sums, place = arrays(context, builder, signature, arguments)
        kind = vector(I16, NEURONS)
        builder.store(ir.Constant(kind, [0] * NEURONS), pointer(builder, sums, place, kind), align=2)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def raise_sums(typing: Any, sums: Any, place: Any, other: Any) -> Any:
    """Set NEURONS int16 `sums` from `place` on to those from `other` on where these are larger."""
    signature = types.void(sums, types.intp, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        sums, place, other = arrays(context, builder, signature, arguments)
        target = pointer(builder, sums, place, vector(I16, NEURONS))
        old = builder.load(target, align=2)
        new = builder.load(pointer(builder, sums, other, vector(I16, NEURONS)), align=2)
        builder.store(builder.select(builder.icmp_signed(">", new, old), new, old), target, align=2)
        return context.get_dummy_value()

    return signature, generate
