"""Checkpoints of the original (`.pth.tar`): read without running anything in them, and written.

Such a file holds the weights alone, in the order of the layers: under the key `state_dict` or by themselves, their
names with or without `module.` (of DataParallel). Layers are known by order and shape; names appear in messages only.

A binary network's checkpoint holds `alpha_o * sign` as one real number per weight. A layer is binary if, in each of its
filters, all weights have one absolute value: that is alpha, bit for bit, and a negative weight's sign is -1. A filter
that is zero throughout has alpha 0. The original's sign(0) is 0, which one bit cannot hold: a layer with some zeros in
an otherwise binary filter is refused as binary; imported as full it keeps its weights exactly.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from bsnn import artifacts, config
from bsnn.errors import ArtifactError
from bsnn.networks import vgg
from bsnn.networks.files import assemble, weight_shape
from bsnn.networks.vgg import LayerPlan, Trained

logger = logging.getLogger(__name__)

DAMAGED = (
    RuntimeError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    struct.error,
    SafetensorError,  # torch.load takes files of that format, too
)
REALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # types that weights may have; float8 is none
ZIP = b"PK\x03\x04"  # a checkpoint's first bytes since torch 1.6; older ones are a plain pickle, without checksums


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, 64 hex digits: what a network made from it is known by.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        _require_file(path)
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _require_file(path: str | Path) -> None:
    """Refuse what never ends, such as a pipe or a device."""
    if Path(path).exists() and not Path(path).is_file():
        raise ArtifactError(f"{path}: cannot be read (no regular file); give the path of a checkpoint")


def _unreadable(path: str | Path, error: OSError) -> ArtifactError:
    return ArtifactError(f"{path}: cannot be read ({error.strerror}); give the path of a checkpoint")


def load(
    path: str | Path,
    network: config.Network,
    weights: config.Weights,
    *,
    image_size: int,
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Trained:
    """A network from a checkpoint.

    Args:
        path: checkpoint.
        network: settings of the member of the family that it must hold.
        weights: `binary` splits the binary layers into sign and alpha; `full` keeps every weight as it is.
        image_size: height and width of an image in pixels.
        classes: names of the classes.
        mean: channel means that the network's images are normalised with, of pixels in 0..1; a checkpoint has none.
        std: channel deviations.

    Raises:
        ArtifactError: no checkpoint; other layers than the network's; NaN; for `binary`, no binary layer, or zeros
            among binary weights.
    """
    shape = (3, image_size, image_size)
    named = _named(path, read(path), vgg.plan(network, shape, len(classes)))
    binary = _binary(named)
    if weights == "binary":
        _require_binary(path, named, binary)
    elif binary:
        logger.warning("%s: layers %s are binary; as full precision they take 32 bits a weight", path, list(binary))
        binary = {}
    signs, alphas = ({name: part[index] for name, part in binary.items()} for index in (0, 1))
    full = {name: weight for name, weight in named.items() if name not in binary}
    return assemble(network, shape, classes, mean, std, full, signs, alphas)


def check(path: str | Path, network: config.Network, weights: config.Weights, image_size: int) -> None:
    """Whether a checkpoint holds such a network, before any data set is there: classes are as many as its outputs.

    Raises:
        ArtifactError: as `load`.
    """
    held, shape = read(path), (3, image_size, image_size)
    named = _named(path, held, vgg.plan(network, shape, len(next(reversed(held.values())))))
    if weights == "binary":
        _require_binary(path, named, _binary(named))


def kind(path: str | Path) -> config.Weights:
    """As which kind of network a checkpoint can be converted: binary if one of its layers is, else full.

    Zeros among binary weights make it full, with a warning; so do filters of zeros, which no threshold silences.

    Raises:
        ArtifactError: see `read`.
    """
    held = read(path)
    binary = _binary(held)
    holed = {name: count for name, weight in held.items() if (count := _zeros(weight))}
    silent = {name: count for name, part in binary.items() if (count := int((part[1] == 0).sum()))}
    silent |= {name: count for name in holed if (count := int((_alpha(held[name]) == 0).sum()))}
    if not (holed or silent):
        return "binary" if binary else "full"
    found = (("zeros among binary weights", holed), ("filters of zeros alone", silent))
    told = "; ".join(f"{what}: {_counted(where)}" for what, where in found if where)
    logger.warning("%s: %s: converted with real weights, exactly as they are, which takes longer", path, told)
    return "full"


def _counted(where: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in where.items())


def read(path: str | Path) -> dict[str, Tensor]:
    """Weights of a checkpoint as float32, by their names without `module.`, in the file's order.

    Raises:
        ArtifactError: missing, damaged, not weights alone, with biases, batch norm or the like, or with more weights
            than the file has bytes.
    """
    held = _unpickled(path)
    held = held.get("state_dict", held) if isinstance(held, Mapping) else held
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise ArtifactError(f"{path}: holds no weights by name, neither by themselves nor under 'state_dict'")
    named: dict[str, Tensor] = {}
    for name, value in held.items():
        short = str(name).replace("module.", "")
        if short in named:
            raise ArtifactError(f"{path}: holds {short} twice, with and without 'module.'; save one network alone")
        named[short] = value
    strange = [f"{name} ({problem})" for name, value in named.items() if (problem := _strange(value))]
    if strange:
        raise ArtifactError(
            f"{path}: holds what the family has not: {', '.join(strange[:5])}; it has convolutions and linear layers "
            "of real weights, without bias or batch norm"
        )
    # Before anything looks at values: a few bytes can be expanded to more numbers than memory holds.
    if sum(value.numel() * value.element_size() for value in named.values()) > Path(path).stat().st_size:
        name, largest = max(named.items(), key=lambda item: item[1].numel())
        raise ArtifactError(
            f"{path}: declares more weights than it has bytes for, as {name} {list(largest.shape)}: expanded or shared "
            "tensors; save copies of them (contiguous().clone())"
        )
    for name, value in named.items():
        if not bool(torch.isfinite(value).all()):
            raise ArtifactError(f"{path}: {name} holds NaN or infinity; use another checkpoint")
    return {name: value.detach().float() for name, value in named.items()}


def _strange(value: Tensor) -> str | None:
    """What no layer's weights are; None if they may be some."""
    if value.is_meta:
        return "on device meta, without values"
    if value.layout is not torch.strided or value.is_nested:
        return f"sparse or nested, {value.layout}"
    if value.dtype not in REALS:
        return str(value.dtype)
    return None if value.dim() in (2, 4) and value.numel() else f"of shape {list(value.shape)}"


