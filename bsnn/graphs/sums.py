"""Sums of paths while a module is read: what a value between two ReLUs is, and what operations make of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bsnn.graphs.description import Path
from bsnn.graphs.problems import UnsupportedError


@dataclass(frozen=True)
class Output:
    """What a layer gives, or the image: a value that may be convolved."""

    source: str
    shape: tuple[int, ...]  # of one image
    positive: bool = True  # never negative
    flat: bool = False  # flattened
    repeated: int = 1  # each unit stands for so many places of equal value, next to each other once flattened


@dataclass(frozen=True)
class Sum:
    """A sum of paths that no ReLU has seen yet."""

    paths: tuple[Path, ...]
    bias: Tensor | None  # float64 [out channels]
    shape: tuple[int, ...]  # of one image
    flat: bool = False  # flattened


@dataclass(frozen=True)
class Unknown:
    """A value that depends on something unsupported, which is reported where it is."""

    shape: tuple[int, ...]


Value = Output | Sum | Unknown


def weighted(path: Path, weight: Tensor) -> Path:
    """The path with its weights: signs and a scale if each filter holds one absolute value, otherwise real ones."""
    weight = weight.detach().float().cpu()
    magnitude = weight.abs().flatten(1)
    alpha = magnitude.amax(1)
    # Equal to the last bit, so that alpha times the signs is the weights again. A filter of zeros counts as well: its
    # alpha is 0, whatever its signs.
    if not bool((magnitude == alpha[:, None]).all()):
        return replace(path, weight=weight.contiguous())
    signs = torch.where(weight < 0, -1, 1).to(torch.int8).contiguous()
    return replace(path, weight=signs, scale=alpha.double())


def scaled(value: Sum, factor: Tensor) -> Sum:
    """A sum times one factor for each channel, float64 [channels].

    A negative factor turns the weights, so that a maximum pool that follows is of the values as they are.

    Raises:
        UnsupportedError: a negative factor of what a maximum pool has given already.
    """
    bias = None if value.bias is None else value.bias * factor
    return replace(value, paths=tuple(_scaled(path, factor) for path in value.paths), bias=bias)


def _scaled(path: Path, factor: Tensor) -> Path:
    if path.weight is None:
        # The scale may be negative: here are no weights to turn.
        return replace(path, scale=factor if path.scale is None else path.scale * factor)
    if path.pool is not None and path.pool.kind == "max" and bool((factor < 0).any()):  # -max(x) is not max(-x)
        raise UnsupportedError(
            "a negative factor, as of batch norm, between a maximum pool and its ReLU",
            "put batch norm before the pool, or the ReLU",
        )
    each = factor.reshape(-1, *[1] * (path.weight.dim() - 1))
    size = factor.abs() if path.scale is None else path.scale * factor.abs()
    return replace(path, weight=torch.where(each < 0, -path.weight, path.weight), scale=size)


def shifted(value: Sum, shift: Tensor | None) -> Sum:
    """A sum plus one number for each channel, float64 [channels], or nothing."""
    if shift is None:
        return value
    return replace(value, bias=shift if value.bias is None else value.bias + shift)


def added(first: Sum, second: Sum) -> Sum:
    """Sum of two sums, their terms in the order written."""
    return shifted(replace(first, paths=(*first.paths, *second.paths)), second.bias)
