"""Convolutions of few places as products of columns, against torch's own in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.networks import columns


def given(*shape: int) -> Tensor:
    """Random values that bfloat16 has exactly."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).bfloat16().float()


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (3, 8, 2, 2), (2, 3, 2, 5), (4, 5, 1, 1), (2, 3, 8, 8)], ids=str)
def test_outputs_and_gradients_are_those_of_a_convolution(shape: tuple[int, ...]) -> None:
    x, weight = given(*shape).requires_grad_(), given(6, shape[1], 3, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = columns.convolution(x, weight)
    assert result.dtype == torch.bfloat16
    gradient = given(*result.shape)
    found = torch.autograd.grad(result, (x, weight), gradient.bfloat16())
    exact = F.conv2d(x, weight, padding=1)
    for ours, theirs in zip((result, *found), (exact, *torch.autograd.grad(exact, (x, weight), gradient)), strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.01, atol=0.01 * float(theirs.detach().abs().max()))


def test_few_places_are_multiplied_by_columns_in_bfloat16_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []
    monkeypatch.setattr(columns, "_multiplied", lambda x, weight: calls.append(x) or x)
    columns.convolution(given(1, 2, 4, 4), given(2, 2, 3, 3))
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        columns.convolution(given(1, 2, 8, 8), given(2, 2, 3, 3))
        assert not calls
        columns.convolution(given(1, 2, 4, 4), given(2, 2, 3, 3))
    assert len(calls) == 1
