"""The VGG family: plan, sizes, forward pass against plain torch, initialisation."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks_for_tests import VGG15, images, network_settings, trained
from torch.nn import functional as F

from bsnn import config
from bsnn.errors import BsnnError
from bsnn.graphs.reading import from_module
from bsnn.networks.vgg import VGG, plan, scale_to_unit_variance_


def test_plan_of_vgg15_on_cifar() -> None:
    layers = plan(network_settings(features=VGG15, hidden=[4096]), (3, 32, 32), 100)
    assert [layer.name for layer in layers] == [*(f"conv{n}" for n in range(1, 14)), "fc1", "fc2"]
    assert [layer.name for layer in layers if layer.pool] == ["conv2", "conv4", "conv7", "conv10", "conv13"]
    assert layers[0].shape == layers[0].unpooled == (64, 32, 32)
    assert (layers[1].unpooled, layers[1].shape) == ((64, 32, 32), (64, 16, 16))
    assert layers[12].shape == (512, 1, 1)
    assert [(layer.inputs, layer.outputs) for layer in layers[-2:]] == [(512, 4096), (4096, 100)]
    assert (layers[0].weights, layers[0].macs) == (1728, 1728 * 1024)
    assert (layers[12].weights, layers[12].macs) == (512 * 512 * 9, 512 * 512 * 9 * 4)
    assert layers[14].macs == 409_600


def test_sizes_of_vgg15_on_imagenet() -> None:
    """Published: 121.6 million weights, 15.45 GMAC, of which 96.6 % and 99.4 % are in the binary layers, 486 MB."""
    layers = plan(network_settings(features=VGG15, hidden=[4096]), (3, 224, 224), 1000)
    weights, macs = sum(layer.weights for layer in layers), sum(layer.macs for layer in layers)
    assert layers[13].inputs == 25_088
    assert round(weights / 1e6, 1) == 121.6
    assert round(4 * weights / 1e6) == 486
    assert round(macs / 1e9, 2) == 15.45
    assert round(100 * sum(layer.weights for layer in layers[1:-1]) / weights, 1) == 96.6
    assert round(100 * sum(layer.macs for layer in layers[1:-1]) / macs, 1) == 99.4


def reference(module: VGG, x: torch.Tensor, pool: str, place: str) -> torch.Tensor:
    """features [8, 8, P, 16, 16, P], hidden [32], written out."""
    weight = {name: parameter.detach() for name, parameter in module.named_parameters()}
    pooling = F.avg_pool2d if pool == "average" else F.max_pool2d

    def pooled(current: torch.Tensor) -> torch.Tensor:
        return F.relu(pooling(current, 2)) if place == "before" else pooling(F.relu(current), 2)

    x = F.relu(F.conv2d(x, weight["conv1.weight"], padding=1))
    x = pooled(F.conv2d(x, weight["conv2.weight"], padding=1))
    x = F.relu(F.conv2d(x, weight["conv3.weight"], padding=1))
    x = pooled(F.conv2d(x, weight["conv4.weight"], padding=1))
    x = F.relu(x.reshape(len(x), -1) @ weight["fc1.weight"].T)
    return x @ weight["fc2.weight"].T


@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_forward_equals_plain_torch(pool: str, place: str) -> None:
    source = trained(1, binary=False, pool=pool, place=place)
    batch = images(2, 5)
    expected = reference(source.module, batch, pool, place)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(source.module(batch), expected, rtol=1e-5, atol=1e-6)


def test_average_before_and_after_the_relu_differ_and_maximum_does_not() -> None:
    batch = images(2, 5)

    def logits(pool: str, place: str) -> torch.Tensor:
        result: torch.Tensor = trained(1, binary=False, pool=pool, place=place).module(batch)
        return result

    assert not torch.allclose(logits("average", "before"), logits("average", "after"))
    assert torch.equal(logits("max", "before"), logits("max", "after"))


def test_by_hand() -> None:
    """One convolution that negates, an average of four, two outputs."""
    module = VGG(network_settings(features=[1, "P"], hidden=[]), (1, 2, 2), 2).eval()
    with torch.no_grad():
        centre = torch.zeros(1, 1, 3, 3)
        centre[0, 0, 1, 1] = -1
        module.get_parameter("conv1.weight").copy_(centre)
        module.get_parameter("fc1.weight").copy_(torch.tensor([[2.0], [-3.0]]))
    assert module(torch.tensor([[[[1.0, 2.0], [3.0, -10.0]]]])).tolist() == [[2.0, -3.0]]  # -(1+2+3-10)/4 = 1
    assert module(torch.tensor([[[[1.0, 2.0], [3.0, 10.0]]]])).tolist() == [[0.0, 0.0]]  # negative: ReLU


@pytest.mark.parametrize(
    ("pool", "place", "expected"),
    [
        ("average", "before", ["conv1", "conv2", "conv3", "conv4", "fc1"]),
        ("average", "after", ["conv1", "conv2", "conv2.pool", "conv3", "conv4", "conv4.pool", "fc1"]),
        ("max", "before", ["conv1", "conv2", "conv3", "conv4", "fc1"]),
        ("max", "after", ["conv1", "conv2", "conv3", "conv4", "fc1"]),
    ],
)
def test_observer_sees_each_spiking_layer_once(pool: str, place: str, expected: list[str]) -> None:
    source = trained(1, binary=False, pool=pool, place=place)
    seen: list[str] = []

    def observe(name: str, values: torch.Tensor) -> None:
        seen.append(name)
        assert values.min() >= 0
        layer = next(layer for layer in source.plan if layer.name == name.removesuffix(".pool"))
        before_pool = name == layer.name and place == "after"
        assert tuple(values.shape) == (4, *(layer.unpooled if before_pool else layer.shape))

    logits = source.module(images(2, 4), observe)
    assert seen == expected == list(source.graph.observed)
    assert torch.equal(logits, source.module(images(2, 4)))


@given(
    features=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    pools=st.sets(st.integers(0, 3), max_size=3),
    hidden=st.lists(st.integers(1, 6), max_size=2),
    classes=st.integers(2, 5),
)
@settings(max_examples=25)
def test_plan_describes_the_module(features: list[int], pools: set[int], hidden: list[int], classes: int) -> None:
    items: list[int | str] = []
    for index, channels in enumerate(features):
        items += [channels, "P"] if index in pools else [channels]
    module = VGG(network_settings(features=items, hidden=hidden), (3, 8, 8), classes)
    assert sum(layer.weights for layer in module.plan) == sum(p.numel() for p in module.parameters())
    assert not any(name.endswith("bias") for name, _ in module.named_parameters())
    assert module(images(0, 2)).shape == (2, classes)
    for layer, following in zip(module.plan, module.plan[1:], strict=False):
        channels = following.op == "conv"
        assert following.inputs == (layer.outputs if channels else math.prod(layer.shape))


def test_dropout_acts_in_training_only() -> None:
    module = VGG(network_settings(dropout=0.5), (3, 8, 8), 10)
    batch = images(0, 4)
    assert not torch.equal(module(batch), module(batch))
    module.eval()
    assert torch.equal(module(batch), module(batch))


@pytest.mark.parametrize(
    ("init", "conv", "linear"),
    [("fan_in", math.sqrt(2 / (256 * 9)), math.sqrt(2 / 512)), ("original", math.sqrt(2 / (512 * 9)), 0.01)],
)
def test_initialisation(init: str, conv: float, linear: float) -> None:
    """He et al. 2015: variance 2 / fan; the original's linear layers are normal(0, 0.01)."""
    torch.manual_seed(0)
    module = VGG(network_settings(features=[256, "P", 512, "P"], hidden=[512], init=init), (3, 4, 4), 100)
    assert module.get_parameter("conv2.weight").std().item() == pytest.approx(conv, rel=0.01)
    assert module.get_parameter("fc1.weight").std().item() == pytest.approx(linear, rel=0.01)
    assert module.get_parameter("fc1.weight").mean().item() == pytest.approx(0, abs=0.05 * linear)


