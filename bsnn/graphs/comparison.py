"""Logits of a description against its source's own: equal within the rounding of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bsnn.errors import ConversionError
from bsnn.graphs.description import Graph
from bsnn.graphs.forward import forward

ROUNDINGS = 64  # how many times the rounding error that the description itself shows may be between the two
EPSILON = 2.0**-23


def tolerance(single: Tensor, double: Tensor) -> float:
    """Largest difference that rounding explains: a multiple of float32's error, as this very network shows it.

    Args:
        single: logits computed in float32.
        double: the same in float64.
    """
    # How much float32 loses depends on depth and scales: the description's own loss is the unit. The second term counts
    # where that happens to be none.
    shown = float((single.double() - double).abs().max())
    return ROUNDINGS * (shown + EPSILON * float(double.abs().max()))


@torch.no_grad()
def require_equal(graph: Graph, images: Tensor, logits: Tensor) -> None:
    """Compare a description with the network that it was read from.

    Args:
        graph: the description.
        images: normalised, float32 [N, ...].
        logits: of the network itself for these images, float32 [N, classes].

    Raises:
        ConversionError: a difference above rounding, another shape, NaN.
    """
    single = forward(graph, images)
    double = forward(graph, images.double())
    if single.shape != logits.shape:
        raise ConversionError(f"the module gives {list(logits.shape)}, its description {list(single.shape)}")
    # Against float64, since the description's own rounding would otherwise be part of the difference.
    difference = float((logits.double() - double).abs().max())
    allowed = tolerance(single, double)
    if not difference <= allowed:  # also of NaN
        raise ConversionError(
            f"the description gives other logits than the module: they differ by {difference:g}, and rounding explains "
            f"{allowed:g}. The result may depend on more than the images (state, random numbers, the rest of the "
            "batch), or the code may change a value in place through a view"
        )


@torch.no_grad()
def require_source(graph: Graph, images: Tensor) -> None:
    """Compare a description with the module that it was read from, if any, as the module is now.

    Args:
        graph: of `bsnn.graphs.reading.from_module`, on the images' device.
        images: normalised, float32 [N, ...].

    Raises:
        ConversionError: a difference above rounding.
    """
    if graph.source is None:
        return
    place = next((tensor.device for tensor in (*graph.source.parameters(), *graph.source.buffers())), images.device)
    with evaluating(graph.source):
        logits = graph.source(images.to(place)).to(images.device)
    try:
        require_equal(graph, images, logits)
    except ConversionError as error:
        raise ConversionError(
            f"calibration images: {error}. If the module has changed since it was read, read it again"
        ) from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """All parts of a module in evaluation mode within, and as they were afterwards."""
    # Part by part: a module in training may hold frozen parts in evaluation, which train() would set going.
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training
