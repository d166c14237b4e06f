"""Pools while a module is read: of sums, as parts of their paths; of what a layer gives, as layers of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bsnn.graphs.building import Builder
from bsnn.graphs.description import IMAGE, Pair, Pool
from bsnn.graphs.operations import Arguments, pair
from bsnn.graphs.problems import UnsupportedError
from bsnn.graphs.sums import Output, Sum, Unknown, Value


def maximum(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """max_pool2d."""
    if pair(arguments["dilation"]) != (1, 1):
        raise UnsupportedError("a maximum pool with dilation", "use one without")
    return _applied(builder, arguments["self"], _of("max", arguments), shape, bool(arguments["ceil_mode"]))


def average(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """avg_pool2d."""
    pool = _of("average", arguments)
    if pool.padding != (0, 0) and not arguments["count_include_pad"]:
        raise UnsupportedError(
            "an average pool that divides by fewer values at borders", "use count_include_pad=True, or no padding"
        )
    return _applied(builder, arguments["self"], pool, shape, bool(arguments["ceil_mode"]))


def mean(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Mean over height and width."""
    value = arguments["self"]
    dimensions = arguments.get("dim") or []
    rank = len(value.shape) + 1  # with the images' dimension
    if rank != 4 or {int(some) % rank for some in dimensions} != {2, 3} or arguments.get("dtype") is not None:
        raise UnsupportedError(
            f"a mean over dimensions {list(dimensions)}", "use nn.AdaptiveAvgPool2d(1) or x.mean((2, 3))"
        )
    found = _applied(builder, value, _made("average", (value.shape[1], value.shape[2])), (value.shape[0], 1, 1))
    if len(shape) == 3 or isinstance(found, Unknown):
        return found
    # Without keepdim the pooled map of one place loses its two dimensions: the same values, flat.
    return type(found)(**{**found.__dict__, "shape": shape, "flat": True})


def adaptive_average(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """adaptive_avg_pool2d to a divisor of the map's size, or of a single place to several."""
    value = arguments["self"]
    # From one place to several, torch repeats the value, as in torchvision's VGG for images of 32 x 32. A linear layer
    # after it adds up the weights of the repeated places (operations._gathered).
    if value.shape != shape and value.shape[1:] == (1, 1):
        if isinstance(value, Unknown):
            return Unknown(shape)
        if isinstance(value, Sum) or value.source == IMAGE:
            raise UnsupportedError("an enlarged map of what has no ReLU yet", "put the pool after the ReLU")
        return Output(value.source, shape, repeated=shape[1] * shape[2])
    return _adaptive(builder, value, "average", shape)


def adaptive_maximum(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """adaptive_max_pool2d to a divisor of the map's size."""
    return _adaptive(builder, arguments["self"], "max", shape)


def _adaptive(builder: Builder, value: Value, kind: str, shape: tuple[int, ...]) -> Value:
    if value.shape == shape:
        return value
    if any(size % wanted for size, wanted in zip(value.shape[1:], shape[1:], strict=True)):
        raise UnsupportedError(
            f"an adaptive pool of {list(value.shape[1:])} to {list(shape[1:])}, whose windows differ in size",
            "take images of another size, or a size that divides the map's",
        )
    kernel = (value.shape[1] // shape[1], value.shape[2] // shape[2])
    return _applied(builder, value, _made(kind, kernel), shape)


def _made(kind: str, kernel: Pair) -> Pool:
    return Pool(kind, kernel, kernel, (0, 0), kernel[0] * kernel[1] if kind == "average" else 1)  # type: ignore[arg-type]


def _of(kind: str, arguments: dict[str, Any]) -> Pool:
    kernel = pair(arguments["kernel_size"])
    stride = pair(arguments["stride"]) if arguments.get("stride") else kernel
    divisor = int(arguments.get("divisor_override") or kernel[0] * kernel[1])
    if divisor < 1:
        raise UnsupportedError(f"an average pool with divisor {divisor}", "use a positive one")
    return Pool(kind, kernel, stride, pair(arguments["padding"]), divisor if kind == "average" else 1)  # type: ignore[arg-type]


def _applied(builder: Builder, value: Value, pool: Pool, shape: tuple[int, ...], ceil: bool = False) -> Value:
    # ceil_mode that changes no size changes nothing. Where it does, the last windows reach beyond the map and hold
    # fewer values, and an average has one divisor for all windows.
    if ceil and _floored(value.shape, pool) != shape[1:]:
        raise UnsupportedError("a pool whose last windows reach beyond the map (ceil_mode)", "use ceil_mode=False")
    if isinstance(value, Unknown):
        return Unknown(shape)
    if isinstance(value, Output):
        if value.source == IMAGE:
            raise UnsupportedError("a pool of the image itself", "shrink images before the network")
        if value.repeated > 1 or value.flat:
            raise UnsupportedError("a pool of an enlarged or flattened map", "leave it out")
        return builder.pool(value, pool, shape)
    return _of_sum(value, pool, shape)


def _floored(shape: tuple[int, ...], pool: Pool) -> tuple[int, ...]:
    sizes = zip(shape[1:], pool.kernel, pool.stride, pool.padding, strict=True)
    return tuple((size + 2 * padding - kernel) // stride + 1 for size, kernel, stride, padding in sizes)


def _of_sum(value: Sum, pool: Pool, shape: tuple[int, ...]) -> Sum:
    # A path has one pool. The maximum of a sum is not the sum of its terms' maxima, and what has no weights may have a
    # negative factor, which no maximum commutes with. Padding comes before the bias: at borders a window would have
    # less of the bias than elsewhere.
    again = any(path.pool is not None for path in value.paths)
    joined = pool.kind == "max" and (len(value.paths) > 1 or value.paths[0].weight is None)
    diluted = pool.padding != (0, 0) and pool.kind == "average" and value.bias is not None
    if value.flat or again or joined or diluted or not torch.Size(shape).numel():
        raise UnsupportedError(
            "a pool of a sum that is padded, or pooled already, or a maximum of several branches, before its ReLU",
            "put the ReLU before the pool",
        )
    if pool.kind == "average" and value.bias is not None:  # a divisor of its own makes more or less of it
        value = replace(value, bias=value.bias * (pool.kernel[0] * pool.kernel[1] / pool.divisor))
    return replace(value, paths=tuple(replace(path, pool=pool) for path in value.paths), shape=shape)