@pytest.mark.parametrize("place", ["before", "after"])
def test_unit_variance_initialisation(place: str) -> None:
    torch.manual_seed(0)
    module = VGG(network_settings(features=[64, "P", 64, 128, "P"], hidden=[256], place=place), (3, 8, 8), 50)
    images = 3 + torch.randn(64, 3, 8, 8)
    scale_to_unit_variance_(module, images)
    squares: dict[str, float] = {}
    logits = module.eval()(images, lambda name, x: squares.setdefault(name, float(x.square().mean())))
    assert {name: squares[name] for name in ("conv1", "conv2", "conv3", "fc1")} == pytest.approx(
        dict.fromkeys(("conv1", "conv2", "conv3", "fc1"), 0.5), rel=1e-4
    )
    assert logits.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_unit_variance_refuses_a_dead_layer() -> None:
    module = VGG(network_settings(features=[4], hidden=[]), (3, 4, 4), 10)
    with pytest.raises(BsnnError, match=r"conv1.*network\.init"):
        scale_to_unit_variance_(module, torch.zeros(64, 3, 4, 4))


def test_layers_keep_their_names_as_a_network_of_ones_own() -> None:
    module = VGG(config.Network(features=[4, "P", 4, "P"], hidden=[5]), (3, 4, 4), 2).eval()
    names = [layer.name for layer in from_module(module, torch.randn(2, 3, 4, 4)).layers]
    assert names == [*(layer.name for layer in module.plan[:-1]), "logits"]


def test_weights_of_layers() -> None:
    source = trained(5)
    full, alpha = source.weight("conv1")
    assert alpha is None
    assert full.dtype == torch.float32
    sign, alpha = source.weight("conv2")
    assert alpha is not None
    assert sign.dtype == torch.int8
    expected = source.module.get_parameter("conv2.weight")
    assert torch.equal(alpha.reshape(-1, 1, 1, 1) * sign, expected)


def test_settings_refuse_a_pool_without_a_convolution() -> None:
    with pytest.raises(ValueError, match="follow a convolution"):
        config.Network.model_validate({"features": [4, "P", "P"], "hidden": []})


def test_neither_torchvision_nor_the_compiler_is_loaded_for_arrays_and_stored_networks() -> None:
    """Each takes seconds, at the start of every job."""
    code = """
import sys
import bsnn.datasets, bsnn.engines.torch_engine
from bsnn import config
from bsnn.networks import files, vgg
import torch
settings = config.Network(features=[4, "P"], hidden=[5])
parts = {layer.name: torch.ones(files.weight_shape(layer)) for layer in vgg.plan(settings, (3, 8, 8), 2)}
files.assemble(settings, (3, 8, 8), ("a", "b"), (0.5,) * 3, (0.5,) * 3, parts, {}, {})
print({"torchvision", "torch._dynamo"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