def _unpickled(path: str | Path) -> object:
    try:
        _require_file(path)
        _verify(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(path, error) from error
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path}: no checkpoint, or it holds more than weights and plain values ({str(error).splitlines()[0]}); "
            "only weights are ever loaded, since anything else could run code: save its state_dict alone"
        ) from error
    except DAMAGED as error:
        raise ArtifactError(f"{path}: damaged, or no checkpoint of torch ({type(error).__name__})") from error


def _verify(path: str | Path) -> None:
    """Sizes, before anything is unpacked, and checksums of an archive: torch.load looks at neither."""
    with Path(path).open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            if packed or sum(part.file_size for part in parts) > Path(path).stat().st_size:
                raise ArtifactError(
                    f"{path}: its parts are compressed or overlap, which those that torch.save writes never are; load "
                    "it where you trust it, and save its state_dict again"
                )
            wrong = archive.testzip()
    if wrong is not None:
        raise ArtifactError(f"{path}: damaged: {wrong} has another checksum than was written; copy the file again")


def _named(path: str | Path, held: Mapping[str, Tensor], plan: tuple[LayerPlan, ...]) -> dict[str, Tensor]:
    """Weights by this project's layer names: the n-th tensor is the n-th layer's."""
    wanted = [weight_shape(layer) for layer in plan]
    if [tuple(weight.shape) for weight in held.values()] != wanted:
        expected = ", ".join(f"{layer.name} {list(shape)}" for layer, shape in zip(plan, wanted, strict=True))
        found = ", ".join(f"{name} {list(weight.shape)}" for name, weight in held.items())
        raise ArtifactError(
            f"{path}: holds other layers than the experiment's network.\n  expected: {expected}\n  found: {found}"
        )
    return {layer.name: weight for layer, weight in zip(plan, held.values(), strict=True)}


def split(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """Sign (int8 of +-1, of the weight's shape) and alpha (float32 [outputs]) of a binary layer; None for another.

    `alpha * sign` gives the weight back, bit for bit (except for the sign of a zero).
    """
    alpha, magnitude = _alpha(weight), weight.abs().flatten(1)
    if magnitude.shape[1] < 2 or not bool((magnitude == alpha[:, None]).all()):  # one weight is always alpha * sign
        return None
    return torch.where(weight < 0, -1, 1).to(torch.int8), alpha


def _binary(held: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """What `split` gives for the layers that are binary, by name."""
    return {name: part for name, weight in held.items() if (part := split(weight)) is not None}


def _alpha(weight: Tensor) -> Tensor:
    return weight.abs().flatten(1).amax(1)


def _zeros(weight: Tensor) -> int:
    """Zeros among filters of otherwise one absolute value each; 0 if any filter has several."""
    alpha, magnitude = _alpha(weight), weight.abs().flatten(1)
    holes = (magnitude == 0) & (alpha[:, None] > 0)
    return int(holes.sum()) if bool(((magnitude == alpha[:, None]) | holes).all()) else 0


def _require_binary(path: str | Path, named: Mapping[str, Tensor], binary: Mapping[str, object]) -> None:
    holed = {name: count for name, weight in named.items() if name not in binary and (count := _zeros(weight))}
    if holed:
        raise ArtifactError(
            f"{path}: zeros among binary weights: {_counted(holed)}. The original leaves sign(0) at 0, one bit a "
            "weight holds +1 or -1; import it as full, which keeps every weight as it is"
        )
    if not binary:
        raise ArtifactError(
            f"{path}: no layer is binary (one absolute value per filter); import it as full. A checkpoint saved while "
            "training a binary network holds the real weights behind the signs: save it while they are binarised"
        )


def save(path: str | Path, trained: Trained) -> None:
    """Write a checkpoint as the original's scripts read it: names and order of its vgg.py, alpha folded into weights.

    Args:
        path: file to write.
        trained: full-precision or binary network.

    Raises:
        ArtifactError: the file cannot be written.
    """
    state: dict[str, Tensor] = {}
    convolutions = sum(layer.op == "conv" for layer in trained.plan)
    for number, layer in enumerate(trained.plan):
        # A convolution is followed by two of ReLU, dropout and pool; a linear layer has dropout before and ReLU after.
        conv, linear = f"features.module.{3 * number}", f"classifier.{3 * (number - convolutions) + 1}"
        weight = trained.module.get_submodule(layer.name).get_parameter("weight").detach().cpu().contiguous().clone()
        state[f"{conv if layer.op == 'conv' else linear}.weight"] = weight
    with artifacts.replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"state_dict": state}, file)  # to a path, a full disk is a failed assertion
