"""Thresholds of their own for each channel, measured on calibration images: for full-precision networks only.

A percentile of each convolution channel's (each linear unit's) activations instead of one of the whole layer's, after
Bu et al. 2025 (CVPR). The amplitude of a spike then differs between channels and is multiplied into the next layer's
weights, which binary weights of +-1 cannot carry: a layer that such weights read, in a network of both kinds, keeps the
threshold of the whole layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from bsnn.conversion.activations import mode, observe
from bsnn.conversion.percentiles import Population
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Graph
from bsnn.networks.vgg import Trained


@torch.no_grad()
def thresholds(
    trained: Trained | Graph,
    batches: Iterable[Tensor],
    percentile: float,
    population: Population,
    whole: Mapping[str, float],
    *,
    dropout_seed: int | None = None,
) -> dict[str, Tensor | float]:
    """Threshold of each channel of each observed layer.

    Args:
        trained: full-precision network, of the VGG family or a description, on the images' device.
        batches: float32 [N, channels, height, width], normalised; the activations of all are held in memory.
        percentile: of each channel's activations (NumPy's linear definition, as float64).
        population: "all" values, or "positive" ones.
        whole: threshold of each whole layer; channels whose percentile is no positive number take it.
        dropout_seed: with one, dropout is active, as in bsnn.conversion.activations.

    Returns:
        float64 [channels or units], by layer name, on the CPU; one number for a layer that binary weights read.

    Raises:
        ConversionError: no images.
    """
    found: dict[str, list[np.ndarray]] = {}
    with mode(trained, dropout_seed):
        for batch in batches:
            observe(trained, batch, lambda name, values: found.setdefault(name, []).append(_by_channel(values)))
    if not found:
        raise ConversionError("thresholds of channels are measured on calibration images, and there are none")
    # Layer by layer: a layer's batches and their concatenation are in memory together, those of all layers never.
    own: dict[str, Tensor | float] = {
        name: torch.tensor(
            _percentiles(np.concatenate(found.pop(name), 1), percentile, population, whole[name]), dtype=torch.float64
        )
        for name in list(found)
    }
    return own | ({name: whole[name] for name in _of_one_size(trained)} if isinstance(trained, Graph) else {})


def _of_one_size(graph: Graph) -> set[str]:
    """Layers whose spikes binary weights add up, through pools too."""
    layers = {layer.name: layer for layer in graph.layers}

    def senders(source: str) -> set[str]:
        if source == IMAGE or source in graph.observed:
            return {source} - {IMAGE}
        return {one for part in layers[source].sources for one in senders(part)}

    return {one for layer in graph.layers for path in layer.paths if path.binary for one in senders(path.source)}


def _by_channel(values: Tensor) -> np.ndarray:
    """[channels, values] of activations [N, channels, ...]."""
    return values.transpose(0, 1).flatten(1).cpu().numpy()


def _percentiles(values: np.ndarray, percentile: float, population: Population, whole: float) -> list[float]:
    found = []
    for channel in values.astype(np.float64):  # of float32, NumPy gives float32 for a single percentile
        chosen = channel[channel > 0] if population == "positive" else channel
        own = float(np.percentile(chosen, percentile)) if len(chosen) else 0.0
        found.append(own if own > 0 else whole)
    return found
