"""Spiking network from a description of bsnn.graphs, and thresholds of its layers.

A layer's current is the sum of its paths in their order, then the bias, element by element in float32. A path's sum
over spikes is an integer where its weights are; one spike of its source stands for theta of that source.

- One path: its scale goes into the threshold, V_o = theta / r_o with r_o = scale_o * theta_source / divisor, and the
  bias into the same units, bias_o / r_o: the current is the integer sum plus the bias.
- Several paths, or a factor that is not positive, or too small to divide by: V = theta; each sum is multiplied by r_o,
  rounded once to float32.

The ANN's ReLU after a sum becomes the neuron; so does a layer of its own for each average pool of spikes, except the
one before the logits, which is folded into the read-out. A maximum pool of spikes passes on.

Where a layer has a threshold for each channel, theta_source differs between the inputs of the next: it is multiplied
into real weights, and into the factors of paths without weights. Weights of +-1 cannot carry it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bsnn.conversion.currents import image_term
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, Theta, Thresholds, threshold_of
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Graph, Layer, Path
from bsnn.graphs.forward import scaled, times_scale, weighted

_LARGEST = 2.0**100  # of thresholds and shifts in units of a sum: float32 ends at 2^128, and steps add up


def convert(graph: Graph, thresholds: Thresholds, *, initial: float = 0.0) -> SpikingNetwork:
    """Spiking network of a description.

    Args:
        graph: the description.
        thresholds: theta of each layer of `graph.observed`, in the units of its activations: one number for a layer, or
            float64 [channels or units].
        initial: membrane potential before the first step, as a fraction of the threshold.

    Raises:
        ConversionError: a layer has no threshold, or one that is not finite and positive; thresholds of channels before
            a layer of binary weights.
    """
    graph = graph.to("cpu")
    pool = graph.read_out
    amplitudes: dict[str, Theta] = {IMAGE: 1.0}
    layers: list[SpikingLayer] = []
    for layer in graph.layers[:-1]:
        if pool is not None and layer.name == pool.name:  # part of the read-out's weights (_read_out)
            continue
        if layer.kind == "max":
            layers.append(SpikingLayer(layer.name, "sum", layer.shape, paths=layer.paths))
            amplitudes[layer.name] = amplitudes[layer.paths[0].source]  # spikes of the layer before, passed on
            continue
        amplitudes[layer.name] = theta = threshold_of(thresholds, layer.name)
        layers.append(_layer(layer, theta, amplitudes, initial))
    source = layers[-1]
    weight, bias = _read_out(graph.layers[-1], pool, source.shape)
    weight = weight * _each(amplitudes[source.name], weight.shape[1])
    return SpikingNetwork(tuple(layers), weight, graph.input_shape, bias)  # type: ignore[arg-type]


def _layer(layer: Layer, theta: Theta, amplitudes: Mapping[str, Theta], initial: float) -> SpikingLayer:
    channels = layer.shape[0]
    carried = [_carried(path, amplitudes[path.source], channels) for path in layer.paths]
    paths = tuple(path for path, _ in carried)
    scales = [torch.ones(channels, dtype=torch.float64) if path.scale is None else path.scale for path in paths]
    divisors = [path.pool.divisor if path.pool is not None else 1 for path in paths]
    # r_o of each path: the activation that one unit of its sum stands for.
    ratios = [scale * own / divisor for scale, (_, own), divisor in zip(scales, carried, divisors, strict=True)]
    # in this order, so that all members of the VGG family keep the last bits of their thresholds
    threshold = (theta / carried[0][1] / scales[0] * divisors[0]).float()
    offset = None if layer.bias is None else (layer.bias / ratios[0]).float()
    # A factor of 0 or less cannot move into the threshold: dividing by it gives no number, or turns the comparison. Nor
    # can one so near 0 that potentials would leave float32.
    fits = (threshold > 0) & (threshold < _LARGEST) & (offset is None or offset.abs() < _LARGEST)
    if len(paths) == 1 and bool(fits.all()):
        paths = (replace(paths[0], scale=None),)
    else:
        threshold = torch.ones(channels).mul(theta).float()
        offset = None if layer.bias is None else layer.bias.float()
        paths = tuple(replace(path, scale=ratio.float()) for path, ratio in zip(paths, ratios, strict=True))
    return SpikingLayer(
        layer.name,
        "sum",
        layer.shape,
        threshold=threshold,
        initial=threshold * initial,
        paths=paths,
        offset=offset,
    )


def _carried(path: Path, amplitude: Theta, channels: int) -> tuple[Path, Theta]:
    """The path with what spikes of different size stand for in its weights; and what one unit of its sum stands for."""
    if not isinstance(amplitude, Tensor):
        return path, amplitude
    if path.weight is None:
        return path, _each(amplitude, channels)
    if path.binary:
        raise ConversionError(
            f"the layer before '{path.name}' has thresholds of channels, whose spikes differ in size, and binary "
            "weights of +-1 cannot tell them apart: use one threshold per layer"
        )
    # `inputs` of a grouped convolution are those of one group. An amplitude of each source channel is repeated for its
    # places (flattened before a linear layer), cut into groups, and repeated for the outputs of each group.
    outputs, inputs, *kernel = path.weight.shape
    each = amplitude.repeat_interleave(inputs * path.groups // len(amplitude)).reshape(path.groups, inputs)
    each = each.repeat_interleave(outputs // path.groups, 0).reshape(outputs, inputs, *[1] * len(kernel))
    return replace(path, weight=(path.weight.double() * each).float()), 1.0


def _each(amplitude: Theta, inputs: int) -> Theta:
    """Amplitude of every input [inputs], of maps [channels] that may have been flattened; or of all alike."""
    return amplitude.repeat_interleave(inputs // len(amplitude)) if isinstance(amplitude, Tensor) else amplitude


def _read_out(logits: Layer, pool: Layer | None, shape: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """Weights float64 [classes, units] of the last neurons' flattened activations, and bias float64 [classes].

    All between them is linear: the weights are its derivative.
    """
    classes = logits.shape[0]
    # Row c of x is for class c: of row c, logit c alone is summed, so that one gradient has the weights of every class.
    x = torch.zeros(classes, *shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        value = x if pool is None else scaled(pool.paths[0], weighted(pool.paths[0], x))
        terms = [scaled(path, weighted(path, value)) for path in logits.paths]
        total = torch.stack([term.reshape(classes, classes) for term in terms]).sum(0)
        (weight,) = torch.autograd.grad(total.diagonal().sum(), x)
    return weight.flatten(1), logits.bias


def image_terms(network: SpikingNetwork, images: Tensor) -> list[Tensor]:
    """Terms of all paths that read the image, float32 [N, *shape of their layer], layer by layer, path by path.

    Raises:
        ConversionError: images of another shape, or values that currents cannot have (bsnn.conversion.currents).
    """
    if tuple(images.shape[1:]) != tuple(network.input_shape):
        raise ConversionError(f"images are {list(images.shape[1:])}, the network takes {list(network.input_shape)}")
    paths = [path.to(images.device) for paths in network.sums for path in paths if path.source == IMAGE]
    return [times_scale(path, image_term(path, images)) for path in paths]
