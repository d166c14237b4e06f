"""One plain description of a network: a graph of layers, each a sum of paths from earlier layers, then ReLU.

Between two ReLUs everything is linear. So a layer is

    a = relu(sum over its paths of scale * pool(weight (*) source) + bias),

and paths are convolutions, linear maps, or the source itself (a residual connection). Batch norm and biases are folded
into `scale` and `bias`, one number per output channel. A member of the VGG family is the special case of one path per
layer, from the layer before, 3x3, without scale (or with alpha) and without bias.

Weights whose filters each hold one absolute value are kept as int8 signs, and that value, times the size of batch
norm's factor, as the scale; the factor's sign turns the signs. So sums over spikes stay integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

IMAGE = "(image)"  # source of paths that read the image itself; no module can have this name
READOUT = "readout"  # the read-out in tables and NIR, whatever its module is called; no other layer has this name

Pair = tuple[int, int]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Pool:
    """A pool over windows of a map."""

    kind: Literal["average", "max"]
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    divisor: int = 1  # average: what a window's sum is divided by


@dataclass(frozen=True)
class Path:
    """One term of a layer's sum."""

    source: str  # name of a layer, or IMAGE
    op: Literal["conv", "linear", "identity"]  # linear: of the flattened source
    name: str  # of the module that it comes from
    weight: Tensor | None = None  # float32, or int8 with `scale`; [out, in / groups, height, width] or [out, in]
    scale: Tensor | None = None  # float64 [out channels], multiplied by; not negative unless op is identity; None: 1
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pool: Pool | None = None  # of the weighted sum

    @property
    def binary(self) -> bool:
        """Whether its weights are integers times one scale per channel."""
        return self.weight is not None and not self.weight.is_floating_point()

    @property
    def signs(self) -> bool:
        """Whether they are +-1, a bit each: signs that were added up are integers as well, of more bits."""
        return self.binary and bool((self.weight.abs() == 1).all())  # type: ignore[union-attr]

    def to(self, device: torch.device | str) -> Path:
        """The same path with its tensors on a device."""
        return moved(self, device)


@dataclass(frozen=True)
class Layer:
    """A sum of paths, a bias, and what becomes of them.

    Kinds: `relu`, whose neurons will spike; `average`, an average pool of a layer's output, which gets neurons of its
    own; `max`, a maximum pool of a layer's output, which passes spikes on; `logits`, the last.
    """

    name: str
    kind: Literal["relu", "average", "max", "logits"]
    paths: tuple[Path, ...]  # added up in this order
    bias: Tensor | None  # float64 [out channels]
    shape: tuple[int, ...]  # of the output for one image

    @property
    def sources(self) -> tuple[str, ...]:
        """Where its paths come from."""
        return tuple(path.source for path in self.paths)


@dataclass(frozen=True)
class Graph:
    """A network for evaluation and conversion; layers in the order in which they are computed."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]  # of one image
    folds: bool = True  # whether an average pool that the logits alone read needs no neurons
    source: nn.Module | None = field(default=None, compare=False, repr=False)  # the module it was read from

    @property
    def observed(self) -> tuple[str, ...]:
        """Layers whose neurons will spike: activations are shown, and thresholds given, under these names.

        An average pool that only the logits read needs no neurons: its weights become part of the read-out's. (In the
        VGG family it has them, as in the paper: `folds` is off.)
        """
        skipped = self.read_out.name if self.read_out else None
        return tuple(layer.name for layer in self.layers if layer.kind in ("relu", "average") and layer.name != skipped)

    @property
    def read_out(self) -> Layer | None:
        """The average pool between the last neurons and the logits, if nothing else reads it and it is folded."""
        if not self.folds:
            return None
        source = self.layers[-1].paths[0].source
        readers = [layer for layer in self.layers if source in layer.sources]
        found = [layer for layer in self.layers if layer.name == source and layer.kind == "average"]
        return found[0] if found and len(readers) == 1 else None

    @property
    def binary(self) -> tuple[str, ...]:
        """Names of the weights that are binary, in order."""
        return tuple(path.name for path in self.paths if path.binary)

    @property
    def paths(self) -> Iterator[Path]:
        """All paths, layer by layer."""
        return (path for layer in self.layers for path in layer.paths)

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(path.weight.device for path in self.paths if path.weight is not None)

    def layer(self, name: str) -> Layer:
        """The layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)

    def to(self, device: torch.device | str) -> Graph:
        """The same network with its tensors on a device."""
        return moved(self, device)


def forget(outputs: dict[str, Tensor], readers: Iterable[Path]) -> None:
    """Drop the outputs, by layer, that none of these paths reads."""
    read = {path.source for path in readers}
    for name in [name for name in outputs if name not in read]:
        del outputs[name]


def moved(part: Part, device: torch.device | str) -> Part:
    """The same with all of its tensors on a device: a tensor, a tuple, or a dataclass of them; others as they are."""
    found: Any = part
    if isinstance(part, Tensor):
        found = part.to(device)
    elif isinstance(part, tuple):
        found = tuple(moved(one, device) for one in part)
    elif is_dataclass(part) and not isinstance(part, type | nn.Module):
        found = replace(part, **{each.name: moved(getattr(part, each.name), device) for each in fields(part)})
    return cast(Part, found)
