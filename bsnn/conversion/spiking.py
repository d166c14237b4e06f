"""The converted network as plain data: layers, weights, thresholds, and the neuron's options. No engine's behaviour.

Conversion (Lu & Sengupta 2020, threshold form). With weights `alpha_o * B_o`, thresholds theta_l of each layer and
spikes of amplitude theta, an integrate-and-fire neuron with soft reset fires when the accumulated `B_o . s` reaches

    V_o = theta_l / (alpha_o * theta_{l-1}),        theta_0 = 1,

so a binary layer keeps weights of +-1, spikes of 0 or 1, and integer sums; alpha is part of each channel's threshold.
A 2x2 average of currents is kept as their sum with 4 * V_o (a power of two: exact). Layers with real weights use
alpha = 1. The last layer never spikes: it is read out from summed spikes (see bsnn.simulation.readout).

Neuron, element by element in float32:  v <- v + x;  s = (v >= V);  v <- v - s * V;  v(0) = initial.
With `signed`, a neuron that has sent more positive than negative spikes may also send one of -1 when v <= -V.
With `burst`, s = min(floor(v / V), burst). The current x of a step is the sum, plus the bias, plus that step's row of
the schedule. All are fields of a layer; so is a threshold of its own for each channel, whose spikes' amplitude
theta_c is then multiplied into the next layer's weights: for full precision only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bsnn.conversion.currents import first_current
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Path
from bsnn.networks.vgg import Trained

Theta = float | Tensor  # of a whole layer, or float64 [channels or units]
Thresholds = Mapping[str, float] | Mapping[str, Theta]


@dataclass(frozen=True)
class SpikingLayer:
    """One layer: an operation on the spikes before it, a pool of the currents, and a neuron for each output."""

    name: str
    op: Literal["conv", "linear", "pool", "sum"]  # conv: 3x3, stride 1, padding 1; pool: 2x2 of spikes; sum: of `paths`
    shape: tuple[int, ...]  # of the output for one image: (channels, height, width) or (units,)
    weight: Tensor | None = None  # int8 of +-1, or float32; [out, in, 3, 3] or [out, in]; None for op pool
    pool: Literal["average", "max"] | None = None  # 2x2, of the currents (op pool: of the spikes); average is a sum
    threshold: Tensor | None = None  # float32 [out], in units of the summed input; None: no neuron, passes spikes on
    initial: Tensor | None = None  # float32 [out] or the layer's shape: membrane potential before the first step
    bias: Tensor | None = None  # float32 [out] or the layer's shape: added to the current after the exact sum
    signed: bool = False  # negative spikes
    burst: int = 1  # most spikes per step
    schedule: Tensor | None = None  # float32 [steps, out]: added to the current of each step, after the bias
    paths: tuple[Path, ...] = ()  # of op sum: terms of the current, added in this order (bsnn.conversion.from_graph)
    offset: Tensor | None = None  # float32 [out]: of op sum: the ANN's bias, added after the paths, before `bias`

    @property
    def fires(self) -> bool:
        """Whether the layer has neurons."""
        return self.threshold is not None

    @property
    def neurons(self) -> int:
        """Outputs of the layer for one image."""
        return int(torch.Size(self.shape).numel())

    @property
    def integer(self) -> bool:
        """Whether its sums are integers when its input is: weights of +-1, or no weights.

        Of op sum: whether those of each path are, before its scale; paths from the image have exact sums always.
        """
        if self.paths:
            return all(path.weight is None or path.binary or path.source == IMAGE for path in self.paths)
        return self.weight is None or self.weight.dtype == torch.int8

    def to(self, device: torch.device | str) -> SpikingLayer:
        """The same layer with its tensors on a device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            weight=moved(self.weight),
            threshold=moved(self.threshold),
            initial=moved(self.initial),
            bias=moved(self.bias),
            schedule=moved(self.schedule),
            paths=tuple(path.to(device) for path in self.paths),
            offset=moved(self.offset),
        )


