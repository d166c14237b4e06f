"""Small networks that several tests share: random weights, thresholds from the network's own activations."""

from __future__ import annotations

import torch
from torch import Tensor

from bsnn import config
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.conversion.spiking import convert
from bsnn.networks.vgg import VGG, Trained

VGG15 = [64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P"]


def network_settings(**changes: object) -> config.Network:
    """A small member of the family: four convolutions, two pools, two linear layers."""
    settings = {"features": [8, 8, "P", 16, 16, "P"], "hidden": [32], "dropout": 0.0, **changes}
    return config.Network.model_validate(settings)


def trained(
    seed: int,
    *,
    binary: bool = True,
    size: int = 8,
    classes: int = 10,
    keep_full: bool = True,
    **changes: object,
) -> Trained:
    """A network with random weights; with `binary`, random signs and scaling factors in all but first and last."""
    torch.manual_seed(seed)
    module = VGG(network_settings(**changes), (3, size, size), classes).eval()
    signs: dict[str, Tensor] = {}
    alphas: dict[str, Tensor] = {}
    inner = module.plan[1:-1] if keep_full else module.plan
    for layer in inner if binary else ():
        parameter = module.get_submodule(layer.name).get_parameter("weight")
        centred = parameter.data - parameter.data.mean(1, keepdim=True)
        signs[layer.name] = torch.where(centred >= 0, 1, -1).to(torch.int8)
        alphas[layer.name] = centred.abs().flatten(1).mean(1)
        shape = (-1, *[1] * (parameter.dim() - 1))
        parameter.data = alphas[layer.name].reshape(shape) * signs[layer.name]
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return Trained(module, tuple(map(str, range(classes))), (0.5,) * 3, (0.25,) * 3, signs, alphas)


def images(seed: int, count: int, size: int = 8) -> Tensor:
    """Random normalised images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def thresholds(network: Trained, batch: Tensor, percentile: float = 99.0) -> dict[str, float]:
    """Percentile of the network's own activations, for each observed layer."""
    found: dict[str, float] = {}

    def observe(name: str, values: Tensor) -> None:
        found[name] = float(torch.quantile(values.flatten()[: 2**23].double(), percentile / 100)) or 1.0

    with torch.no_grad():
        network.module(batch, observe)
    return found


def spiking(seed: int, *, initial: float = 0.0, size: int = 8, **changes: object) -> SpikingNetwork:
    """A converted network with random weights."""
    source = trained(seed, size=size, **changes)  # type: ignore[arg-type]
    return convert(source, thresholds(source, images(seed + 1000, 8, size)), initial=initial)


def neuron(threshold: float = 1.0, units: int = 1) -> SpikingNetwork:
    """`units` pixels in a row, each handed to a neuron of its own; read out by two classes."""
    centre = torch.zeros(1, 1, 3, 3)
    centre[..., 1, 1] = 1
    layer = SpikingLayer("conv1", "conv", (1, 1, units), centre, threshold=torch.tensor([threshold]))
    return SpikingNetwork((layer,), torch.ones(2, units, dtype=torch.float64), (1, 1, units))


def row(*pixels: float) -> Tensor:
    """An image for `neuron`."""
    return torch.tensor([[[list(pixels)]]])
