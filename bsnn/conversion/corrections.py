"""Corrections of a converted network, measured on calibration images: what each layer sends against what it should.

Layer by layer, in the network's order, with everything before already corrected: the spiking layer runs for T steps,
and the gap between the ANN's mean activation and the mean activation that the spikes carried is added to its membranes.
In spikes, with N(T) the count of a neuron,  gap = T * mean(a) / theta - mean(N(T)).

- `potential` (Li et al. 2021, "A free lunch from ANN", ICML; "advanced"): v(0) += V * gap, for every neuron;
- `channel`: the same, with the gap's mean over a channel;
- `bias` (the same paper, "light"): the channel's gap spread over the steps, a current of V * gap / T;
- `temporal` (forward temporal bias correction, FTBC; Wu et al. 2024, ECCV): a current for each channel and step. Step
  by step the channel's spikes are compared with what every step should carry, `ROUNDS` times, and each time
  b(t) <- b(t) + V / 2 * (mean(a) / theta - mean(s(t))).  `bias` is such a current that is constant in time.

All are float32 values added element by element, so binary networks stay exact. They fit one number of steps T. The
engine `torch` measures. Counts of a binary network's spikes are the same on every device, but the ANN's means are
float32 sums: their last bits, and with them those of the correction, depend on the device and the number of threads.
FTBC runs all steps again in each round and on each batch; here a step is settled before the next one, so that each
layer sees the images once. Its authors moved potentials by each neuron's own error in one of their programs while they
measured; the mean of the channel, as in the others and in the paper, is what the network gets, and is used here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor

from bsnn.conversion.activations import computed
from bsnn.conversion.from_graph import image_terms
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, Thresholds, amplitude, per_output
from bsnn.conversion.switches import with_bias, with_charge
from bsnn.engines import products
from bsnn.engines.base import direct_sums, full_float32, initial_potential
from bsnn.engines.branches import Branches
from bsnn.engines.torch_engine import scan
from bsnn.errors import ConversionError
from bsnn.graphs.description import Graph
from bsnn.networks.vgg import Trained

Correction = Literal["potential", "channel", "bias", "temporal"]
_TOGETHER = 16  # images simulated at once
_HELD = 2**30  # bytes of a layer's currents, which are held where they are no more: its neurons run twice over them
ROUNDS = 10  # of the temporal correction at each step, as many as its authors' programs take, and the same rate
RATE = 0.5  # part of the error that a round takes away, where potentials are spread evenly


@torch.no_grad()
def mean_activations(trained: Trained | Graph, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean activation of every neuron of each observed layer over images, float64 [*shape of the layer]."""
    sums: dict[str, Tensor] = {}
    count = 0

    def observe(name: str, values: Tensor) -> None:
        total = values.double().sum(0)
        sums[name] = sums[name] + total if name in sums else total

    for batch in batches:
        computed(trained, batch, observe)
        count += len(batch)
    if not count:
        raise ConversionError("a correction is measured on calibration images, and there are none; give at least one")
    return {name: total / count for name, total in sums.items()}


@torch.no_grad()
def corrected(
    network: SpikingNetwork,
    thresholds: Thresholds,
    activations: Mapping[str, Tensor],
    images: Tensor,
    steps: int,
    kind: Correction,
) -> SpikingNetwork:
    """The network with its mean error on calibration images corrected, layer by layer.

    Args:
        network: converted, on the images' device.
        thresholds: theta of each layer, as the network was converted with.
        activations: of `mean_activations`, over the same images.
        images: float32 [N, channels, height, width], normalised; their spikes (one byte per neuron, step and image) are
            held in memory, of a layer and of those before it that it or a later one reads.
        steps: time steps T that the correction is for.
        kind: what is corrected.

    Raises:
        ConversionError: fewer than one step, or a layer without activations or threshold.
    """
    if steps < 1:
        raise ConversionError(f"a correction is measured over at least 1 time step, found {steps}")
    layers = list(network.layers)
    measured = _Measured(network, images, steps)
    for index, layer in enumerate(layers):
        if kind == "temporal" and layer.fires:
            wanted = _wanted(layer, thresholds, activations, images.device)
            layers[index], spikes = measured.scheduled(index, layer, wanted)
        else:
            spikes = measured.sent(index, layer)
            if layer.fires:
                layers[index] = _moved(layer, _gap(layer, thresholds, activations, spikes), kind, steps)
                spikes = measured.sent(index, layers[index])  # again: later layers get what the corrected one sends
        measured.keep(index, spikes)
    return replace(network, layers=tuple(layers))


def _gap(layer: SpikingLayer, thresholds: Thresholds, activations: Mapping[str, Tensor], spikes: Tensor) -> Tensor:
    """Spikes that the mean image lacks at each neuron, float64 [*shape]."""
    wanted = len(spikes) * _wanted(layer, thresholds, activations, spikes.device)
    return wanted - spikes.sum(0, dtype=torch.int32).double().mean(0)


def _wanted(
    layer: SpikingLayer, thresholds: Thresholds, activations: Mapping[str, Tensor], device: torch.device
) -> Tensor:
    """Spikes that the mean image should send in a step at each neuron, float64 [*shape]."""
    if layer.name not in thresholds or layer.name not in activations:
        raise ConversionError(f"layer '{layer.name}' has no threshold or no mean activation to be corrected by")
    return activations[layer.name].to(device) / amplitude(thresholds, layer, device)