@dataclass(frozen=True)
class SpikingNetwork:
    """A converted network. The first layer is fed by the image's constant current (`input_current`)."""

    layers: tuple[SpikingLayer, ...]
    readout: Tensor  # float64 [classes, units], in the ANN's logit units for one spike
    input_shape: tuple[int, int, int]
    readout_bias: Tensor | None = None  # float64 [classes], in logit units, added at every step

    @property
    def branched(self) -> bool:
        """Whether layers are sums of paths: a network of `bsnn.graphs`, which not every function takes."""
        return any(layer.paths for layer in self.layers)

    @property
    def exact(self) -> bool:
        """Whether every engine must give the same spikes: integer sums after the first layer, no bursts."""
        return all(layer.integer for layer in self.layers[1:]) and not any(layer.burst > 1 for layer in self.layers)

    @property
    def firing(self) -> tuple[SpikingLayer, ...]:
        """Layers with neurons, in order: the ones that spike counts are given for."""
        return tuple(layer for layer in self.layers if layer.fires)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.readout.shape[0])

    def to(self, device: torch.device | str) -> SpikingNetwork:
        """The same network with its tensors on a device."""
        layers = tuple(layer.to(device) for layer in self.layers)
        bias = None if self.readout_bias is None else self.readout_bias.to(device)
        return replace(self, layers=layers, readout=self.readout.to(device), readout_bias=bias)


def require_chain(network: SpikingNetwork, what: str) -> None:
    """Refuse a network whose layers are sums of paths.

    Raises:
        ConversionError: it is one; `what` says what it cannot have.
    """
    if network.branched:
        raise ConversionError(f"{what}: only for networks of the VGG family so far, and this one is a graph of layers")


