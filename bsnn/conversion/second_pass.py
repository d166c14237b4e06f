"""Two passes: a short first one shows what each neuron keeps in its membrane for an image, a second one starts again.

The first pass takes rho steps, which count: step t of the whole is step t - rho of the second pass, and its read-out
leaves the first pass out (readout.Skipped, `restarts`). Spikes of both passes count. With the rest v(rho) of the first:

- `srp` (Hao et al. 2023, AAAI, "Reducing ANN-SNN conversion error through residual membrane potential"): neurons with
  v(rho) <= 0 stay silent in the second pass;
- `cos` (Hao et al. 2023, ICLR, "Bridging the gap between ANNs and SNNs by calibrating offset spikes"): a neuron with
  v(rho) < 0 that fired has sent a spike too many and starts V lower, one with v(rho) >= V starts V higher. All layers
  are shifted by one first pass; the paper shifts them one after the other, which costs rho steps per layer.

Potentials of their own for each image: run by the engine `torch`, on any device. A silenced neuron starts at minus
infinity, so binary networks stay exact.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.engines.base import Block, State, initial_potential
from bsnn.engines.torch_engine import TorchEngine
from bsnn.errors import EngineError

SecondPass = Literal["srp", "cos"]


class SecondPassEngine(TorchEngine):
    """The engine `torch`, restarted after `first_pass` steps.

    Raises:
        EngineError: when the first pass has no step.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        device: torch.device | str = "cpu",
        memory_mib: int = 2048,
        *,
        kind: SecondPass,
        first_pass: int,
    ) -> None:
        super().__init__(network, device, memory_mib)
        if first_pass < 1:
            raise EngineError(f"the first of two passes needs at least 1 step, found {first_pass}")
        self.kind = kind
        self.first_pass = first_pass
        self.observe = self._remember
        self._fired: dict[str, Tensor] | None = None

    def start(self, images: Tensor) -> State:
        """As for one pass, and whether each neuron has fired."""
        state = super().start(images)
        firing = self.network.firing
        # In the state, so that images which leave take theirs along.
        state.tensors["fired"] = [
            torch.zeros(len(images), *layer.shape, dtype=torch.bool, device=self.device) for layer in firing
        ]
        return state

    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance; the second pass begins where the first one ends, within a block too."""
        first = min(steps, max(0, self.first_pass - state.steps))
        if not first:
            return super().advance(state, steps)
        fired = cast("list[Tensor]", state.tensors["fired"])
        # `_remember` changes these tensors in place. The engine's new state lacks them: they are put back.
        self._fired = {layer.name: values for layer, values in zip(self.network.firing, fired, strict=True)}
        state, block = super().advance(state, first)
        state.tensors["fired"] = fired
        self._fired = None  # spikes of the second pass are not remembered
        if state.steps == self.first_pass:
            self._restart(state)
        if first == steps:
            return state, block
        state, rest = super().advance(state, steps - first)
        return state, Block(torch.cat([block.spikes, rest.spikes]), torch.cat([block.counts, rest.counts]))

    def _remember(self, layer: SpikingLayer, spikes: Tensor) -> None:
        if self._fired is not None and layer.fires:
            self._fired[layer.name] |= spikes.any(0)

    def _restart(self, state: State) -> None:
        """Potentials of the second pass, instead of those at the end of the first."""
        rests, sent, fired = (cast("list[Tensor]", state.tensors[part]) for part in ("potential", "sent", "fired"))
        for layer, rest, past, active in zip(self.network.firing, rests, sent, fired, strict=True):
            start = initial_potential(layer, len(rest), self.device)
            rest.copy_(self._chosen(layer, start, rest, active))
            past.zero_()

    def _chosen(self, layer: SpikingLayer, start: Tensor, rest: Tensor, fired: Tensor) -> Tensor:
        if self.kind == "srp":
            return torch.where(rest <= 0, -torch.inf, start)
        threshold = per_output(cast(Tensor, layer.threshold), layer.shape)
        return start - threshold * ((rest < 0) & fired) + threshold * (rest >= threshold)
