"""The converted network in NIR (Neuromorphic Intermediate Representation; Pedersen et al. 2024), and back.

A chain: input, then for each layer a convolution or a linear map, a sum over 2x2 where its currents are pooled, and
integrate-and-fire neurons; last the read-out as a linear map. Weights of +-1 stay as they are, and so do thresholds.
Networks whose layers are sums of paths become graphs of such nodes (bsnn.nir_branches).

What NIR's neurons cannot say stands in their nodes' metadata (bsnn.nir_neurons). A simulator that does not read it
gives other spikes, which `write` says in a warning. Maximum pools have no node in NIR.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bsnn import artifacts, nir_branches
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.errors import ArtifactError, ConversionError
from bsnn.nir_neurons import READOUT, Neurons, check_layer, flatten, neurons, of_node, read_out, read_out_of

if TYPE_CHECKING:
    import nir

logger = logging.getLogger("bsnn")
UNSAID = "soft reset, firing at the threshold, initial potentials, signed spikes, biases of pools (they are metadata)"


def graph(network: SpikingNetwork, about: str = "") -> nir.NIRGraph:
    """NIR graph of a converted network.

    Args:
        network: the converted network.
        about: where it comes from, for the graph's metadata.

    Raises:
        ConversionError: a maximum pool, bursts or currents of each step, which NIR lacks, or a bias of single neurons
            where a map carries it.
    """
    import nir

    if network.branched:
        return nir_branches.graph(network, {"bsnn": f"{UNSAID}; {nir_branches.UNSAID}", "about": about})
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(network.input_shape)})}
    shape: tuple[int, ...] = network.input_shape
    for layer in network.layers:
        check_layer(layer)
        nodes |= dict(_nodes(layer, shape))
        shape = layer.shape
    if len(shape) > 1:
        nodes[f"{READOUT}.flatten"] = flatten(shape)
    nodes[READOUT] = read_out(network)
    nodes["output"] = nir.Output({"output": np.array([network.classes])})
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), metadata={"bsnn": UNSAID, "about": about})


def _nodes(layer: SpikingLayer, before: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Nodes of one layer, in order: [flatten,] [map,] [sum,] neurons."""
    import nir

    if layer.weight is not None:
        weight, bias = layer.weight.float().cpu(), _bias(layer).numpy()
        if layer.op == "conv":
            yield layer.name, nir.Conv2d(before[1:], weight.numpy(), 1, 1, 1, 1, bias)
        else:
            if len(before) > 1:
                yield f"{layer.name}.flatten", flatten(before)
            yield layer.name, nir.Affine(weight.numpy(), bias)
    if layer.pool is not None:
        two, none = np.array([2, 2]), np.array([0, 0])
        yield f"{layer.name}.sum", nir.SumPool2d(two, two, none)
    if layer.fires:
        own = layer.bias if layer.weight is None else None  # no map before it to carry it
        yield f"{layer.name}.neurons", neurons(layer, own)


def _bias(layer: SpikingLayer) -> Tensor:
    """Bias of the map, one per channel; before a sum of four, a quarter of the layer's (a power of two: exact)."""
    channels = layer.shape[0]
    if layer.bias is None:
        return torch.zeros(channels)
    if layer.bias.numel() != channels:
        raise ConversionError(f"layer '{layer.name}' has a bias of single neurons; NIR's maps have one a channel")
    return layer.bias.cpu().reshape(-1) / (4 if layer.pool else 1)


def network(source: nir.NIRGraph) -> SpikingNetwork:
    """The converted network from a graph as `graph` makes it.

    Raises:
        ArtifactError: a graph of another kind.
    """
    import nir

    found = {name: of_node(name, node) for name, node in source.nodes.items() if isinstance(node, nir.IF)}
    if not isinstance(source.nodes.get(READOUT), nir.Linear | nir.Affine) or not found:
        raise ArtifactError("the NIR graph was not written by bsnn: it has no read-out, or no neurons")
    if nir_branches.written(found.values()):
        return nir_branches.network(source, found)
    layers: list[SpikingLayer] = []
    weight, bias, pooled = None, None, False
    for name, node in _chain(source):
        if isinstance(node, nir.Conv2d | nir.Affine) and name != READOUT:
            weight, bias = torch.from_numpy(np.asarray(node.weight)), torch.from_numpy(np.asarray(node.bias))
        elif isinstance(node, nir.SumPool2d):
            pooled = True
        elif isinstance(node, nir.IF):
            layers.append(_layer(found[name], weight, bias, pooled, first=not layers))
            weight, bias, pooled = None, None, False
    input_shape = tuple(int(size) for size in source.nodes["input"].input_type["input"])
    readout, readout_bias = read_out_of(source)
    return SpikingNetwork(tuple(layers), readout, input_shape, readout_bias)  # type: ignore[arg-type]


def _chain(source: nir.NIRGraph) -> Iterator[tuple[str, Any]]:
    """Nodes from the input on; a file keeps them in the order of their names."""
    following, name = dict(source.edges), "input"
    while name in following:
        name = following[name]
        yield name, source.nodes[name]


def _layer(own: Neurons, weight: Tensor | None, bias: Tensor | None, pooled: bool, *, first: bool) -> SpikingLayer:
    op = "pool" if weight is None else "conv" if weight.dim() == 4 else "linear"
    if weight is not None:
        binary = not first and bool((weight.abs() == 1).all())
        weight = weight.to(torch.int8) if binary else weight.float()
        bias = None if bias is None or not bool(bias.any()) else bias.float() * (4 if pooled else 1)
    return SpikingLayer(
        own.name,
        op,  # type: ignore[arg-type]
        own.shape,
        weight,
        "average" if pooled else None,
        own.threshold,
        own.initial,
        own.bias if weight is None else bias,
        own.signed,
    )


def write(path: str | Path, source: SpikingNetwork, about: str = "") -> None:
    """Write the network as NIR (HDF5), whole or not at all, and warn of what the format cannot say.

    Args:
        path: file to write.
        source: the converted network.
        about: where it comes from, for the graph's metadata.

    Raises:
        ConversionError: see `graph`.
        ArtifactError: when the file cannot be written.
    """
    import nir

    made = graph(source, about)
    with artifacts.replacing(path) as temporary:
        nir.write(temporary, made)
    unsaid = f"{UNSAID}; {nir_branches.UNSAID}" if source.branched else UNSAID
    logger.warning("%s: NIR's neurons know none of these, as far as the network has them: %s", path, unsaid)
    if nir_branches.misjudged(source):
        logger.warning("%s: read it with nir.read(..., type_check=False): %s", path, nir_branches.MISJUDGED)


def read(path: str | Path) -> SpikingNetwork:
    """Read a network that `write` wrote.

    Raises:
        ArtifactError: missing, damaged, or of another kind.
    """
    import nir

    try:
        return network(nir.read(path, type_check=False))  # its check knows no groups (bsnn.nir_branches)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; write it with: bsnn export-nir") from None
    except (OSError, KeyError, AssertionError, ValueError) as error:
        raise ArtifactError(f"{path}: not a NIR graph as bsnn writes it ({error}); write it again") from error
