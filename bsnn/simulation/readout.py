"""Read-out: class and margin at every time step from the spikes of the last hidden layer, the same bits everywhere.

The last layer never spikes; its potential after t steps is the sum over all steps of `readout @ spikes`, that is
`readout @ (spikes of each neuron so far)`. The weights are put on a grid of 2^-24 of the largest weight's power of two
(float32's own resolution there), so that every product and sum is a multiple of the grid below 2^53 of them: exact in
float64 in any order, whatever the device, batch, block size or library. Hence equal spikes give equal predictions.

A bias of the logits (networks of bsnn.graphs) is added at every step, rounded to the same grid: that of the weights,
however large the bias is.

Ties go to the lowest class; before the first spike arrives, all potentials are 0 (without a bias) and the prediction is
class 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import NamedTuple

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingNetwork, require_chain
from bsnn.errors import EngineError

GRID_BITS = 24
_SUMMED = 4  # spikes, at most, that a unit of the read-out stands for: layers without neurons may sum a pool of them
_CHUNK_VALUES = 2**23  # spikes turned into float64 at once: 64 MiB
SHORTEST = 4  # fewest steps that a delayed read-out sums, where there are that many


@dataclass(frozen=True)
class Skipped:
    """How many of the first steps the read-out after t steps leaves out; never fewer for a larger t.

    min(most, t - 4), and none of the first four: spikes sent before the layers have filled (Bu et al. 2025, CVPR: short
    runs keep at least 4 steps). Of a network that `restarts` after `most` steps: all of these, once it has.
    """

    most: int
    restarts: bool = False

    def __call__(self, step: int) -> int:
        """Number of steps left out of the read-out after `step` of them."""
        if self.restarts:
            return self.most if step > self.most else 0
        return min(self.most, max(step - SHORTEST, 0))


class Reading(NamedTuple):
    """Predictions of consecutive time steps for N images."""

    predicted: Tensor  # int16 [steps, N]
    margin: Tensor  # float32 [steps, N]: best minus second best potential, divided by the steps so far (logit units)


def on_grid(weight: Tensor) -> Tensor:
    """Read-out weights, float64, rounded to multiples of 2^-24 of the power of two above the largest magnitude."""
    return _rounded(weight, _power(weight))


def _power(weight: Tensor) -> float:
    """The power of two above the largest magnitude."""
    return 2.0 ** frexp(float(weight.abs().max()))[1]


def _rounded(values: Tensor, power: float) -> Tensor:
    scale = 2.0**GRID_BITS / power
    return torch.round(values.double() * scale) / scale


def read_out(network: SpikingNetwork, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Weights [classes, units] and bias [classes] of the read-out on one grid, float64; zeros without a bias."""
    weight, bias = network.readout, network.readout_bias
    found = torch.zeros(len(weight), dtype=torch.float64) if bias is None else _rounded(bias, _power(weight))
    return on_grid(weight).to(device), found.to(device)


