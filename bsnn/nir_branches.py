"""A network whose layers are sums of paths (bsnn.conversion.from_graph) as a graph of NIR, and back.

A path is a chain of nodes from its source's neurons, or the input, to its layer's: a flattening, a convolution or a
linear map, a sum over windows, a factor for each channel, each where the path has it. NIR adds up all that arrives at a
node, so that a sum of branches is the edges that meet. A layer's bias is that of its path's map, where the map is the
path's last node. Elsewhere the last path ends in a map of a diagonal matrix (a 1x1 convolution on maps), which has the
path's factors, and the bias beside them.

Metadata, under "bsnn", say what float32 depends on, and NIR has no place for: which paths hold integers, the order in
which terms are added, the bias last, and the layers' order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.errors import ArtifactError, ConversionError
from bsnn.graphs.description import IMAGE, Pair, Path, Pool
from bsnn.nir_neurons import READOUT, SUFFIX, Neurons, check_layer, flatten, neurons, read_out, read_out_of, text

if TYPE_CHECKING:
    import nir

UNSAID = "the order of sums, which float32 rounds by, and a shift's bias (they are metadata)"
MISJUDGED = "nir works out wrong shapes for grouped convolutions and for kernels that are not square"
INPUT = "input"


def misjudged(network: SpikingNetwork) -> bool:
    """Whether the network has convolutions whose shapes NIR's own check works out wrongly."""
    convolutions = [path for layer in network.layers for path in layer.paths if path.op == "conv"]
    return any(path.groups > 1 or path.weight.shape[2] != path.weight.shape[3] for path in convolutions)  # type: ignore[union-attr]


def graph(network: SpikingNetwork, metadata: Mapping[str, Any]) -> nir.NIRGraph:
    """NIR graph of a network of sums.

    Raises:
        ConversionError: a maximum pool, bursts or currents of each step, which NIR lacks; two nodes of one name.
    """
    import nir

    nodes: dict[str, Any] = {INPUT: nir.Input({"input": np.array(network.input_shape)})}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, tuple[int, ...]]] = {IMAGE: (INPUT, network.input_shape)}
    for place, layer in enumerate(network.layers):
        check_layer(layer)
        found, order = _layer_nodes(layer, ends, edges)
        own = f"{layer.name}{SUFFIX}"
        found[own] = neurons(layer, layer.bias, place=place, paths=json.dumps(order))
        edges += [(name, own) for name in order]
        if twice := nodes.keys() & found.keys():
            raise ConversionError(f"two parts of the network would be NIR's node '{min(twice)}': rename a module")
        nodes |= found
        ends[layer.name] = (own, layer.shape)
    last, shape = ends[network.layers[-1].name]
    chain = {READOUT: read_out(network), "output": nir.Output({"output": np.array([network.classes])})}
    if len(shape) > 1:
        chain = {f"{READOUT}.flatten": flatten(shape), **chain}
    nodes |= chain
    edges += pairwise([last, *chain])
    return nir.NIRGraph(nodes, edges, metadata=dict(metadata), type_check=not misjudged(network))


def _layer_nodes(
    layer: SpikingLayer, ends: Mapping[str, tuple[str, tuple[int, ...]]], edges: list[tuple[str, str]]
) -> tuple[dict[str, Any], list[str]]:
    """Nodes of a layer's paths, their edges added to `edges`; and the last node of each path, in the sum's order."""
    found: dict[str, Any] = {}
    order: list[str] = []
    for number, path in enumerate(layer.paths):
        label = layer.name if len(layer.paths) == 1 else f"{layer.name}.path{number}"
        source, shape = ends[path.source]
        offset = layer.offset if number == len(layer.paths) - 1 else None
        chain = dict(_path_nodes(path, label, shape, layer.shape, offset))
        edges += pairwise([source, *chain])
        found |= chain
        order.append(list(chain)[-1] if chain else source)
    return found, order


def _path_nodes(
    path: Path, label: str, before: tuple[int, ...], shape: tuple[int, ...], offset: Tensor | None
) -> Iterator[tuple[str, Any]]:
    """Nodes of one path, in order. `before`: shape of its source; `offset`: the layer's, if it is the last path."""
    import nir

    if path.op == "linear" and len(before) > 1:
        yield f"{label}.flatten", flatten(before)
    if path.weight is not None:
        alone = path.pool is None and path.scale is None
        yield label, _map(path, before, offset if alone else None)
        offset = None if alone else offset
    if path.pool is not None:
        yield f"{label}.sum", nir.SumPool2d(*map(np.array, (path.pool.kernel, path.pool.stride, path.pool.padding)))
    if offset is not None:
        yield f"{label}.affine", _affine(path.scale, offset, shape)
    elif path.scale is not None:
        yield f"{label}.scale", nir.Scale(per_output(path.scale.cpu(), shape).expand(shape).numpy().copy())