def _moved(layer: SpikingLayer, gap: Tensor, kind: Correction, steps: int) -> SpikingLayer:
    """The layer with the gap added to its potentials or currents."""
    if kind != "potential":
        gap = _by_channel(gap)
    threshold = cast(Tensor, layer.threshold).double()
    # The gap is in spikes; a spike takes V off the potential, and V is in units of the summed input.
    charge = gap * (threshold if kind != "potential" else per_output(threshold, layer.shape))
    return with_bias(layer, (charge / steps).float()) if kind == "bias" else with_charge(layer, charge.float())


def _by_channel(values: Tensor) -> Tensor:
    """Mean of [channels, ...] over all but the channels."""
    return values.flatten(1).mean(1) if values.dim() > 1 else values


class _Measured:
    """Spikes of images, layer by layer: int8 [steps, N, *shape of the layer], of those that later layers read."""

    def __init__(self, network: SpikingNetwork, images: Tensor, steps: int) -> None:
        self.network, self.steps, self.device = network, steps, images.device
        self.branches = Branches(network, direct=direct_sums(images.device))
        self.bfloat16 = products.native_bfloat16(self.branches.weights, images.device)
        self.image = image_terms(network, images)
        self.count = len(images)
        self.outputs: dict[str, Tensor] = {}
        self.held: dict[tuple[int, int], Tensor] = {}  # currents by layer and first image, until they are read again

    def keep(self, index: int, spikes: Tensor) -> None:
        """Remember what a layer sends for those that read it."""
        self.outputs[self.network.layers[index].name] = spikes
        self.network.forget(index, self.outputs)

    def sent(self, index: int, layer: SpikingLayer) -> Tensor:
        """Spikes of the layer at a place, which may be another than the network's there."""
        found = torch.empty(self.steps, self.count, *layer.shape, dtype=torch.int8, device=self.device)
        for begin in range(0, self.count, _TOGETHER):
            some = slice(begin, begin + _TOGETHER)
            # `scan` puts the spikes where the currents lie. Unsigned neurons keep no count of what they have sent.
            x = self._twice(index, some)
            if layer.fires:
                potential = initial_potential(layer, x.shape[1], self.device)
                scan(layer, x, potential, torch.zeros_like(potential if layer.signed else potential[:, :0]))
            found[:, some] = x.to(torch.int8)
        return found

    def scheduled(self, index: int, layer: SpikingLayer, wanted: Tensor) -> tuple[SpikingLayer, Tensor]:
        """The layer with a current for each channel and step; and its spikes. `wanted`: of `_wanted`."""
        found = torch.empty(self.steps, self.count, *layer.shape, dtype=torch.int8, device=self.device)
        threshold, target = cast(Tensor, layer.threshold).double(), _by_channel(wanted)
        schedule = torch.zeros(self.steps, layer.shape[0], device=self.device)
        potential = initial_potential(layer, self.count, self.device)
        sent = torch.zeros_like(potential if layer.signed else potential[:, :0])
        for step in range(self.steps):
            batches = [slice(begin, begin + _TOGETHER) for begin in range(0, self.count, _TOGETHER)]
            # The step's currents come from layers before, which are settled: they are the same in every round.
            x = torch.cat([self._currents(index, slice(step, step + 1), some) for some in batches], 1)
            current = torch.zeros_like(threshold)
            # Rounds start from the potentials before the step, with the float32 current that the network will have. The
            # last one measures what the last change gives; its own change is not used.
            for _ in range(ROUNDS + 1):
                schedule[step] = current.float()
                one = replace(layer, schedule=schedule[step : step + 1])  # `scan` counts from 0 here
                v, net = potential.clone(), sent.clone()
                spikes = scan(one, x.clone(), v, net)[0]
                current += RATE * threshold * (target - _rate(spikes))
            potential, sent, found[step] = v, net, spikes  # of the last round
        return replace(layer, schedule=schedule), found

    def _twice(self, index: int, some: slice) -> Tensor:
        """Currents of a layer at all steps, for some images; they do not depend on what its correction changes."""
        found = self.held.pop((index, some.start), None)
        if found is None:
            layer = self.network.layers[index]
            found = self._currents(index, slice(0, self.steps), some)
            if layer.fires and not self.branches.first[index] and 4 * self.steps * self.count * layer.neurons <= _HELD:
                self.held[index, some.start] = found.clone()
        return found

    def _currents(self, index: int, steps: slice, some: slice) -> Tensor:
        """Currents [steps, images, *shape] of a layer at some steps, for some images."""
        read = {path.source for path in self.network.sums[index]}
        outputs = {name: spikes[steps, some].float() for name, spikes in self.outputs.items() if name in read}
        with full_float32(self.device):
            image = [term[some] for term in self.image]
            return self.branches.current(index, outputs, image, steps.stop - steps.start, bfloat16=self.bfloat16)


def _rate(spikes: Tensor) -> Tensor:
    """Mean of spikes [N, channels, ...] of each channel, float64: a quotient of whole numbers, in whatever order."""
    return spikes.sum((0, *range(2, spikes.dim())), dtype=torch.float64) / (spikes.numel() / spikes.shape[1])
