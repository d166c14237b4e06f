"""Neurons over consecutive time steps, in chunks that stay in the cache: three passes a step, each vectorised.

Element by element in float32, in this order:  v <- v + x;  s = (v >= V);  v <- v - s * V.
The product s * V is exact, so it does not matter whether the last line is rounded once (FMA) or twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**15  # neurons at once for one thread: potential, threshold and current fill 384 KiB


class Neurons:
    """Thresholds of one layer, laid out for chunks of neurons.

    Args:
        threshold: float32 [channels].
        signed: whether a neuron that sent more positive than negative spikes may send one of -1 when v <= -V.
    """

    def __init__(self, threshold: Tensor, signed: bool = False) -> None:
        rows = max(1, CHUNK * torch.get_num_threads() // len(threshold))
        self.threshold = threshold.repeat(rows)
        self.signed = signed

    def fire(self, v: Tensor, currents: Tensor, spikes: Tensor, sent: Tensor | None = None) -> None:
        """Advance flat potentials `v` [n] in place by as many steps as `spikes` has rows.

        Args:
            v: float32 [n], whole channels-last images one after the other.
            currents: float32 [steps, n], overwritten; or [n], constant over time and kept.
            spikes: int8 [steps, n], receives the spikes, plus one if signed.
            sent: float32 [n], spikes sent so far with their sign, updated in place; only if signed.
        """
        size = len(self.threshold)
        for begin in range(0, len(v), size):
            part = slice(begin, min(begin + size, len(v)))
            constant = currents.dim() == 1
            x = currents[part].expand(len(spikes), -1) if constant else currents[:, part]
            out = torch.empty(x.shape) if constant else x
            threshold = self.threshold[: x.shape[1]]
            if self.signed and sent is not None:
                _scan_signed(v[part], sent[part], threshold, x.unbind(), out.unbind())
                out.add_(1.0)
            else:
                _scan(v[part], threshold, x.unbind(), out.unbind())
            spikes[:, part].copy_(out)


def _scan(v: Tensor, threshold: Tensor, currents: tuple[Tensor, ...], spikes: tuple[Tensor, ...]) -> None:
    # Comparing into float32 and casting many steps at once is several times faster than comparing into bool.
    for x, s in zip(currents, spikes, strict=True):
        torch.add(v, x, out=v)
        torch.ge(v, threshold, out=s)
        v.addcmul_(s, threshold, value=-1.0)


def _scan_signed(
    v: Tensor, sent: Tensor, threshold: Tensor, currents: tuple[Tensor, ...], spikes: tuple[Tensor, ...]
) -> None:
    below, credit, lower = torch.empty_like(v), torch.empty_like(v), -threshold
    for x, s in zip(currents, spikes, strict=True):
        torch.add(v, x, out=v)
        torch.ge(v, threshold, out=s)
        torch.le(v, lower, out=below)
        torch.gt(sent, 0.0, out=credit)
        s.addcmul_(below, credit, value=-1.0)
        v.addcmul_(s, threshold, value=-1.0)
        sent.add_(s)
