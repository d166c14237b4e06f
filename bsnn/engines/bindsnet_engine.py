"""Engine `bindsnet`: the network in BindsNET's own Network, with its nodes and connections, one step at a time.

BindsNET (Hazan et al. 2018, AGPL-3.0) is the reference that the paper used. Its converter knows neither the average
pool nor networks without biases, so `build` puts the network together from its parts:

- `Input` holds the first layer's constant current; an identity connection hands it to the first neurons;
- `Conv2dConnection` and `Connection` hold the weights, unscaled;
- a pool lies behind `PassThroughNodes` that hold the sums, as in the original;
- `IFNodes` here are `SubtractiveResetIFNodes` with one threshold per channel (BindsNET's reset subtracts through a mask
  and takes one number per layer), and spikes of 0 or 1 as booleans, or of -1, 0, 1 as float32 for signed layers.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from bindsnet.conversion.nodes import PassThroughNodes
from bindsnet.network import Network
from bindsnet.network.monitors import AbstractMonitor
from bindsnet.network.nodes import Input, Nodes
from bindsnet.network.topology import AbstractConnection, Connection, Conv2dConnection
from torch import Tensor

from bsnn.conversion.currents import pool_currents
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines import bindsnet_branches
from bsnn.engines.base import Block, Engine, State, at_rest, direct_sums, full_float32, within_schedules
from bsnn.engines.bindsnet_nodes import IdentityConnection, IFNodes, WithoutWeights

INPUT = "input"


class PoolConnection(WithoutWeights):
    """2x2 pool: the sum of four for an average (the threshold carries the factor), or the maximum."""

    def __init__(self, source: Nodes, target: Nodes, layer: SpikingLayer) -> None:
        super().__init__(source, target)
        self.kind = layer.pool

    def compute(self, s: Tensor) -> Tensor:
        """Current of the target."""
        return pool_currents(s.float(), self.kind)


class SpikeCounter(AbstractMonitor):
    """After each step, counts the spikes of every layer with neurons and copies the last layer's."""

    def __init__(self, firing: list[Nodes], last: Nodes) -> None:
        self.firing = firing
        self.last = last
        self.reset_state_variables()

    def reset_state_variables(self) -> None:
        """Forget what was recorded."""
        self.counts: list[Tensor] = []
        self.spikes: list[Tensor] = []

    def record(self) -> None:
        """Called by the network after each step."""
        self.counts.append(torch.stack([nodes.s.flatten(1).count_nonzero(1) for nodes in self.firing]))
        self.spikes.append(self.last.s.flatten(1).to(torch.int8))


