"""Lists of spikes for the engine `packed`: the numbers of the channels whose bit is set. LLVM instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bsnn.engines.packed_vectors import I1, I8, I32, I64, arrays, constant, pointer, splat, ternary, vector

COPIED = 16  # entries that are copied at once: room for as many more is kept behind lists, to be read and written
WORD = 16  # bits whose places one instruction of AVX-512 gives (vpcompressd)


def ones_of_bytes() -> np.ndarray:
    """For each byte the places of its ones, lowest first, uint8 [256 * 8]; what follows them is 0."""
    found = np.zeros((256, 8), np.uint8)
    for byte in range(256):
        places = [place for place in range(8) if byte >> place & 1]
        found[byte, : len(places)] = places
    return found.flatten()


def _places(builder: ir.IRBuilder, word: ir.Value, ones: ir.Value) -> ir.Value:
    """Places of the ones of a word, lowest first, as a vector of 32 bits each."""
    if word.type.width == 8:
        # eight places from the table, widened: 0b00100110 gives 1, 2, 5, and zeros after its popcount of 3
        row = builder.shl(builder.zext(word, I64), constant(3))
        return builder.zext(builder.load(pointer(builder, ones, row, vector(I8, 8)), align=1), vector(I32, 8))
    # numbers 0 to 15 whose bit is set move to the front, in order: 0b1001 gives 0, 3, and then zeros
    kind, lanes = vector(I32, WORD), vector(I1, WORD)
    compress = ir.FunctionType(kind, [kind, lanes, kind])  # values, mask, what follows the chosen ones
    function = cgutils.get_or_insert_function(builder.module, compress, f"llvm.experimental.vector.compress.v{WORD}i32")
    places = ir.Constant(kind, list(range(WORD)))
    return builder.call(function, [places, builder.bitcast(word, lanes), ir.Constant(kind, [0] * WORD)])


@intrinsic
def list_spikes(
    typing: Any, bits: Any, first: Any, count: Any, number: Any, ones: Any, entries: Any, end: Any
) -> Any:  # fmt: skip
    """Append the numbers of the ones among `count` bytes of spikes to the list that ends at `entries[end]`.

    Args:
        bits: uint8, the bytes begin at `first`.
        number: of the first bit.
        ones: of `ones_of_bytes`.
        entries: uint32.

    Returns:
        How many they are.
    """
    i = types.intp
    signature = i(bits, i, i, i, ones, entries, i)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        bits, first, count, number, ones, entries, end = arrays(context, builder, signature, arguments)
        found = cgutils.alloca_once_value(builder, constant(0))
        source, target = builder.gep(bits, [first]), builder.gep(entries, [end])
        lanes = WORD if ternary() else 8
        begin = builder.trunc(number, I32)
        # No branch for each spike: a word stores a whole vector of numbers, of which its popcount stay, and the next
        # word writes over the rest. There are no more numbers than bits so far: no vector leaves the room for all bits.
        with cgutils.for_range(builder, builder.sdiv(count, constant(lanes // 8))) as loop:
            word = pointer(builder, source, builder.mul(loop.index, constant(lanes // 8)), ir.IntType(lanes))
            word = builder.load(word, align=1)
            offset = builder.add(begin, builder.trunc(builder.mul(loop.index, constant(lanes)), I32))
            numbers = builder.add(_places(builder, word, ones), splat(builder, offset, lanes))
            so_far = builder.load(found)
            builder.store(numbers, pointer(builder, target, so_far, numbers.type), align=4)
            builder.store(builder.add(so_far, builder.zext(builder.ctpop(word), I64)), found)
        return builder.load(found)

    return signature, generate


@intrinsic
def join(
    typing: Any, entries: Any, first: Any, count: Any, shift: Any, offset: Any, joined: Any, end: Any
) -> Any:  # fmt: skip
    """Append `(entry << shift) + offset` of `count` entries from `first` on to the list that ends at `joined[end]`.

    Args:
        entries: uint32.
        joined: uint32; COPIED more than come may be written.

    Returns:
        Where the list ends now.
    """
    i = types.intp
    signature = i(entries, i, i, i, i, joined, i)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        entries, first, count, shift, offset, joined, end = arrays(context, builder, signature, arguments)
        kind = vector(I32, COPIED)
        source, target = builder.gep(entries, [first]), builder.gep(joined, [end])
        # an offset may be negative, as of a window far from column 0: it wraps at 2**32, and the sum wraps back
        shifts = splat(builder, builder.trunc(shift, I32), COPIED)
        offsets = splat(builder, builder.trunc(offset, I32), COPIED)
        # whole vectors, ceil(count / COPIED): the surplus lies behind the new end, where the next call writes over it
        copies = builder.lshr(builder.add(count, constant(COPIED - 1)), constant(COPIED.bit_length() - 1))
        with cgutils.for_range(builder, copies) as loop:
            place = builder.mul(loop.index, constant(COPIED))
            some = builder.load(pointer(builder, source, place, kind), align=4)
            moved = builder.add(builder.shl(some, shifts), offsets)
            builder.store(moved, pointer(builder, target, place, kind), align=4)
        return builder.add(end, count)

    return signature, generate