def _map(path: Path, before: tuple[int, ...], bias: Tensor | None) -> Any:
    import nir

    assert path.weight is not None
    said: dict[str, Any] = {"bsnn": {"integers": int(path.binary)}}
    weight = path.weight.float().cpu().numpy()
    shift = None if bias is None else bias.cpu().numpy()
    if path.op == "linear":
        return nir.Linear(weight, metadata=said) if shift is None else nir.Affine(weight, shift, metadata=said)
    shift = np.zeros(len(weight), np.float32) if shift is None else shift
    how = (path.stride, path.padding, path.dilation, path.groups)
    return nir.Conv2d(before[1:], weight, *how, shift, metadata=said)


def _affine(scale: Tensor | None, offset: Tensor, shape: tuple[int, ...]) -> Any:
    """One factor and one shift for each channel: a diagonal matrix, whose zeros add nothing."""
    import nir

    each = torch.ones_like(offset) if scale is None else scale
    weight, bias = torch.diag(each.cpu()).numpy(), offset.cpu().numpy()
    if len(shape) == 1:
        return nir.Affine(weight, bias)
    return nir.Conv2d(shape[1:], weight[:, :, None, None], 1, 0, 1, 1, bias)


def written(found: Iterable[Neurons]) -> bool:
    """Whether neurons are those of a network of sums."""
    return any("paths" in own.said for own in found)


def network(source: nir.NIRGraph, found: Mapping[str, Neurons]) -> SpikingNetwork:
    """The network of sums from a graph as `graph` makes it. `found`: neurons by the name of their node.

    Raises:
        ArtifactError: a path that does not come from neurons or the input.
    """
    before: dict[str, list[str]] = {}
    for one, other in source.edges:
        before.setdefault(other, []).append(one)
    layers: list[SpikingLayer] = []
    for own in sorted(found.values(), key=lambda own: int(own.said["place"])):
        paths: list[Path] = []
        offset: Tensor | None = None
        for last in json.loads(text(own.said["paths"])):
            path, offset = _path(source, before, last)
            paths.append(path)
        layers.append(
            SpikingLayer(
                own.name,
                "sum",
                own.shape,
                threshold=own.threshold,
                initial=own.initial,
                bias=own.bias,
                signed=own.signed,
                paths=tuple(paths),
                offset=offset,
            )
        )
    shape = tuple(int(size) for size in source.nodes[INPUT].input_type["input"])
    readout, bias = read_out_of(source)
    return SpikingNetwork(tuple(layers), readout, shape, bias)  # type: ignore[arg-type]


def _path(source: nir.NIRGraph, before: Mapping[str, list[str]], last: str) -> tuple[Path, Tensor | None]:
    """The path that ends in a node, and the bias that its nodes carry, where it is not zero."""
    import nir

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
        elif isinstance(node, nir.Scale):
            scale = torch.from_numpy(np.asarray(node.scale)).float()
            how["scale"] = scale.flatten(1)[:, 0].clone() if scale.dim() > 1 else scale
        elif label.endswith(".affine"):
            scale = torch.from_numpy(np.asarray(node.weight)).float().flatten(1).diagonal().clone()
            how["scale"] = None if bool((scale == 1).all()) else scale
        elif not isinstance(node, nir.Flatten):
            how |= _weighted(label, node)
        offset = _bias(node) if hasattr(node, "bias") else offset
    return Path(origin, **how), offset


def _weighted(label: str, node: Any) -> dict[str, Any]:
    """Arguments of a path with weights."""
    import nir

    weight = torch.from_numpy(np.asarray(node.weight))
    binary = bool(int(node.metadata["bsnn"]["integers"]))
    how: dict[str, Any] = {"name": label, "weight": weight.to(torch.int8) if binary else weight.float()}
    if not isinstance(node, nir.Conv2d):
        return how | {"op": "linear"}
    pairs = {name: _pair(getattr(node, name)) for name in ("stride", "padding", "dilation")}
    return how | {"op": "conv", "groups": int(node.groups), **pairs}


def _bias(node: Any) -> Tensor | None:
    bias = torch.from_numpy(np.asarray(node.bias)).float()
    return bias if bool(bias.any()) else None


def _pair(given: Any) -> Pair:
    height, width = (int(size) for size in np.broadcast_to(given, 2))
    return height, width
