"""Neurons and read-out as nodes of NIR, and what a node's metadata says beside them.

NIR's IF neuron fires above its threshold and resets to a value. What it cannot say stands in the metadata of its node,
under "bsnn": soft reset (`reset: subtract`), firing at the threshold (`fires: at`), potentials before the first step,
signed spikes, and a bias that no map before the neurons carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.errors import ArtifactError, ConversionError

if TYPE_CHECKING:
    import nir

READOUT = "readout"
SUFFIX = ".neurons"


@dataclass(frozen=True)
class Neurons:
    """A layer's neurons, as read from their node."""

    name: str  # of the layer
    shape: tuple[int, ...]
    threshold: Tensor  # float32 [channels or units]
    initial: Tensor | None
    bias: Tensor | None
    signed: bool
    said: Mapping[str, Any]  # what the node's metadata holds


def check_layer(layer: SpikingLayer) -> None:
    """Refuse what no node of NIR does.

    Raises:
        ConversionError: a maximum pool, bursts, or currents of each step.
    """
    pools = {layer.pool, *(path.pool.kind for path in layer.paths if path.pool is not None)}
    if "max" in pools:
        raise ConversionError(f"layer '{layer.name}' has a maximum pool, for which NIR has no node")
    if layer.burst > 1:
        raise ConversionError(f"layer '{layer.name}' sends bursts, which NIR's neurons do not")
    if layer.schedule is not None:
        raise ConversionError(
            f"layer '{layer.name}' gets another current at each step (a temporal correction), and NIR's maps have "
            "one bias: export a method without it"
        )


def neurons(layer: SpikingLayer, bias: Tensor | None, **more: Any) -> nir.IF:
    """Node of a layer's neurons.

    Args:
        layer: that has neurons.
        bias: which no map before them carries.
        more: what else its metadata is to say.
    """
    import nir

    assert layer.threshold is not None
    threshold = per_output(layer.threshold.cpu(), layer.shape).expand(layer.shape).numpy().copy()
    said: dict[str, Any] = {"reset": "subtract", "fires": "at", "signed": int(layer.signed), **more}
    if layer.initial is not None:
        said["initial"] = layer.initial.cpu().numpy()
    if bias is not None:
        said["bias"] = bias.cpu().numpy()
    return nir.IF(np.ones_like(threshold), threshold, metadata={"bsnn": said})


def of_node(name: str, node: nir.IF) -> Neurons:
    """Neurons from their node.

    Raises:
        ArtifactError: it was not written by this project.
    """
    said = node.metadata.get("bsnn")
    if said is None or text(said["reset"]) != "subtract":
        raise ArtifactError(f"NIR node '{name}': does not say that its neurons reset by subtraction; not from bsnn")
    threshold = torch.from_numpy(np.asarray(node.v_threshold)).float()
    shape = tuple(threshold.shape)
    return Neurons(
        name.removesuffix(SUFFIX),
        shape,
        threshold.flatten(1)[:, 0].clone() if len(shape) > 1 else threshold,
        _values(said.get("initial")),
        _values(said.get("bias")),
        bool(int(said["signed"])),
        said,
    )


def _values(given: Any) -> Tensor | None:
    return None if given is None else torch.from_numpy(np.asarray(given)).float()


def text(value: Any) -> str:
    """A text of the metadata, which files give as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def flatten(shape: tuple[int, ...]) -> nir.Flatten:
    """Node that flattens a map."""
    import nir

    return nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)


def read_out(network: SpikingNetwork) -> nir.Linear | nir.Affine:
    """Node of the read-out, float64, with its bias where there is one."""
    import nir

    weight, bias = network.readout.cpu().numpy(), network.readout_bias
    return nir.Linear(weight) if bias is None else nir.Affine(weight, bias.cpu().numpy())


def read_out_of(source: nir.NIRGraph) -> tuple[Tensor, Tensor | None]:
    """Weights and bias of the read-out, float64."""
    node = source.nodes[READOUT]
    bias = getattr(node, "bias", None)
    weight = torch.from_numpy(np.asarray(node.weight)).double()
    return weight, None if bias is None else torch.from_numpy(np.asarray(bias)).double()
