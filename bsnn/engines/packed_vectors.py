"""Vector code of the engine `packed`, written as LLVM instructions: what numba's loops cannot say.

Sums by table. Four input channels of a spike map make one code: a digit for each channel, the number of its spikes
(0 or 1; up to 4 where a 2x2 sum is folded in), read to the base of five. Four weights of one output channel make one
nibble: a bit each, 1 for +1. A table of 16 bytes for each code answers `sum of the digits whose weight is +1` for every
nibble, and one byte shuffle (pshufb on x86, tbl on ARM) looks it up for 16, 32 or 64 output channels at once. With P
that sum over all inputs and S the sum of all digits, the layer's current is 2 P - S: popcount(s AND w) and popcount(s)
of a spike s and a weight w of one bit each.

Only codes other than 0 are listed, so silent channels cost nothing. Sums are kept in bytes, and added to 16 bits before
they can pass 127: each list carries the sum of its digits.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

NEURONS = 32  # neurons that are advanced at once
LARGEST = 127  # sum of the digits that bytes can take
RADIX = 5
CODES = RADIX**4  # the same number of tables follows with all signs turned, for negative spikes
TABLE = 16  # bytes

_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_SHUFFLES = {  # feature of the CPU: bytes of its vector, name of its byte shuffle in LLVM
    "avx512bw": (64, "llvm.x86.avx512.pshuf.b.512"),
    "avx2": (32, "llvm.x86.avx2.pshuf.b"),
    "ssse3": (16, "llvm.x86.ssse3.pshuf.b.128"),
    "neon": (16, "llvm.aarch64.neon.tbl1.v16i8"),
}
_ENTRIES = 8  # entries of a list that are copied at once


def features() -> frozenset[str]:
    """Features of the CPU that numba compiles for: its own, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say."""
    if numba.config.CPU_FEATURES is not None:
        return frozenset(word[1:] for word in numba.config.CPU_FEATURES.split(",") if word.startswith("+"))
    if numba.config.CPU_NAME == "generic":
        return frozenset()
    found = {name for name, has in binding.get_host_cpu_features().items() if has}
    return frozenset(found | ({"neon"} if platform.machine() in ("aarch64", "arm64") else set()))


def shuffles() -> dict[int, str]:
    """Byte shuffles that the CPU has, by the size of their vectors; none where only plain instructions are known."""
    known = features()
    return {size: name for feature, (size, name) in _SHUFFLES.items() if feature in known}


def _vector(kind: ir.Type, size: int) -> ir.VectorType:
    return ir.VectorType(kind, size)


def _constant(value: int, kind: ir.Type = _I64) -> ir.Constant:
    return ir.Constant(kind, value)


def _splat(builder: ir.IRBuilder, value: ir.Value, size: int) -> ir.Value:
    empty = ir.Constant(_vector(value.type, size), ir.Undefined)
    lane = builder.insert_element(empty, value, _constant(0, _I32))
    return builder.shuffle_vector(lane, empty, ir.Constant(_vector(_I32, size), [0] * size))


def _at(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value, kind: ir.Type, size: int) -> ir.Value:
    """Pointer to a vector that begins `offset` elements after `base`."""
    return builder.bitcast(builder.gep(base, [offset]), _vector(kind, size).as_pointer())


def _arrays(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> list[Any]:
    """Arguments, with a pointer to the first element for each array."""
    return [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _shuffled(builder: ir.IRBuilder, table: ir.Value, index: ir.Value, size: int) -> ir.Value:
    """For each of `size` bytes of `index` (0 to 15) the byte of the table at that place."""
    name = shuffles().get(size)
    kind = _vector(_I8, size)
    if name is None:  # a CPU without a byte shuffle: lane by lane
        out = ir.Constant(kind, ir.Undefined)
        for lane in (_constant(number, _I32) for number in range(size)):
            out = builder.insert_element(
                out, builder.extract_element(table, builder.extract_element(index, lane)), lane
            )
        return out
    repeated = ir.Constant(_vector(_I32, size), [lane % TABLE for lane in range(size)])
    wide = builder.shuffle_vector(table, ir.Constant(_vector(_I8, TABLE), ir.Undefined), repeated)
    shuffle = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, kind]), name)
    return builder.call(shuffle, [wide, index])


class _Sums:
    """Sums of `lanes` output channels: in bytes while they fit, then in 16 bits."""

    def __init__(self, builder: ir.IRBuilder, lanes: int, target: ir.Value, tables: ir.Value) -> None:
        self.builder, self.lanes, self.tables = builder, lanes, tables
        self.size = min(lanes, max(shuffles(), default=TABLE))
        self.target = builder.bitcast(target, _vector(_I16, self.size).as_pointer())
        self.zero = ir.Constant(_vector(_I8, self.size), [0] * self.size)
        self.bytes = [cgutils.alloca_once_value(builder, self.zero) for _ in range(lanes // self.size)]

    def add(self, entries: ir.Value, count: ir.Value, weights: ir.Value) -> None:
        """Add `count` entries of a list; an entry is a group of inputs (upper half) and the place of a table."""
        builder = self.builder
        with cgutils.for_range(builder, count) as loop:
            entry = builder.load(builder.gep(entries, [loop.index]))
            row = builder.zext(builder.lshr(entry, _constant(16, _I32)), _I64)
            place = builder.zext(builder.and_(entry, _constant(0xFFFF, _I32)), _I64)
            table = builder.load(_at(builder, self.tables, place, _I8, TABLE), align=TABLE)
            nibbles = _at(builder, weights, builder.mul(row, _constant(self.lanes)), _I8, self.size)
            for number, total in enumerate(self.bytes):
                index = builder.load(builder.gep(nibbles, [_constant(number)]), align=1)
                more = _shuffled(builder, table, index, self.size)
                builder.store(builder.add(builder.load(total), more), total)

    def widen(self) -> None:
        """Add the bytes to the sums of 16 bits, and begin again at 0."""
        builder = self.builder
        for number, total in enumerate(self.bytes):
            place = builder.gep(self.target, [_constant(number)])
            wide = builder.sext(builder.load(total), _vector(_I16, self.size))
            builder.store(builder.add(builder.load(place, align=2), wide), place, align=2)
            builder.store(self.zero, total)


def _adder(lanes: int) -> Callable[..., None]:
    """The function `add_lists` for a number of output channels at once."""

    @intrinsic
    def add_lists(
        typing: Any, sums: Any, row: Any, weights: Any, offset: Any, tables: Any,
        entries: Any, room: Any, info: Any, lists: Any, groups: Any, count: Any, step: Any,
    ) -> Any:  # fmt: skip
        """Add the sums of `count` lists of spikes to int16 `sums[row * lanes:][:lanes]`.

        Lists are joined in a buffer until their digits may add up to more than LARGEST: many lists are short, and one
        long loop costs less than many short ones.

        Args:
            weights: uint8 nibbles, from `offset` on [group, lanes].
            tables: int8 [code, TABLE], aligned to TABLE.
            entries: uint32, `room` for each list.
            info: int32 [list, 2]: number of entries, sum of the digits.
            lists: int64 [count]: number of each list; `step` is added.
            groups: int64 [count]: group of the weights at which each list begins.
        """
        i = types.intp
        signature = types.void(sums, i, weights, i, tables, entries, i, info, lists, groups, i, i)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            values = _arrays(context, builder, signature, arguments)
            sums, row, weights, offset, tables, entries, room, info, lists, groups, count, step = values
            target = builder.gep(sums, [builder.mul(row, _constant(lanes))])
            total = _Sums(builder, lanes, target, tables)
            weights = builder.gep(weights, [offset])
            # a list of at most LARGEST entries is followed by copies that are overwritten or never read
            buffer = cgutils.alloca_once(builder, _I32, LARGEST + 2 * 64)
            held = cgutils.alloca_once_value(builder, _constant(0))
            digits = cgutils.alloca_once_value(builder, _constant(0, _I32))

            def finish() -> None:
                total.add(buffer, builder.load(held), weights)
                total.widen()
                builder.store(_constant(0), held)
                builder.store(_constant(0, _I32), digits)

            copies = builder.sdiv(builder.add(room, _constant(_ENTRIES - 1)), _constant(_ENTRIES))
            with cgutils.for_range(builder, count) as loop:
                number = builder.add(builder.load(builder.gep(lists, [loop.index])), step)
                group = builder.load(builder.gep(groups, [loop.index]))
                about = builder.gep(info, [builder.mul(number, _constant(2))])
                size = builder.sext(builder.load(about), _I64)
                bound = builder.load(builder.gep(about, [_constant(1)]))
                first = builder.gep(entries, [builder.mul(number, room)])
                full = builder.icmp_signed(">", builder.add(builder.load(digits), bound), _constant(LARGEST, _I32))
                with builder.if_then(full, likely=False):
                    finish()
                fits = builder.icmp_signed("<=", bound, _constant(LARGEST, _I32))
                with builder.if_else(fits, likely=True) as (joined, alone):
                    with joined:
                        _copy(builder, first, builder.gep(buffer, [builder.load(held)]), copies, group)
                        builder.store(builder.add(builder.load(held), size), held)
                        builder.store(builder.add(builder.load(digits), bound), digits)
                    with alone:
                        own = builder.gep(weights, [builder.mul(group, _constant(lanes))])
                        _add_pieces(builder, total, first, size, own)
            finish()
            return context.get_dummy_value()

        return signature, generate

    return add_lists


def _copy(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, copies: ir.Value, group: ir.Value) -> None:
    """Copy whole vectors of entries, and move them on by a number of groups."""
    moved = _splat(builder, builder.shl(builder.trunc(group, _I32), _constant(16, _I32)), _ENTRIES)
    with cgutils.for_range(builder, copies) as loop:
        place = builder.mul(loop.index, _constant(_ENTRIES))
        some = builder.load(_at(builder, source, place, _I32, _ENTRIES), align=4)
        builder.store(builder.add(some, moved), _at(builder, target, place, _I32, _ENTRIES), align=4)


def _add_pieces(builder: ir.IRBuilder, total: _Sums, first: ir.Value, size: ir.Value, weights: ir.Value) -> None:
    """A list whose digits add up to more than LARGEST, in pieces that are safe whatever their digits are."""
    piece = LARGEST // (4 * (RADIX - 1))
    with cgutils.for_range(builder, builder.sdiv(builder.add(size, _constant(piece - 1)), _constant(piece))) as loop:
        begin = builder.mul(loop.index, _constant(piece))
        left = builder.sub(size, begin)
        count = builder.select(builder.icmp_signed("<", left, _constant(piece)), left, _constant(piece))
        total.add(builder.gep(first, [begin]), count, weights)
        total.widen()


add_lists_128, add_lists_64, add_lists_32 = _adder(128), _adder(64), _adder(32)
