"""Random small binary networks, layer by layer: not of the family that is trained, but all that the data can say."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork

STEPS = 24  # that schedules have currents for
_STEP = 0.5  # thresholds, biases and potentials are often multiples of it, so that membranes meet their thresholds


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.layers: list[SpikingLayer] = []
        self.input = (self.random.randint(1, 3), self.random.randint(2, 9), self.random.randint(2, 9))
        self.shape: tuple[int, ...] = self.input

    def signs(self, *shape: int) -> Tensor:
        return (torch.randint(0, 2, shape, generator=self.generator) * 2 - 1).to(torch.int8)

    def values(self, shape: tuple[int, ...], scale: float) -> Tensor:
        found = torch.randn(shape, generator=self.generator) * scale
        return found if self.random.random() < 0.3 else (found / _STEP).round() * _STEP

    def neurons(self, shape: tuple[int, ...], typical: float) -> dict[str, object]:
        """Fields of the neurons of a layer whose currents are about so large."""
        threshold = self.values(shape[:1], typical / 2).abs() + _STEP
        found: dict[str, object] = {"threshold": threshold, "signed": self.random.random() < 0.3}
        if found["signed"] and self.random.random() < 0.5:
            found["lower"] = -(threshold * self.random.choice((0.0, 0.25, 0.5))).clamp_min(torch.finfo().tiny)
        for name in ("initial", "bias"):
            if self.random.random() < 0.3:
                own = shape if self.random.random() < 0.5 else shape[:1]
                found[name] = self.values(own, typical / 3)
        if self.random.random() < 0.3:
            found["schedule"] = self.values((STEPS, shape[0]), typical / 3)
        return found

    def add(self, op: str, shape: tuple[int, ...], typical: float, **fields: object) -> None:
        neurons = self.neurons(shape, typical) if fields.pop("fires", True) else {}
        name = f"{op}{len(self.layers)}"
        self.layers.append(SpikingLayer(name, op, shape, **fields, **neurons))  # type: ignore[arg-type]
        self.shape = shape

    def convolution(self) -> None:
        channels, height, width = self.shape
        outputs = self.random.choice([1, 3, 8, 31, 33, 70, 130, 200])
        first = not self.layers
        even = height % 2 == 0 and width % 2 == 0
        pool = self.random.choice(["average", "max", None]) if min(height, width) > 1 and (even or not first) else None
        weight = torch.randn(outputs, channels, 3, 3, generator=self.generator) if first else None
        size = (height // 2, width // 2) if pool else (height, width)
        typical = (9 * channels) ** 0.5 * (1.0 if first else 0.6) * (2.0 if pool == "average" else 1.0)
        weight = self.signs(outputs, channels, 3, 3) if weight is None else weight
        self.add("conv", (outputs, *size), typical, weight=weight, pool=pool)

    def pool(self) -> None:
        channels, height, width = self.shape
        if min(height, width) > 1:
            kind = self.random.choice(["average", "max"])
            fires = kind == "average" or self.random.random() < 0.3
            self.add("pool", (channels, height // 2, width // 2), 1.5, pool=kind, fires=fires)

    def linear(self) -> None:
        inputs = torch.Size(self.shape).numel()
        outputs = self.random.choice([1, 5, 32, 70, 140])
        self.add("linear", (outputs,), 0.5 * inputs**0.5, weight=self.signs(outputs, inputs))


def random_network(seed: int) -> SpikingNetwork:
    """A network of one to three convolutions, pools among them, and up to two linear layers."""
    maker = _Maker(seed)
    for _ in range(maker.random.randint(1, 3)):
        maker.convolution()
        if maker.random.random() < 0.3:
            maker.pool()
    for _ in range(maker.random.randint(0, 2)):
        maker.linear()
    units = maker.layers[-1].neurons
    return SpikingNetwork(tuple(maker.layers), torch.zeros(2, units, dtype=torch.float64), maker.input)


def random_images(seed: int) -> Tensor:
    """One to three images for the network of that seed."""
    shape = random_network(seed).input_shape
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(1 + seed % 3, *shape, generator=generator)
