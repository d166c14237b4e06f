"""Sums of spikes by oneDNN and the scan over time, each against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer
from bsnn.engines import onednn
from bsnn.engines.scan import Neurons


def signs(*shape: int) -> Tensor:
    return (torch.randint(0, 2, shape) * 2 - 1).to(torch.int8)


def sums_of(layer: SpikingLayer, source: tuple[int, ...], spikes: Tensor, zero: int) -> tuple[Tensor, int]:
    """Sums [N, *shape] by the engine's function, from spikes [N, *source] (integers, may be negative)."""
    function, shape, macs = onednn.prepare(layer, source, zero)
    rows = (spikes + zero).to(torch.uint8).movedim(1, -1).flatten(1)
    out = function(rows)
    return out.unflatten(1, (*shape[1:], shape[0])).movedim(-1, 1), macs


@settings(max_examples=40)
@given(
    size=st.integers(2, 9),
    inputs=st.integers(1, 19),
    outputs=st.integers(1, 19),
    pooled=st.booleans(),
    low=st.sampled_from([0, -1, -4]),
    seed=st.integers(0, 2**20),
)
def test_convolution_with_and_without_a_sum(
    size: int, inputs: int, outputs: int, pooled: bool, low: int, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = signs(outputs, inputs, 3, 3)
    spikes = torch.randint(low, 5, (3, inputs, size, size))
    layer = SpikingLayer("c", "conv", (outputs, size, size), weight, pool="average" if pooled else None)
    expected = F.conv2d(spikes.double(), weight.double(), padding=1)
    if pooled:
        expected = F.avg_pool2d(expected, 2) * 4
    found, _ = sums_of(layer, (inputs, size, size), spikes, -low)
    assert torch.equal(found.double(), expected)


@pytest.mark.parametrize("low", [0, -1])
def test_linear_layer_reads_images_channels_last(low: int) -> None:
    torch.manual_seed(0)
    weight = signs(7, 5 * 3 * 4)
    spikes = torch.randint(low, 2, (3, 5, 3, 4))
    expected = spikes.double().flatten(1) @ weight.double().T
    found, macs = sums_of(SpikingLayer("f", "linear", (7,), weight), (5, 3, 4), spikes, -low)
    assert torch.equal(found.double(), expected)
    assert macs == 7 * 60


def test_largest_sums_are_exact() -> None:
    """All spikes 4, all weights of one sign: sums far beyond a byte, and beyond 16 bits."""
    weight = torch.ones(4, 512, 3, 3, dtype=torch.int8)
    spikes = torch.full((1, 512, 6, 6), 4)
    found, _ = sums_of(SpikingLayer("c", "conv", (4, 3, 3), weight, pool="average"), (512, 6, 6), spikes, 0)
    assert float(found[0, 0, 1, 1]) == 4 * 9 * 512 * 4
    fused = -torch.ones(4, 8192, dtype=torch.int8)
    found, _ = sums_of(SpikingLayer("f", "linear", (4,), fused), (8192,), torch.full((2, 8192), 4), 0)
    assert bool((found == -32768).all())


@pytest.mark.parametrize(
    ("size", "pool", "macs"),
    [
        (8, None, 9 * 8 * 8),  # convolution
        (8, "average", 16 * 4 * 4),  # fused 4x4 of stride 2: 4 a place instead of 9
        (4, "average", 16 * 4),  # dense: as many as fused
        (2, None, 4 * 4),  # dense: 16 instead of 36
        (2, "average", 4),  # dense: 4 instead of 16
    ],
)
def test_cheapest_form_is_taken(size: int, pool: str | None, macs: int) -> None:
    layer = SpikingLayer("c", "conv", (6, size, size), signs(6, 3, 3, 3), pool=pool)  # type: ignore[arg-type]
    assert onednn.prepare(layer, (3, size, size), 0)[2] == macs * 3 * 6


def test_int8_operations_are_there() -> None:
    assert onednn.missing() is None


def test_trial_notices_wrong_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_product", lambda weight, zero: lambda spikes: torch.zeros(1, 4))
    onednn.missing.cache_clear()
    assert "wrong sums" in str(onednn.missing())
    onednn.missing.cache_clear()


def test_trial_notices_missing_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise AttributeError("no qlinear_prepack")

    monkeypatch.setattr(onednn, "_product", absent)
    onednn.missing.cache_clear()
    assert "lacks oneDNN's int8 operations (no qlinear_prepack)" in str(onednn.missing())
    onednn.missing.cache_clear()


def test_neuron_by_hand() -> None:
    """V = 1: the second neuron starts at 0.5; the third is driven below zero and does not fire."""
    v = torch.tensor([0.0, 0.5, 0.0])
    spikes = torch.empty(3, 3, dtype=torch.int8)
    Neurons(torch.ones(3)).fire(v, torch.tensor([[0.75, 0.5, -2.0], [0.75, 0.0, 1.0], [2.5, 1.0, 1.0]]), spikes)
    assert spikes.tolist() == [[0, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert v.tolist() == [2.0, 0.0, 0.0]


def test_signed_neuron_by_hand() -> None:
    """V = 1: the first neuron repays its one spike and no more; the second has none to repay."""
    v, sent = torch.zeros(2), torch.zeros(2)
    spikes = torch.empty(3, 2, dtype=torch.int8)
    Neurons(torch.ones(2), signed=True).fire(v, torch.tensor([[1.0, -1.0], [-1.5, -1.0], [-1.0, 0.0]]), spikes, sent)
    assert (spikes - 1).tolist() == [[1, 0], [-1, 0], [0, 0]]
    assert v.tolist() == [-1.5, -2.0]
    assert sent.tolist() == [0.0, 0.0]


def test_constant_current_is_kept() -> None:
    v, current = torch.zeros(4), torch.tensor([0.25, 0.5, 1.0, -1.0])
    spikes = torch.empty(4, 4, dtype=torch.int8)
    Neurons(torch.ones(2)).fire(v, current, spikes)
    assert spikes.sum(0).tolist() == [1, 2, 4, 0]
    assert current.tolist() == [0.25, 0.5, 1.0, -1.0]
