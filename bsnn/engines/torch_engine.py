"""Engine `torch`: layer by layer over blocks of time steps in float32, on any device that torch runs on.

All steps of a block and all images go through a layer as one batch, channels last; then one scan over time turns the
currents into spikes, in the place where the currents lay. Sums of +-1 weights are integers, which float32 holds
exactly; where a library may choose an inexact algorithm (Winograd, FFT), they are rounded to the nearest integer.
Weights that are bfloat16 numbers use a CPU's native products of these (bsnn.engines.products), exact as well.

The scan takes 8 % of the time of a full-precision VGG-15 (0.13 of 1.75 s: 16 images, 32 steps, two cores with AVX-512),
and twice that where products are native ones of bfloat16 numbers. One pass over the currents instead of several would
save no more than it takes, so it is left to torch's own operations.

Full-precision networks have no exact sums: two engines may order a sum differently, and a membrane that comes within
the last bits of its threshold then fires a step earlier or later, and others after it. Against float64 sums, over 60
steps of six random networks, at most 12 of 140,000 spikes of a layer moved, and 6 of the 19,000 of a last layer; no
prediction did. `TOLERANCE` is the fraction of a layer's spike counts that may differ between two engines there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines import products
from bsnn.engines.base import Block, Engine, State, at_rest, direct_sums, full_float32, within_schedules
from bsnn.engines.branches import Branches

TOLERANCE = 1e-3  # of a layer's spikes, for full-precision networks; binary networks have none


class TorchEngine(Engine):
    """Reference for all devices; takes every network, full-precision, signed and with any pool."""

    name: ClassVar[str] = "torch"
    observe: Callable[[SpikingLayer, Tensor], None] | None = None  # shown each layer's spikes [steps, N, *shape]

    def __init__(
        self,
        network: SpikingNetwork,
        device: torch.device | str = "cpu",
        memory_mib: int = 2048,
        *,
        native_bfloat16: bool = True,
    ) -> None:
        super().__init__(network, device, memory_mib)
        self._branches = Branches(self.network, direct=direct_sums(self.device))
        self._bfloat16 = native_bfloat16 and products.native_bfloat16(self._branches.weights, self.device)

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Takes every network on every device."""
        return None

    def block(self, images: int) -> int:
        """Steps whose largest layer (spikes in, sums, and currents) fits beside the state."""
        neurons = sum(layer.neurons * (2 if layer.signed else 1) for layer in self.network.firing)
        state = neurons + self._branches.constants
        return max(1, (self.memory // (4 * max(images, 1)) - state) // self._branches.values)

    def start(self, images: Tensor) -> State:
        """Constant current, initial potentials, and for signed layers the spikes sent so far."""
        return at_rest(self.network, images)

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance by `steps` time steps, layer by layer."""
        within_schedules(self.network, state.steps + steps)
        image = [channels_last(term) for term in cast(list[Tensor], state.tensors["current"])]
        potential = [channels_last(v) for v in cast(list[Tensor], state.tensors["potential"])]
        sent = cast(list[Tensor], state.tensors["sent"])
        neurons = iter(zip(potential, sent, strict=True))
        outputs: dict[str, Tensor] = {}
        counts = []
        with full_float32(self.device):
            for index, layer in enumerate(self.network.layers):
                x = self._branches.current(index, outputs, image, steps, bfloat16=self._bfloat16)
                if layer.fires:
                    x = scan(layer, x, *next(neurons), begin=state.steps)
                    counts.append(_count(x, layer))
                outputs[layer.name] = x
                self.network.forget(index, outputs)
                if self.observe is not None:
                    self.observe(layer, x)
        block = Block(x.flatten(2).to(torch.int8), torch.stack(counts, 1))
        return State(state.steps + steps, current=image, potential=potential, sent=sent), block


def channels_last(x: Tensor) -> Tensor:
    """The same values [N, channels, height, width], with channels next to each other in memory; others as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def scan(layer: SpikingLayer, currents: Tensor, potential: Tensor, sent: Tensor, *, begin: int = 0) -> Tensor:
    """Spikes (float32 of -1, 0, 1, or up to the burst) [steps, N, *shape], in the memory of the currents.

    Potential and sent are updated in place. `begin`: number of steps done before.
    """
    threshold = per_output(cast(Tensor, layer.threshold), layer.shape)
    lower = per_output(layer.negative_threshold, layer.shape) if layer.signed else threshold
    bias = None if layer.bias is None else per_output(layer.bias, layer.shape)
    for step, current in enumerate(currents, begin):
        if bias is not None:
            current.add_(bias)
        potential.add_(current if layer.schedule is None else current + per_output(layer.schedule[step], layer.shape))
        spike = current  # the potential has it by now: its place is free
        if layer.burst == 1:
            torch.ge(potential, threshold, out=spike)
        else:  # one for each threshold reached
            torch.div(potential, threshold, out=spike).floor_().clamp_(0, layer.burst)
        if layer.signed:
            spike.sub_(((potential <= lower) & (sent > 0)).float())
            sent.add_(spike)
        # exact for -1, 0 and 1, so fusing it changes nothing; with bursts it may round, but these are not `exact`
        potential.addcmul_(spike, threshold, value=-1)
    return currents


def _count(spikes: Tensor, layer: SpikingLayer) -> Tensor:
    """Spikes of either sign sent by the layer, int64 [steps, N]."""
    sent = spikes.abs() if layer.signed else spikes
    # float32 adds up whole numbers below 2^24 exactly, in any order
    exact = torch.float32 if layer.burst * layer.neurons < 2**24 else torch.float64
    return sent.sum(tuple(range(2, spikes.dim())), dtype=exact).long()
