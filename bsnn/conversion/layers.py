"""The converted network as plain data: layers, weights, thresholds, and the neuron's options. No engine's behaviour.

Conversion (Lu & Sengupta 2020, threshold form). With weights `alpha_o * B_o`, thresholds theta_l of each layer and
spikes of amplitude theta, an integrate-and-fire neuron with soft reset fires when the accumulated `B_o . s` reaches

    V_o = theta_l / (alpha_o * theta_{l-1}),        theta_0 = 1,

so a binary layer keeps weights of +-1, spikes of 0 or 1, and integer sums; alpha is part of each channel's threshold.
A 2x2 average of currents is kept as their sum with 4 * V_o (a power of two: exact). Layers with real weights use
alpha = 1. The last layer never spikes: it is read out from summed spikes (see bsnn.simulation.readout).

Neuron, element by element in float32:  v <- v + x;  s = (v >= V);  v <- v - s * V;  v(0) = initial.
With `signed`, a neuron that has sent more positive than negative spikes may also send one of -1 when v <= lower, its
negative threshold: -V, unless it has one of its own.
With `burst`, s = min(floor(v / V), burst). The current x of a step is the sum, plus the bias, plus that step's row of
the schedule. All are fields of a layer; so is a threshold of its own for each channel, whose spikes' amplitude
theta_c is then multiplied into the next layer's weights: for full precision only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor

from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Path, Pool, forget, moved

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
    lower: Tensor | None = None  # float32 as `threshold`: the negative threshold of signed neurons; None: -threshold
    burst: int = 1  # most spikes per step
    schedule: Tensor | None = None  # float32 [steps, out]: added to the current of each step, after the bias
    paths: tuple[Path, ...] = ()  # of op sum: terms of the current, added in this order (bsnn.conversion.from_graph)
    offset: Tensor | None = None  # float32 [out]: of op sum: the ANN's bias, added after the paths, before `bias`

    @property
    def fires(self) -> bool:
        """Whether the layer has neurons."""
        return self.threshold is not None

    @property
    def negative_threshold(self) -> Tensor:
        """Potential at or below which a signed neuron takes a spike back, float32 as `threshold`."""
        return -cast(Tensor, self.threshold) if self.lower is None else self.lower

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
        return moved(self, device)


@dataclass(frozen=True)
class SpikingNetwork:
    """A converted network. Paths that read the image give constant currents."""

    layers: tuple[SpikingLayer, ...]
    readout: Tensor  # float64 [classes, units], in the ANN's logit units for one spike
    input_shape: tuple[int, int, int]
    readout_bias: Tensor | None = None  # float64 [classes], in logit units, added at every step

    @property
    def branched(self) -> bool:
        """Whether layers are sums of paths: a network of `bsnn.graphs`, which not every function takes."""
        return any(layer.paths for layer in self.layers)

    @cached_property
    def sums(self) -> tuple[tuple[Path, ...], ...]:
        """What each layer adds up: its paths; a layer of the VGG family has one, from the layer before.

        Whatever reads paths takes every network. A factor of an average is part of thresholds: pools give sums.
        """
        before = [IMAGE, *(layer.name for layer in self.layers)]
        return tuple(layer.paths or (_path(layer, source),) for layer, source in zip(self.layers, before, strict=False))

    def forget(self, index: int, outputs: dict[str, Tensor]) -> None:
        """Drop the outputs, by layer, that no layer after the one at this place reads."""
        forget(outputs, (path for paths in self.sums[index + 1 :] for path in paths))

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
        return moved(self, device)


def _path(layer: SpikingLayer, source: str) -> Path:
    """The sum of a layer of the VGG family, as a path."""
    op = cast("Literal['conv', 'linear', 'identity']", "identity" if layer.op == "pool" else layer.op)
    padding = (1, 1) if op == "conv" else (0, 0)
    pool = None if layer.pool is None else Pool(layer.pool, (2, 2), (2, 2))
    return Path(source, op, layer.name, layer.weight, padding=padding, pool=pool)


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
