"""Engine `torch`: layer by layer over blocks of time steps in float32, on any device that torch runs on.

All steps of a block and all images go through a layer as one batch, channels last; then one scan over time turns the
currents into spikes, in the place where the currents lay. Sums of +-1 weights are integers, which float32 holds
exactly; where a library may choose an inexact algorithm (Winograd, FFT), they are rounded to the nearest integer.
Weights that are bfloat16 numbers use a CPU's native products of these (bsnn.engines.products), exact as well.

The scan takes 8 % of the time of a full-precision VGG-15 (0.13 of 1.75 s: 16 images, 32 steps, two cores with AVX-512).
One pass over the currents instead of several would save at most 7 %, so it is left to torch's own operations.

Full-precision networks have no exact sums: two engines may order a sum differently, and a membrane that comes within
the last bits of its threshold then fires a step earlier or later, and others after it. Against float64 sums, over 60
steps of six random networks, at most 12 of 140,000 spikes of a layer moved, and 6 of the 19,000 of a last layer; no
prediction did. `TOLERANCE` is the fraction of a layer's spike counts that may differ between two engines there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines import products
from bsnn.engines.base import Block, Engine, State, at_rest, direct_sums, full_float32, within_schedules
from bsnn.engines.branches import Branches

TOLERANCE = 1e-3  # of a layer's spikes, for full-precision networks; binary networks have none


class TorchEngine(Engine):
    """Reference for all devices; takes every network, full-precision, signed and with any pool."""

    name: ClassVar[str] = "torch"
    observe: Callable[[SpikingLayer, Tensor], None] | None = None  # shown each layer's spikes [steps, N, *shape]

    def __init__(self, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> None:
        super().__init__(network, device, memory_mib)
        self._weights = [operand(layer) for layer in self.network.layers]
        self._branches = Branches(self.network) if self.network.branched else None
        weights = [weight for weight in self._weights[1:] if weight is not None]
        weights += [path.weight for layer in self.network.layers for path in layer.paths if path.weight is not None]
        self._bfloat16 = products.native_bfloat16(weights, self.device)

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Takes every network on every device."""
        return None

    def block(self, images: int) -> int:
        """Steps whose largest layer (spikes in, sums, and currents) fits beside the state."""
        layers = self.network.layers
        if self._branches is not None:
            return max(1, (self.memory // (4 * max(images, 1)) - self._branches.state) // self._branches.step)
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
        within_schedules(self.network, state.steps + steps)
        current = state.tensors["current"]
        current = current if isinstance(current, list) else channels_last(current)
        potential = [channels_last(v) for v in cast(list[Tensor], state.tensors["potential"])]
        sent = cast(list[Tensor], state.tensors["sent"])
        neurons = iter(zip(potential, sent, strict=True))
        branches = None if self._branches is None else self._branches.block(cast(list[Tensor], current), steps)
        x = torch.empty(0) if isinstance(current, list) else current.expand(steps, *current.shape)
        counts = []
        with full_float32(self.device), products.in_bfloat16(self._bfloat16):
            for index, (layer, weight) in enumerate(zip(self.network.layers, self._weights, strict=True)):
                if branches is not None:
                    x = branches.current(index)
                elif index > 0:
                    x = currents(layer, weight, x, bfloat16=self._bfloat16)
                if layer.fires:
                    x = scan(layer, x, *next(neurons), first=index == 0 and branches is None, begin=state.steps)
                    counts.append(_count(x, layer))
                if branches is not None:
                    branches.keep(index, x)
                if self.observe is not None:
                    self.observe(layer, x)
        block = Block(x.flatten(2).to(torch.int8), torch.stack(counts, 1))
        return State(state.steps + steps, current=current, potential=potential, sent=sent), block


def channels_last(x: Tensor) -> Tensor:
    """The same values [N, channels, height, width], with channels next to each other in memory; others as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def operand(layer: SpikingLayer) -> Tensor | None:
    """Weight in float32, with a 2x2 sum of its integer results folded in.

    The sum of four 3x3 convolutions is one 4x4 convolution of stride 2, of weights from -4 to 4: as exact, and 16
    products instead of 36.
    """
    if layer.weight is None:
        return None
    weight = layer.weight.float()
    if layer.op == "conv" and layer.integer and layer.pool == "average":
        shifts = [(top, left, 1 - top, 1 - left) for top in (0, 1) for left in (0, 1)]
        weight = torch.stack([F.pad(weight, (left, right, top, low)) for top, left, low, right in shifts]).sum(0)
    return channels_last(weight)


def _values(layer: SpikingLayer) -> int:
    """Values that one image and step needs from the layer's sums to its spikes."""
    return layer.neurons * (5 if layer.op == "conv" and layer.pool else 1)


def currents(layer: SpikingLayer, weight: Tensor | None, spikes: Tensor, *, bfloat16: bool = False) -> Tensor:
    """Currents [steps, N, *shape] of a layer from the spikes [steps, N, *shape before it].

    Args:
        layer: any but the first.
        weight: of `operand`.
        spikes: float32.
        bfloat16: whether it is done within `products.in_bfloat16`.
    """
    x, pool = spikes.flatten(0, 1), layer.pool
    if weight is not None and layer.op == "conv":
        folded = weight.shape[-1] == 4
        x = F.conv2d(x, weight, padding=1, stride=2) if folded else products.convolution(x, weight, bfloat16=bfloat16)
        pool = None if folded else pool
    elif weight is not None:
        x = F.linear(x.flatten(1), weight)
    if pool is not None:
        x = F.max_pool2d(x, 2) if pool == "max" else F.avg_pool2d(x, 2, divisor_override=1)
    return x.unflatten(0, spikes.shape[:2])


def scan(
    layer: SpikingLayer, currents: Tensor, potential: Tensor, sent: Tensor, *, first: bool, begin: int = 0
) -> Tensor:
    """Spikes (float32 of -1, 0, 1, or up to the burst) [steps, N, *shape]; potential and sent are updated in place.

    The currents' memory is used for the spikes, except the first layer's: there it is one current for all steps.
    `begin`: number of steps done before.
    """
    threshold = per_output(cast(Tensor, layer.threshold), layer.shape)
    bias = None if layer.bias is None else per_output(layer.bias, layer.shape)
    rounds = layer.integer and not layer.paths and not direct_sums(currents.device)
    spikes = torch.empty_like(currents) if first else currents
    for step, (current, spike) in enumerate(zip(currents, spikes, strict=True), begin):
        if not first:
            _finish(current, rounds, bias)
        potential.add_(current if layer.schedule is None else current + per_output(layer.schedule[step], layer.shape))
        _fire(potential, threshold, layer.burst, spike)
        if layer.signed:
            spike.sub_(((potential <= -threshold) & (sent > 0)).float())
            sent.add_(spike)
        potential.addcmul_(spike, threshold, value=-1)
    return spikes


def _fire(potential: Tensor, threshold: Tensor, burst: int, spike: Tensor) -> None:
    """Positive spikes of one step into `spike`: one at the threshold, or with bursts one for each threshold reached."""
    if burst == 1:
        torch.ge(potential, threshold, out=spike)
    else:
        torch.div(potential, threshold, out=spike).floor_().clamp_(0, burst)


def _finish(current: Tensor, rounds: bool, bias: Tensor | None) -> None:
    """Exact sum from a nearly exact one, then the bias, in place; for the first layer `input_current` has done so."""
    if rounds:
        current.round_()
    if bias is not None:
        current.add_(bias)


def _count(spikes: Tensor, layer: SpikingLayer) -> Tensor:
    """Spikes of either sign sent by the layer, int64 [steps, N]."""
    sent = spikes.abs() if layer.signed else spikes
    exact = torch.float32 if layer.burst * layer.neurons < 2**24 else torch.float64
    return sent.sum(tuple(range(2, spikes.dim())), dtype=exact).long()
