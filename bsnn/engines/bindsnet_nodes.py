"""Nodes and connections that BindsNET lacks: neurons with a threshold per channel, connections without weights."""

from __future__ import annotations

from typing import Any, cast

import torch
from bindsnet.conversion.nodes import SubtractiveResetIFNodes
from bindsnet.network.nodes import Nodes
from bindsnet.network.topology import AbstractConnection
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, per_output


class IFNodes(SubtractiveResetIFNodes):
    """Integrate-and-fire neurons with soft reset, a threshold and a bias for each channel or neuron."""

    v: Tensor

    def __init__(self, layer: SpikingLayer, *, exact_sums: bool) -> None:
        super().__init__(shape=list(layer.shape), thresh=0.0, reset=0.0, refrac=0)
        self.thresh = per_output(cast(Tensor, layer.threshold), layer.shape)
        self.bias = None if layer.bias is None else per_output(layer.bias, layer.shape)
        self.schedule = [] if layer.schedule is None else [per_output(row, layer.shape) for row in layer.schedule]
        self.step = 0
        self.signed = layer.signed
        self.offset = None if layer.offset is None else per_output(layer.offset, layer.shape)
        self.rounds = layer.integer and not exact_sums
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
            self.s = self.s.float() - ((self.v <= -self.thresh) & (self.sent > 0)).float()
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
