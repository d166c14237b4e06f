"""Engine `bindsnet`: the network in BindsNET's own Network, with its nodes and connections, one step at a time.

BindsNET (Hazan et al. 2018, AGPL-3.0) is the reference that the paper used. Its converter knows neither the average
pool nor networks without biases nor sums of branches, so `build` puts the network together from its parts:

- an `Input` for each path that reads the image holds its constant term;
- `Conv2dConnection` and `Connection` hold the weights, unscaled, where BindsNET has such connections;
- a path with a pool or a scale, and each of several, has `PassThroughNodes` that hold its weighted sums, as in the
  original, and a `TermConnection` that pools and scales them on their way to the neurons. BindsNET adds up the
  connections of a layer in the order in which they were added: that of the paths;
- `IFNodes` here are `SubtractiveResetIFNodes` with one threshold per channel (BindsNET's reset subtracts through a mask
  and takes one number per layer), and spikes of 0 or 1 as booleans, or of -1, 0, 1 as float32 for signed layers.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from bindsnet.conversion.nodes import PassThroughNodes
from bindsnet.network import Network
from bindsnet.network.monitors import AbstractMonitor
from bindsnet.network.nodes import Input, Nodes
from bindsnet.network.topology import AbstractConnection, Connection, Conv2dConnection
from torch import Tensor

from bsnn.conversion.layers import SpikingNetwork
from bsnn.engines.base import Block, Engine, State, at_rest, direct_sums, full_float32, within_schedules
from bsnn.engines.bindsnet_nodes import ConvolutionConnection, IdentityConnection, IFNodes, TermConnection
from bsnn.graphs.description import IMAGE, Path
from bsnn.graphs.forward import unpooled


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
        self.simulator = build(self.network, self.device)
        nodes = [self.simulator.layers[name] for name in labels(self.network)]
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
        step = 16 * sum(nodes.n for nodes in self.simulator.layers.values())
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
        held = zip(inputs(self.network), current, strict=True)
        terms = {name: values.clone().expand(steps, *values.shape) for name, values in held}
        with full_float32(self.device):
            self.simulator.run(terms, time=steps, one_step=True)
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
            # set_batch_size has just put zeros into v
            nodes.v, nodes.sent, nodes.step = v, count, done


def labels(network: SpikingNetwork) -> list[str]:
    """Names of all layers in the BindsNET network, whose names must not hold a dot; the number keeps them apart."""
    return [f"{layer.name.replace('.', '_')}_{index}" for index, layer in enumerate(network.layers)]


def inputs(network: SpikingNetwork) -> list[str]:
    """Names of the inputs, one for each path that reads the image, in the order of `image_terms`; none is a layer's."""
    found = sum(path.source == IMAGE for paths in network.sums for path in paths)
    return [f"image{index}" for index in range(found)]


def build(network: SpikingNetwork, device: torch.device | str = "cpu") -> Network:
    """BindsNET network, fed with the terms [time, N, *shape] of the paths that read the image at `inputs`.

    With `run(..., one_step=False)` each connection delays by one step (see bsnn.simulation.readout.propagation_delays).

    Args:
        network: on the device.
        device: where it is simulated.
    """
    device = torch.device(device)
    made = Network(learning=False)
    names = dict(zip([layer.name for layer in network.layers], labels(network), strict=True))
    shapes = {layer.name: layer.shape for layer in network.layers}
    images = iter(inputs(network))
    for layer, paths in zip(network.layers, network.sums, strict=True):
        bare = len(paths) == 1 and paths[0].pool is None and paths[0].scale is None  # no more than weighted sums
        # bare sums are rounded by the neurons themselves, others by their TermConnection, before pool and scale
        rounds = [path.binary and path.source != IMAGE and not direct_sums(device) for path in paths]
        target = IFNodes(layer, rounds=bare and rounds[0]) if layer.fires else _passing(layer.shape)
        terms: list[tuple[str, AbstractConnection]] = []
        for number, path in enumerate(paths):
            # BindsNET keys connections by (source, target): of several paths, each needs nodes of its own in between
            holds = len(paths) > 1 or (path.weight is not None and not bare)
            if path.source == IMAGE:
                source = next(images)
                made.add_layer(Input(shape=list(layer.shape)), source)
                path, shape = Path(IMAGE, "identity", path.name), layer.shape  # comes weighted, pooled and scaled
            else:
                source, shape = names[path.source], shapes[path.source]
            if holds:
                # only the shape is wanted: on the device `meta` nothing is computed
                sums = _passing(unpooled(path.to("meta"), torch.zeros(1, *shape, device="meta")).shape[1:])
                name = f"{names[layer.name]}_path_{number}"
                made.add_layer(sums, name)
                made.add_connection(_weights(made.layers[source], sums, path), source, name)
                source = name
            nodes = made.layers[source]
            term = _weights(nodes, target, path) if bare else TermConnection(nodes, target, path, rounds=rounds[number])
            terms.append((source, term))
        # after the nodes of its paths: in one-step mode BindsNET updates layers in the order in which they were added
        made.add_layer(target, names[layer.name])
        for source, term in terms:
            made.add_connection(term, source, names[layer.name])
    return made.to(device)


def _passing(shape: tuple[int, ...]) -> PassThroughNodes:
    return PassThroughNodes(shape=list(shape))


def _weights(source: Nodes, target: Nodes, path: Path) -> AbstractConnection:
    """Connection that gives a path's weighted sums."""
    if path.weight is None:
        return IdentityConnection(source, target)
    weight = path.weight.float()
    if path.op == "linear":
        return Connection(source, target, w=weight.T.contiguous())
    if path.groups > 1 or path.dilation != (1, 1):
        return ConvolutionConnection(source, target, path)
    settings: dict[str, Any] = {"kernel_size": tuple(weight.shape[-2:]), "stride": path.stride, "padding": path.padding}
    return Conv2dConnection(source, target, w=weight, **settings)