class BindsnetEngine(Engine):
    """The paper's simulator, in its one-step mode (`same-step` propagation)."""

    name: ClassVar[str] = "bindsnet"

    def __init__(self, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> None:
        super().__init__(network, device, memory_mib)
        branched = self.network.branched
        self._inputs = bindsnet_branches.inputs(self.network) if branched else [INPUT]
        self.simulator = (bindsnet_branches.build if branched else build)(self.network, self.device)
        names = bindsnet_branches.labels(self.network) if branched else [label(layer) for layer in self.network.layers]
        nodes = [self.simulator.layers[name] for name in names]
        self._firing = [some for some, layer in zip(nodes, self.network.layers, strict=True) if layer.fires]
        self._counter = SpikeCounter(self._firing, nodes[-1])
        self.simulator.add_monitor(self._counter, "counter")

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Takes every network on every device, except with bursts."""
        bursts = any(layer.burst > 1 for layer in network.layers)
        return "its neurons send one spike per step, no bursts (engine 'torch' takes it)" if bursts else None

    def block(self, images: int) -> int:
        """One step needs every layer at once, whatever the number of steps; only the last layer's spikes add up."""
        step = 16 * sum(
            layer.neurons * (5 if layer.pool else 1 + 5 * len(layer.paths)) for layer in self.network.layers
        )
        return max(1, (self.memory // max(images, 1) - step) // self.network.layers[-1].neurons)

    def start(self, images: Tensor) -> State:
        """Constant current, initial potentials, and for signed layers the spikes sent so far."""
        return at_rest(self.network, images)

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance by `steps` time steps; the network's membranes are taken from the state and put back."""
        current = cast(list[Tensor], state.tensors["current"])
        potential = cast(list[Tensor], state.tensors["potential"])
        sent = cast(list[Tensor], state.tensors["sent"])
        within_schedules(self.network, state.steps + steps)
        self._load(len(current[0]), potential, sent, state.steps)
        # clones here and below, since BindsNET keeps what it is given, and its reset zeroes that in place
        held = zip(self._inputs, current, strict=True)
        inputs = {name: values.clone().expand(steps, *values.shape) for name, values in held}
        with full_float32(self.device):
            self.simulator.run(inputs, time=steps, one_step=True)
        potential[:] = [nodes.v.clone() for nodes in self._firing]
        sent[:] = [nodes.sent for nodes in self._firing]
        state.steps += steps
        return state, Block(torch.stack(self._counter.spikes), torch.stack(self._counter.counts))

    def _load(self, images: int, potential: list[Tensor], sent: list[Tensor], done: int) -> None:
        """Give the network so many images and these membranes, after `done` steps."""
        self._counter.reset_state_variables()
        self.simulator.batch_size = images
        for nodes in self.simulator.layers.values():
            nodes.set_batch_size(images)
        for nodes, v, count in zip(self._firing, potential, sent, strict=True):
            nodes.v, nodes.sent, nodes.step = v, count, done


def label(layer: SpikingLayer) -> str:
    """Name of a layer in the BindsNET network, whose names must not hold a dot."""
    return layer.name.replace(".", "_")


def build(network: SpikingNetwork, device: torch.device | str = "cpu") -> Network:
    """BindsNET network of a member of the VGG family, fed with the first layer's current [time, N, *shape] at `INPUT`.

    With `run(..., one_step=False)` each connection delays by one step (see bsnn.simulation.readout.propagation_delays).
    """
    device = torch.device(device)
    made = Network(learning=False)
    made.add_layer(Input(shape=list(network.layers[0].shape)), INPUT)
    before = INPUT
    for index, layer in enumerate(network.layers):
        if layer.pool and layer.op != "pool":
            before = _add_sums(made, before, layer, first=index == 0)
        nodes = _nodes(layer, exact_sums=index == 0 or direct_sums(device))
        made.add_layer(nodes, label(layer))
        made.add_connection(_connection(made.layers[before], nodes, layer, first=index == 0), before, label(layer))
        before = label(layer)
    return made.to(device)


def _nodes(layer: SpikingLayer, *, exact_sums: bool) -> Nodes:
    return IFNodes(layer, exact_sums=exact_sums) if layer.fires else _passing(layer.shape)


def _passing(shape: tuple[int, ...]) -> PassThroughNodes:
    return PassThroughNodes(shape=list(shape))


def _add_sums(made: Network, before: str, layer: SpikingLayer, *, first: bool) -> str:
    """Add the nodes that hold a layer's sums before its pool, and their connection; returns their name."""
    channels, height, width = layer.shape
    name = f"{label(layer)}_sums"
    # the first layer's current comes pooled
    nodes = _passing(layer.shape if first else (channels, 2 * height, 2 * width))
    made.add_layer(nodes, name)
    source = made.layers[before]
    made.add_connection(IdentityConnection(source, nodes) if first else _weights(source, nodes, layer), before, name)
    return name


def _connection(source: Nodes, target: Nodes, layer: SpikingLayer, *, first: bool) -> AbstractConnection:
    if first:
        return IdentityConnection(source, target)
    return PoolConnection(source, target, layer) if layer.pool else _weights(source, target, layer)


def _weights(source: Nodes, target: Nodes, layer: SpikingLayer) -> AbstractConnection:
    weight = cast(Tensor, layer.weight).float()
    if layer.op == "conv":
        return Conv2dConnection(source, target, kernel_size=3, padding=1, w=weight)
    return Connection(source, target, w=weight.T.contiguous())
