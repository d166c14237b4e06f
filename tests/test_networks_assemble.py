"""`assemble` refuses what it would drop: biases and strides by the source's logits, names and shapes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks_for_tests import images, network_settings
from torch import Tensor, nn

from bsnn.errors import ConversionError
from bsnn.networks.files import assemble
from bsnn.networks.vgg import Trained

SETTINGS = network_settings(features=[4, "P"], hidden=[])


def like(bias: bool = False, stride: int = 1) -> nn.Sequential:
    """A source of the same weights' shapes; by default a member of the family."""
    torch.manual_seed(0)
    pool = nn.AvgPool2d(2) if stride == 1 else nn.Identity()
    conv = nn.Conv2d(3, 4, 3, stride, 1, bias=bias)
    return nn.Sequential(conv, pool, nn.ReLU(), nn.Flatten(), nn.Linear(64, 10, bias=False)).eval()


def of(module: nn.Sequential, **changes: Any) -> Trained:
    weights = {"conv1": module[0].weight, "fc1": module[4].weight}
    parts = {"weights": weights, "signs": {}, "alphas": {}, "source": module, "example": images(1, 2), **changes}
    return assemble(SETTINGS, (3, 8, 8), tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, **parts)


def test_a_source_of_the_family_is_taken() -> None:
    source, batch = like(), images(2, 3)
    assert torch.allclose(of(source).module(batch), source(batch), atol=1e-5)


@pytest.mark.parametrize("source", [like(bias=True), like(stride=2)], ids=["bias", "stride"])
def test_what_weights_do_not_tell_of_is_noticed(source: nn.Sequential) -> None:
    of(source, source=None)  # weights alone are those of the family
    with pytest.raises(ConversionError, match=r"other logits than its source.*bsnn\.from_module"):
        of(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "conv1.bias": torch.zeros(4)}, r"no layers conv1\.bias; its layers are conv1, fc1"),
        (lambda w: {"conv1": w["conv1"]}, "layer fc1 needs a weight, or a sign and an alpha; it has none"),
        (
            lambda w: {**w, "conv1": torch.zeros(4, 3, 5, 5)},
            r"conv1 takes weights \[4, 3, 3, 3\], found \[4, 3, 5, 5\]",
        ),
    ],
)
def test_other_parts_are_refused(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str) -> None:
    source = like()
    with pytest.raises(ConversionError, match=message):
        of(source, weights=change({"conv1": source[0].weight, "fc1": source[4].weight}))


def test_a_source_needs_an_example() -> None:
    with pytest.raises(ConversionError, match="give an example"):
        of(like(), example=None)
