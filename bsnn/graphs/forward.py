"""A description computed as it says: logits of images, and the activations of each layer whose neurons will spike."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.graphs.description import IMAGE, Graph, Layer, Path, Pool, forget

Observer = Callable[[str, Tensor], None]
Term = Callable[[Path, Tensor], Tensor]


def forward(graph: Graph, images: Tensor, observe: Observer | None = None, image_term: Term | None = None) -> Tensor:
    """Logits [N, classes] of images [N, *graph.input_shape], in their type (float32 or float64) and on their device.

    Args:
        graph: on the images' device.
        images: normalised.
        observe: called with the name and the activations [N, *shape] of each layer of `graph.observed`.
        image_term: weighted and pooled sum of a path that reads the image, if it is computed elsewhere; the sum alone,
            without the path's scale.
    """
    outputs = {IMAGE: images}
    observed = set(graph.observed)
    x = images
    for index, layer in enumerate(graph.layers):
        x = _activation(layer, outputs, image_term)
        if observe is not None and layer.name in observed:
            observe(layer.name, x)
        outputs[layer.name] = x
        forget(outputs, (path for later in graph.layers[index + 1 :] for path in later.paths))
    return x


def _activation(layer: Layer, outputs: dict[str, Tensor], image_term: Term | None) -> Tensor:
    total: Tensor | None = None
    for path in layer.paths:
        source = outputs[path.source]
        chosen = image_term if image_term is not None and path.source == IMAGE else weighted
        term = scaled(path, chosen(path, source))
        total = term if total is None else total + term.reshape(total.shape)
    assert total is not None
    if layer.bias is not None:
        total = total + per_channel(layer.bias.to(total.dtype), total.dim() - 1)
    total = total.reshape(len(total), *layer.shape)
    return torch.relu(total) if layer.kind == "relu" else total


def scaled(path: Path, sums: Tensor) -> Tensor:
    """Term of a path from its weighted and pooled sum [N, ...]: divided for an average, times the scale."""
    if path.pool is not None and path.pool.kind == "average":
        sums = sums / path.pool.divisor
    return times_scale(path, sums)


def times_scale(path: Path, sums: Tensor) -> Tensor:
    """Sums [N, channels, ...] times the path's scale, each product rounded once; averages stay sums."""
    return sums if path.scale is None else sums * per_channel(path.scale.to(sums), sums.dim() - 1)


def per_channel(values: Tensor, dimensions: int) -> Tensor:
    """Values [channels] that broadcast over `dimensions` dimensions, the channels' first."""
    return values.reshape(-1, *[1] * (dimensions - 1))


def weighted(path: Path, source: Tensor) -> Tensor:
    """Weighted sum of a source [N, ...], pooled; an average pool gives the window's sum. Without scale."""
    return pooled(unpooled(path, source), path.pool)


def unpooled(path: Path, source: Tensor) -> Tensor:
    """Weighted sum of a source [N, ...], before its pool."""
    if path.weight is None:
        return source
    weight = path.weight.to(source.dtype)
    if path.op == "linear":
        return F.linear(source.flatten(1), weight)
    return F.conv2d(source, weight, None, path.stride, path.padding, path.dilation, path.groups)


def pooled(x: Tensor, pool: Pool | None) -> Tensor:
    """Maximum, or sum (what an average divides), over windows of [N, channels, height, width]."""
    if pool is None:
        return x
    if pool.kind == "max":
        return F.max_pool2d(x, pool.kernel, pool.stride, pool.padding)
    return F.avg_pool2d(x, pool.kernel, pool.stride, pool.padding, divisor_override=1)
