"""What a simulation costs: operations, sparsity, memory and energy in NeuroBench's terms, per layer and step.

NeuroBench (Yik et al. 2025, "The neurobench framework ...", Nature Communications) counts, for each layer with weights,
- dense operations: weight times input, with every input and every weight present;
- effective operations: those whose input is not zero. Inputs of -1, 0, 1 make them accumulations (ACs), others
  multiply-accumulates (MACs). Here ACs of weights of +-1 (binary ACs: an integer is counted up or down) stand apart
  from ACs of real weights. Summing four spikes for an average pool counts as binary ACs, one a spike;
- activation sparsity: the fraction of neurons that are silent at a step;
- footprint: bytes of the parameters, a binary weight taking one bit.
Borders: a zero beyond the image's edge is no operation, so a spike at an edge has 6 of 9 places to go to. Dense
operations are exact. Effective ACs need the spikes' places: `counted` has them exact, by simulation with the engine
`torch`; `estimated` takes counts alone and gives each spike its layer's mean fan-out, which is exact for linear layers
and maps of 1x1 and 2x2. After a maximum pool of spikes, `estimated` is an upper bound.
Not counted, as in NeuroBench: neurons' own arithmetic, and the additions of a pool of currents.

The first layer multiplies the image's values: MACs, even where its weights are binary. Its current is constant, so it
is computed once (`first="once"`: at step 1), or at every step, as hardware without a place to keep it would.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines.torch_engine import TorchEngine
from bsnn.errors import ConfigError
from bsnn.simulation.works import Work, works

First = Literal["once", "every-step"]


def estimated(network: SpikingNetwork, counts: Tensor) -> Tensor:
    """Effective operations on spikes, from counts alone: each spike has its layer's mean fan-out.

    Args:
        network: as simulated.
        counts: int64 [firing layers, T], spikes over all images (Simulation.counts).

    Returns:
        float64 [works, T], summed over images as the counts are; 0 for the first layer (see `table`).
    """
    operations = torch.zeros(len(works(network)), counts.shape[1], dtype=torch.float64)
    for index, work in enumerate(works(network)):
        if work.source is not None:
            mean = work.dense / float(np.prod(work.inputs))
            operations[index] = counts[work.source].double() * mean
    return operations


@torch.no_grad()
def counted(network: SpikingNetwork, batches: Iterable[Tensor], steps: int) -> Tensor:
    """Effective operations on spikes, exact: each spike's own fan-out, at its place; by the engine `torch`.

    Args:
        network: any network; for full-precision ones the counts are those of this engine.
        batches: float32 [N, channels, height, width], normalised.
        steps: time steps T.

    Returns:
        float64 [works, T] of whole numbers, summed over images; 0 for the first layer (see `table`).
    """
    engine = TorchEngine(network)
    receiving: dict[str, list[tuple[int, Work]]] = {}
    for index, work in enumerate(works(network)):
        receiving.setdefault(work.received, []).append((index, work))
    operations = torch.zeros(len(works(network)), steps, dtype=torch.float64)
    done = 0

    def observe(layer: SpikingLayer, spikes: Tensor) -> None:
        for index, work in receiving.get(layer.name, []):  # none where a maximum pool follows
            # A negative spike costs as much. `done` is still the block's first step: `advance` has not returned.
            sent = spikes.abs().double().flatten(2).unflatten(2, work.inputs)
            operations[index, done : done + len(spikes)] += (sent * work.fan_out).flatten(1).sum(1)

    engine.observe = observe
    for batch in batches:
        state, done = engine.start(batch), 0
        while done < steps:
            size = min(steps - done, engine.block(len(batch)))
            state, _ = engine.advance(state, size)
            done += size
    return operations


def table(
    network: SpikingNetwork, counts: Tensor, images: Tensor, operations: Tensor | None = None, *, first: First = "once"
) -> pd.DataFrame:
    """One long table of all costs, from which figures are drawn.

    Args:
        network: as simulated.
        counts: int64 [firing layers, T], spikes over all images (Simulation.counts).
        images: int64 [T], images simulated at each step (fewer later, with early exit).
        operations: of `estimated` (the default) or `counted`.
        first: whether the first layer's operations are done once an image or at every step.

    Returns:
        layer (string), step (int64), quantity (string), value (float64: mean over all images). At step 0: neurons,
        footprint_bytes. From step 1: spikes, activation_sparsity (of the images simulated at that step; with bursts,
        the part of possible spikes that was not sent),
        dense_operations, and effective_macs, effective_acs or effective_binary_acs.

    Raises:
        ConfigError: when no image was simulated.
    """
    steps, total = counts.shape[1], int(images[0]) if len(images) else 0
    if not total:
        raise ConfigError("there are no simulated images to count operations of; simulate at least one")
    found = estimated(network, counts) if operations is None else operations
    present = images.double().numpy() / total
    parts = []
    for index, work in enumerate(works(network)):
        once = np.zeros(steps)
        once[0] = 1
        # The share of images that a step still has; what is computed once, is at the first step, which has all.
        active = present if work.source is not None or first == "every-step" else once
        effective = found[index].numpy() / total if work.source is not None else work.dense * active
        parts += [
            _rows(work.layer, "footprint_bytes", np.array([work.footprint]), 0),
            _rows(work.layer, "dense_operations", work.dense * active),
            _rows(work.layer, work.kind, effective),
        ]
    for index, layer in enumerate(network.firing):
        sent = counts[index].double().numpy()
        possible = layer.burst * layer.neurons * images.double().numpy()
        silent = 1 - np.divide(sent, possible, out=np.zeros(steps), where=possible > 0)  # 1 once all have left
        parts += [
            _rows(layer.name, "neurons", np.array([layer.neurons]), 0),
            _rows(layer.name, "spikes", sent / total),
            _rows(layer.name, "activation_sparsity", silent),
        ]
    return pd.concat(parts, ignore_index=True)


def _rows(layer: str, quantity: str, values: np.ndarray, begin: int = 1) -> pd.DataFrame:
    steps = np.arange(begin, begin + len(values))
    return pd.DataFrame({"layer": layer, "step": steps, "quantity": quantity, "value": values.astype(np.float64)})
