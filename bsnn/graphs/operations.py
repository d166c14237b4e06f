"""Operations of torch on the values of a network that is being read, by the name that torch.export gives them.

Each handler gets the description in the making and the operation's arguments by name, and returns the result's value.
It raises UnsupportedError for arguments that no spiking network can have; it looks at them before it looks at values,
so that everything unsupported is found at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bsnn.graphs import sums
from bsnn.graphs.building import Builder
from bsnn.graphs.description import IMAGE, Pair, Path
from bsnn.graphs.problems import UnsupportedError
from bsnn.graphs.sums import Output, Sum, Unknown, Value

Arguments = dict[str, Any]
Handler = Callable[[Builder, Arguments, "tuple[int, ...]"], Value]
RELU_FIRST = "put batch norm and a ReLU between the two, so that neurons can send it"


def convolution(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """conv2d of any kernel, stride, zero padding, dilation and groups."""
    weight, bias = _constant(arguments["weight"]), arguments["bias"]
    dilation = pair(arguments["dilation"])
    padding = arguments["padding"]
    if isinstance(padding, str):
        padding = _same(padding, weight, dilation)
    value = arguments["input"]
    if isinstance(value, Unknown):
        return Unknown(shape)
    source = _readable(value, "a convolution")
    if source.repeated > 1:
        raise UnsupportedError("a convolution of an enlarged map", "leave out the adaptive pool that enlarges it")
    path = Path(
        source.source,
        "conv",
        builder.label,
        stride=pair(arguments["stride"]),
        padding=pair(padding),
        dilation=dilation,
        groups=int(arguments["groups"]),
    )
    return _biased(Sum((sums.weighted(path, weight),), None, shape), bias)


def _same(padding: str, weight: Tensor, dilation: Pair) -> Pair:
    if padding == "valid":
        return 0, 0
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[-2:], strict=True)]
    if any(some % 2 for some in total):
        raise UnsupportedError("padding='same' of an even kernel, which pads one side more", "give it as a number")
    return total[0] // 2, total[1] // 2


def linear(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """linear, on flat values."""
    value, weight = arguments["input"], _constant(arguments["weight"])
    if isinstance(value, Unknown):
        return Unknown(shape)
    source = _readable(value, "a linear layer")
    if len(source.shape) != 1 or weight.dim() != 2:
        raise UnsupportedError(
            f"a linear layer on a map {list(source.shape)}, along its last dimension", "flatten the map first"
        )
    path = sums.weighted(Path(source.source, "linear", builder.label), weight)
    return _biased(Sum((_gathered(path, source.repeated),), None, shape), arguments.get("bias"))


def _gathered(path: Path, repeated: int) -> Path:
    """The path with the weights of places that hold one value added up: integers stay integers."""
    if repeated == 1 or path.weight is None:
        return path
    groups = path.weight.unflatten(1, (-1, repeated))
    if path.binary and repeated <= torch.iinfo(torch.int8).max:  # a sum of so many signs fits
        return replace(path, weight=groups.sum(-1).to(torch.int8))
    return replace(path, weight=groups.double().sum(-1).float())


def product(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """value @ constant matrix."""
    value, other = (arguments.get(name, arguments.get(short)) for name, short in (("self", "input"), ("other", "mat2")))
    if isinstance(value, Tensor) or not isinstance(other, Tensor) or other.dim() != 2:
        raise UnsupportedError(
            "a product of two values of the network (attention)", "spikes can be weighted by constants alone"
        )
    return linear(builder, {"input": value, "weight": other.T, "bias": None}, shape)


def batch_norm(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Batch norm in evaluation: one factor and one shift for each channel."""
    mean, variance = arguments["running_mean"], arguments["running_var"]
    if arguments.get("training") or arguments.get("use_input_stats") or mean is None:
        raise UnsupportedError(
            "a norm by statistics of its own input (instance norm, or batch norm without running statistics)",
            "use batch norm with track_running_stats=True",
        )
    value = arguments["input"]
    if isinstance(value, Unknown):
        return Unknown(shape)
    factor = 1 / (_real(variance) + float(arguments["eps"])).sqrt()
    factor = factor if arguments["weight"] is None else factor * _real(arguments["weight"])
    shift = -_real(mean) * factor
    shift = shift if arguments["bias"] is None else shift + _real(arguments["bias"])
    return sums.shifted(sums.scaled(_terms(value), factor), shift)


