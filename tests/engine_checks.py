"""What the engine tests share: run an engine in any blocks, compare results exactly, and a plain reference.

`reference` follows the neuron's definition word by word, one step and one layer at a time, with sums in float64
(exact for integers). It shares no code with any engine but the first layer's current.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from networks_for_tests import spiking
from torch import Tensor

from bsnn.config.method import METHODS, Method
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.conversion.spiking import input_current
from bsnn.engines.base import Block, Engine
from bsnn.graphs.description import IMAGE, Path

# all kinds of pool and place, no layer kept full, potentials that start at V/2, and a network without pools
MEMBERS: dict[str, dict[str, object]] = {
    "average-before": {"pool": "average", "place": "before"},
    "average-after": {"pool": "average", "place": "after"},
    "max-before": {"pool": "max", "place": "before"},
    "max-after": {"pool": "max", "place": "after"},
    "all-binary": {"keep_full": False},
    "half-threshold": {"initial": 0.5},
    "first-layer-pooled": {"features": [8, "P", 16, "P", 16]},
    "no-pool": {"features": [4, 6], "size": 6},
    "ends-in-pool-of-spikes": {"features": [8, 16, "P"], "hidden": [], "pool": "max", "place": "after"},
    "odd-channels": {"features": [5, 7, "P", 9, 11, "P"], "hidden": [13, 3]},
}

# methods that take one pass over the images
SINGLE = {name: Method.model_validate(switches) for name, switches in METHODS.items() if "second_pass" not in switches}
SINGLE |= {
    "balanced, temporal, signed": Method(threshold="balanced", initial=0.5, correction="temporal", signed=True),
    "taken back at once": Method(initial=0.5, signed=True, negative_threshold=0.0),
    "a quarter below": Method(
        threshold="squared-error", initial=0.5, signed=True, negative_threshold=0.25, correction="potential"
    ),
    "squared error, temporal": Method(threshold="squared-error", correction="temporal", delay=2),
}


def signed(network: SpikingNetwork) -> SpikingNetwork:
    """The same network with negative spikes in every layer that has neurons, by several negative thresholds."""
    layers = []
    for index, layer in enumerate(network.layers):
        if layer.threshold is None:
            layers.append(layer)
            continue
        lower = (None, layer.threshold * -0.25, torch.full_like(layer.threshold, -torch.finfo(torch.float32).tiny))
        layers.append(replace(layer, signed=True, lower=lower[index % 3]))
    return replace(network, layers=tuple(layers))


def biased(network: SpikingNetwork, seed: int) -> SpikingNetwork:
    """The same network with a real bias in every layer that has neurons: one per channel, or one per neuron."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for index, layer in enumerate(network.layers):
        shape = layer.shape if index % 2 else layer.shape[:1]
        bias = torch.randn(shape, generator=generator) * 0.3
        layers.append(replace(layer, bias=bias) if layer.fires else layer)
    return replace(network, layers=tuple(layers))


