"""Switches of the conversion: each one function from a converted network to another, on top of its thresholds.

All are training-free and safe for binary weights: they change what is added element by element in float32 (initial
potentials, biases, the sign of spikes), never a weight, so sums stay integers and every engine gives equal spikes.
Thresholds of their own (percentile, squared error) are chosen before conversion (`thresholds`); corrections measured
on calibration images are in `corrections`; second passes, which need potentials of each image, in `second_pass`; the
delayed read-out is in bsnn.simulation.readout. V is a neuron's threshold in units of its summed input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE


def each_neuron(network: SpikingNetwork, change: Callable[[SpikingLayer], SpikingLayer]) -> SpikingNetwork:
    """The same network with every layer that has neurons changed."""
    return replace(network, layers=tuple(change(layer) if layer.fires else layer for layer in network.layers))


def with_initial(network: SpikingNetwork, fraction: float) -> SpikingNetwork:
    """Optimal potential initialisation (OPI, Bu et al. 2022, AAAI): v(0) = fraction * V; 1/2 is the optimum.

    With even input the spike count is floor(z T / theta + fraction): 1/2 rounds instead of cutting off. For activations
    spread evenly the mean error falls from -theta / (2 T) to 0 and the mean squared error from theta^2 / (3 T^2) to
    theta^2 / (12 T^2).

    Raises:
        ConversionError: a fraction outside 0 <= fraction < 1, or a network with a bias from `with_shift`: both would
            add the same charge.
    """
    if not 0 <= fraction < 1:
        raise ConversionError(
            f"the initial potential is a fraction of the threshold, 0 or more and below 1: {fraction}"
        )
    if fraction and any(layer.bias is not None or layer.schedule is not None for layer in network.layers):
        raise ConversionError(
            "the network has biases, from a shift or a correction that already adds the missing charge; an initial "
            "potential would count it twice: use one of them"
        )
    return each_neuron(network, lambda layer: replace(layer, initial=cast(Tensor, layer.threshold) * fraction))


def with_shift(network: SpikingNetwork, steps: int) -> SpikingNetwork:
    """Shift of Deng & Gu 2021 (ICLR): a bias of V / (2 T) at every step.

    By step T it has added V / 2, as `with_initial` does at once; it comes later and fits one T only.

    Raises:
        ConversionError: fewer than one step; or membranes that start charged (the same charge twice).
    """
    if steps < 1:
        raise ConversionError(f"time steps must be at least 1, found {steps}")
    if any(layer.initial is not None and bool(layer.initial.any()) for layer in network.layers):
        raise ConversionError(
            "the network starts with charged membranes; the shift adds the same half threshold again over T steps: "
            "use the initial potential or the shift, not both"
        )
    return each_neuron(network, lambda layer: with_bias(layer, cast(Tensor, layer.threshold) / (2 * steps)))


def with_signed_spikes(network: SpikingNetwork, fraction: float = 1.0) -> SpikingNetwork:
    """Negative spikes (signed neuron with memory, SNM; Wang et al. 2022, IJCAI).

    A neuron that has sent more positive than negative spikes sends -1 when v <= -fraction * V, and V is added to v: a
    spike that came too early, since the input was uneven, is taken back. Weights stay +-1; events carry a sign, and
    both count.

    At 1, as published, a neuron may keep one spike too many: potentials between -V and 0 stand for less than was sent.
    At 0 it takes a spike back as soon as v < 0 (Li, Ma & Furber 2022, Front. Neurosci. 16:918793, have a negative
    threshold just below 0). As long as no step brings more than V in size, its count after each step is then
    max(0, floor(sum / V + v(0) / V)), up to float32's rounding of v and whatever the order of its input: that of even
    input (bsnn.conversion.ideal), if the layers before it send theirs. The price is spikes that come and go.

    Raises:
        ConversionError: a fraction outside 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ConversionError(f"the negative threshold is a fraction of the threshold, 0 to 1: {fraction}")
    if fraction == 1:
        return each_neuron(network, lambda layer: replace(layer, signed=True))
    smallest = torch.finfo(torch.float32).tiny  # v <= -smallest is v < 0: sums and thresholds have no such digits

    def changed(layer: SpikingLayer) -> SpikingLayer:
        lower = -(cast(Tensor, layer.threshold) * fraction).clamp_min(smallest)
        return replace(layer, signed=True, lower=lower)

    return each_neuron(network, changed)


def with_bursts(network: SpikingNetwork, most: int) -> SpikingNetwork:
    """Bursts (Li & Zeng 2022, IJCAI): up to `most` spikes in one step, s = min(floor(v / V), most).

    What a neuron could not send in time goes out at once. Each spike of a burst counts as one; an event then carries
    more than one bit, which is why binary networks do not have them.

    Raises:
        ConversionError: a binary network, signed spikes, or `most` outside 1 to 15.
    """
    if not 1 <= most <= 15:
        raise ConversionError(f"a burst has 1 to 15 spikes, found {most}")
    inner = (path for paths in network.sums for path in paths if path.source != IMAGE)
    if network.exact and any(path.weight is not None for path in inner):
        raise ConversionError("bursts are for full-precision networks: binary ones keep to one bit an event")
    if any(layer.signed for layer in network.layers):
        raise ConversionError("bursts and signed spikes both repair what one spike per step cannot do: use one")
    return each_neuron(network, lambda layer: replace(layer, burst=most))


def with_bias(layer: SpikingLayer, current: Tensor) -> SpikingLayer:
    """A layer with a current (float32 [channels] or the layer's shape) added at every step, beside what it has."""
    return replace(layer, bias=current if layer.bias is None else _beside(layer.bias, current, layer.shape))


def with_charge(layer: SpikingLayer, charge: Tensor) -> SpikingLayer:
    """A layer whose membranes start with a charge (float32 [channels] or the layer's shape) beside what they have."""
    if layer.initial is None or not bool(layer.initial.any()):
        return replace(layer, initial=charge)
    return replace(layer, initial=_beside(layer.initial, charge, layer.shape))


def _beside(held: Tensor, more: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum of two values for each channel or each neuron, for each neuron [*shape]."""
    return per_output(held, shape).expand(shape) + per_output(more, shape)
