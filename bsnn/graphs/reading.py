"""A torch module as a plain description, through torch.export: functional ReLU, flatten and `+` are seen as well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bsnn.errors import ConversionError
from bsnn.graphs.comparison import evaluating, require_equal
from bsnn.graphs.description import Graph
from bsnn.graphs.walking import Walk


def from_module(module: nn.Module, example: Tensor) -> Graph:
    """Read a network from a module of torch.

    Taken are Conv2d of any kernel, stride, zero padding, dilation and groups; Linear; BatchNorm1d and 2d; biases; ReLU;
    average, maximum, global and adaptive average pools; flatten; sums of branches; factors and shifts by constants;
    Dropout and Identity (dropped). All of it also as functions; weights may be computed from parameters.

    Args:
        module: network, float32. It is looked at in evaluation mode, and left as it was.
        example: normalised images, float32 [N, channels, height, width] (or [N, units]), of the size that the network
            is for, on its device. Logits are compared on them, so a few real images are best.

    Returns:
        The description, on the CPU. It remembers the module, so that logits are compared on calibration images as well
        (bsnn.own.to_spiking).

    Raises:
        ConversionError: with all that is unsupported, each with its place in the code and what to do; or logits that
            differ from the module's own beyond rounding.
    """
    _check(module, example)
    with evaluating(module), torch.no_grad():
        images = example if len(example) > 1 else torch.cat([example, example])  # a single image hides a mixed batch
        logits = _logits(module, images)
        graph = Walk(_exported(module, images), images).graph()
        # Whatever the walk may have misread, as a change in place through a view, shows here.
        require_equal(graph, images.cpu(), logits.cpu())
    return replace(graph, source=module)


def _check(module: nn.Module, example: Tensor) -> None:
    if not isinstance(module, nn.Module):
        raise ConversionError(f"the module is a {type(module).__name__}; give a torch.nn.Module")
    types = {tensor.dtype for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()}
    if types - {torch.float32}:
        raise ConversionError(f"the module must be float32, found {', '.join(map(str, types))}; use module.float()")
    if not isinstance(example, Tensor) or example.dtype != torch.float32:
        found = getattr(example, "dtype", type(example).__name__)
        raise ConversionError(f"the example must be float32, found {found}; give normalised images")
    if example.dim() not in (2, 4) or not example.numel():
        raise ConversionError(
            f"the example is {list(example.shape)}; give images [N, channels, height, width], or vectors [N, units]"
        )
    if not bool(torch.isfinite(example).all()):
        raise ConversionError("the example holds NaN or infinity; give normalised images")


def _logits(module: nn.Module, images: Tensor) -> Tensor:
    try:
        logits = module(images)
    except Exception as error:  # whatever the user's own code raises
        raise ConversionError(
            f"the module itself cannot take the example {list(images.shape)} ({type(error).__name__}: {error}); give "
            "images of the size that it is for"
        ) from error
    if not isinstance(logits, Tensor):
        raise ConversionError(f"the module gives a {type(logits).__name__}; let forward return one tensor of logits")
    return logits


def _exported(module: nn.Module, images: Tensor) -> Any:
    try:
        return torch.export.export(module, (images,), strict=False)
    except Exception as error:  # whatever the user's own code, or torch, raises
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConversionError(
            f"torch.export cannot follow the module ({type(error).__name__}: {first}); its forward must take one batch "
            "of images, and must not choose its way by their values (use torch.where, or split the module in two)"
        ) from error
