"""The same spiking network, simulated as the users of other tools would: a side takes (network, images, steps).

Every side gets the same converted network, images and steps and its best documented mode, and returns the spikes of
the last hidden layer summed over time, [N, units], so that results can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.conversion.spiking import input_current
from bsnn.engines import create
from bsnn.graphs.forward import weighted

Side = Callable[[SpikingNetwork, Tensor, int], Callable[[], Tensor]]


def engine(name: str, memory_mib: int) -> Side:
    """One of the project's engines, in groups and blocks of its own choice, as bsnn.simulation.run does it."""

    def prepare(network: SpikingNetwork, images: Tensor, steps: int) -> Callable[[], Tensor]:
        made = create(name, network, images.device, memory_mib)

        def simulate() -> Tensor:
            return torch.cat([together(some) for some in images.split(made.together(len(images)))])

        def together(some: Tensor) -> Tensor:
            state, total, done = made.start(some), torch.zeros((), device=some.device), 0
            while done < steps:
                size = min(steps - done, made.block(len(some)))
                state, block = made.advance(state, size)
                total = total + block.spikes.sum(0, dtype=torch.int32)
                done += size
            return total

        return simulate

    return prepare


def plain(network: SpikingNetwork, images: Tensor, steps: int) -> Callable[[], Tensor]:
    """Plain torch, one step after the other, float32: what one writes by hand."""
    network = network.to(images.device)
    current = input_current(network, images)
    paths = [replace(path, weight=path.weight.float()) for [path] in network.sums]

    def simulate() -> Tensor:
        v = [torch.zeros(len(images), *layer.shape, device=images.device) for layer in network.layers]
        total = torch.zeros((), device=images.device)
        for _ in range(steps):
            x = current
            for index, (layer, path) in enumerate(zip(network.layers, paths, strict=True)):
                if index:
                    x = weighted(path, x)
                threshold = per_output(layer.threshold, layer.shape)
                v[index] = v[index] + x
                x = (v[index] >= threshold).float()
                v[index] = v[index] - x * threshold
            total = total + x.flatten(1)
        return total

    return simulate


class _Scaled(nn.Module):
    """Currents in units of the threshold, as SpikingJelly's neurons take one threshold for a whole layer."""

    def __init__(self, layer: SpikingLayer) -> None:
        super().__init__()
        scale = 1 / per_output(layer.threshold, layer.shape)
        self.register_buffer("scale", scale * (4 if layer.pool == "average" else 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def spikingjelly(network: SpikingNetwork, images: Tensor, steps: int) -> Callable[[], Tensor]:
    """SpikingJelly in its multi-step mode: layer by layer, all steps at once; weights divided by the thresholds."""
    from spikingjelly.activation_based import functional, layer, neuron

    modules: list[nn.Module] = []
    for index, one in enumerate(network.layers):
        scale = 1 / one.threshold * (4 if one.pool == "average" else 1)
        if index:
            conv = one.op == "conv"
            made = (
                layer.Conv2d(one.weight.shape[1], one.weight.shape[0], 3, padding=1, bias=False)
                if conv
                else layer.Linear(one.weight.shape[1], one.weight.shape[0], bias=False)
            )
            shape = (-1, 1, 1, 1) if conv else (-1, 1)
            made.weight.data = one.weight.float() * scale.reshape(shape)
            modules += [made] + ([layer.AvgPool2d(2)] if one.pool == "average" else [])
        modules.append(neuron.IFNode(v_threshold=1.0, v_reset=None))
        if index + 1 < len(network.layers) and network.layers[index + 1].op == "linear" and one.op == "conv":
            modules.append(layer.Flatten())
    net = nn.Sequential(*modules).to(images.device).eval()
    functional.set_step_mode(net, "m")
    first = network.layers[0]
    current = input_current(network.to(images.device), images) / per_output(
        first.threshold.to(images.device), first.shape
    )

    def simulate() -> Tensor:
        functional.reset_net(net)
        with torch.no_grad():
            return net(current.expand(steps, *current.shape)).sum(0).flatten(1)

    return simulate


def dense(network: SpikingNetwork, images: Tensor, steps: int) -> Callable[[], Tensor]:
    """The dense network, T forward passes in float32: what a simulation must beat to be worth its name."""
    network = network.to(images.device)
    current = input_current(network, images)
    paths = [replace(path, weight=path.weight.float()) for [path] in network.sums[1:]]

    def simulate() -> Tensor:
        with torch.no_grad():
            for _ in range(steps):
                x = torch.relu(current)
                for path in paths:
                    x = torch.relu(weighted(path, x))
        return x

    return simulate


def sides(device: str, memory_mib: int) -> dict[str, Side]:
    """All sides for a device, the reference first."""
    found: dict[str, Side] = {
        "bindsnet": engine("bindsnet", memory_mib),
        "spikingjelly": spikingjelly,
        "plain torch": plain,
        "dense ANN x T": dense,
        "torch": engine("torch", memory_mib),
    }
    fast = "triton" if device == "cuda" else "packed"
    return {**found, fast: engine(fast, memory_mib)}
