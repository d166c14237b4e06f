"""A graph of NIR, as bsnn.nir_graph writes it, as a spiking network.

Files that say no paths hold a member of the VGG family: a chain, whose layers have one path each, from the neurons
before. In the former layout of these, the map of a pooled convolution has the bias, a quarter for each of four places.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.conversion.spiking import of_the_family
from bsnn.errors import ArtifactError
from bsnn.graphs.description import IMAGE, READOUT, Pair, Path, Pool

INPUT = "input"
SUFFIX = ".neurons"
SIGNS, WEIGHTS, FACTORS = "signs", "weights", "factors"  # what a map holds, as its metadata says


def network(source: nir.NIRGraph) -> SpikingNetwork:
    """The converted network from a graph as `bsnn.nir_graph.graph` makes it.

    Raises:
        ArtifactError: a graph of another kind.
    """
    said = {name: _said(name, node) for name, node in source.nodes.items() if isinstance(node, nir.IF)}
    readout = source.nodes.get(READOUT)
    if not isinstance(readout, nir.Linear | nir.Affine) or not said:
        raise ArtifactError("the NIR graph was not written by bsnn: it has no read-out, or no neurons")
    before: dict[str, list[str]] = {}
    for one, other in source.edges:
        before.setdefault(other, []).append(one)
    layers: dict[str, SpikingLayer] = {}
    sources: dict[str, list[str]] = {}
    for name, own in said.items():
        ends = json.loads(_text(own["paths"])) if "paths" in own else before[name]
        # A layer's bias is on its last path, as `bsnn.nir_graph` writes it.
        paths, biases = zip(*(_path(source, before, last) for last in ends), strict=True)
        layers[name] = _layer(name, source.nodes[name], own, paths, biases[-1])
        sources[name] = [f"{path.source}{SUFFIX}" for path in paths if path.source != IMAGE]
    # By the places that the file says; where it says none, all are 0, and the order of the graph is kept.
    order = sorted(TopologicalSorter(sources).static_order(), key=lambda name: int(said[name].get("place", 0)))
    shape = tuple(int(size) for size in source.nodes[INPUT].input_type["input"])
    weight, bias = _tensor(readout.weight, torch.float64), _tensor(getattr(readout, "bias", None), torch.float64)
    assert weight is not None
    return SpikingNetwork(tuple(layers[name] for name in order), weight, shape, bias)  # type: ignore[arg-type]


def _said(name: str, node: nir.IF) -> Mapping[str, Any]:
    """What the metadata of a node with neurons says."""
    said: Mapping[str, Any] | None = node.metadata.get("bsnn")
    if said is None or _text(said["reset"]) != "subtract":
        raise ArtifactError(f"NIR node '{name}': does not say that its neurons reset by subtraction; not from bsnn")
    return said


def _layer(
    name: str, node: nir.IF, said: Mapping[str, Any], paths: tuple[Path, ...], offset: Tensor | None
) -> SpikingLayer:
    threshold = torch.from_numpy(np.asarray(node.v_threshold)).float()
    layer = SpikingLayer(
        name.removesuffix(SUFFIX),
        "sum",
        tuple(threshold.shape),
        threshold=threshold.flatten(1)[:, 0].clone() if threshold.dim() > 1 else threshold,
        initial=_tensor(said.get("initial")),
        bias=_tensor(said.get("bias")),
        signed=bool(int(said["signed"])),
        lower=_tensor(said.get("negative_threshold")),
        paths=paths,
        offset=offset,
    )
    if "paths" in said:
        return layer
    return of_the_family(replace(layer, bias=offset if layer.bias is None else layer.bias, offset=None))


def _path(source: nir.NIRGraph, before: Mapping[str, list[str]], last: str) -> tuple[Path, Tensor | None]:
    """The path that ends in a node, and the bias that its nodes carry, where it is not zero."""
    chain: list[tuple[str, Any]] = []
    name = last
    while not isinstance(source.nodes[name], nir.Input | nir.IF):
        if len(chain) > len(source.nodes):
            raise ArtifactError(f"NIR node '{last}': its path runs in a circle; not from bsnn")
        chain.append((name, source.nodes[name]))
        [name] = before[name]
    origin = IMAGE if isinstance(source.nodes[name], nir.Input) else name.removesuffix(SUFFIX)
    how: dict[str, Any] = {"op": "identity", "name": origin}
    offset: Tensor | None = None
    for label, node in reversed(chain):
        if isinstance(node, nir.SumPool2d):
            how["pool"] = Pool("average", _pair(node.kernel_size), _pair(node.stride), _pair(node.padding))
            # In the former layout the bias stands before the sum, which adds it once for each place of a window.
            offset = None if offset is None else offset * math.prod(how["pool"].kernel)
        elif isinstance(node, nir.Scale):
            scale = torch.from_numpy(np.asarray(node.scale)).float()
            how["scale"] = scale.flatten(1)[:, 0].clone() if scale.dim() > 1 else scale
        elif not isinstance(node, nir.Flatten) and _held(label, node) == FACTORS:
            matrix = torch.from_numpy(np.asarray(node.weight)).float().flatten(1)
            scale = matrix.diagonal().clone()
            if not torch.equal(matrix, torch.diag(scale)):
                raise ArtifactError(
                    f"NIR node '{label}': is to hold one factor per channel, and has more; changed since"
                )
            how["scale"] = None if bool((scale == 1).all()) else scale
        elif not isinstance(node, nir.Flatten):
            how |= _weighted(label, node)
        offset = _bias(node) if hasattr(node, "bias") else offset
    return Path(origin, **how), offset


def _weighted(label: str, node: Any) -> dict[str, Any]:
    """Arguments of a path with weights; signs are integers."""
    weight = torch.from_numpy(np.asarray(node.weight)).float()
    if _held(label, node) == SIGNS:
        if not bool((weight.abs() == 1).all()):
            raise ArtifactError(f"NIR node '{label}': is to hold signs, and has other weights than +-1; changed since")
        weight = weight.to(torch.int8)
    how: dict[str, Any] = {"name": label, "weight": weight}
    if not isinstance(node, nir.Conv2d):
        return how | {"op": "linear"}
    pairs = {name: _pair(getattr(node, name)) for name in ("stride", "padding", "dilation")}
    return how | {"op": "conv", "groups": int(node.groups), **pairs}


def _held(label: str, node: Any) -> str:
    """What a map holds; in files that do not say it, what its name and its values suggest."""
    if "bsnn" in node.metadata:
        return _text(node.metadata["bsnn"]["holds"])
    if label.endswith(".affine"):
        return FACTORS
    return SIGNS if bool((np.abs(node.weight) == 1).all()) else WEIGHTS


def _bias(node: Any) -> Tensor | None:
    bias = _tensor(node.bias)
    return bias if bias is not None and bool(bias.any()) else None


def _tensor(given: Any, kind: torch.dtype = torch.float32) -> Tensor | None:
    return None if given is None else torch.from_numpy(np.asarray(given)).to(kind)


def _text(value: Any) -> str:
    """A text of the metadata, which files give as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _pair(given: Any) -> Pair:
    height, width = (int(size) for size in np.broadcast_to(given, 2))
    return height, width
