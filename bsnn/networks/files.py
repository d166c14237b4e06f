"""Trained networks on disk: one artifact format for full-precision and binary ones.

A full layer is stored as float32 `<layer>.weight`, or as bfloat16 where that loses nothing; a binary one as
`<layer>.sign`, one bit per weight (NumPy's packbits of the row-major signs, 1 for +1), and float32 `<layer>.alpha`.
Sign and alpha are stored as the training's forward pass computed them and never recomputed, so a network loads back to
the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bsnn import artifacts, config
from bsnn.errors import ArtifactError, BsnnError, ConversionError
from bsnn.graphs.comparison import tolerance
from bsnn.networks import vgg
from bsnn.networks.vgg import VGG, LayerPlan, Trained

KIND = "network"
_ELSEWHERE = "Networks that are not of the VGG family are read by bsnn.from_module (docs/own-networks.md)"


def weight_shape(layer: LayerPlan) -> tuple[int, ...]:
    """Shape of a layer's weights: [out, in, 3, 3] or [out, in]."""
    return (layer.outputs, layer.inputs, 3, 3) if layer.op == "conv" else (layer.outputs, layer.inputs)


def assemble(
    network: config.Network,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    weights: Mapping[str, Tensor],
    signs: Mapping[str, Tensor],
    alphas: Mapping[str, Tensor],
    *,
    source: Callable[[Tensor], Tensor] | None = None,
    example: Tensor | None = None,
) -> Trained:
    """A network for evaluation from its parts, on the CPU, in row-major order: equal parts give equal logits.

    Args:
        network: settings of the member of the family.
        input_shape: channels, height and width of an image.
        classes: names of the classes.
        mean: channel means of the normalisation, of pixels in 0..1.
        std: channel deviations of the normalisation.
        weights: float32 weights of the full layers, by layer name.
        signs: int8 signs (+-1) of the binary layers, in the weights' shape.
        alphas: float32 scaling factors [outputs] of the binary layers.
        source: the network that the parts come from, in evaluation mode; its logits on the example must be the same.
            Weights alone do not say that it has biases, batch norm, strides or other kernels, which the family has not.
        example: normalised images, float32 [N, channels, height, width]; needed with `source`.

    Raises:
        ConversionError: parts of other names or shapes than the network's; logits that differ from the source's beyond
            rounding; a source without an example.
    """
    with torch.device("meta"):  # neither memory nor random numbers for weights that are replaced at once
        module = VGG(network, input_shape, len(classes))
    _check_parts(module.plan, weights, signs, alphas)
    full = {name: weight.float().cpu().contiguous() for name, weight in weights.items()}
    kept = {name: sign.to("cpu", torch.int8).contiguous() for name, sign in signs.items()}
    scales = {name: alpha.float().cpu().contiguous() for name, alpha in alphas.items()}
    full |= {name: scales[name].reshape(-1, *[1] * (sign.dim() - 1)) * sign for name, sign in kept.items()}
    module.load_state_dict({f"{name}.weight": weight for name, weight in full.items()}, assign=True)
    module.requires_grad_(False)
    if source is not None:
        _compare(module.eval(), source, example)
    return Trained(module.eval(), classes, mean, std, kept, scales)


def _check_parts(
    plan: tuple[LayerPlan, ...],
    weights: Mapping[str, Tensor],
    signs: Mapping[str, Tensor],
    alphas: Mapping[str, Tensor],
) -> None:
    names = [layer.name for layer in plan]
    strange = sorted({*weights, *signs, *alphas} - set(names))
    if strange:
        raise ConversionError(
            f"the network has no layers {', '.join(strange)}; its layers are {', '.join(names)}, each with a weight "
            f"and nothing else. {_ELSEWHERE}"
        )
    for layer in plan:
        parts = [kind for kind, given in (("weight", weights), ("sign", signs)) if layer.name in given]
        if len(parts) != 1 or (layer.name in signs) != (layer.name in alphas):
            raise ConversionError(
                f"layer {layer.name} needs a weight, or a sign and an alpha; it has {parts or 'none'}"
            )
        shape = tuple((weights if layer.name in weights else signs)[layer.name].shape)
        if shape != weight_shape(layer):
            raise ConversionError(
                f"layer {layer.name} takes weights {list(weight_shape(layer))}, found {list(shape)}. {_ELSEWHERE}"
            )


@torch.no_grad()
def _compare(module: VGG, source: Callable[[Tensor], Tensor], example: Tensor | None) -> None:
    if example is None:
        raise ConversionError("logits are compared with the source's on images: give an example")
    single, expected = module(example), source(example)
    # In float64, whose distance from float32 says what rounding explains (bsnn.graphs.comparison).
    double: Tensor = copy.deepcopy(module).double()(example.double())
    if single.shape != expected.shape:
        raise ConversionError(f"the source gives {list(expected.shape)}, the assembled network {list(single.shape)}")
    difference = float((expected.double() - double).abs().max())
    if not difference <= tolerance(single, double):
        raise ConversionError(
            f"the assembled network gives other logits than its source: they differ by {difference:g}. Is the source "
            "in evaluation mode, and does it have biases, batch norm, strides, other pools or padding? The family has "
            f"3x3 convolutions of stride 1 without bias. {_ELSEWHERE}"
        )


