"""From a network of any kind to a spiking one, and the first layer's current of a member of the VGG family.

What a spiking network is, stands in bsnn.conversion.layers; how its thresholds follow, in bsnn.conversion.from_graph.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor

from bsnn.conversion import from_graph
from bsnn.conversion.from_graph import image_terms
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, Thresholds, per_output
from bsnn.errors import ConversionError
from bsnn.graphs.description import Graph
from bsnn.networks.vgg import Trained


def convert(source: Trained | Graph, thresholds: Thresholds, *, initial: float = 0.0) -> SpikingNetwork:
    """Spiking network from a network and a threshold for each observed layer.

    Args:
        source: full-precision or binary network of the VGG family, or a description (bsnn.graphs).
        thresholds: theta of each layer that the network observes, in the units of its activations; before real weights
            also one for each channel (float64 [channels or units]).
        initial: membrane potential before the first step, as a fraction of the threshold (0, or 0.5 for OPI,
            Bu et al. 2022).

    Returns:
        of the family, layers of its own operations, which all engines take; of other descriptions, sums of paths.

    Raises:
        ConversionError: when a layer has no threshold, or one that is not finite and positive; thresholds of channels
            before a layer of binary weights; a binary filter whose weights are all zero.
    """
    if isinstance(source, Graph):
        return from_graph.convert(source, thresholds, initial=initial)
    made = from_graph.convert(source.graph, thresholds, initial=initial)
    return replace(made, layers=tuple(of_the_family(layer) for layer in made.layers))


def of_the_family(layer: SpikingLayer) -> SpikingLayer:
    """A layer of one path as a 3x3 convolution, a linear layer, or a 2x2 pool of spikes."""
    [path] = layer.paths
    if path.scale is not None:
        raise ConversionError(
            "a binary filter has scaling factor alpha = 0, or almost: no threshold stands for weights of zero; "
            "import the network as full, which keeps real weights"
        )
    op: Literal["conv", "linear", "pool"] = "pool" if path.op == "identity" else path.op
    return replace(layer, op=op, weight=path.weight, pool=None if path.pool is None else path.pool.kind, paths=())


def input_current(network: SpikingNetwork, images: Tensor) -> Tensor:
    """Current of the first layer, constant over time, the same bits for every engine, device and batch.

    An exact sum, pooled, and rounded once to float32 (see bsnn.conversion.currents); the first layer's bias, if it has
    one, is then added in float32.

    Args:
        network: whose first layer is meant.
        images: float32 [N, channels, height, width], normalised.

    Returns:
        float32 [N, *shape of the first layer].

    Raises:
        ConversionError: when the images have another shape or values beyond currents.IMAGE_LIMIT, or the first layer is
            no convolution.
    """
    first = network.layers[0]
    first_weight(network, images)
    [current] = image_terms(network, images)
    return current if first.bias is None else current + per_output(first.bias.to(images.device), first.shape)


def first_weight(network: SpikingNetwork, images: Tensor) -> Tensor:
    """Weights of the first layer, [out, channels, 3, 3], on the images' device.

    Raises:
        ConversionError: when the images have another shape, or the first layer is no convolution.
    """
    first = network.layers[0]
    if first.weight is None or first.op != "conv":
        raise ConversionError(f"the first layer '{first.name}' must be a convolution")
    if tuple(images.shape[1:]) != network.input_shape:
        raise ConversionError(f"images are {list(images.shape[1:])}, the network takes {list(network.input_shape)}")
    return first.weight.to(images.device)
