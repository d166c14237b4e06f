"""The converted network in NIR (Neuromorphic Intermediate Representation; Pedersen et al. 2024), and back.

A path of a layer's sum (SpikingNetwork.sums) is a chain of nodes from its source's neurons, or the input, to its
layer's: a flattening, a convolution or a linear map, a sum over windows, a factor for each channel, each where the path
has it. NIR adds up all that arrives at a node, so that a sum of branches is the edges that meet. A bias of channels is
that of its path's map, where the map is the path's last node. Elsewhere the last path ends in a map of a diagonal
matrix (a 1x1 convolution on maps), which has the path's factors, and the bias beside them. The read-out is a linear map
at the end. Weights of +-1 stay as they are, and so do thresholds.

NIR's IF neuron fires above its threshold and resets to a value. What it cannot say stands in the metadata of its node,
under "bsnn": soft reset (`reset: subtract`), firing at the threshold (`fires: at`), potentials before the first step,
signed spikes and their negative threshold, a bias that no map carries; of a network of one's own also the layers'
order, and the order in which terms are added. A map's metadata says what it holds: signs, weights, or a path's factors.
A simulator that does not read it gives other spikes, which `write` says in a warning. Maximum pools have no node in
NIR.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path as File
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from bsnn import artifacts, nir_reading
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.errors import ArtifactError, ConversionError
from bsnn.graphs.description import IMAGE, READOUT, Path
from bsnn.nir_reading import FACTORS, INPUT, SIGNS, SUFFIX, WEIGHTS

logger = logging.getLogger("bsnn")
MISJUDGED = "nir works out wrong shapes for grouped convolutions and for kernels that are not square"


def graph(network: SpikingNetwork, about: str = "") -> nir.NIRGraph:
    """NIR graph of a converted network.

    Args:
        network: the converted network.
        about: where it comes from, for the graph's metadata.

    Raises:
        ConversionError: a maximum pool, bursts or currents of each step, which NIR lacks; two nodes of one name.
    """
    nodes: dict[str, Any] = {INPUT: nir.Input({"input": np.array(network.input_shape)})}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, tuple[int, ...]]] = {IMAGE: (INPUT, network.input_shape)}
    for place, (layer, paths) in enumerate(zip(network.layers, network.sums, strict=True)):
        _check(layer, paths)
        carried, bias = _biases(layer)
        found, order = _layer_nodes(layer, paths, carried, ends, edges)
        own = f"{layer.name}{SUFFIX}"
        found[own] = _neurons(layer, bias, {"place": place, "paths": json.dumps(order)} if layer.paths else {})
        edges += [(name, own) for name in order]
        _add(nodes, found)
        ends[layer.name] = (own, layer.shape)
    last, shape = ends[network.layers[-1].name]
    chain = {READOUT: _read_out(network), "output": nir.Output({"output": np.array([network.classes])})}
    if len(shape) > 1:
        chain = {f"{READOUT}.flatten": _flatten(shape), **chain}
    _add(nodes, chain)
    edges += pairwise([last, *chain])
    return nir.NIRGraph(
        nodes, edges, metadata={"bsnn": unsaid(network), "about": about}, type_check=not _misjudged(network)
    )


def _add(nodes: dict[str, Any], found: dict[str, Any]) -> None:
    if twice := nodes.keys() & found.keys():
        raise ConversionError(f"two parts of the network would be NIR's node '{min(twice)}': rename a module")
    nodes |= found


def unsaid(network: SpikingNetwork) -> str:
    """What NIR's neurons do not say of a network, and a reader has to look up in the nodes' metadata."""
    neurons = [layer for layer in network.layers if layer.threshold is not None]
    parts = {
        "initial potentials": any(layer.initial is not None and bool(layer.initial.any()) for layer in neurons),
        "signed spikes": any(layer.signed for layer in neurons),
        "their negative threshold": any(layer.lower is not None for layer in neurons),
        "biases of single neurons": any(_biases(layer)[1] is not None for layer in neurons),
        "the order of sums, which float32 rounds by": any(len(paths) > 1 for paths in network.sums),
    }
    return ", ".join(["soft reset", "firing at the threshold", *(part for part, there in parts.items() if there)])


def _biases(layer: SpikingLayer) -> tuple[Tensor | None, Tensor | None]:
    """A layer's shift of each channel, which its last map carries, and the bias that no map carries."""
    carried, bias = layer.offset, layer.bias
    # One bias a channel can be part of a map, as long as no offset, which is added before it, is there already.
    if carried is None and bias is not None and bias.numel() == layer.shape[0]:
        return bias.reshape(-1), None
    return carried, bias


def _misjudged(network: SpikingNetwork) -> bool:
    """Whether the network has convolutions whose shapes NIR's own check works out wrongly."""
    convolutions = [path for paths in network.sums for path in paths if path.op == "conv"]
    return any(path.groups > 1 or path.weight.shape[2] != path.weight.shape[3] for path in convolutions)  # type: ignore[union-attr]


def _check(layer: SpikingLayer, paths: tuple[Path, ...]) -> None:
    """Refuse what no node of NIR does."""
    if any(path.pool is not None and path.pool.kind == "max" for path in paths):
        raise ConversionError(f"layer '{layer.name}' has a maximum pool, for which NIR has no node")
    if layer.burst > 1:
        raise ConversionError(f"layer '{layer.name}' sends bursts, which NIR's neurons do not")
    if layer.schedule is not None:
        raise ConversionError(
            f"layer '{layer.name}' gets another current at each step (a temporal correction), and NIR's maps have "
            "one bias: export a method without it"
        )


