"""The ideal quantised curve: what a converted network would reach if its neurons' input came evenly. No simulation.

Layer by layer, each neuron sends the spikes that T even inputs would make it send. In activations,

    a'_l = theta_l / T * clip(floor(a_l T / theta_l + f), 0, T),

with f the fraction of the threshold that membranes start with: 0 cuts off, 1/2 rounds (Bu et al. 2022; a shift of half
a threshold over T steps has added the same by step T). In whole spikes, with S the sum of its inputs' counts and V the
threshold of bsnn.conversion.spiking, that is

    N = clip(floor((S + v(0)) / V), 0, T),

since the soft reset keeps S + v(0) = V N + v(T), and even input ends with 0 <= v(T) < V wherever T spikes are enough.
So the curve splits what the conversion costs: from the network itself to T = infinity it is clipping, from there to T
quantisation, and from there to the simulated network unevenness, spikes that come in another order than evenly.
Corrections can make up for clipping and quantisation, so that a simulated network may lie above its curve.

Counts of binary networks are sums of integers, and so are their predictions: the same on every device, in any batch.
T = infinity stands for `INFINITE` steps: activations are clipped, and rounded at 2^-18 of the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork, input_current, per_output
from bsnn.engines.base import direct_sums, full_float32
from bsnn.engines.torch_engine import currents, operand
from bsnn.errors import ConversionError
from bsnn.simulation.readout import decide, on_grid

INFINITE = 2**18
_EXACT = 2**24  # integers up to it are exact in float32
_TOGETHER = 64  # images whose sums are held at once


@torch.no_grad()
def predicted(network: SpikingNetwork, images: Tensor, times: list[int]) -> Tensor:
    """Class of each image with even input over each number of steps, int16 [N, times], on the CPU.

    Args:
        network: converted by thresholds and initial potentials alone, on the images' device.
        images: float32 [N, channels, height, width], normalised.
        times: numbers of steps T, each at least 1; INFINITE for activations that are clipped alone.

    Raises:
        ConversionError: a number of steps below 1, or currents beside the sums, signed spikes: no part of the curve.
    """
    weight = on_grid(network.readout).to(images.device)
    found = torch.empty(len(images), len(times), dtype=torch.int16)
    for place, some in enumerate(images.split(_TOGETHER)):
        rows = slice(place * _TOGETHER, place * _TOGETHER + len(some))
        current = input_current(network, some)
        for column, steps in enumerate(times):
            counts = propagated(network, current, steps)
            found[rows, column] = decide(counts.flatten(1).double() @ weight.T)[0].cpu()
    return found


@torch.no_grad()
def propagated(
    network: SpikingNetwork,
    current: Tensor,
    steps: int,
    counted: Callable[[SpikingLayer, Tensor], Tensor] | None = None,
) -> Tensor:
    """Spikes of the last layer over all steps, whole numbers [N, *shape].

    Args:
        network: as of `predicted`.
        current: of the first layer (bsnn.conversion.spiking.input_current), [N, *shape].
        steps: number of steps.
        counted: takes a layer with neurons and its sums S [N, *shape], and gives its spikes; `even` without it.
    """
    if steps < 1:
        raise ConversionError(f"the ideal curve is for at least 1 time step, found {steps}")
    give = counted or (lambda layer, sums: even(layer, sums, steps))
    most = steps
    spikes = current
    for index, layer in enumerate(network.layers):
        sums = current.double() * steps if index == 0 else _sums(layer, spikes, most)
        spikes = give(layer, sums) if layer.fires else sums
        most = steps * layer.burst if layer.fires else most
    return spikes


def even(layer: SpikingLayer, sums: Tensor, steps: int) -> Tensor:
    """Spikes of neurons whose sums S [N, *shape] come evenly: clip(floor((S + v(0)) / V), 0, steps * burst).

    Raises:
        ConversionError: a layer with currents beside its sums, or signed spikes.
    """
    if layer.bias is not None or layer.schedule is not None or layer.signed:
        raise ConversionError(
            f"layer '{layer.name}' has currents of a shift or a correction, or signed spikes, which the ideal curve is "
            "to be compared with: convert by thresholds and initial potential alone"
        )
    threshold = per_output(cast(Tensor, layer.threshold).double(), layer.shape)
    total = sums.double()
    if layer.initial is not None:
        total = total + per_output(layer.initial.double(), layer.shape)
    sent: Tensor = (total / threshold).floor_().clamp_(0, steps * layer.burst)
    return sent


def _sums(layer: SpikingLayer, spikes: Tensor, most: int) -> Tensor:
    """Sums of a layer's inputs, float64 [N, *shape], from their spikes: whole numbers up to `most`.

    Exact for integer layers: where float32 does not hold the sums, digits of the spikes are summed one by one.
    """
    weight = operand(layer)
    if not layer.integer:
        return _currents(layer, weight, spikes.float())
    inputs = (1 if layer.weight is None else layer.weight[0].numel()) * (4 if layer.pool == "average" else 1)
    digit: int = 2 ** int(math.log2(_EXACT / inputs))
    if not direct_sums(spikes.device) or (most > digit and layer.pool == "max"):  # no digits of a maximum
        return _currents(layer, None if weight is None else weight.double(), spikes.double()).round_()
    if most <= digit:
        return _currents(layer, weight, spikes.float())
    high = (spikes / digit).floor()
    return _sums(layer, spikes - digit * high, digit - 1) + digit * _sums(layer, high, most // digit)


def _currents(layer: SpikingLayer, weight: Tensor | None, spikes: Tensor) -> Tensor:
    with full_float32(spikes.device):
        return currents(layer, weight, spikes[None])[0].double()
