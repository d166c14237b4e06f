"""Neurons of the engine `packed`, which write their spikes as bits. LLVM instructions.

The neuron, element by element in float32:  v <- v + x;  s = (v >= V);  v <- v - s * V. A signed one that has sent more
positive than negative spikes also sends -1 when v <= lower. All steps are done while v stays in its register.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bsnn.engines.packed_vectors import F32, I16, I32, I64, NEURONS, arrays, pointer, vector


class _Neurons:
    """NEURONS neurons whose potentials stay in registers."""

    def __init__(
        self, builder: ir.IRBuilder, v: ir.Value, sent: ir.Value | None, threshold: ir.Value, lower: ir.Value
    ) -> None:
        self.builder, self.signed = builder, sent is not None
        self.places = [v] if sent is None else [v, sent]
        # slots on the stack, which LLVM promotes to registers: memory is read once, and written once by `save`
        self.kept = [cgutils.alloca_once_value(builder, builder.load(place, align=4)) for place in self.places]
        self.threshold = builder.load(threshold, align=4)
        self.lower = builder.load(lower, align=4) if self.signed else None

    def step(self, current: ir.Value) -> list[ir.Value]:
        """Masks of the positive and, for signed neurons, of the negative spikes."""
        builder, threshold = self.builder, self.threshold
        v = builder.fadd(builder.load(self.kept[0]), current)
        above = builder.fcmp_ordered(">=", v, threshold)
        if not self.signed:
            # v or v - V, the bits of v - s * V: a product with 0 or 1 is exact
            builder.store(builder.select(above, builder.fsub(v, threshold), v), self.kept[0])
            return [above]
        sent = builder.load(self.kept[1])
        below = builder.fcmp_ordered("<=", v, self.lower)
        below = builder.and_(below, builder.fcmp_ordered(">", sent, ir.Constant(sent.type, [0.0] * NEURONS)))
        # where both hold (lower >= V) they cancel, as in s = (v >= V) - (v <= lower) of the other engines
        up, down = builder.and_(above, builder.not_(below)), builder.and_(below, builder.not_(above))
        one = ir.Constant(sent.type, [1.0] * NEURONS)
        # A positive spike takes `change` away and a negative one adds it: V for the potential, -1 for the spikes sent,
        # whole numbers in float32.
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
    for fired in masks:
        word = builder.bitcast(fired, I32)  # bit c is channel c of these
        builder.store(word, pointer(builder, sent.bits, place, I32), align=1)
        # no atomic addition: each thread has counts of its own (Run.image)
        builder.store(builder.add(builder.load(count), builder.zext(builder.ctpop(word), I64)), count)
        place = builder.add(place, sent.plane)  # the second mask, if any, is of negative spikes


_FLOATS, _SHORTS = vector(F32, NEURONS), vector(I16, NEURONS)


def _neurons(
    builder: ir.IRBuilder, v: Any, sent: Any, place: Any, threshold: Any, lower: Any, channel: Any
) -> _Neurons:
    """Neurons whose potentials begin at `v[place]` and thresholds at `threshold[channel]`; `sent` may be None."""
    potentials = pointer(builder, v, place, _FLOATS)
    net = None if sent is None else pointer(builder, sent, place, _FLOATS)
    levels = (pointer(builder, level, channel, _FLOATS) for level in (threshold, lower))
    return _Neurons(builder, potentials, net, *levels)


def _floats(builder: ir.IRBuilder, shorts: Any, place: Any) -> ir.Value:
    """NEURONS numbers of 16 bits as floats."""
    whole = builder.load(pointer(builder, shorts, place, _SHORTS), align=2)
    return builder.sitofp(builder.sext(whole, vector(I32, NEURONS)), _FLOATS)  # exact: 16 bits fit into 24


def _scheduled(builder: ir.IRBuilder, x: Any, schedule: Any, row: Any, across: Any, step: Any) -> ir.Value:
    """Currents with those that the schedule adds at a step."""
    # without a schedule `across` is 0, and the row is one of zeros: x + 0 is x, up to the sign of a zero
    place = pointer(builder, schedule, builder.add(row, builder.mul(step, across)), _FLOATS)
    return builder.fadd(x, builder.load(place, align=4))


def _constant_scan(signed: bool) -> Callable[..., None]:
    """The function `scan_constant` for neurons with or without negative spikes."""

    @intrinsic
    def scan_constant(
        typing: Any, current: Any, schedule: Any, row: Any, across: Any, v: Any, sent: Any, at: Any, threshold: Any,
        lower: Any, channel: Any, steps: Any,
        bits: Any, place: Any, stride: Any, plane: Any, counts: Any,
    ) -> Any:  # fmt: skip
        """Advance NEURONS neurons whose sum never changes; arguments as of `scan_currents`."""
        i = types.intp
        signature = types.void(current, schedule, i, i, v, sent, i, threshold, lower, i, i, bits, i, i, i, counts)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            values = arrays(context, builder, signature, arguments)
            current, schedule, row, across, v, sent, at, threshold, lower, channel, steps, *out = values
            neurons = _neurons(builder, v, sent if signed else None, at, threshold, lower, channel)
            # offset and bias are part of it (PackedEngine.start)
            x = builder.load(pointer(builder, current, at, _FLOATS), align=4)
            with cgutils.for_range(builder, steps) as loop:
                added = _scheduled(builder, x, schedule, row, across, loop.index)
                _send(builder, neurons.step(added), loop.index, Sent(*out))
            neurons.save()
            return context.get_dummy_value()

        return signature, generate

    return scan_constant


def _current_scan(signed: bool) -> Callable[..., None]:
    """The function `scan_currents` for neurons with or without negative spikes."""

    @intrinsic
    def scan_currents(
        typing: Any, currents: Any, first: Any, lanes: Any, steps: Any, offsets: Any, bias: Any, more: Any,
        schedule: Any, row: Any, across: Any,
        v: Any, sent: Any, at: Any, threshold: Any, lower: Any, channel: Any,
        bits: Any, place: Any, stride: Any, plane: Any, counts: Any,
    ) -> Any:  # fmt: skip
        """Advance NEURONS neurons by `steps`.

        Args:
            currents: int16 or float32; those of the first step begin at `first`, the next step's `lanes` further.
            offsets: float32, from `channel` on; added to the currents.
            bias: float32, from `more` on; added then.
            schedule: float32, added last; from `row` on for the first step, each next step's `across` further.
            v: float32 potentials, from `at` on; so is `sent`, the spikes sent so far with their sign.
            threshold: float32, from `channel` on; so is `lower`, the negative threshold of signed neurons.
            bits: uint8, receives the spikes from `place` on, `stride` bytes per step, `plane` bytes to negative ones.
            counts: int64 [steps], the number of spikes is added.
        """
        i = types.intp
        signature = types.void(
            currents, i, i, i, offsets, bias, i, schedule, i, i, v, sent, i, threshold, lower, i,
            bits, i, i, i, counts,
        )  # fmt: skip

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            values = arrays(context, builder, signature, arguments)
            currents, first, lanes, steps, offsets, bias, more, schedule, row, across, *rest = values
            v, sent, at, threshold, lower, channel, *out = rest
            neurons = _neurons(builder, v, sent if signed else None, at, threshold, lower, channel)
            places = ((offsets, channel), (bias, more))
            added = [builder.load(pointer(builder, *place, _FLOATS), align=4) for place in places]
            # known when numba compiles, once for each type: int16 of a single term, float32 totals of several
            whole = signature.args[0].dtype == types.int16
            with cgutils.for_range(builder, steps) as loop:
                source = builder.add(first, builder.mul(loop.index, lanes))
                if whole:
                    x = _floats(builder, currents, source)
                else:
                    x = builder.load(pointer(builder, currents, source, _FLOATS), align=4)
                # every sum is rounded to float32, so this order is part of the result: offset, bias, then the schedule
                for some in added:
                    x = builder.fadd(x, some)
                x = _scheduled(builder, x, schedule, row, across, loop.index)
                _send(builder, neurons.step(x), loop.index, Sent(*out))
            neurons.save()
            return context.get_dummy_value()

        return signature, generate

    return scan_currents


scan_constant, scan_constant_signed = _constant_scan(False), _constant_scan(True)
scan_currents, scan_currents_signed = _current_scan(False), _current_scan(True)


@intrinsic
def add_scaled(
    typing: Any, currents: Any, totals: Any, at: Any, lanes: Any, steps: Any, scales: Any, channel: Any, fresh: Any
) -> Any:  # fmt: skip
    """Multiply NEURONS currents of each step by their scales, and add them to the totals; each result is rounded.

    Args:
        currents: int16; those of the first step begin at `at`, the next step's `lanes` further.
        totals: float32, likewise.
        scales: float32, from `channel` on.
        fresh: whether the totals begin here: what they hold is not added.
    """
    i = types.intp
    signature = types.void(currents, totals, i, i, i, scales, i, types.boolean)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        currents, totals, at, lanes, steps, scales, channel, fresh = arrays(context, builder, signature, arguments)
        scale = builder.load(pointer(builder, scales, channel, _FLOATS), align=4)
        with cgutils.for_range(builder, steps) as loop:
            place = builder.add(at, builder.mul(loop.index, lanes))
            # two instructions without fast-math flags, which LLVM may not fuse: product and sum are each rounded
            term = builder.fmul(_floats(builder, currents, place), scale)
            target = pointer(builder, totals, place, _FLOATS)
            total = builder.fadd(builder.load(target, align=4), term)
            # chosen, not multiplied by 0: where totals begin, memory may hold infinity or no number
            builder.store(builder.select(fresh, term, total), target, align=4)
        return context.get_dummy_value()

    return signature, generate
