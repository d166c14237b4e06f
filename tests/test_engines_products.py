"""Sums of weights over spikes: equal to float64's within float32 rounding, exact for integers, whatever the way."""

import pytest
import torch
import torch.nn.functional as F

from bsnn.engines import products
from bsnn.engines.base import full_float32
from bsnn.training import precision

CPU = torch.device("cpu")
SIZES = [(1, 1), (2, 2), (1, 3), (3, 5), (4, 4), (5, 4), (8, 8)]


def spikes(*shape: int) -> torch.Tensor:
    return torch.randint(-1, 3, shape, generator=torch.Generator().manual_seed(0)).float()


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_convolution_is_that_of_float64(size: tuple[int, int], bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "COLUMNS", 4096)  # several parts, the last one smaller
    x, weight = spikes(7, 6, *size), weights(5, 6, 3, 3).bfloat16().float()
    with full_float32(CPU):
        found = products.convolution(x, weight, bfloat16=bfloat16)
    torch.testing.assert_close(found.double(), F.conv2d(x.double(), weight.double(), padding=1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_of_integers_are_exact(size: tuple[int, int]) -> None:
    """As many as the widest layer of VGG-15 adds up."""
    x, weight = spikes(4, 512, *size), weights(8, 512, 3, 3).sign()
    bfloat16 = products.native_bfloat16([weight], CPU)
    with full_float32(CPU):
        found = products.convolution(x, weight, bfloat16=bfloat16)
        flat = products.linear(few := x.flatten(1)[:, :512], rows := weight.flatten(1)[:, :512], bfloat16=bfloat16)
    assert torch.equal(found.double(), F.conv2d(x.double(), weight.double(), padding=1))
    assert torch.equal(flat.double(), few.double() @ rows.double().T)


def test_weights_must_be_bfloat16_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "native", lambda device: True)
    exact, inexact = weights(4, 4).bfloat16().float(), weights(4, 4)
    assert products.native_bfloat16([exact, exact.sign().to(torch.int8)], CPU)
    assert not products.native_bfloat16([exact, inexact], CPU)
    assert not products.native_bfloat16([exact], torch.device("cuda"))
    monkeypatch.setattr(precision, "native", lambda device: False)
    assert not products.native_bfloat16([exact], CPU)


def test_precision_of_the_process_is_given_back() -> None:
    places = torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul
    before = [place.fp32_precision for place in places]
    with products.in_bfloat16(True):
        assert [place.fp32_precision for place in places] == ["bf16", "bf16"]
    assert [place.fp32_precision for place in places] == before
    with pytest.raises(RuntimeError), products.in_bfloat16(True):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert [place.fp32_precision for place in places] == before
    assert torch.get_float32_matmul_precision() == "highest"
