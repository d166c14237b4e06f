"""Local threshold balancing (LTB; Bu et al. 2025, CVPR, "Inference-scale complexity in ANN-SNN conversion"), by layer.

Each layer's threshold descends the squared error of clipping, the mean of (a - min(a, theta))^2, from theta = 0 on:

    theta <- theta + 2 * mean(max(a - theta, 0)),        `ITERATIONS` times,

with the mean over all activations of the layer, zeros included, as the network gives them when what lies before is
clipped at its own threshold. Its minimum is the largest activation: the number of steps decides how much of the tail is
left out. The published form has thresholds of channels, which weights of +-1 cannot carry; the authors' programs have
this one too, for single layers. They take a step of all layers for each batch; here a layer takes all of its steps on
all images, with those before it settled, so that neither batches nor the order of images count. In a sum of paths, each
term counts by the threshold of its own source.

Arithmetic: activations are whole numbers of 2^-18 of their threshold (bsnn.conversion.ideal), so that sums of binary
layers are exact, and the means are of whole numbers again. Binary networks get the same thresholds on every device.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bsnn.conversion import ideal, spiking
from bsnn.conversion.from_graph import image_terms
from bsnn.conversion.layers import SpikingLayer, per_output
from bsnn.engines.branches import total
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Graph
from bsnn.networks.vgg import Trained, described

ITERATIONS = 4000  # batches of the authors' program for ImageNet
_BITS = 32  # of the largest activation, as a whole number


@torch.no_grad()
def thresholds(trained: Trained | Graph, images: Tensor) -> dict[str, float]:
    """Threshold of each observed layer.

    Args:
        trained: full-precision or binary, of the VGG family or a description, on the images' device.
        images: calibration images, float32 [N, channels, height, width], normalised; the activations of a layer are
            held in memory for all of them.

    Raises:
        ConversionError: no images, or a layer without a positive activation.
    """
    if not len(images):
        raise ConversionError("thresholds are balanced on calibration images, and there are none; give at least one")
    # With every theta 1, a spike stands for an activation of 1, and V is the sum that an activation of 1 comes to.
    network = spiking.convert(trained, dict.fromkeys(described(trained).observed, 1.0)).to(images.device)
    found: dict[str, float] = {}
    passed = {layer.name: paths[0].source for layer, paths in zip(network.layers, network.sums, strict=True)}

    def clipped(layer: SpikingLayer, terms: list[tuple[str, Tensor]]) -> Tensor:
        """Activations of a layer, clipped at the threshold that they give, in its 2^-18th parts."""
        # So a term over all steps, divided by them and by V, is an activation as if spikes of its source stood for 1;
        # the source's own threshold, found by now, makes it right. The bias is in units of the sum, and of no source.
        unit = per_output(cast(Tensor, layer.threshold).double(), layer.shape)
        each = [(source, term / ideal.INFINITE / unit * amplitude(source)) for source, term in terms]
        activations = total(layer, [term for _, term in each], 1 / unit).clamp_(min=0)
        found[layer.name] = balanced(layer.name, activations)
        # Whole numbers again, as spikes over INFINITE steps: the next layer's sums are exact.
        return (activations / found[layer.name] * ideal.INFINITE + 0.5).floor_().clamp_(max=ideal.INFINITE)

    def amplitude(source: str) -> float:
        """What a spike stands for; a maximum pool hands on spikes of the layer before it."""
        return 1.0 if source == IMAGE else found[source] if source in found else amplitude(passed[source])

    ideal.propagated(network, image_terms(network, images), ideal.INFINITE, clipped)
    return found


def balanced(name: str, activations: Tensor) -> float:
    """Threshold of a layer from all of its activations, float64 of any shape, 0 or more.

    Raises:
        ConversionError: none is positive; `name` says whose.
    """
    values = activations.flatten().cpu().numpy()
    largest = float(values.max())
    if not largest > 0:
        raise ConversionError(
            f"layer '{name}' never gave a positive activation on the calibration images, so it has no threshold; train "
            "the network further, or take more calibration images"
        )
    # Whole numbers of at most 32 bits: sums of up to 2^30 of them are exact in int64, in any order.
    step = 2.0 ** (math.frexp(largest)[1] - _BITS)
    ordered = np.sort(np.rint(values[values > 0] / step).astype(np.int64))
    above = np.concatenate([np.cumsum(ordered[::-1])[::-1], [0]])  # sum of each value and all larger ones
    theta = 0.0
    for _ in range(ITERATIONS):
        # Values are whole: above theta is what is above its whole part. All others add nothing to the sum, yet count in
        # the mean, which is over all values, zeros included.
        first = int(np.searchsorted(ordered, np.int64(theta), side="right"))  # whole numbers above theta
        theta += 2 * (int(above[first]) - (len(ordered) - first) * theta) / len(values)
    return theta * step
