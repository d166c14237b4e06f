"""Networks arranged for the GPU kernels: the same sums as torch's own convolution, pool and linear layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from engine_checks import biased, member
from torch import Tensor

from bsnn.engines.triton_lowering import Map, channels_first, channels_last, convolution_taps, lower, written_out


def signs(*shape: int) -> Tensor:
    return torch.where(torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))) >= 0, 1, -1).to(
        torch.int8
    )


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.3).to(torch.int8)


def stored(maps: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, 32]."""
    return F.pad(maps.permute(0, 2, 3, 1), (0, 32 - maps.shape[1]))


def test_convolution_and_sum_are_one_convolution_of_stride_2() -> None:
    weight, maps = signs(5, 7, 3, 3), spikes(2, 7, 8, 6)
    taps = convolution_taps(weight, summed=True, stored_in=32)
    assert taps.shape == (5, 4, 4, 32)
    assert taps[..., 7:].count_nonzero() == 0
    joined = F.conv2d(maps.double(), taps.permute(0, 3, 1, 2)[:, :7].double(), stride=2, padding=1)
    plain = F.avg_pool2d(F.conv2d(maps.double(), weight.double(), padding=1), 2) * 4
    assert torch.equal(joined, plain)


def test_weights_of_the_joined_convolution() -> None:
    taps = convolution_taps(torch.ones(1, 1, 3, 3, dtype=torch.int8), summed=True, stored_in=32)
    assert taps[0, :, :, 0].tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]


@pytest.mark.parametrize(("height", "width", "summed"), [(2, 2, False), (1, 1, False), (1, 3, False), (2, 2, True)])
def test_a_convolution_on_a_small_map_is_a_matrix(height: int, width: int, summed: bool) -> None:
    weight, maps = signs(32, 7, 3, 3), spikes(4, 7, height, width)
    plain = F.conv2d(maps.double(), weight.double(), padding=1)
    result = Map(height, width, 32)
    if summed:
        plain, result = F.avg_pool2d(plain, 2) * 4, Map(height // 2, width // 2, 32)
    taps = convolution_taps(weight, summed=summed, stored_in=32)
    dense = written_out(taps, Map(height, width, 7), result, 2 if summed else 1)
    found = stored(maps).flatten(1).double() @ dense.flatten(1).double().T
    assert torch.equal(found.unflatten(1, (result.height, result.width, 32)), plain.permute(0, 2, 3, 1))


def test_a_linear_layer_reads_channels_last() -> None:
    network = member("average-before", 2)
    item = next(item for item in lower(network) if item.layer.op == "linear")
    maps = spikes(3, 16, 2, 2)
    assert item.weight is not None
    assert item.layer.weight is not None
    found = stored(maps).flatten(1).double() @ item.weight.flatten(1).double().T
    assert torch.equal(found[:, :32], maps.flatten(1).double() @ item.layer.weight.double().T)


def test_maps_are_stored_channels_last_and_back() -> None:
    maps = torch.arange(60.0).reshape(2, 5, 2, 3)
    found = channels_last(maps, Map(2, 3, 5))
    assert found.shape == (2, 6, 32)
    assert found[0, 4, :5].tolist() == [4, 10, 16, 22, 28]  # position (1, 1) of each channel
    assert found[..., 5:].count_nonzero() == 0
    assert torch.equal(channels_first(found.flatten(1)[None], Map(2, 3, 5))[0], maps.flatten(1))


def test_a_bias_of_one_a_channel_or_one_a_neuron() -> None:
    network = biased(member("average-before", 1), 2)
    for item in lower(network)[1:]:
        bias, given = item.bias, item.layer.bias
        assert bias is not None
        assert given is not None
        channels = given.shape[0]
        if given.dim() == 3:  # one per neuron
            assert torch.equal(bias[:, :channels].T, given.flatten(1))
        else:
            assert torch.equal(bias[:channels], given)


def test_silent_channels_never_fire() -> None:
    for item in lower(member("odd-channels", 1)):
        channels = item.layer.shape[0]
        thresholds = item.threshold.unflatten(0, (-1, item.result.stored))  # type: ignore[union-attr]
        assert (thresholds[:, channels:] == torch.finfo(torch.float32).max).all()
        assert (thresholds[:, :channels] == item.layer.threshold).all()
