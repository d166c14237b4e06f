"""The converted network in NIR (Neuromorphic Intermediate Representation; Pedersen et al. 2024), and back.

A chain: input, then for each layer a convolution or a linear map, a sum over 2x2 where its currents are pooled, and
integrate-and-fire neurons; last the read-out as a linear map. Weights of +-1 stay as they are, and so do thresholds.

NIR's IF neuron fires above its threshold and resets to a value. What it cannot say stands in the metadata of its node,
under "bsnn": soft reset (`reset: subtract`), firing at the threshold (`fires: at`), potentials before the first step,
signed spikes, and a bias of neurons that pool spikes. A simulator that does not read them gives other spikes, which
`write` says in a warning. Maximum pools have no node in NIR.
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

from bsnn import artifacts
from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork, per_output, require_chain
from bsnn.errors import ArtifactError, ConversionError

if TYPE_CHECKING:
    import nir

logger = logging.getLogger("bsnn")
READOUT = "readout"
UNSAID = "soft reset, firing at the threshold, initial potentials, signed spikes, biases of pools (they are metadata)"


def graph(network: SpikingNetwork, about: str = "") -> nir.NIRGraph:
    """NIR graph of a converted network.

    Args:
        network: the converted network.
        about: where it comes from, for the graph's metadata.

    Raises:
        ConversionError: a maximum pool, bursts or currents of each step, which NIR lacks, a bias of single neurons, or
            a graph of layers.
    """
    import nir

    require_chain(network, "export to NIR")
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(network.input_shape)})}
    shape: tuple[int, ...] = network.input_shape
    for layer in network.layers:
        if layer.pool == "max":
            raise ConversionError(f"layer '{layer.name}' has a maximum pool, for which NIR has no node")
        if layer.burst > 1:
            raise ConversionError(f"layer '{layer.name}' sends bursts, which NIR's neurons do not")
        if layer.schedule is not None:
            raise ConversionError(
                f"layer '{layer.name}' gets another current at each step (a temporal correction), and NIR's maps have "
                "one bias: export a method without it"
            )
        nodes |= dict(_nodes(layer, shape))
        shape = layer.shape
    if len(shape) > 1:
        nodes[f"{READOUT}.flatten"] = _flatten(shape)
    nodes[READOUT] = nir.Linear(network.readout.cpu().numpy())
    nodes["output"] = nir.Output({"output": np.array([network.classes])})
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), metadata={"bsnn": UNSAID, "about": about})


def _flatten(shape: tuple[int, ...]) -> nir.Flatten:
    import nir

    return nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)


def _nodes(layer: SpikingLayer, before: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Nodes of one layer, in order: [flatten,] [map,] [sum,] neurons."""
    import nir

    if layer.weight is not None:
        weight, bias = layer.weight.float().cpu(), _bias(layer).numpy()
        if layer.op == "conv":
            yield layer.name, nir.Conv2d(before[1:], weight.numpy(), 1, 1, 1, 1, bias)
        else:
            if len(before) > 1:
                yield f"{layer.name}.flatten", _flatten(before)
            yield layer.name, nir.Affine(weight.numpy(), bias)
    if layer.pool is not None:
        two, none = np.array([2, 2]), np.array([0, 0])
        yield f"{layer.name}.sum", nir.SumPool2d(two, two, none)
    if layer.threshold is not None:
        threshold = per_output(layer.threshold.cpu(), layer.shape).expand(layer.shape).numpy().copy()
        said: dict[str, Any] = {"reset": "subtract", "fires": "at", "signed": int(layer.signed)}
        if layer.initial is not None:
            said["initial"] = layer.initial.cpu().numpy()
        if layer.weight is None and layer.bias is not None:  # no map before it to carry it
            said["bias"] = layer.bias.cpu().numpy()
        yield f"{layer.name}.neurons", nir.IF(np.ones_like(threshold), threshold, metadata={"bsnn": said})


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

    layers: list[SpikingLayer] = []
    input_shape = tuple(int(size) for size in source.nodes["input"].input_type["input"])
    weight, bias, pooled = None, None, False
    for name, node in _chain(source):
        if isinstance(node, nir.Conv2d | nir.Affine):
            weight, bias = torch.from_numpy(np.asarray(node.weight)), torch.from_numpy(np.asarray(node.bias))
        elif isinstance(node, nir.SumPool2d):
            pooled = True
        elif isinstance(node, nir.IF):
            layers.append(_layer(name.removesuffix(".neurons"), node, weight, bias, pooled, first=not layers))
            weight, bias, pooled = None, None, False
    if not isinstance(source.nodes.get(READOUT), nir.Linear) or not layers:
        raise ArtifactError("the NIR graph was not written by bsnn: it has no read-out, or no neurons")
    readout = torch.from_numpy(np.asarray(source.nodes[READOUT].weight)).double()
    return SpikingNetwork(tuple(layers), readout, input_shape)  # type: ignore[arg-type]


def _chain(source: nir.NIRGraph) -> Iterator[tuple[str, Any]]:
    """Nodes from the input on; a file keeps them in the order of their names."""
    following, name = dict(source.edges), "input"
    while name in following:
        name = following[name]
        yield name, source.nodes[name]


def _layer(
    name: str, node: nir.IF, weight: Tensor | None, bias: Tensor | None, pooled: bool, *, first: bool
) -> SpikingLayer:
    said = node.metadata.get("bsnn")
    if said is None or _text(said["reset"]) != "subtract":
        raise ArtifactError(f"NIR node '{name}': does not say that its neurons reset by subtraction; not from bsnn")
    threshold = torch.from_numpy(np.asarray(node.v_threshold)).float()
    shape = tuple(threshold.shape)
    op = "pool" if weight is None else "conv" if weight.dim() == 4 else "linear"
    if weight is not None:
        binary = not first and bool((weight.abs() == 1).all())
        weight = weight.to(torch.int8) if binary else weight.float()
    initial, own_bias = said.get("initial"), said.get("bias")
    if own_bias is not None:
        bias = torch.from_numpy(np.asarray(own_bias)) / (4 if pooled else 1)
    return SpikingLayer(
        name,
        op,  # type: ignore[arg-type]
        shape,
        weight,
        "average" if pooled else None,
        threshold.flatten(1)[:, 0].clone() if len(shape) > 1 else threshold,
        None if initial is None else torch.from_numpy(np.asarray(initial)).float(),
        None if bias is None or not bool(bias.any()) else bias.float() * (4 if pooled else 1),
        bool(int(said["signed"])),
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


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
    logger.warning("%s: NIR's neurons know none of these, as far as the network has them: %s", path, UNSAID)


def read(path: str | Path) -> SpikingNetwork:
    """Read a network that `write` wrote.

    Raises:
        ArtifactError: missing, damaged, or of another kind.
    """
    import nir

    try:
        return network(nir.read(path))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; write it with: bsnn export-nir") from None
    except (OSError, KeyError, AssertionError, ValueError) as error:
        raise ArtifactError(f"{path}: not a NIR graph as bsnn writes it ({error}); write it again") from error
