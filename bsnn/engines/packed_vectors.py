"""Vectors of the engine `packed`, written as LLVM instructions: what numba's loops cannot say."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.codegen import get_host_cpu_features

NEURONS = 32  # channels that are advanced at once: one word of spikes

I1, I8, I16, I32, I64, F32 = (
    ir.IntType(1),
    ir.IntType(8),
    ir.IntType(16),
    ir.IntType(32),
    ir.IntType(64),
    ir.FloatType(),
)
LINE = 64  # bytes of a line of the cache


def features() -> frozenset[str]:
    """Features of the CPU that numba compiles for: its own, or what numba's environment variables say."""
    given = numba.config.CPU_FEATURES
    words = (get_host_cpu_features() if given is None else given).split(",")
    return frozenset(word[1:] for word in words if word.startswith("+"))


def ternary() -> bool:
    """Whether the CPU has any function of three bits as one instruction (vpternlog)."""
    return {"avx512f", "avx512bw", "avx512vl"} <= features()


def width() -> int:
    """Bits of the widest vectors that are worth using."""
    if ternary():
        return 512
    return 256 if "avx2" in features() else 128


def aligned(size: int) -> np.ndarray:
    """Memory of `size` bytes, uint8, that begins with a line of the cache."""
    room = np.empty(size + LINE, np.uint8)
    begin = -room.ctypes.data % LINE
    return room[begin : begin + size]


def vector(kind: ir.Type, size: int) -> ir.VectorType:
    """Type of a vector."""
    return ir.VectorType(kind, size)


def constant(value: int, kind: ir.Type = I64) -> ir.Constant:
    """A number."""
    return ir.Constant(kind, value)


def splat(builder: ir.IRBuilder, value: ir.Value, size: int) -> ir.Value:
    """A vector of equal values."""
    empty = ir.Constant(vector(value.type, size), ir.Undefined)
    lane = builder.insert_element(empty, value, constant(0, I32))
    return builder.shuffle_vector(lane, empty, ir.Constant(vector(I32, size), [0] * size))


def pointer(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value, kind: ir.Type) -> ir.Value:
    """Pointer to a `kind`, a number or a vector, that begins `offset` elements after `base`."""
    return builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())


def mask(builder: ir.IRBuilder, word: ir.Value) -> ir.Value:
    """The bits of a word of NEURONS as a vector of them."""
    return builder.bitcast(word, vector(I1, NEURONS))  # lane k: bit k (little-endian)


def arrays(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> list[Any]:
    """Arguments, with a pointer to the first element for each array."""
    return [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]