def scheduled(network: SpikingNetwork, seed: int, steps: int) -> SpikingNetwork:
    """The same network with a real current for each channel and step in every layer that has neurons."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        replace(layer, schedule=torch.randn(steps, layer.shape[0], generator=generator) * 0.3) if layer.fires else layer
        for layer in network.layers
    ]
    return replace(network, layers=tuple(layers))


def in_eighths(network: SpikingNetwork, seed: int) -> SpikingNetwork:
    """Real weights, multiples of 1/8 up to 1, in place of about three in four of the sums over spikes.

    Float32 holds all their sums, in whatever order they are added up.
    """
    generator = torch.Generator().manual_seed(seed)

    def real(weight: Tensor) -> Tensor:
        return torch.randint(-8, 9, weight.shape, generator=generator) / 8

    def chosen(weight: Tensor | None) -> bool:
        signs = weight is not None and not weight.is_floating_point()
        return signs and bool(torch.rand((), generator=generator) < 0.75)

    def changed(path: Path) -> Path:
        plain = path.groups == 1 and path.source != IMAGE
        return replace(path, weight=real(path.weight)) if plain and chosen(path.weight) else path  # type: ignore[arg-type]

    layers = []
    for layer in network.layers:
        layer = replace(layer, paths=tuple(map(changed, layer.paths)))
        layers.append(replace(layer, weight=real(layer.weight)) if chosen(layer.weight) else layer)  # type: ignore[arg-type]
    return replace(network, layers=tuple(layers))


def tied(network: SpikingNetwork) -> SpikingNetwork:
    """The same network with whole thresholds after the first layer, so that membranes often meet them exactly."""
    whole = [
        replace(layer, threshold=layer.threshold.round().clamp(min=1)) if layer.threshold is not None else layer
        for layer in network.layers[1:]
    ]
    return replace(network, layers=(network.layers[0], *whole))


def member(name: str, seed: int) -> SpikingNetwork:
    """A converted binary network with random weights; `name` is a key of MEMBERS."""
    return spiking(seed, **MEMBERS[name])  # type: ignore[arg-type]


def run(engine: Engine, images: Tensor, blocks: Sequence[int]) -> Block:
    """All results of consecutive blocks of so many steps."""
    state = engine.start(images.to(engine.device))
    found = []
    for steps in blocks:
        state, block = engine.advance(state, steps)
        # copied at once: an engine may use its buffers again
        found.append(Block(block.spikes.cpu().clone(), block.counts.cpu().clone()))
    assert state.steps == sum(blocks)
    return joined(found)


def joined(blocks: Sequence[Block]) -> Block:
    """One block from consecutive ones."""
    return Block(torch.cat([block.spikes for block in blocks]), torch.cat([block.counts for block in blocks]))


def assert_equal(found: Block, expected: Block) -> None:
    """Equal spikes: every layer's count at every step for every image, and each spike of the last hidden layer."""
    assert found.counts.dtype == torch.int64
    assert found.spikes.dtype == torch.int8
    assert found.counts.shape == expected.counts.shape
    assert found.spikes.shape == expected.spikes.shape
    differing = (found.counts != expected.counts).nonzero()
    if len(differing):
        layer = int(differing[:, 1].min())
        first = differing[differing[:, 1] == layer][0]
        raise AssertionError(
            f"{len(differing)} counts differ; earliest layer {layer}, there at [step, layer, image] {first.tolist()}: "
            f"{int(found.counts[tuple(first)])} instead of {int(expected.counts[tuple(first)])}"
        )
    assert torch.equal(found.spikes, expected.spikes), "last hidden layer's spikes differ, though counts are equal"


def reference(network: SpikingNetwork, images: Tensor, steps: int) -> Block:
    """Spikes by the definition: v <- v + x; s = v >= V; v <- v - s V; negative spikes for signed layers."""
    current = input_current(network, images)
    state = [_Neurons(layer, len(images)) for layer in network.layers]
    spikes, counts = [], []
    for step in range(steps):
        x = current
        row = []
        for index, (layer, neurons) in enumerate(zip(network.layers, state, strict=True)):
            if index:
                x = _current(layer, x)
            if layer.fires:
                if layer.schedule is not None:
                    x = x + _full(layer.schedule[step], layer.shape)
                x = neurons.step(x)
                row.append(x.abs().flatten(1).double().sum(1).long())
        counts.append(torch.stack(row))
        spikes.append(x.flatten(1).to(torch.int8))
    return Block(torch.stack(spikes), torch.stack(counts))


class _Neurons:
    """Membranes of one layer, one step at a time."""

    def __init__(self, layer: SpikingLayer, images: int) -> None:
        self.v = torch.zeros(images, *layer.shape)
        self.sent = torch.zeros(images, *layer.shape)
        self.signed = layer.signed
        if layer.threshold is not None:
            self.threshold = _full(layer.threshold, layer.shape)
            self.lower = -self.threshold if layer.lower is None else _full(layer.lower, layer.shape)
        if layer.initial is not None:
            self.v = self.v + _full(layer.initial, layer.shape)

    def step(self, x: Tensor) -> Tensor:
        self.v = self.v + x
        s = (self.v >= self.threshold).float()
        if self.signed:
            s = torch.where((self.v <= self.lower) & (self.sent > 0), torch.tensor(-1.0), s)
        self.v = self.v - s * self.threshold
        self.sent = self.sent + s
        return s


def _full(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(values.shape) == tuple(shape):
        return values
    return torch.ones(shape) * values.reshape(len(values), *[1] * (len(shape) - 1))


def _current(layer: SpikingLayer, spikes: Tensor) -> Tensor:
    x = spikes.double()
    if layer.op == "conv":
        x = F.conv2d(x, layer.weight.double(), padding=1)  # type: ignore[union-attr]
    elif layer.op == "linear":
        x = x.flatten(1) @ layer.weight.double().T  # type: ignore[union-attr]
    if layer.pool == "average":
        x = F.avg_pool2d(x, 2) * 4
    elif layer.pool == "max":
        x = F.max_pool2d(x, 2)
    x = x.float()
    return x if layer.bias is None else x + _full(layer.bias, layer.shape)
