"""Spikes of the engine `packed` as bits: neurons write them, lists of codes are read from them. LLVM instructions.

The neuron, element by element in float32:  v <- v + x;  s = (v >= V);  v <- v - s * V. A signed one that has sent more
positive than negative spikes also sends -1 when v <= -V. All steps are done while v stays in its register.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bsnn.engines.packed_vectors import (
    _F32,
    _I16,
    _I32,
    _I64,
    CODES,
    NEURONS,
    RADIX,
    TABLE,
    _arrays,
    _at,
    _constant,
    _splat,
    _vector,
)

_CODE_BITS = 10  # of a code in PAIRS


def code_tables() -> np.ndarray:
    """Tables of all codes, int8 [2 * CODES, TABLE]: for each nibble of weights the sum of the digits under its ones."""
    digits = np.arange(CODES)[:, None] // RADIX ** np.arange(4) % RADIX
    ones = np.arange(TABLE)[:, None] >> np.arange(4) & 1
    sums = (digits @ ones.T).astype(np.int8)
    return np.concatenate([sums, -sums])


def pairs() -> np.ndarray:
    """For each byte of spikes the codes of its two nibbles and the number of its ones, uint32 [256].

    The code of the lower nibble lies in bits 0 to 9, the other one's in 10 to 19, the number from 20 on: for four bytes
    they are added without a carry.
    """
    nibble = (np.arange(16)[:, None] >> np.arange(4) & 1) @ RADIX ** np.arange(4)
    byte = np.arange(256)
    ones = np.unpackbits(byte.astype(np.uint8)[:, None], axis=1).sum(1, dtype=np.int64)
    return (nibble[byte & 15] | nibble[byte >> 4] << _CODE_BITS | ones << 2 * _CODE_BITS).astype(np.uint32)


def _lister(windows: int) -> Callable[..., int]:
    """The function `list_codes` for bytes of one place, or the sums of four."""

    @intrinsic
    def list_codes(
        typing: Any, bits: Any, one: Any, two: Any, three: Any, four: Any, count: Any, group: Any, negative: Any,
        pairs: Any, entries: Any, first: Any,
    ) -> Any:  # fmt: skip
        """Append the codes other than 0 of `count` bytes to the list that ends at `entries[first]`.

        Args:
            bits: uint8; `one` to `four` are the places of the first byte in each window.
            group: number of the first nibble.
            negative: 1 for negative spikes, else 0.
            pairs: of `pairs`.

        Returns:
            Number of entries, and from bit 32 on the sum of their digits.
        """
        i = types.intp
        signature = i(bits, i, i, i, i, i, i, i, pairs, entries, i)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            values = _arrays(context, builder, signature, arguments)
            bits, places, (count, group, negative, pairs, entries, first) = values[0], values[1:5], values[5:]
            begin = builder.gep(entries, [first])
            end = cgutils.alloca_once_value(builder, begin)
            digits = cgutils.alloca_once_value(builder, _constant(0))
            upper = builder.shl(builder.trunc(group, _I32), _constant(16, _I32))
            upper = builder.add(upper, builder.mul(builder.trunc(negative, _I32), _constant(CODES * TABLE, _I32)))
            upper = cgutils.alloca_once_value(builder, upper)
            sources = [builder.gep(bits, [place]) for place in places[:windows]]
            with cgutils.for_range(builder, count) as loop:
                both = _constant(0, _I32)
                for source in sources:
                    byte = builder.zext(builder.load(builder.gep(source, [loop.index])), _I64)
                    both = builder.add(both, builder.load(builder.gep(pairs, [byte])))
                more = builder.zext(builder.lshr(both, _constant(2 * _CODE_BITS, _I32)), _I64)
                builder.store(builder.add(builder.load(digits), more), digits)
                for shift in (0, _CODE_BITS):
                    code = builder.and_(builder.lshr(both, _constant(shift, _I32)), _constant(2**_CODE_BITS - 1, _I32))
                    place = builder.mul(code, _constant(TABLE, _I32))
                    pointer = builder.load(end)
                    builder.store(builder.add(place, builder.load(upper)), pointer)
                    listed = builder.zext(builder.icmp_unsigned("!=", code, _constant(0, _I32)), _I64)
                    builder.store(builder.gep(pointer, [listed]), end)
                    builder.store(builder.add(builder.load(upper), _constant(1 << 16, _I32)), upper)
            length = builder.sub(builder.ptrtoint(builder.load(end), _I64), builder.ptrtoint(begin, _I64))
            length = builder.lshr(length, _constant(2))
            return builder.or_(length, builder.shl(builder.load(digits), _constant(32)))

        return signature, generate

    return list_codes


list_one, list_four = _lister(1), _lister(4)


class _Neurons:
    """NEURONS neurons whose potentials stay in registers."""

    def __init__(self, builder: ir.IRBuilder, v: ir.Value, sent: ir.Value | None, threshold: ir.Value) -> None:
        self.builder, self.signed = builder, sent is not None
        self.places = [v] if sent is None else [v, sent]
        self.kept = [cgutils.alloca_once_value(builder, builder.load(place, align=4)) for place in self.places]
        self.threshold = builder.load(threshold, align=4)

    def step(self, current: ir.Value) -> list[ir.Value]:
        """Masks of the positive and, for signed neurons, of the negative spikes."""
        builder, threshold = self.builder, self.threshold
        v = builder.fadd(builder.load(self.kept[0]), current)
        above = builder.fcmp_ordered(">=", v, threshold)
        if not self.signed:
            builder.store(builder.select(above, builder.fsub(v, threshold), v), self.kept[0])
            return [above]
        sent = builder.load(self.kept[1])
        below = builder.fcmp_ordered("<=", v, builder.fneg(threshold))
        below = builder.and_(below, builder.fcmp_ordered(">", sent, ir.Constant(sent.type, [0.0] * NEURONS)))
        up, down = builder.and_(above, builder.not_(below)), builder.and_(below, builder.not_(above))
        one = ir.Constant(sent.type, [1.0] * NEURONS)
        for value, change, kept in ((v, threshold, self.kept[0]), (sent, builder.fneg(one), self.kept[1])):
            lower = builder.select(up, builder.fsub(value, change), value)
            builder.store(builder.select(down, builder.fadd(value, change), lower), kept)
        return [up, down]

    def save(self) -> None:
        """Back to memory."""
        for kept, place in zip(self.kept, self.places, strict=True):
            self.builder.store(self.builder.load(kept), place, align=4)


class Sent(NamedTuple):
    """Where spikes go: uint8 bits at `at`, `stride` bytes per step, `plane` bytes to the negative ones; and counts."""

    bits: Any
    at: Any
    stride: Any
    plane: Any
    counts: Any


def _send(builder: ir.IRBuilder, masks: list[ir.Value], step: ir.Value, sent: Sent) -> None:
    place = builder.add(sent.at, builder.mul(step, sent.stride))
    count = builder.gep(sent.counts, [step])
    for mask in masks:
        word = builder.bitcast(mask, _I32)
        builder.store(word, builder.bitcast(builder.gep(sent.bits, [place]), _I32.as_pointer()), align=1)
        builder.store(builder.add(builder.load(count), builder.zext(builder.ctpop(word), _I64)), count)
        place = builder.add(place, sent.plane)


def _constant_scan(signed: bool, scheduled: bool = False) -> Callable[..., None]:
    """The function `scan_constant` for neurons with or without negative spikes, and a current for each step."""

    @intrinsic
    def scan_constant(
        typing: Any, current: Any, schedule: Any, row: Any, across: Any, v: Any, sent: Any, at: Any, threshold: Any,
        channel: Any, steps: Any,
        bits: Any, place: Any, stride: Any, plane: Any, counts: Any,
    ) -> Any:  # fmt: skip
        """Advance NEURONS neurons whose sum never changes; arguments as of `scan_sums`."""
        i = types.intp
        signature = types.void(current, schedule, i, i, v, sent, i, threshold, i, i, bits, i, i, i, counts)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            values = _arrays(context, builder, signature, arguments)
            current, schedule, row, across, v, sent, at, threshold, channel, steps, *out = values
            neurons = _Neurons(
                builder,
                _at(builder, v, at, _F32, NEURONS),
                _at(builder, sent, at, _F32, NEURONS) if signed else None,
                _at(builder, threshold, channel, _F32, NEURONS),
            )
            x = builder.load(_at(builder, current, at, _F32, NEURONS), align=4)
            with cgutils.for_range(builder, steps) as loop:
                added = _scheduled(builder, x, schedule, row, across, loop.index) if scheduled else x
                _send(builder, neurons.step(added), loop.index, Sent(*out))
            neurons.save()
            return context.get_dummy_value()

        return signature, generate

    return scan_constant


def _scheduled(
    builder: ir.IRBuilder, x: ir.Value, schedule: ir.Value, row: ir.Value, across: ir.Value, step: ir.Value
) -> ir.Value:
    """Currents with those that the schedule adds at a step."""
    place = _at(builder, schedule, builder.add(row, builder.mul(step, across)), _F32, NEURONS)
    return builder.fadd(x, builder.load(place, align=4))


def _sum_scan(signed: bool, scheduled: bool = False) -> Callable[..., None]:
    """The function `scan_sums` for neurons with or without negative spikes, and a current for each step."""

    @intrinsic
    def scan_sums(
        typing: Any, sums: Any, first: Any, lanes: Any, totals: Any, total: Any, doubled: Any, windows: Any, steps: Any,
        bias: Any, offset: Any, schedule: Any, row: Any, across: Any, v: Any, sent: Any, at: Any, threshold: Any,
        channel: Any,
        bits: Any, place: Any, stride: Any, plane: Any, counts: Any,
    ) -> Any:  # fmt: skip
        """Advance NEURONS neurons by `steps`, with the largest current of `windows` places (one, or four).

        Args:
            sums: int16; those of the first window and step begin at `first`, the next step's `lanes` further, the next
                window's after all steps.
            totals: int32 [windows, steps] from `total` on: the current is 2 * sum - total, or sum - total if `doubled`
                is 0.
            bias: float32, from `offset` on.
            schedule: float32, from `row` on those of the first step, each next step's `across` further; not read by
                functions of neurons without one.
            v: float32 potentials, from `at` on; so is `sent`, the spikes sent so far with their sign.
            threshold: float32, from `channel` on.
            bits: uint8, receives the spikes from `place` on, `stride` bytes per step, `plane` bytes to negative ones.
            counts: int64 [steps], the number of spikes is added.
        """
        i = types.intp
        signature = types.void(
            sums, i, i, totals, i, i, i, i, bias, i, schedule, i, i, v, sent, i, threshold, i,
            bits, i, i, i, counts,
        )  # fmt: skip

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            values = _arrays(context, builder, signature, arguments)
            sums, first, lanes, totals, total, doubled, windows, steps, bias, offset = values[:10]
            schedule, row, across, v, sent, at, threshold, channel, *out = values[10:]
            neurons = _Neurons(
                builder,
                _at(builder, v, at, _F32, NEURONS),
                _at(builder, sent, at, _F32, NEURONS) if signed else None,
                _at(builder, threshold, channel, _F32, NEURONS),
            )
            shift = _splat(builder, builder.trunc(doubled, _I32), NEURONS)
            constant = builder.load(_at(builder, bias, offset, _F32, NEURONS), align=4)

            def current(row: ir.Value) -> ir.Value:
                place = _at(builder, sums, builder.add(first, builder.mul(row, lanes)), _I16, NEURONS)
                wide = builder.shl(builder.sext(builder.load(place, align=2), _vector(_I32, NEURONS)), shift)
                return builder.sub(
                    wide, _splat(builder, builder.load(builder.gep(totals, [builder.add(total, row)])), NEURONS)
                )

            with cgutils.for_range(builder, steps) as loop:
                largest = cgutils.alloca_once_value(builder, current(loop.index))
                with cgutils.for_range_slice(builder, _constant(1), windows, _constant(1), _I64) as (window, _):
                    other = current(builder.add(builder.mul(window, steps), loop.index))
                    best = builder.load(largest)
                    builder.store(builder.select(builder.icmp_signed(">", other, best), other, best), largest)
                x = builder.fadd(builder.sitofp(builder.load(largest), _vector(_F32, NEURONS)), constant)
                x = _scheduled(builder, x, schedule, row, across, loop.index) if scheduled else x
                _send(builder, neurons.step(x), loop.index, Sent(*out))
            neurons.save()
            return context.get_dummy_value()

        return signature, generate

    return scan_sums


scan_constant, scan_constant_signed = _constant_scan(False), _constant_scan(True)
scan_constant_scheduled, scan_constant_signed_scheduled = _constant_scan(False, True), _constant_scan(True, True)
scan_sums, scan_sums_signed = _sum_scan(False), _sum_scan(True)
scan_sums_scheduled, scan_sums_signed_scheduled = _sum_scan(False, True), _sum_scan(True, True)


@intrinsic
def spread(typing: Any, word: Any, amount: Any, sums: Any, at: Any) -> Any:
    """Add `amount` (1 or -1) to those of NEURONS int16 `sums` from `at` on whose bit is set in the word."""
    signature = types.void(types.uint32, types.intp, sums, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        word, amount, sums, at = _arrays(context, builder, signature, arguments)
        mask = builder.bitcast(word, _vector(ir.IntType(1), NEURONS))
        more = _splat(builder, builder.trunc(amount, _I16), NEURONS)
        place = _at(builder, sums, at, _I16, NEURONS)
        old = builder.load(place, align=2)
        builder.store(builder.select(mask, builder.add(old, more), old), place, align=2)
        return context.get_dummy_value()

    return signature, generate
