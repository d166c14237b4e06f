"""The ideal quantised curve: what a converted network would reach if its neurons' input came evenly. No simulation.

Layer by layer, each neuron sends the spikes that T even inputs would make it send. In activations,

    a'_l = theta_l / T * clip(floor(a_l T / theta_l + f), 0, T),

with f the fraction of the threshold that membranes start with: 0 cuts off, 1/2 rounds (Bu et al. 2022; a shift of half
a threshold over T steps has added the same by step T). In whole spikes, with S the sum of its inputs' counts and V the
threshold of bsnn.conversion.layers, that is

    N = clip(floor((S + v(0)) / V), 0, T),

since the soft reset keeps S + v(0) = V N + v(T), and even input ends with 0 <= v(T) < V wherever T spikes are enough.
Of a sum of paths, S adds up the paths' sums times their factors, and T times the ANN's bias, in float64.
So the curve splits what the conversion costs: from the network itself to T = infinity it is clipping, from there to T
quantisation, and from there to the simulated network unevenness, spikes that come in another order than evenly.
Corrections can make up for clipping and quantisation, so that a simulated network may lie above its curve.

Counts of binary networks are sums of integers, and so are their predictions: the same on every device, in any batch.
T = infinity stands for `INFINITE` steps: activations are clipped, and rounded at 2^-18 of the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from bsnn.conversion.from_graph import image_terms
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines.base import direct_sums, full_float32
from bsnn.engines.branches import path_sum, ready, total
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Path
from bsnn.graphs.forward import times_scale
from bsnn.simulation.readout import decide, read_out

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
    weight, bias = read_out(network, images.device)
    found = torch.empty(len(images), len(times), dtype=torch.int16)
    for place, some in enumerate(images.split(_TOGETHER)):
        rows = slice(place * _TOGETHER, place * _TOGETHER + len(some))
        terms = image_terms(network, some)
        for column, steps in enumerate(times):
            evidence = propagated(network, terms, steps).flatten(1).double() @ weight.T
            found[rows, column] = decide(evidence + steps * bias)[0].cpu()
    return found


@torch.no_grad()
def propagated(
    network: SpikingNetwork,
    image: list[Tensor],
    steps: int,
    counted: Callable[[SpikingLayer, list[tuple[str, Tensor]]], Tensor] | None = None,
) -> Tensor:
    """Spikes of the last layer over all steps, whole numbers [N, *shape].

    Args:
        network: as of `predicted`.
        image: terms of all paths that read the image (bsnn.conversion.from_graph.image_terms).
        steps: number of steps.
        counted: takes a layer with neurons and its terms over all steps, each with its source's name, float64
            [N, *shape]; gives its spikes. Without it, `even` takes their sum.
    """
    if steps < 1:
        raise ConversionError(f"the ideal curve is for at least 1 time step, found {steps}")
    give = counted or (lambda layer, terms: even(layer, total(layer, [term for _, term in terms], steps), steps))
    constant = iter(image)
    outputs: dict[str, Tensor] = {}
    most: dict[str, int] = {}  # spikes that a neuron of a layer can send
    result = torch.empty(0)
    for index, (layer, paths) in enumerate(zip(network.layers, network.sums, strict=True)):
        terms = []
        for path in paths:
            given = path.source == IMAGE
            # The image's current is the same at every step; spikes of other sources are counts over all of them.
            term = next(constant).double() * steps if given else _sums(path, outputs[path.source], most[path.source])
            terms.append((path.source, term if given else times_scale(path, term)))
        result = outputs[layer.name] = give(layer, terms) if layer.fires else terms[0][1]
        # A maximum pool hands on as many as it gets.
        most[layer.name] = steps * layer.burst if layer.fires else most[paths[0].source]
        network.forget(index, outputs)
    return result


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
    held = sums.double()
    if layer.initial is not None:
        held = held + per_output(layer.initial.double(), layer.shape)
    sent: Tensor = (held / threshold).floor_().clamp_(0, steps * layer.burst)
    return sent


def _sums(path: Path, spikes: Tensor, most: int) -> Tensor:
    """Sums of a path's inputs, float64 [N, *shape], from their spikes: whole numbers up to `most`.

    Exact for integer weights: where float32 does not hold the sums, digits of the spikes are summed one by one.
    """
    if path.weight is not None and not path.binary:
        return _float32(path, spikes)
    # What one spike at every input brings to a sum at most (`inputs`); with `digit` spikes at every input, float32
    # still holds the sum.
    largest = 1 if path.weight is None else int(path.weight.flatten(1).abs().sum(1, dtype=torch.int64).max())
    average = path.pool is not None and path.pool.kind == "average"
    inputs = max(1, largest) * (path.pool.kernel[0] * path.pool.kernel[1] if average and path.pool is not None else 1)
    digit: int = 2 ** int(math.log2(_EXACT / inputs))
    maximum = path.pool is not None and path.pool.kind == "max"
    if not direct_sums(spikes.device) or (most > digit and maximum):  # no digits of a maximum
        # float64 holds all such sums, and what an inexact algorithm adds is rounded off.
        double = path if path.weight is None else replace(path, weight=path.weight.double())
        return path_sum(double, spikes.double(), binary=True, direct=False)
    if most <= digit:
        return _float32(path, spikes)
    # Spikes as digits to the base `digit`: sums are linear, and each digit's sum is exact by itself.
    high = (spikes / digit).floor()
    return _sums(path, spikes - digit * high, digit - 1) + digit * _sums(path, high, most // digit)


def _float32(path: Path, spikes: Tensor) -> Tensor:
    with full_float32(spikes.device):
        return path_sum(ready(path), spikes.float(), binary=path.binary, direct=True).double()
