"""Engine `torch`: layer by layer over blocks of time steps in float32, on any device that torch runs on.

All steps of a block and all images go through a layer as one batch; then one scan over time turns the currents into
spikes, in the place where the currents lay. Sums of +-1 weights are integers, which float32 holds exactly; they are
rounded to the nearest integer, so that an inexact algorithm (Winograd, FFT) chosen by a library does no harm.

Full-precision networks have no exact sums: two engines may order a sum differently, and a membrane that comes within
the last bit of its threshold then fires a step earlier or later. `TOLERANCE` is the fraction of differing spike
counts that is accepted between two engines there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.engines.base import Block, Engine, State, at_rest, full_float32
from bsnn.spiking import SpikingLayer, SpikingNetwork, per_output, pool_currents

TOLERANCE = 1e-3  # of a layer's spikes, for full-precision networks; binary networks have none


class TorchEngine(Engine):
    """Reference for all devices; takes every network, full-precision, signed and with any pool."""

    name: ClassVar[str] = "torch"
    observe: Callable[[SpikingLayer, Tensor], None] | None = None  # shown each layer's spikes [steps, N, *shape]

    def __init__(self, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> None:
        super().__init__(network, device, memory_mib)
        self._weights = [operand(layer) for layer in self.network.layers]

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Takes every network on every device."""
        return None

    def block(self, images: int) -> int:
        """Steps whose largest layer (spikes in, sums, and currents) fits beside the state."""
        layers = self.network.layers
        spikes_in = [0, *(layer.neurons for layer in layers[:-1])]
        step = max(before + _values(layer) for before, layer in zip(spikes_in, layers, strict=True))
        state = layers[0].neurons + sum(layer.neurons * (2 if layer.signed else 1) for layer in self.network.firing)
        return max(1, (self.memory // (4 * max(images, 1)) - state) // step)

    def start(self, images: Tensor) -> State:
        """Constant current, initial potentials, and for signed layers the spikes sent so far."""
        return at_rest(self.network, images)

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance by `steps` time steps, layer by layer."""
        current = cast(Tensor, state.tensors["current"])
        neurons = iter(zip(*(cast(list[Tensor], state.tensors[part]) for part in ("potential", "sent")), strict=True))
        x = current.expand(steps, *current.shape)
        counts = []
        with full_float32(self.device):
            for index, (layer, weight) in enumerate(zip(self.network.layers, self._weights, strict=True)):
                if index > 0:
                    x = currents(layer, weight, x)
                if layer.fires:
                    x = scan(layer, x, *next(neurons), first=index == 0)
                    counts.append(_count(x, layer.signed))
                if self.observe is not None:
                    self.observe(layer, x)
        state.steps += steps
        return state, Block(x.flatten(2).to(torch.int8), torch.stack(counts, 1))


def operand(layer: SpikingLayer) -> Tensor | None:
    """Weight in float32."""
    return None if layer.weight is None else layer.weight.float()


def _values(layer: SpikingLayer) -> int:
    """Values that one image and step needs from the layer's sums to its spikes."""
    return layer.neurons * (5 if layer.op == "conv" and layer.pool else 1)


def currents(layer: SpikingLayer, weight: Tensor | None, spikes: Tensor) -> Tensor:
    """Currents [steps, N, *shape] of a layer from the spikes [steps, N, *shape before it]."""
    x = spikes.flatten(0, 1)
    if weight is not None:
        x = F.conv2d(x, weight, padding=1) if layer.op == "conv" else F.linear(x.flatten(1), weight)
    return pool_currents(x, layer.pool).unflatten(0, spikes.shape[:2])


def scan(layer: SpikingLayer, currents: Tensor, potential: Tensor, sent: Tensor, *, first: bool) -> Tensor:
    """Spikes (float32 of -1, 0, 1) [steps, N, *shape]; potential and sent are updated in place.

    The currents' memory is used for the spikes, but for the first layer's: there it is one current for all steps.
    """
    threshold = per_output(cast(Tensor, layer.threshold), layer.shape)
    bias = None if layer.bias is None else per_output(layer.bias, layer.shape)
    spikes = torch.empty(currents.shape, device=currents.device) if first else currents
    for current, spike in zip(currents, spikes, strict=True):
        if not first:
            _finish(current, layer.integer, bias)
        potential.add_(current)
        torch.ge(potential, threshold, out=spike)
        if layer.signed:
            spike.sub_(((potential <= -threshold) & (sent > 0)).float())
            sent.add_(spike)
        potential.addcmul_(spike, threshold, value=-1)
    return spikes


def _finish(current: Tensor, integer: bool, bias: Tensor | None) -> None:
    """Exact sum from a nearly exact one, then the bias, in place; for the first layer `input_current` has done so."""
    if integer:
        current.round_()
    if bias is not None:
        current.add_(bias)


def _count(spikes: Tensor, signed: bool) -> Tensor:
    """Spikes of either sign sent by the layer, int64 [steps, N]."""
    sent = spikes.abs() if signed else spikes
    return sent.flatten(2).sum(2, dtype=torch.float64).long()