def pack(sign: Tensor) -> Tensor:
    """Signs of +-1 as uint8, eight a byte, in row-major order; the last byte is filled with zeros."""
    return torch.from_numpy(np.packbits(sign.cpu().numpy().reshape(-1) > 0))


def unpack(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `pack`: int8 of +-1 in the given shape."""
    ones = np.unpackbits(bits.numpy(), count=int(np.prod(shape))).astype(np.int8)
    return torch.from_numpy(2 * ones - 1).reshape(shape)


def save(
    path: str | Path, trained: Trained, identity: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> None:
    """Write a network.

    Args:
        path: safetensors file to write.
        trained: the network.
        identity: settings that its key stands for.
        extra: what else to note in its metadata, for example {"test_accuracy": 0.99}; its input shape, classes and
            normalisation are noted anyway.

    Raises:
        BsnnError: a weight is NaN or infinite.
        ArtifactError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for layer in trained.plan:
        weight, alpha = trained.weight(layer.name)
        if alpha is None:
            tensors[f"{layer.name}.weight"] = _smallest(weight)
        else:
            tensors[f"{layer.name}.sign"] = pack(weight)
            tensors[f"{layer.name}.alpha"] = alpha
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BsnnError(f"{path}: not written, {name} holds NaN or infinity; train with a lower learning rate")
    note = {
        "input_shape": trained.input_shape,
        "classes": trained.classes,
        "mean": trained.mean,
        "std": trained.std,
    }
    artifacts.write_tensors(path, tensors, KIND, identity, {**(extra or {}), **note})


def _smallest(weight: Tensor) -> Tensor:
    """Weights in bfloat16 where that holds every one of them exactly, as it does after rounding; else as they are."""
    half = weight.bfloat16()
    return half if torch.equal(half.float(), weight) else weight


class _UnsuitableError(Exception):
    """What a file holds is not the network asked for; the message says why."""


def load(
    path: str | Path,
    network: config.Network,
    stands_for: Mapping[str, Any] | None = None,
    remedy: str | None = None,
) -> Trained:
    """Read a network, full-precision or binary.

    Args:
        path: file written by `save`.
        network: settings of the member of the family that it must hold.
        stands_for: identity that its path stands for; None, where no setting says what the file should be.
        remedy: what to do about a file that is of no use; None for one that the pipeline can make again.

    Raises:
        ArtifactError: missing, damaged or foreign file; one of another identity; a layer that is missing, unknown or of
            another shape than the settings ask for; NaN or infinity.
    """
    try:
        tensors, found = artifacts.read_tensors(path, KIND, stands_for)
    except ArtifactError as error:
        if remedy is None:
            raise
        raise artifacts.with_remedy(error, remedy) from error
    try:
        return _read(tensors, found["extra"], network)
    except _UnsuitableError as why:
        raise ArtifactError(f"{path}: {why}; {remedy or artifacts.again(path)}") from why


def _read(tensors: Mapping[str, Tensor], extra: Mapping[str, Any], network: config.Network) -> Trained:
    try:
        channels, height, width = (int(size) for size in extra["input_shape"])
        classes = tuple(str(name) for name in extra["classes"])
        mean, std = (tuple(float(value) for value in extra[name]) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise _UnsuitableError(f"its metadata lacks a valid input_shape, classes, mean or std ({error!r})") from error
    plan = vgg.plan(network, (channels, height, width), len(classes))
    _check_names(tensors, plan)
    weights: dict[str, Tensor] = {}
    signs: dict[str, Tensor] = {}
    alphas: dict[str, Tensor] = {}
    for layer in plan:
        shape = weight_shape(layer)
        if f"{layer.name}.weight" in tensors:
            weight = _checked(tensors, f"{layer.name}.weight", shape, torch.float32, torch.bfloat16)
            weights[layer.name] = weight.float()
        else:
            size = (-(-layer.weights // 8),)  # bytes, rounded up
            signs[layer.name] = unpack(_checked(tensors, f"{layer.name}.sign", size, torch.uint8), shape)
            alphas[layer.name] = _checked(tensors, f"{layer.name}.alpha", (layer.outputs,), torch.float32)
    return assemble(network, (channels, height, width), classes, mean, std, weights, signs, alphas)


def _check_names(tensors: Mapping[str, Tensor], plan: tuple[LayerPlan, ...]) -> None:
    left = set(tensors)
    for layer in plan:
        full, binary = {f"{layer.name}.weight"}, {f"{layer.name}.sign", f"{layer.name}.alpha"}
        held = left & (full | binary)
        if held not in (full, binary):
            raise _UnsuitableError(f"layer {layer.name} needs a weight, or a sign and an alpha; it has {sorted(held)}")
        left -= held
    if left:
        raise _UnsuitableError(f"it holds tensors that the network has no layer for: {sorted(left)}")


def _checked(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], *dtypes: torch.dtype) -> Tensor:
    tensor = tensors[name]
    if tensor.dtype not in dtypes or tuple(tensor.shape) != shape:
        wanted = " or ".join(map(str, dtypes))
        raise _UnsuitableError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {wanted} {shape}")
    if not bool(torch.isfinite(tensor).all()):
        raise _UnsuitableError(f"{name} holds NaN or infinity")
    if name.endswith(".alpha") and bool((tensor < 0).any()):
        raise _UnsuitableError(f"{name} holds negative values; a mean of absolute weights cannot")
    return tensor