class Readout:
    """Running potentials of a batch of images.

    Args:
        network: whose read-out weights are used.
        images: images in the batch.
        device: where the spikes lie.
        skipped: first steps that the read-out leaves out; without it all count.
    """

    def __init__(
        self, network: SpikingNetwork, images: int, device: torch.device | str = "cpu", skipped: Skipped | None = None
    ) -> None:
        self.weight, self.bias = read_out(network, device)
        # The most that the bias adds in a step, in the grid's power of two.
        self.shift = float(self.bias.abs().max()) / _power(network.readout)
        self.potential = torch.zeros(images, network.classes, dtype=torch.float64, device=device)
        self.burst = max((layer.burst for layer in network.layers), default=1)
        self.steps = 0
        self.skipped = skipped
        self.past: dict[int, Tensor] = {0: torch.zeros_like(self.potential)}  # potentials that may be taken off again

    def advance(self, spikes: Tensor) -> Reading:
        """Predictions after each of the next steps.

        Args:
            spikes: int8 [steps, N, units], the last hidden layer's (Block.spikes).

        Raises:
            EngineError: when the sum over this many steps could exceed what float64 holds exactly (far above any use).
        """
        units = self.weight.shape[1]
        largest = units * _SUMMED * self.burst + self.shift  # of a step, in units of the grid's power of two
        # In steps of the grid, 2^-24 of that power, the sum must stay within the 53 bits of a float64.
        if (self.steps + len(spikes)) * largest > 2 ** (53 - GRID_BITS):
            most = int(2 ** (53 - GRID_BITS) // largest)
            some = f", with a bias of up to {float(self.bias.abs().max()):g}," if self.shift else ""
            less = ", or give classes that are never to win a smaller bias" if self.shift else ""
            raise EngineError(
                f"the read-out of {units} units{some} is exact for at most {most} time steps; simulate fewer{less}"
            )
        rows = max(1, _CHUNK_VALUES // max(1, spikes[0].numel()))
        readings = [self._chunk(some) for some in spikes.split(rows)]
        return Reading(*(torch.cat(part) for part in zip(*readings, strict=True)))

    def _chunk(self, spikes: Tensor) -> Reading:
        # Exact, so that neither chunks nor blocks nor the order of this sum matter.
        potential = self.potential + (spikes.double() @ self.weight.T + self.bias).cumsum(0)
        self.potential = potential[-1]
        elapsed = torch.arange(1, len(spikes) + 1, device=spikes.device) + self.steps
        if self.skipped is not None:
            potential, elapsed = self._without_skipped(potential, elapsed, self.skipped)
        self.steps += len(spikes)
        predicted, margin = decide(potential)
        return Reading(predicted, (margin / elapsed[:, None]).float())

    def _without_skipped(self, potential: Tensor, elapsed: Tensor, skipped: Skipped) -> tuple[Tensor, Tensor]:
        """Potentials of the steps that count, and their number; exact, as differences of multiples of the grid."""
        steps = range(self.steps + 1, self.steps + 1 + len(potential))
        # `skipped` never exceeds `most`: later potentials are not taken off any other.
        self.past.update({step: some for step, some in zip(steps, potential, strict=True) if step <= skipped.most})
        left_out = [skipped(step) for step in steps]
        counting = potential - torch.stack([self.past[step] for step in left_out])
        return counting, elapsed - torch.tensor(left_out, device=elapsed.device)

    def keep(self, index: Tensor) -> None:
        """Let all images but `index` (int64) leave."""
        self.potential = self.potential[index]
        self.past = {step: some[index] for step, some in self.past.items()}


def decide(potential: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest class of the largest potential (int16), and its distance from the next (infinite for a single class).

    Args:
        potential: float64 [..., classes].
    """
    classes = torch.arange(potential.shape[-1], dtype=torch.int16, device=potential.device)
    best = potential.amax(-1, keepdim=True)
    predicted = torch.where(potential == best, classes, potential.shape[-1]).amin(-1)
    rest = potential.masked_fill(classes == predicted[..., None], -torch.inf)
    return predicted, best[..., 0] - rest.amax(-1)


def accuracy(predicted: Tensor, labels: Tensor) -> Tensor:
    """Fraction of images classified correctly at every step, float64 [T], from [N, T] and [N]."""
    return (predicted == labels.reshape(len(predicted), 1)).double().mean(0)


def propagation_delays(network: SpikingNetwork) -> list[int]:
    """Steps by which `delayed` propagation lags behind `same-step`, for each firing layer and, last, the read-out.

    Each connection delays by one step, and so does a connection into nodes that merely hold what they are given: the
    sums before a pool, or spikes of a maximum pool. Delayed propagation is same-step shifted by these, so it needs no
    simulation of its own.

    Raises:
        ConversionError: a graph of layers, whose branches would be delayed differently.
    """
    require_chain(network, "delayed propagation")
    delays, elapsed = [], 0
    for layer in network.layers:
        elapsed += 2 if layer.pool and layer.op != "pool" else 1
        if layer.fires:
            delays.append(elapsed)
    return [*delays, elapsed + 1]
