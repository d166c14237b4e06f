"""Conversion by hand, and the first layer's current: the same bits in any batch and any order of summation."""

from __future__ import annotations

from dataclasses import replace

import networks_for_tests as networks
import pytest
import torch
import torch.nn.functional as F
from engine_checks import MEMBERS, member

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.conversion.spiking import convert, input_current
from bsnn.errors import ConversionError


def _network(**changes: object) -> SpikingNetwork:
    layer = SpikingLayer("conv1", "conv", (1, 2, 2), torch.ones(1, 1, 3, 3), threshold=torch.ones(1))
    return SpikingNetwork((replace(layer, **changes),), torch.ones(2, 4), (1, 2, 2))  # type: ignore[arg-type]


def test_thresholds_by_hand() -> None:
    source = networks.trained(0)
    theta = {"conv1": 3.0, "conv2": 1.5, "conv3": 0.75, "conv4": 6.0, "fc1": 3.0}
    network = convert(source, theta)
    found = {layer.name: layer.threshold for layer in network.layers}
    assert torch.equal(found["conv1"], torch.full((8,), 3.0))  # a full layer: theta itself
    # theta_2 / (alpha_2 theta_1) = 0.5 / alpha_2, and four times that for the sum instead of the average
    assert torch.equal(found["conv2"], 4 * (0.5 / source.alphas["conv2"].double()).float())
    assert torch.equal(found["conv3"], (0.5 / source.alphas["conv3"].double()).float())
    assert torch.equal(found["conv4"], 4 * (8.0 / source.alphas["conv4"].double()).float())
    assert torch.equal(found["fc1"], (0.5 / source.alphas["fc1"].double()).float())
    last, alpha = source.weight("fc2")
    assert alpha is None
    assert torch.equal(network.readout, last.double() * 3.0)


def test_average_pool_of_spikes_has_its_own_neurons() -> None:
    source = networks.trained(0, place="after")
    theta = dict.fromkeys(source.graph.observed, 1.0)
    network = convert(source, {**theta, "conv2": 2.0, "conv2.pool": 0.5})
    pool = next(layer for layer in network.layers if layer.name == "conv2.pool")
    after = next(layer for layer in network.layers if layer.name == "conv3")
    assert pool.shape == (16 // 2, 4, 4)
    assert torch.equal(pool.threshold, torch.full((8,), 4 * 0.5 / 2.0))
    assert torch.equal(after.threshold, (1.0 / 0.5 / source.alphas["conv3"].double()).float())


@pytest.mark.parametrize(
    ("name", "firing"),
    [
        ("average-before", ["conv1", "conv2", "conv3", "conv4", "fc1"]),
        ("average-after", ["conv1", "conv2", "conv2.pool", "conv3", "conv4", "conv4.pool", "fc1"]),
        ("max-before", ["conv1", "conv2", "conv3", "conv4", "fc1"]),
        ("max-after", ["conv1", "conv2", "conv3", "conv4", "fc1"]),
    ],
)
def test_layers_with_neurons(name: str, firing: list[str]) -> None:
    network = member(name, 0)
    assert [layer.name for layer in network.firing] == firing
    assert network.exact


def test_full_precision_is_not_exact() -> None:
    assert not networks.spiking(0, binary=False).exact
    # the first layer alone may be full
    assert networks.spiking(0, keep_full=True).exact


def test_all_binary_readout_carries_its_scaling_factors() -> None:
    source = networks.trained(0, keep_full=False)
    theta = dict.fromkeys(source.graph.observed, 1.0)
    network = convert(source, {**theta, "fc1": 2.0})
    expected = 2.0 * source.alphas["fc2"].double()[:, None] * source.signs["fc2"].double()
    assert torch.equal(network.readout, expected)


def test_initial_potential_is_a_fraction_of_the_threshold() -> None:
    for layer in networks.spiking(3, initial=0.5).firing:
        assert torch.equal(layer.initial, layer.threshold / 2)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_thresholds_are_refused(value: float) -> None:
    source = networks.trained(0)
    theta = dict.fromkeys(source.graph.observed, 1.0)
    with pytest.raises(ConversionError, match=r"conv3.*finite and positive"):
        convert(source, {**theta, "conv3": value})


def test_missing_threshold_is_named() -> None:
    with pytest.raises(ConversionError, match="'conv1' has no threshold"):
        convert(networks.trained(0), {"conv9": 1.0})


def test_zero_scaling_factor_is_refused() -> None:
    source = networks.trained(0)
    source.alphas["conv2"][3] = 0.0
    theta = dict.fromkeys(source.graph.observed, 1.0)
    with pytest.raises(ConversionError, match="alpha = 0"):
        convert(source, theta)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["average-before", "first-layer-pooled", "all-binary"])
