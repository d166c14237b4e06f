"""Nodes and connections that BindsNET lacks: neurons with a threshold per channel, connections without weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from bindsnet.conversion.nodes import SubtractiveResetIFNodes
from bindsnet.network.nodes import Nodes
from bindsnet.network.topology import AbstractConnection
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, per_output
from bsnn.engines.summed_kernels import is_2x2
from bsnn.graphs.description import Path, Pool
from bsnn.graphs.forward import pooled, times_scale, unpooled


class IFNodes(SubtractiveResetIFNodes):
    """Integrate-and-fire neurons with soft reset, a threshold and a bias for each channel or neuron."""

    v: Tensor

    def __init__(self, layer: SpikingLayer, *, rounds: bool) -> None:
        super().__init__(shape=list(layer.shape), thresh=0.0, reset=0.0, refrac=0)
        self.thresh = per_output(cast(Tensor, layer.threshold), layer.shape)
        self.bias = None if layer.bias is None else per_output(layer.bias, layer.shape)
        self.schedule = [] if layer.schedule is None else [per_output(row, layer.shape) for row in layer.schedule]
        self.step = 0
        self.signed = layer.signed
        self.lower = per_output(layer.negative_threshold, layer.shape)
        self.offset = None if layer.offset is None else per_output(layer.offset, layer.shape)
        self.rounds = rounds
        self.sent = torch.zeros(0)

    def forward(self, x: Tensor) -> None:
        """One step: integrate, fire, subtract."""
        if self.rounds:
            x = torch.round(x)
        if self.offset is not None:
            x = x + self.offset
        if self.bias is not None:
            x = x + self.bias
        if self.schedule:
            x = x + self.schedule[self.step]
            self.step += 1
        self.v = self.v + x
        self.s = self.v >= self.thresh
        if self.signed:
            self.s = self.s.float() - ((self.v <= self.lower) & (self.sent > 0)).float()
            self.sent = self.sent + self.s
        self.v = self.v - self.s * self.thresh
        Nodes.forward(self, x)


class WithoutWeights(AbstractConnection):
    """A connection with nothing to learn."""

    def update(self, **kwargs: Any) -> None:
        """Nothing changes."""

    def normalize(self) -> None:
        """Nothing to normalise."""

    def reset_state_variables(self) -> None:
        """Nothing is remembered."""


class IdentityConnection(WithoutWeights):
    """Hands on what the source holds."""

    def compute(self, s: Tensor) -> Tensor:
        """Current of the target."""
        return s.float()


class TermConnection(WithoutWeights):
    """From a path's weighted sums to its term: rounded where they may be inexact, pooled, scaled."""

    def __init__(self, source: Nodes, target: Nodes, path: Path, *, rounds: bool) -> None:
        super().__init__(source, target)
        self.path = path
        self.rounds = rounds

    def compute(self, s: Tensor) -> Tensor:
        """Current of the target."""
        sums = s.float()
        return times_scale(self.path, _pooled(sums.round() if self.rounds else sums, self.path.pool))


def _pooled(x: Tensor, pool: Pool | None) -> Tensor:
    """As bsnn.graphs.forward.pooled, with a sum of 2x2 in the order in which this engine has always added it up.

    Sums of real weights round by it: full-precision members of the VGG family keep their spike counts.
    """
    if pool is None or pool.kind == "max" or not is_2x2(pool):
        return pooled(x, pool)
    height, width = (size // 2 for size in x.shape[-2:])
    # [..., height, 2, width, 2]: both axes of 2 are summed
    windows = x[..., : 2 * height, : 2 * width].unflatten(-1, (width, 2)).unflatten(-3, (height, 2))
    return windows.sum((-3, -1))


class ConvolutionConnection(WithoutWeights):
    """A convolution with groups or dilation, which `Conv2dConnection` has not."""

    def __init__(self, source: Nodes, target: Nodes, path: Path) -> None:
        super().__init__(source, target)
        self.path = replace(path, weight=cast(Tensor, path.weight).float())

    def compute(self, s: Tensor) -> Tensor:
        """Current of the target."""
        return unpooled(self.path, s.float())
