"""Where the error of a conversion arises, layer by layer: clipping, quantisation, unevenness.

For a neuron with ANN activation a, threshold theta, and N spikes (with their sign) in T steps, in units of activations:
- clipping: what lies above the threshold, a - min(a, theta), which no number of spikes carries;
- quantisation: |Q(a) - min(a, theta)|, with Q(a) the activation that T even inputs would make it send
  (bsnn.conversion.thresholds.by_squared_error has the formula);
- unevenness: |N - N'| theta / T, with N' what it would have sent, had the very same input come evenly. The identity of
  the soft reset (sum of input = v(T) - v(0) + V N) gives it without another simulation:
  N' = clip(N + floor(v(T) / V), 0, T);
With bursts of up to G spikes per step, min(a, G theta) and T G take the place of min(a, theta) and T.
- total: |a - N theta / T|. Beyond the three it holds what layers before handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import pandas as pd
import torch
from torch import Tensor

from bsnn.conversion.activations import computed
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, Thresholds, amplitude, per_output
from bsnn.engines.torch_engine import TorchEngine
from bsnn.graphs.description import Graph
from bsnn.networks.vgg import Trained

ERRORS = ("clipping", "quantisation", "unevenness", "total")


@torch.no_grad()
def errors(
    trained: Trained | Graph,
    network: SpikingNetwork,
    thresholds: Thresholds,
    batches: Callable[[], Iterable[Tensor]],
    times: list[int],
    initial: float,
) -> pd.DataFrame:
    """Mean errors of each layer with neurons, over its neurons and over images.

    Args:
        trained: the network before conversion, or its description (bsnn.graphs), on the images' device.
        network: converted, any switches on.
        thresholds: theta of each layer.
        batches: gives normalised float32 images.
        times: numbers of steps to look at, increasing.
        initial: fraction of a threshold that membranes start with; the quantisation of Q.

    Returns:
        layer (string), time (int64), clipping, quantisation, unevenness, total, activation (float64; the last is the
        mean activation, to compare with).
    """
    sums: dict[tuple[str, int], Tensor] = {}
    images = 0
    for batch in batches():
        activations: dict[str, Tensor] = {}
        computed(trained, batch, activations.__setitem__)
        for name, time, found in _batch(network, thresholds, activations, batch, times, initial):
            sums[name, time] = sums.get((name, time), torch.zeros(5, dtype=torch.float64)) + found
        images += len(batch)
    rows = [
        {"layer": name, "time": time, **dict(zip((*ERRORS, "activation"), (total / images).tolist(), strict=True))}
        for (name, time), total in sums.items()
    ]
    return pd.DataFrame(rows, columns=["layer", "time", *ERRORS, "activation"])


def _batch(
    network: SpikingNetwork,
    thresholds: Thresholds,
    activations: Mapping[str, Tensor],
    batch: Tensor,
    times: list[int],
    initial: float,
) -> Iterable[tuple[str, int, Tensor]]:
    """For each layer and time: the errors' and the activation's mean over neurons, summed over images."""
    engine = TorchEngine(network, batch.device)
    sent: dict[str, Tensor] = {}

    def observe(layer: SpikingLayer, spikes: Tensor) -> None:
        # Over the steps of a block, with their sign.
        sent[layer.name] = sent.get(layer.name, torch.zeros((), device=spikes.device)) + spikes.sum(0)

    engine.observe = observe
    state = engine.start(batch)
    for time in times:
        while state.steps < time:
            state, _ = engine.advance(state, min(time - state.steps, engine.block(len(batch))))
        for layer, potential in zip(network.firing, cast("list[Tensor]", state.tensors["potential"]), strict=True):
            rest = potential / per_output(cast(Tensor, layer.threshold).to(potential.device), layer.shape)
            theta = amplitude(thresholds, layer, potential.device)
            found = _errors(activations[layer.name], sent[layer.name], rest, theta, time, initial, layer.burst)
            yield layer.name, time, torch.stack([values.double().mean() * len(batch) for values in found]).cpu()


def _errors(
    a: Tensor, sent: Tensor, rest: Tensor, theta: Tensor, time: int, initial: float, burst: int
) -> tuple[Tensor, ...]:
    """Errors of every neuron, in units of activations, and its activation; `rest` is v(T) / V."""
    clipped = torch.minimum(a, (theta * burst).float())
    carried = torch.floor(a.double() * time / theta + initial).clamp(0, time * burst) * theta / time
    # N': a rest of V or more is spikes that were not sent in time, a rest below 0 spikes that were sent too early.
    even = (sent + torch.floor(rest)).clamp(0, time * burst)
    spike = theta / time
    return a - clipped, (carried - clipped).abs(), (sent - even).abs() * spike, (a - sent * spike).abs(), a