def test_current_does_not_depend_on_the_batch(name: str, seed: int) -> None:
    network, images = member(name, seed), networks.images(seed, 37)
    together = input_current(network, images)
    alone = torch.cat([input_current(network, image[None]) for image in images])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("seed", range(5))
def test_current_does_not_depend_on_the_order_of_summation(seed: int) -> None:
    """Reversing channels, rows and columns of image and kernel permutes each sum and leaves its value."""
    network, images = member("no-pool", seed), networks.images(seed, 16, 6)
    first = network.layers[0]
    mirrored = replace(first, weight=first.weight.flip(1, 2, 3))  # type: ignore[union-attr]
    other = replace(network, layers=(mirrored, *network.layers[1:]))
    assert torch.equal(input_current(other, images.flip(1, 2, 3)).flip(2, 3), input_current(network, images))


def test_float32_current_does_depend_on_the_batch_or_order() -> None:
    """The contrast: without grid and float64, the mirrored sum differs in last bits, so the tests above can fail."""
    network, images = member("no-pool", 0), networks.images(0, 16, 6)
    weight = network.layers[0].weight
    plain = F.conv2d(images, weight, padding=1)
    mirrored = F.conv2d(images.flip(1, 2, 3), weight.flip(1, 2, 3), padding=1).flip(2, 3)  # type: ignore[union-attr]
    assert not torch.equal(plain, mirrored)


def test_current_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    network = _network()
    # each 3x3 window of ones sees the whole 2x2 image
    assert torch.equal(input_current(network, image), torch.full((1, 1, 2, 2), 15.0))


@pytest.mark.parametrize(("pool", "expected"), [("average", 60.0), ("max", 15.0)])
def test_pooled_current_by_hand(pool: str, expected: float) -> None:
    image = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    current = input_current(_network(pool=pool, shape=(1, 1, 1)), image)
    assert torch.equal(current, torch.full((1, 1, 1, 1), expected))


def test_bias_is_part_of_the_first_current() -> None:
    image = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    a_channel = input_current(_network(bias=torch.tensor([0.5])), image)
    assert torch.equal(a_channel, torch.full((1, 1, 2, 2), 15.5))
    a_neuron = input_current(_network(bias=torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])), image)
    assert torch.equal(a_neuron, torch.tensor([[[[15.0, 16.0], [17.0, 18.0]]]]))


def test_first_layer_must_be_a_convolution() -> None:
    network = _network(op="linear", shape=(4,), weight=torch.ones(4, 4))
    with pytest.raises(ConversionError, match="'conv1' must be a convolution"):
        input_current(network, torch.zeros(1, 1, 2, 2))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ConversionError, match=r"\[3, 9, 9\].*\[3, 8, 8\]"):
        input_current(member("average-before", 0), torch.zeros(2, 3, 9, 9))


def test_values_a_channel_or_a_neuron() -> None:
    assert per_output(torch.arange(3.0), (3, 2, 2)).shape == (3, 1, 1)
    assert per_output(torch.zeros(3, 2, 2), (3, 2, 2)).shape == (3, 2, 2)
    assert per_output(torch.arange(5.0), (5,)).shape == (5,)


@pytest.mark.parametrize("name", MEMBERS)
def test_shapes_follow_from_layer_to_layer(name: str) -> None:
    network = member(name, 0)
    units = torch.Size(network.layers[-1].shape).numel()
    assert network.readout.shape == (network.classes, units)
    for before, layer in zip(network.layers, network.layers[1:], strict=False):
        if layer.op == "conv":
            assert layer.weight.shape[1:] == (before.shape[0], 3, 3)  # type: ignore[union-attr]
        elif layer.op == "linear":
            assert layer.weight.shape == (layer.neurons, before.neurons)  # type: ignore[union-attr]
        else:
            assert layer.shape == (before.shape[0], before.shape[1] // 2, before.shape[2] // 2)