def per_output(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values, one per channel or one per neuron, shaped so that they broadcast over [..., *shape]."""
    if values.shape == shape:
        return values
    return values.reshape(-1, *[1] * (len(shape) - 1))


def amplitude(thresholds: Thresholds, layer: SpikingLayer, device: torch.device) -> Tensor:
    """What one spike of each of a layer's neurons stands for, in units of activations: float64, broadcasts."""
    given = torch.as_tensor(thresholds[layer.name], dtype=torch.float64, device=device)
    return per_output(given, layer.shape) if given.dim() else given


def convert(trained: Trained, thresholds: Thresholds, *, initial: float = 0.0) -> SpikingNetwork:
    """Spiking network from a trained one and a threshold for each observed layer.

    Args:
        trained: full-precision or binary network.
        thresholds: theta of each layer that the network observes, in the units of its activations; for full precision
            also one for each channel (float64 [channels or units]).
        initial: membrane potential before the first step, as a fraction of the threshold (0, or 0.5 for OPI,
            Bu et al. 2022).

    Raises:
        ConversionError: when a layer has no threshold, or one that is not finite and positive; thresholds of channels
            before a layer of binary weights.
    """
    layers: list[SpikingLayer] = []
    previous: Theta = 1.0
    for plan in trained.plan[:-1]:
        theta = threshold_of(thresholds, plan.name)
        weight, alpha = trained.weight(plan.name)
        if isinstance(previous, Tensor):
            weight, previous = _with_amplitudes(plan.name, weight, previous), 1.0
        before = plan.pool if plan.place == "before" else None
        shape = plan.shape if before else plan.unpooled
        threshold = _threshold(theta / previous, alpha, len(weight), 4 if before == "average" else 1)
        layers.append(_layer(plan.name, plan.op, shape, weight, before, threshold, initial))
        previous = theta
        if plan.pool is not None and plan.place == "after":
            pooled, previous = _pool_of_spikes(plan.name, plan.pool, plan.shape, previous, thresholds, initial)
            layers.append(pooled)
    last, alpha = trained.weight(trained.plan[-1].name)
    real = last.double().cpu() if alpha is None else last.double().cpu() * alpha.double().cpu()[:, None]
    amplitude = _each_input(previous, real.shape[1]) if isinstance(previous, Tensor) else previous
    return SpikingNetwork(tuple(layers), real * amplitude, trained.input_shape)


def _with_amplitudes(name: str, weight: Tensor, amplitudes: Tensor) -> Tensor:
    """Weights [outputs, inputs, ...] times the amplitude of the spikes of each input channel; float32."""
    if weight.dtype == torch.int8:
        raise ConversionError(
            f"the layer before '{name}' has thresholds of channels, whose spikes differ in size, and binary weights of "
            f"+-1 cannot tell them apart: use one threshold per layer"
        )
    each = _each_input(amplitudes, weight.shape[1]).reshape(-1, *[1] * (weight.dim() - 2))
    return (weight.double().cpu() * each).float()


def _each_input(amplitudes: Tensor, inputs: int) -> Tensor:
    """Amplitude of every input [inputs], of maps [channels] that may have been flattened."""
    return amplitudes.repeat_interleave(inputs // len(amplitudes))


def threshold_of(thresholds: Thresholds, name: str) -> Theta:
    """Threshold of a layer, checked.

    Raises:
        ConversionError: none, or one that is not finite and positive.
    """
    if name not in thresholds:
        raise ConversionError(f"layer '{name}' has no threshold; thresholds are given for {sorted(thresholds)}")
    given = thresholds[name]
    theta: Theta = given.double().cpu() if isinstance(given, Tensor) else float(given)
    if not bool(torch.all((torch.as_tensor(theta) > 0) & torch.isfinite(torch.as_tensor(theta)))):
        raise ConversionError(
            f"layer '{name}' has threshold {theta}, which must be finite and positive; "
            "choose a larger percentile, or population 'positive' if the layer is mostly silent"
        )
    return theta


def _threshold(ratio: Theta, alpha: Tensor | None, outputs: int, windows: int) -> Tensor:
    """V_o in float64, rounded once to float32, then times the window (a power of two: exact)."""
    scale = torch.ones(outputs, dtype=torch.float64) if alpha is None else alpha.double().cpu()
    if not bool((scale > 0).all()):
        raise ConversionError(
            "a binary filter has scaling factor alpha = 0: its weights are all zero, and no threshold stands for them; "
            "import the network as full, which keeps real weights"
        )
    return (ratio / scale).float() * windows


def _layer(
    name: str,
    op: Literal["conv", "linear"],
    shape: tuple[int, ...],
    weight: Tensor,
    pool: Literal["average", "max"] | None,
    threshold: Tensor,
    initial: float,
) -> SpikingLayer:
    return SpikingLayer(name, op, shape, weight.cpu(), pool, threshold, threshold * initial)


def _pool_of_spikes(
    name: str,
    kind: Literal["average", "max"],
    shape: tuple[int, ...],
    theta: Theta,
    thresholds: Thresholds,
    initial: float,
) -> tuple[SpikingLayer, Theta]:
    """A pool after the ReLU: the average gets neurons of its own, the maximum of 0/1 spikes passes on."""
    label = f"{name}.pool"
    if kind == "max":
        return SpikingLayer(label, "pool", shape, pool="max"), theta
    own = threshold_of(thresholds, label)
    threshold = _threshold(own / theta, None, shape[0], 4)
    return SpikingLayer(label, "pool", shape, None, "average", threshold, threshold * initial), own


def input_current(network: SpikingNetwork, images: Tensor) -> Tensor:
    """Current of the first layer, constant over time, the same bits for every engine, device and batch.

    An exact sum, pooled, and rounded once to float32 (see bsnn.conversion.currents); the first layer's bias, if it has
    one, is then added in float32.

    Args:
        network: whose first layer is meant.
        images: float32 [N, channels, height, width], normalised.

    Returns:
        float32 [N, *shape of the first layer].

    Raises:
        ConversionError: when the images have another shape or values beyond currents.IMAGE_LIMIT, or the first layer is
            no convolution.
    """
    first = network.layers[0]
    current = first_current(first_weight(network, images), images, first.pool)
    return current if first.bias is None else current + per_output(first.bias.to(images.device), first.shape)


def first_weight(network: SpikingNetwork, images: Tensor) -> Tensor:
    """Weights of the first layer, [out, channels, 3, 3], on the images' device.

    Raises:
        ConversionError: when the images have another shape, or the first layer is no convolution.
    """
    first = network.layers[0]
    if first.weight is None or first.op != "conv":
        raise ConversionError(f"the first layer '{first.name}' must be a convolution")
    if tuple(images.shape[1:]) != network.input_shape:
        raise ConversionError(f"images are {list(images.shape[1:])}, the network takes {list(network.input_shape)}")
    return first.weight.to(images.device)
