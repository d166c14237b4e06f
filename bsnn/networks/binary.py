"""Binary weights in XNOR-Net's weight-only form (Rastegari et al. 2016, section 3.1), as a parametrisation.

The forward weight of a binary layer is `alpha_o * sign(W_o)` with `alpha_o = mean |W_o|` over the filter of output
channel o and sign(0) = +1, so that no weight is ever 0 (XNOR-Net's code lets 0 stay 0). The latents W stay real: they
are centred over the input channels and clipped to [-1, 1] in place, once before the first forward pass and after each
optimiser step, and never in evaluation.

With a straight-through sign, autograd gives XNOR-Net's gradient

    dL/dW_i = alpha_o * g_i + sign(W_i) / n * sum_j sign(W_j) * g_j        (g: gradient of the binary weights)

except for XNOR-Net's factor (1 - 1/C_in) * n * 1e9, one constant per layer. (Its mask |W_i| <= 1 never acts on clipped
latents.) Adam is blind to such a factor, except that it makes L2 and eps vanish: binary latents therefore get no
weight decay and a small eps (see bsnn.training.recipe).
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bsnn import config
from bsnn.errors import ConfigError
from bsnn.graphs.description import IMAGE, Graph
from bsnn.graphs.forward import unpooled
from bsnn.networks.vgg import VGG, Trained, described


class _StraightThroughSign(torch.autograd.Function):
    """sign with sign(0) = +1; its gradient is taken for 1."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:
        return (latent >= 0).to(latent.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def sign(latent: Tensor) -> Tensor:
    """+1 where latent >= 0, else -1, in the latent's shape and type; straight-through in autograd."""
    result: Tensor = _StraightThroughSign.apply(latent)
    return result


def scale(latent: Tensor) -> Tensor:
    """alpha_o = mean |W_o| of each output channel's filter, of shape [outputs, 1, ...]."""
    return latent.abs().mean(dim=tuple(range(1, latent.dim())), keepdim=True)


class BinaryWeight(nn.Module):
    """The parametrisation: real latents in, alpha * sign out."""

    def forward(self, latent: Tensor) -> Tensor:
        """Binary weights of latents [outputs, inputs, ...]."""
        # Both factors have gradients: alpha's is the second term of the formula above.
        return scale(latent) * sign(latent)


def prepare(module: VGG, settings: config.Binarize) -> list[str]:
    """Make layers of a network binary; its weights become the latents.

    Args:
        module: network, changed in place.
        settings: which layers keep their real weights.

    Returns:
        Names of the binary layers.

    Raises:
        ConfigError: no layer would be binary.
    """
    ends = {"first": module.plan[0], "last": module.plan[-1]}
    full = [ends[name] for name in settings.keep_full]
    names = [layer.name for layer in module.plan if layer not in full]
    if not names:
        raise ConfigError(
            f"binarize.keep_full {settings.keep_full} leaves none of the {len(module.plan)} layers to be binary; "
            "keep fewer, or add layers to network.features or network.hidden"
        )
    for name in names:
        parametrize.register_parametrization(module.get_submodule(name), "weight", BinaryWeight())
    return names


def latents(module: VGG) -> dict[str, nn.Parameter]:
    """Latent weights of the binary layers, by layer name."""
    binary = [layer.name for layer in module.plan if parametrize.is_parametrized(module.get_submodule(layer.name))]
    return {name: module.get_parameter(f"{name}.parametrizations.weight.original") for name in binary}


@torch.no_grad()
def project_(module: VGG) -> None:
    """Centre the latents over their input channels (dimension 1) and clip them to [-1, 1], in place.

    To be called once before the first forward pass and after each optimiser step, never in evaluation.
    """
    for latent in latents(module).values():
        latent.sub_(latent.mean(dim=1, keepdim=True)).clamp_(-1, 1)


@torch.no_grad()
def parts(module: VGG) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Signs (int8, in the weights' shape) and alphas (float32 [outputs]) of the binary layers, by layer name.

    Computed as the forward pass computes them, on the same device: these bits are the network.
    """
    found = latents(module)
    signs = {name: sign(latent).to("cpu", torch.int8) for name, latent in found.items()}
    alphas = {name: scale(latent).flatten().cpu() for name, latent in found.items()}
    return signs, alphas


def summary(network: Trained | Graph) -> pd.DataFrame:
    """What each part with weights needs, one row for each, from input to read-out.

    Columns:
        layer: name.
        weights_1bit, weights_32bit: numbers of weights kept as one bit and as float32.
        memory_bytes: memory of the weights alone, packed.
        scale_bytes: memory of the scaling factors of binary weights (float32, one per output channel); a converted
            network needs none where its thresholds absorb them.
        macs: multiply-accumulates for one image, borders counted as if they were inside.
        binary: whether the weights are binary, hence their MACs accumulations.
    """
    graph = described(network)
    shapes = {IMAGE: tuple(graph.input_shape), **{layer.name: layer.shape for layer in graph.layers}}
    rows: list[dict[str, Any]] = []
    for path in graph.paths:
        if path.weight is None:
            continue
        # On the device meta: shapes alone, nothing is computed.
        places = unpooled(path.to("meta"), torch.zeros(1, *shapes[path.source], device="meta")).shape[2:]
        weights, binary = path.weight.numel(), path.signs
        rows.append(
            {
                "layer": path.name,
                "weights_1bit": weights if binary else 0,
                "weights_32bit": 0 if binary else weights,
                "memory_bytes": -(-weights // 8) if binary else 4 * weights,
                "scale_bytes": 4 * len(path.weight) if binary else 0,
                "macs": weights * math.prod(places),
                "binary": binary,
            }
        )
    return pd.DataFrame(rows)