def _layer_nodes(
    layer: SpikingLayer,
    paths: tuple[Path, ...],
    offset: Tensor | None,
    ends: Mapping[str, tuple[str, tuple[int, ...]]],
    edges: list[tuple[str, str]],
) -> tuple[dict[str, Any], list[str]]:
    """Nodes of a layer's paths, their edges added to `edges`; and the last node of each path, in the sum's order."""
    found: dict[str, Any] = {}
    order: list[str] = []
    for number, path in enumerate(paths, 1):
        label = layer.name if len(paths) == 1 else f"{layer.name}.path{number - 1}"
        source, shape = ends[path.source]
        # A path without nodes is an edge from its source's neurons.
        chain = dict(_path_nodes(path, label, shape, layer.shape, offset if number == len(paths) else None))
        edges += pairwise([source, *chain])
        found |= chain
        order.append(list(chain)[-1] if chain else source)
    return found, order


def _path_nodes(
    path: Path, label: str, before: tuple[int, ...], shape: tuple[int, ...], offset: Tensor | None
) -> Iterator[tuple[str, Any]]:
    """Nodes of one path, in order. `before`: shape of its source; `offset`: the layer's, if it is the last path."""
    if path.op == "linear" and len(before) > 1:
        yield f"{label}.flatten", _flatten(before)
    if path.weight is not None:
        # The bias comes last: on a map before a pool or a factor it would be summed or multiplied, too.
        alone = path.pool is None and path.scale is None
        yield label, _holding(SIGNS if path.signs else WEIGHTS, _map(path, before, offset if alone else None))
        offset = None if alone else offset
    if path.pool is not None:
        yield f"{label}.sum", nir.SumPool2d(*map(np.array, (path.pool.kernel, path.pool.stride, path.pool.padding)))
    if offset is not None:
        yield f"{label}.affine", _holding(FACTORS, _affine(path.scale, offset, shape))
    elif path.scale is not None:
        yield f"{label}.scale", nir.Scale(per_output(path.scale.cpu(), shape).expand(shape).numpy().copy())


def _holding(what: str, node: Any) -> Any:
    node.metadata["bsnn"] = {"holds": what}
    return node


def _map(path: Path, before: tuple[int, ...], bias: Tensor | None) -> Any:
    assert path.weight is not None
    weight = path.weight.float().cpu().numpy()
    shift = None if bias is None else bias.cpu().numpy()
    if path.op == "linear":
        return nir.Linear(weight) if shift is None else nir.Affine(weight, shift)
    shift = np.zeros(len(weight), np.float32) if shift is None else shift
    return nir.Conv2d(before[1:], weight, path.stride, path.padding, path.dilation, path.groups, shift)


def _affine(scale: Tensor | None, offset: Tensor, shape: tuple[int, ...]) -> Any:
    """One factor and one shift for each channel: a diagonal matrix, whose zeros add nothing."""
    each = torch.ones_like(offset) if scale is None else scale
    weight, bias = torch.diag(each.cpu()).numpy(), offset.cpu().numpy()
    if len(shape) == 1:
        return nir.Affine(weight, bias)
    return nir.Conv2d(shape[1:], weight[:, :, None, None], 1, 0, 1, 1, bias)


def _neurons(layer: SpikingLayer, bias: Tensor | None, more: Mapping[str, Any]) -> nir.IF:
    """Node of a layer's neurons. `bias`: that no map carries; `more`: what else its metadata is to say."""
    assert layer.threshold is not None
    threshold = per_output(layer.threshold.cpu(), layer.shape).expand(layer.shape).numpy().copy()
    said: dict[str, Any] = {"reset": "subtract", "fires": "at", "signed": int(layer.signed), **more}
    if layer.lower is not None:
        said["negative_threshold"] = layer.lower.cpu().numpy()
    if layer.initial is not None:
        said["initial"] = layer.initial.cpu().numpy()
    if bias is not None:
        said["bias"] = bias.cpu().numpy()
    return nir.IF(np.ones_like(threshold), threshold, metadata={"bsnn": said})


def _flatten(shape: tuple[int, ...]) -> nir.Flatten:
    return nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)


def _read_out(network: SpikingNetwork) -> nir.Linear | nir.Affine:
    """Node of the read-out, float64, with its bias where there is one."""
    weight, bias = network.readout.cpu().numpy(), network.readout_bias
    return nir.Linear(weight) if bias is None else nir.Affine(weight, bias.cpu().numpy())


def write(path: str | File, source: SpikingNetwork, about: str = "") -> None:
    """Write the network as NIR (HDF5), whole or not at all, and warn of what the format cannot say.

    Args:
        path: file to write.
        source: the converted network.
        about: where it comes from, for the graph's metadata.

    Raises:
        ConversionError: see `graph`.
        ArtifactError: when the file cannot be written.
    """
    made = graph(source, about)
    with artifacts.replacing(path) as temporary:
        nir.write(temporary, made)
    logger.warning("%s: NIR's neurons do not say these of this network; its metadata do: %s", path, unsaid(source))
    if _misjudged(source):
        logger.warning("%s: read it with nir.read(..., type_check=False): %s", path, MISJUDGED)


def read(path: str | File) -> SpikingNetwork:
    """Read a network that `write` wrote, in this layout or the former one.

    Raises:
        ArtifactError: missing, damaged, or of another kind.
    """
    try:
        return nir_reading.network(nir.read(path, type_check=False))  # its check knows no groups
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; write it with: bsnn export-nir") from None
    except (OSError, KeyError, AssertionError, ValueError) as error:
        raise ArtifactError(f"{path}: not a NIR graph as bsnn writes it ({error}); write it again") from error