def relu(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """ReLU: here a layer ends."""
    value: Value = arguments["self"]
    if isinstance(value, Unknown):
        return Unknown(shape)
    if isinstance(value, Output) and value.positive:
        return value
    return builder.relu(_terms(value))


def clamped(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """clamp(min=0) is ReLU."""
    least = arguments.get("min")
    if (isinstance(least, Tensor) and least.numel() != 1) or least != 0 or arguments.get("max") is not None:
        raise UnsupportedError("an activation other than ReLU (clamp)", "put nn.ReLU there and train again")
    return relu(builder, arguments, shape)


def add(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Sum of two values, or of a value and a constant for each channel."""
    return _plus(arguments, shape, float(arguments.get("alpha", 1)))


def subtract(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Difference."""
    return _plus(arguments, shape, -float(arguments.get("alpha", 1)))


def _plus(arguments: Arguments, shape: tuple[int, ...], alpha: float) -> Value:
    first, second = arguments["self"], arguments["other"]
    constants = [some for some in (first, second) if not isinstance(some, Value)]
    if constants and isinstance(first, Value):
        constant = _each_channel(second, shape) * alpha
        return Unknown(shape) if isinstance(first, Unknown) else sums.shifted(_terms(_as_large(first, shape)), constant)
    if constants:
        # The constant comes first: alpha, -1 in a difference, is the value's alone.
        constant = _each_channel(first, shape)
        if isinstance(second, Unknown):
            return Unknown(shape)
        return sums.shifted(_times(_as_large(second, shape), alpha), constant)
    if isinstance(first, Unknown) or isinstance(second, Unknown):
        return Unknown(shape)
    if first.shape != second.shape:
        raise UnsupportedError(f"a sum of {list(first.shape)} and {list(second.shape)}", "add values of one shape")
    return sums.added(_terms(first), _times(second, alpha))


def multiply(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Product with a constant for each channel."""
    return _by_constant(arguments, shape, torch.mul)


def divide(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Quotient by a constant for each channel."""
    if not isinstance(arguments["self"], Value) or arguments.get("rounding_mode"):
        raise UnsupportedError("a division by a value of the network", "divide by constants alone")
    return _by_constant(arguments, shape, torch.div)


def _by_constant(arguments: Arguments, shape: tuple[int, ...], how: Callable[[Tensor, Tensor], Tensor]) -> Value:
    first, second = arguments["self"], arguments["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        raise UnsupportedError(
            "a product of two values of the network",
            "spikes can be weighted by constants alone: leave out gates such as squeeze-and-excitation",
        )
    value, constant = (first, second) if isinstance(first, Value) else (second, first)
    factor = how(torch.ones((), dtype=torch.float64), _each_channel(constant, shape))
    return Unknown(shape) if isinstance(value, Unknown) else sums.scaled(_terms(_as_large(value, shape)), factor)


def _as_large(value: Output | Sum, shape: tuple[int, ...]) -> Output | Sum:
    """A value that a constant does not enlarge."""
    if value.shape != shape:
        raise UnsupportedError(
            f"a constant that enlarges a value of {list(value.shape)} to {list(shape)}",
            "give one number, or as many channels to the layer before",
        )
    return value


def dropout(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Dropout, which does nothing in evaluation."""
    if arguments.get("train") and arguments.get("p"):
        raise UnsupportedError(
            "dropout that is active in evaluation", "call it with training=self.training, or use nn.Dropout"
        )
    return same(builder, arguments, shape)


def same(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """Operations that leave their value as it is."""
    value: Value = next(iter(arguments.values()))
    return value


def converted(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """A change of type or device, where there is none."""
    if arguments.get("dtype") not in (None, torch.float32):
        raise UnsupportedError(f"a change of type to {arguments['dtype']}", "keep float32 throughout")
    return same(builder, arguments, shape)


def reshaped(builder: Builder, arguments: Arguments, shape: tuple[int, ...]) -> Value:
    """flatten, view, reshape or squeeze, where they flatten each image or change nothing."""
    value: Value = next(iter(arguments.values()))
    if isinstance(value, Unknown):
        return Unknown(shape)
    if value.shape == shape:
        return value
    if shape != (torch.Size(value.shape).numel(),):
        raise UnsupportedError(
            f"a change of shape from {list(value.shape)} to {list(shape)} for each image",
            "flatten each image whole (torch.flatten(x, 1)), just before the linear layers",
        )
    return replace(value, shape=shape, flat=True)


def _biased(value: Sum, bias: Any) -> Sum:
    return sums.shifted(value, None if bias is None else _real(_constant(bias)))


def _readable(value: Output | Sum, reader: str) -> Output:
    if isinstance(value, Sum) and len(value.paths) == 1 and value.paths[0].op == "identity":
        source = value.paths[0].source
        raise UnsupportedError(
            f"{reader} of what batch norm, a factor or a shift made of {source}",
            "leave it out of the module, and normalise images in the data set (transforms) instead"
            if source == IMAGE
            else "put it before the ReLU, where it becomes part of the weights before",
        )
    if isinstance(value, Sum):
        raise UnsupportedError(f"{reader} of what has no ReLU yet ({value.paths[-1].name})", RELU_FIRST)
    return value


def _terms(value: Output | Sum) -> Sum:
    if value.flat or (isinstance(value, Output) and value.repeated > 1):
        raise UnsupportedError("an operation for each channel on a flattened or enlarged map", "flatten after it")
    if isinstance(value, Sum):
        return value
    return Sum((Path(value.source, "identity", value.source),), None, value.shape)


def _times(value: Output | Sum, alpha: float) -> Sum:
    terms = _terms(value)
    return terms if alpha == 1 else sums.scaled(terms, torch.full(terms.shape[:1], alpha, dtype=torch.float64))


def _constant(given: Any) -> Tensor:
    if not isinstance(given, Tensor):
        raise UnsupportedError("weights that depend on the image", "spikes can be weighted by constants alone")
    return given


def _real(given: Tensor) -> Tensor:
    return given.detach().double().cpu()


def _each_channel(constant: Any, shape: tuple[int, ...]) -> Tensor:
    """A constant as float64 [channels]."""
    given = _real(torch.as_tensor(constant))
    found = given
    # Dimensions of 1 in front, as in [1, C, 1, 1], are the images'. Then comes the channels', and all others are 1: a
    # constant that differs between places is none that a layer can have.
    while found.dim() > len(shape) and found.shape[0] == 1:
        found = found[0]
    spread = found.dim() == len(shape) and found.shape[1:] == (1,) * (len(shape) - 1)
    if given.numel() != 1 and not (spread and found.shape[0] == shape[0]):
        raise UnsupportedError(
            f"a constant of shape {list(given.shape)} beside {list(shape)}", "give one number, or one for each channel"
        )
    return found.reshape(-1).expand(shape[0]).clone()


def pair(given: Any) -> Pair:
    """One number, or two, as two."""
    values = [int(given)] * 2 if isinstance(given, int) else [int(some) for some in given]
    return (values[0], values[-1])
