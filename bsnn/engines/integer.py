"""Engine `integer`: binary networks on a CPU, with int8 products, exact integer sums and spikes as bytes.

A group of images goes through a block of time steps layer by layer. Within a layer, as many steps at once as keep
its sums in the cache are summed by oneDNN (bsnn.engines.onednn) and scanned over time (bsnn.engines.scan); only bytes,
one a neuron and step, go on to the next layer. Images and sums lie channels last; results leave channels first.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd, prod
from typing import ClassVar, cast

import torch
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork, input_current, per_output
from bsnn.engines import onednn
from bsnn.engines.base import Block, Engine, State, initial_potential
from bsnn.engines.scan import Neurons

CACHE = 2**21  # bytes of sums at once for one thread
RECYCLED = 2**25  # bytes of one layer's spikes: larger buffers go back to the system each time, and cost a tenth


class IntegerEngine(Engine):
    """Fastest on a CPU with int8 dot products (AVX512-VNNI, AVX-VNNI, AMX); correct on others."""

    name: ClassVar[str] = "integer"

    def __init__(self, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> None:
        super().__init__(network, device, memory_mib)
        self._stages = list(_stages(self.network))
        self._cache = CACHE * torch.get_num_threads()
        largest = max((stage.sums for stage in self._stages[1:]), default=1)
        self._group = max(1, self._cache // (4 * largest))

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Takes networks with integer sums after the first layer, on a CPU whose torch has oneDNN's int8 products."""
        if device.type != "cpu":
            return "it runs on a CPU only"
        if not network.exact:
            return "a layer after the first has real weights, and sums must be integers (engine 'torch' takes it)"
        return _too_large(network) or onednn.missing()

    def block(self, images: int) -> int:
        """Steps whose spikes fit beside the state and the buffers of one group; more than `RECYCLED` does not pay."""
        units = self.network.layers[-1].neurons
        state = self._stages[0].neurons + sum(layer.neurons * (1 + layer.signed) for layer in self.network.firing)
        held = 4 * state * images + 4 * self._cache
        group = max(1, min(images, self._group))
        step = group * max(stage.inputs + stage.neurons for stage in self._stages)
        step += images * (units + 8 * len(self.network.firing))
        useful = RECYCLED // (group * max(stage.neurons for stage in self._stages))
        return max(1, min(useful, (self.memory - held) // step))

    @torch.no_grad()
    def start(self, images: Tensor) -> State:
        """Constant current, initial potentials, and for signed layers the spikes sent so far, all channels last."""
        first, firing = self.network.layers[0], self.network.firing
        current = torch.empty(len(images), first.neurons)
        for some, out in zip(images.split(4), current.split(4), strict=True):
            out.copy_(_flat(input_current(self.network, some)))
        return State(
            current=current,
            potential=[_flat(initial_potential(layer, 1, self.device)).repeat(len(images), 1) for layer in firing],
            sent=[torch.zeros(len(images), layer.neurons if layer.signed else 0) for layer in firing],
        )

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance by `steps` time steps, one group of images after the other."""
        current = cast(Tensor, state.tensors["current"])
        potential, sent = (cast(list[Tensor], state.tensors[part]) for part in ("potential", "sent"))
        images = len(current)
        spikes = torch.empty(steps, images, self.network.layers[-1].neurons, dtype=torch.int8)
        counts = torch.empty(steps, len(self.network.firing), images, dtype=torch.int64)
        for begin in range(0, images, self._group):
            group = slice(begin, begin + self._group)
            neurons = zip((v[group] for v in potential), (n[group] for n in sent), strict=True)
            spikes[:, group] = self._group_spikes(current[group], neurons, counts[:, :, group])
        state.steps += steps
        return state, Block(spikes, counts)

    def _group_spikes(self, current: Tensor, neurons: Iterator[tuple[Tensor, Tensor]], counts: Tensor) -> Tensor:
        """Last layer's spikes, int8 [steps, images, units]; fills potentials and counts [steps, layers, images]."""
        steps, images = len(counts), len(current)
        spikes, rows = current, iter(counts.unbind(1))
        for index, stage in enumerate(self._stages):
            before, spikes = spikes, torch.empty(steps, images, stage.neurons, dtype=torch.uint8)
            if not stage.layer.fires:
                stage.pass_on(before, spikes)
                continue
            v, sent = next(neurons)
            if index == 0:
                stage.fire(v, sent, before.flatten(), spikes)
            else:
                span = max(1, self._cache // (4 * images * stage.sums))  # steps whose sums stay in the cache
                for some, out in zip(before.split(span), spikes.split(span), strict=True):
                    stage.fire(v, sent, stage.currents(some), out)
            next(rows).copy_(_count(spikes, stage.layer.signed))
        return _channels_first(spikes, self._stages[-1])


class _Stage:
    """One layer, made ready: spikes come and go as bytes, flat and channels last.

    Args:
        layer: as in the network.
        source: shape of its input for one image, channels first.
        zero: byte that stands for no spike in its input.
    """

    def __init__(self, layer: SpikingLayer, source: tuple[int, ...], zero: int, *, first: bool) -> None:
        self.layer = layer
        self.source, self.zero = source, zero
        self.inputs, self.neurons = prod(source), layer.neurons
        self.unpooled, self.macs = layer.shape, 0
        if layer.weight is not None and not first:
            self._sum, self.unpooled, self.macs = onednn.prepare(layer, source, zero)
        self.sums = prod(self.unpooled)
        self.bias = (
            None if first or layer.bias is None else _flat(per_output(layer.bias, layer.shape).expand(1, *layer.shape))
        )
        if layer.threshold is not None:
            self._fire = Neurons(layer.threshold, layer.signed).fire

    @property
    def passes(self) -> int:
        """Byte that stands for no spike in its output."""
        if self.layer.fires:
            return int(self.layer.signed)
        return self.zero * (4 if self.layer.pool == "average" else 1)

    def currents(self, spikes: Tensor) -> Tensor:
        """Currents float32 [steps, images * neurons] from spikes uint8 [steps, images, inputs]."""
        flat = spikes.flatten(0, 1)
        if self.layer.op == "pool":
            x = _pooled(flat, self.source, self.layer.pool).float()
            x = x.sub_(self.zero * (4 if self.layer.pool == "average" else 1)) if self.zero else x
        else:
            x = self._sum(flat)
            x = _pooled(x, self.unpooled, "max") if self.layer.pool == "max" else x
        if self.bias is not None:
            x.add_(self.bias)
        return x.view(len(spikes), -1)

    def fire(self, v: Tensor, sent: Tensor, currents: Tensor, spikes: Tensor) -> None:
        """Advance potentials [images, neurons] in place; `spikes` uint8 [steps, images, neurons] is filled."""
        self._fire(v.view(-1), currents, spikes.view(torch.int8).flatten(1), sent.view(-1))

    def pass_on(self, spikes: Tensor, out: Tensor) -> None:
        """Pool of spikes without neurons: sum or maximum of four bytes."""
        out.copy_(_pooled(spikes.flatten(0, 1), self.source, self.layer.pool).view(out.shape))


def _stages(network: SpikingNetwork) -> Iterator[_Stage]:
    source: tuple[int, ...] = network.input_shape
    zero = 0
    for index, layer in enumerate(network.layers):
        stage = _Stage(layer, source, zero, first=index == 0)
        yield stage
        source, zero = layer.shape, stage.passes


def _too_large(network: SpikingNetwork) -> str | None:
    """Which layer passes on more than a byte holds; None when all fit."""
    largest = 0
    for layer in network.layers:
        if layer.fires:
            largest = 1 + layer.signed
        elif layer.weight is None:
            largest *= 4 if layer.pool == "average" else 1
        if largest > 127 or not (layer.fires or layer.weight is None):
            return f"layer '{layer.name}' has no neurons, and what it passes on does not fit a byte"
    return None


def _flat(values: Tensor) -> Tensor:
    """[N, channels, height, width] as [N, height * width * channels]; [N, units] as it is."""
    return values.movedim(1, -1).flatten(1)


def _channels_first(spikes: Tensor, stage: _Stage) -> Tensor:
    """Bytes [steps, images, flat channels last] as spikes int8 [steps, images, flat channels first]."""
    channels = stage.layer.shape[0]
    ordered = spikes.unflatten(-1, (-1, channels)).transpose(-1, -2).flatten(-2)
    return ordered.view(torch.int8) - stage.passes


def _pooled(x: Tensor, shape: tuple[int, ...], pool: str | None) -> Tensor:
    """2x2 sum (average) or maximum of [rows, flat channels last], of any type; a last odd row or column is left out."""
    channels, height, width = shape
    x = x.view(len(x), height, width, channels)[:, : height // 2 * 2, : width // 2 * 2]
    join = torch.add if pool == "average" else torch.maximum
    rows = join(x[:, 0::2], x[:, 1::2])
    return join(rows[:, :, 0::2], rows[:, :, 1::2]).flatten(1)


def _count(spikes: Tensor, signed: bool) -> Tensor:
    """Spikes sent, int64 [steps, images]; eight bytes at once are summed as one word where the size allows it."""
    sent = (spikes != 1).view(torch.uint8) if signed else spikes
    words = gcd(sent.shape[-1] // 8, 128) if sent.shape[-1] % 8 == 0 else 0
    if words == 0:
        return sent.sum(-1, dtype=torch.int64)
    lanes = sent.view(torch.int64).unflatten(-1, (-1, words)).sum(-1)  # each byte at most 128: none carries over
    return lanes.view(torch.uint8).sum(-1, dtype=torch.int64)
