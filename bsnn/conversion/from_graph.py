"""Spiking network from a description of bsnn.graphs, and thresholds of its layers.

A layer's current is the sum of its paths in their order, then the bias, element by element in float32. A path's sum
over spikes is an integer where its weights are; one spike of its source stands for theta of that source.

- One path: its scale goes into the threshold, V_o = theta / r_o with r_o = scale_o * theta_source / divisor, and the
  bias into the same units, bias_o / r_o: the current is the integer sum plus the bias.
- Several paths, or a factor that is not positive: V = theta; each sum is multiplied by r_o, rounded once to float32.

The ANN's ReLU after a sum becomes the neuron; so does a layer of its own for each average pool of spikes, except the
one before the logits, which is folded into the read-out. A maximum pool of spikes passes on.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bsnn.conversion.graph_currents import image_term, times_scale
from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork, Thresholds, threshold_of
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Graph, Layer, Path
from bsnn.graphs.forward import per_channel, weighted


def convert(graph: Graph, thresholds: Thresholds, *, initial: float = 0.0) -> SpikingNetwork:
    """Spiking network of a description.

    Args:
        graph: the description.
        thresholds: theta of each layer of `graph.observed`, in the units of its activations; one number for a layer.
        initial: membrane potential before the first step, as a fraction of the threshold.

    Raises:
        ConversionError: a layer has no threshold, or one that is not finite and positive.
    """
    graph = graph.to("cpu")
    pool = graph.read_out
    amplitudes: dict[str, float] = {IMAGE: 1.0}
    layers: list[SpikingLayer] = []
    for layer in graph.layers[:-1]:
        if pool is not None and layer.name == pool.name:
            continue
        if layer.kind == "max":
            layers.append(SpikingLayer(layer.name, "sum", layer.shape, paths=layer.paths))
            amplitudes[layer.name] = amplitudes[layer.paths[0].source]
            continue
        theta = threshold_of(thresholds, layer.name)
        if isinstance(theta, Tensor):
            raise ConversionError(f"layer '{layer.name}' has thresholds of channels; a graph takes one for each layer")
        layers.append(_layer(layer, theta, amplitudes, initial))
        amplitudes[layer.name] = theta
    source = layers[-1]
    weight, bias = _read_out(graph.layers[-1], pool, source.shape)
    shape = graph.input_shape
    return SpikingNetwork(tuple(layers), weight * amplitudes[source.name], shape, bias)  # type: ignore[arg-type]


def _layer(layer: Layer, theta: float, amplitudes: dict[str, float], initial: float) -> SpikingLayer:
    channels = layer.shape[0]
    ratios = [_ratio(path, channels, amplitudes[path.source]) for path in layer.paths]
    bias = layer.bias
    if len(ratios) == 1 and bool((ratios[0] > 0).all()):
        threshold = (theta / ratios[0]).float()
        paths: tuple[Path, ...] = (replace(layer.paths[0], scale=None),)
        bias = None if bias is None else bias / ratios[0]
    else:
        threshold = torch.full((channels,), theta).float()
        paths = tuple(replace(path, scale=ratio.float()) for path, ratio in zip(layer.paths, ratios, strict=True))
    return SpikingLayer(
        layer.name,
        "sum",
        layer.shape,
        threshold=threshold,
        initial=threshold * initial,
        paths=paths,
        offset=None if bias is None else bias.float(),
    )


def _ratio(path: Path, channels: int, amplitude: float) -> Tensor:
    """What one unit of a path's sum stands for in each channel, in units of activations; float64 [channels]."""
    scale = torch.ones(channels, dtype=torch.float64) if path.scale is None else path.scale
    return scale * amplitude / (path.pool.divisor if path.pool is not None else 1)


def _read_out(logits: Layer, pool: Layer | None, shape: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """Weights float64 [classes, units] of the last neurons' flattened activations, and bias float64 [classes].

    All between them is linear: the weights are its derivative.
    """
    classes = logits.shape[0]
    x = torch.zeros(classes, *shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        value = x if pool is None else _linear(pool.paths[0], x)
        total = torch.stack([_linear(path, value).reshape(classes, classes) for path in logits.paths]).sum(0)
        (weight,) = torch.autograd.grad(total.diagonal().sum(), x)
    return weight.flatten(1), logits.bias


def _linear(path: Path, x: Tensor) -> Tensor:
    """A path's term in float64."""
    term = weighted(path, x) / (path.pool.divisor if path.pool is not None else 1)
    return term if path.scale is None else term * per_channel(path.scale, term.dim() - 1)


def image_terms(network: SpikingNetwork, images: Tensor) -> list[Tensor]:
    """Terms of all paths that read the image, float32 [N, *shape of their layer], layer by layer, path by path."""
    paths = [path for layer in network.layers for path in layer.paths if path.source == IMAGE]
    return [times_scale(path, image_term(path, images)) for path in paths]
