"""Random small spiking networks of sums of paths: all that their data can say, beyond what a module could have made."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.graphs.description import IMAGE, Path, Pool
from bsnn.graphs.forward import weighted

STEPS = 7
TRIES = 20  # paths that are made until one fits the layer's shape


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.input = (self.random.randint(1, 3), self.random.randint(4, 9), self.random.randint(4, 9))
        self.shapes: dict[str, tuple[int, ...]] = {IMAGE: self.input}
        self.layers: list[SpikingLayer] = []

    def values(self, shape: tuple[int, ...], size: float) -> Tensor:
        """Random numbers; half of the time of few bits, so that potentials meet thresholds."""
        found = torch.randn(shape, generator=self.generator) * size
        return found if self.random.random() < 0.5 else (found * 8).round() / 8

    def weight(self, *shape: int, source: str) -> Tensor:
        if source == IMAGE:
            return torch.randn(shape, generator=self.generator)
        return (torch.randint(0, 2, shape, generator=self.generator) * 2 - 1).to(torch.int8)

    def two(self, *choices: int) -> tuple[int, int]:
        return self.random.choice(choices), self.random.choice(choices)

    def pool(self) -> Pool:
        kernel = self.two(1, 2, 3)
        padding = tuple(self.random.randint(0, size // 2) for size in kernel)
        return Pool(self.random.choice(["average", "max"]), kernel, self.two(1, 2, 3), padding)  # type: ignore[arg-type]

    def convolution(self, source: str, outputs: int) -> Path:
        """Any kernel, stride, padding, dilation, groups; often plain, often depthwise."""
        inputs = self.shapes[source][0]
        pool = self.pool() if self.random.random() < 0.3 else None
        if self.random.random() < 0.3:
            return Path(
                source, "conv", "plain", self.weight(outputs, inputs, 3, 3, source=source), padding=(1, 1), pool=pool
            )
        groups = self.random.choice([size for size in range(1, inputs + 1) if not (inputs % size or outputs % size)])
        groups = inputs if outputs == inputs and self.random.random() < 0.4 else groups
        weight = self.weight(outputs, inputs // groups, *self.two(1, 2, 3, 5), source=source)
        return Path(
            source, "conv", "conv", weight, None, self.two(1, 2, 3), self.two(0, 1, 2), self.two(1, 1, 2), groups, pool
        )

    def path(self, source: str, outputs: int) -> Path:
        shape = self.shapes[source]
        choice = self.random.random()
        if len(shape) == 1 or choice < 0.1:
            units = torch.Size(shape).numel()
            return Path(source, "linear", "linear", self.weight(outputs, units, source=source))
        if choice < 0.3 and source != IMAGE:
            return Path(source, "identity", "same", pool=self.pool() if choice < 0.2 else None)
        return self.convolution(source, outputs)

    def shape(self, path: Path) -> tuple[int, ...] | None:
        """Of a path's term; None if there is no place left."""
        weight = None if path.weight is None else path.weight.float()
        plain = Path(**{**path.__dict__, "weight": weight})
        try:
            return tuple(weighted(plain, torch.zeros(1, *self.shapes[path.source])).shape[1:])
        except RuntimeError:
            return None

    def one(self, wanted: tuple[int, ...] | None, sources: list[str]) -> Path | None:
        """A path, to a shape if one is wanted."""
        outputs = self.random.choice([1, 3, 8, 31, 33, 70, 140]) if wanted is None else wanted[0]
        for _ in range(TRIES):
            path = self.path(self.random.choice(sources), outputs)
            shape = self.shape(path)
            if shape is not None and torch.Size(shape).numel() and (wanted is None or shape == wanted):
                return path
        return None

    def add(self) -> None:
        """A layer: a pool that passes spikes on, or one to three paths and neurons."""
        sources = list(self.shapes)[1:] or [IMAGE]
        name = f"layer{len(self.layers)}"
        first = self.one(None, sources[-2:])
        if first is None:
            return
        shape = self.shape(first)
        assert shape is not None
        passes = first.weight is None and first.pool is not None and first.pool.kind == "max"
        if passes and self.random.random() < 0.5:
            self.layers.append(SpikingLayer(name, "sum", shape, paths=(first,)))
        else:
            some = [IMAGE, *sources]
            others = [self.one(shape, some) for _ in range(self.random.choice([0, 0, 1, 1, 2]))]
            self.layers.append(self.neurons(name, shape, [first, *(path for path in others if path is not None)]))
        self.shapes[name] = shape

    def neurons(self, name: str, shape: tuple[int, ...], paths: list[Path]) -> SpikingLayer:
        self.random.shuffle(paths)
        if len(paths) > 1 or self.random.random() < 0.3:
            paths = [Path(**{**path.__dict__, "scale": self.values(shape[:1], 1.0)}) for path in paths]
        inputs = max(1 if path.weight is None else path.weight[0].numel() for path in paths)
        typical = 0.6 * inputs**0.5
        fields: dict[str, Tensor] = {"threshold": self.values(shape[:1], typical / 2).abs() + 0.125}
        for field in ("initial", "bias"):
            if self.random.random() < 0.3:
                own = shape if self.random.random() < 0.5 else shape[:1]
                fields[field] = self.values(own, typical / 3)
        if self.random.random() < 0.5:
            fields["offset"] = self.values(shape[:1], typical / 3)
        if self.random.random() < 0.3:
            fields["schedule"] = self.values((STEPS, shape[0]), typical / 3)
        signed = self.random.random() < 0.3
        if signed and self.random.random() < 0.5:
            part = self.random.choice((0.0, 0.25, 0.5))
            fields["lower"] = -(fields["threshold"] * part).clamp_min(torch.finfo().tiny)
        return SpikingLayer(name, "sum", shape, paths=tuple(paths), signed=signed, **fields)  # type: ignore[arg-type]


def random_graph(seed: int) -> SpikingNetwork:
    """A network of up to six layers, each of up to three paths from any layers before and from the image."""
    maker = _Maker(seed)
    while not maker.layers:
        maker.add()
    for _ in range(maker.random.randint(1, 5)):
        maker.add()
    units = maker.layers[-1].neurons
    return SpikingNetwork(tuple(maker.layers), torch.zeros(2, units, dtype=torch.float64), maker.input)
