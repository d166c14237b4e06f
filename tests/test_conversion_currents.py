"""The first layer's current against rational arithmetic; its spikes and predictions against float64 without grids."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import networks_for_tests as networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn import engines
from bsnn.conversion import activations
from bsnn.conversion.currents import IMAGE_LIMIT, image_term, weight_parts
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.conversion.spiking import convert
from bsnn.engines.packed import PackedEngine
from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, Path, Pool
from bsnn.graphs.forward import pooled
from bsnn.networks.vgg import Trained, scale_to_unit_variance_
from bsnn.simulation.run import run

POOLS = (None, "average", "max")


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def photographs(seed: int, count: int, size: int) -> Tensor:
    """Normalised images of 8 bits that share patches, as sky or a white background does."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 3, size // 4, size // 4), np.uint8).repeat(4, 2).repeat(4, 3)
    noisy = draw.random((count, 1, size, size)) < 0.5
    pixels = np.where(noisy, draw.integers(0, 256, (count, 3, size, size)), coarse).clip(40, 200)
    return (torch.from_numpy(pixels).float() / 255 - 0.48) / 0.26


def rational(weight: Tensor, image: Tensor) -> dict[tuple[int, int, int], Fraction]:
    """The convolution of one image in rational numbers, of the weights and the image as they are."""
    outputs, channels, height, width = len(weight), *image.shape
    found = {}
    for o, y, x in product(range(outputs), range(height), range(width)):
        total = Fraction(0)
        for c, i, j in product(range(channels), range(3), range(3)):
            if 0 <= y + i - 1 < height and 0 <= x + j - 1 < width:
                total += Fraction(weight[o, c, i, j].item()) * Fraction(image[c, y + i - 1, x + j - 1].item())
        found[o, y, x] = total
    return found


def first_current(weight: Tensor, images: Tensor, pool: Any) -> Tensor:
    """Sums of a first 3x3 convolution, padded by one place; 2x2 pools."""
    window = None if pool is None else Pool(pool, (2, 2), (2, 2))
    return image_term(Path(IMAGE, "conv", "first", weight, padding=(1, 1), pool=window), images)


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 6), (12, 2)])
def test_current_is_the_exact_sum_rounded_once(channels: int, size: int) -> None:
    """Values on the image's grid, weights that the parts hold to the last bit: nothing else rounds."""
    weight = (drawn(1, 2, channels, 3, 3) * 2**20).round() / 2**20
    image = (drawn(2, channels, size, size) * 2**20).round() / 2**20
    exact = rational(weight, image)
    for pool in POOLS:
        found = first_current(weight, image[None], pool)[0]
        for (o, y, x), value in np.ndenumerate(found.numpy()):
            window = [exact[o, 2 * y + i, 2 * x + j] for i in (0, 1) for j in (0, 1)] if pool else [exact[o, y, x]]
            truth = sum(window) if pool == "average" else max(window)
            assert value == np.float32(float(truth))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("channels", [1, 2, 3, 64, 400])
def test_every_sum_fits_53_bits(pool: str | None, channels: int) -> None:
    """The largest image value times the largest possible sum of each part, in steps of both grids; parts add up."""
    weight = drawn(channels, 4, channels, 3, 3) * 10.0 ** (channels % 5 - 2)
    parts = weight_parts(weight, pool)  # type: ignore[arg-type]
    left = weight.double() - sum(parts)
    assert left.abs().max() <= weight.abs().max().double() * 2**-28
    for part in parts:
        mantissa = [Fraction(value).denominator for value in part.flatten().tolist()]
        steps = Fraction(part.abs().max().item()) * max(mantissa)  # largest integer on the part's grid
        products = 9 * channels * (4 if pool == "average" else 1)
        assert steps * int(IMAGE_LIMIT * 2**26) * products <= 2**53


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 8), (5, 6), (64, 4)])
def test_neither_batch_nor_order_of_summation_counts(pool: str | None, channels: int, size: int) -> None:
    weight, images = drawn(1, 7, channels, 3, 3), drawn(2, 19, channels, size, size)
    found = first_current(weight, images, pool)
    alone = torch.cat([first_current(weight, image[None], pool) for image in images])
    mirrored = first_current(weight.flip(1, 2, 3), images.flip(1, 2, 3), pool)
    assert torch.equal(found, alone)
    assert torch.equal(found, mirrored.flip(2, 3))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("channels", [1, 3, 64])
def test_engine_packed_computes_the_same_bits(pool: str | None, channels: int) -> None:
    """Its own kernel for one image at a time, with channels last."""
    size, weight, images = 4 if pool else 8, drawn(1, 8, channels, 3, 3), drawn(2, 3, channels, 8, 8)
    first = SpikingLayer("conv1", "conv", (8, size, size), weight, pool, torch.ones(8), torch.zeros(8))  # type: ignore[arg-type]
    network = SpikingNetwork((first,), torch.ones(2, 8 * size * size).double(), (channels, 8, 8))
    stored = PackedEngine(network).start(images).tensors["current"]
    expected = first_current(weight, images, pool).permute(0, 2, 3, 1)
    assert torch.equal(stored.reshape(3, size, size, -1)[..., :8], expected)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [65.0, -65.0, float("inf"), float("nan")])
def test_image_values_beyond_the_grid_are_refused(value: float) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 3, 0] = value
    with pytest.raises(ConversionError, match="images reach"):
        first_current(torch.ones(1, 3, 3, 3), images, None)


def test_pools_of_currents_by_hand() -> None:
    current = torch.tensor([[[1.0, -2.0, 0.0, 5.0], [3.0, 4.0, -1.0, 2.0]]])
    assert pooled(current, Pool("average", (2, 2), (2, 2))).tolist() == [[[6.0, 6.0]]]
    assert pooled(current, Pool("max", (2, 2), (2, 2))).tolist() == [[[4.0, 5.0]]]
    assert pooled(current, None) is current


def theta(source: Trained, images: Tensor, percentile: float) -> dict[str, float]:
    """Percentiles of the activations that thresholds are taken from."""
    found: dict[str, float] = {}
    with torch.no_grad():
        activations.observe(
            source, images, lambda name, x: found.__setitem__(name, float(np.percentile(x.double(), percentile)))
        )
    return found


@pytest.mark.parametrize("features", [[8, "P", 16], [8, 16, "P"]])
@pytest.mark.parametrize("kind", ["average", "max"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_neurons_on_the_threshold_fire_at_every_step(features: list[object], kind: str, place: str) -> None:
    """Threshold = the largest activation (percentile 100): its neuron fires T times in T steps, others less often."""
    source = networks.trained(0, features=features, pool=kind, place=place)
    images = photographs(3, 10, 8)
    largest = theta(source, images, 100.0)
    network = convert(source, largest)
    result = run(engines.create("torch", network), images.split(3), 7)
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        activations.observe(source, images, seen.__setitem__)
    on = int((seen["conv1"] == largest["conv1"]).sum())
    first = result.layers.index("conv1")
    below = seen["conv1"][seen["conv1"] < largest["conv1"]]
    expected = 7 * on + int(torch.floor(7 * below.double() / largest["conv1"]).sum())
    assert on
    assert int(result.counts[first].sum()) == expected


def simulated(current: Tensor, threshold: float, steps: int) -> Tensor:
    """Spikes of integrate-and-fire neurons in the current's precision, bool [steps, ...]."""
    v, bound = torch.zeros_like(current), torch.tensor(threshold, dtype=torch.float64).to(current.dtype)
    found = []
    for _ in range(steps):
        v = v + current
        found.append(v >= bound)
        v = v - found[-1] * bound
    return torch.stack(found)


def test_first_spikes_are_closer_to_float64_than_plain_float32() -> None:
    """The first layer of VGG-15 with weights of unit variance; each simulation with the percentile of its own sums.

    Grids of 2^-16 and 2^-20 moved 17,000 spikes where plain float32 moved 345.
    """
    ours = plain = 0
    for seed in range(3):
        torch.manual_seed(seed)
        source = networks.trained(seed, binary=False, size=32, features=[64, 64], hidden=[])
        images = photographs(seed, 2, 32)
        scale_to_unit_variance_(source.module, images)
        weight = source.weight("conv1")[0]
        truth = F.conv2d(images.double(), weight.double(), padding=1)
        plainly, exactly = F.conv2d(images, weight, padding=1), first_current(weight, images, None)
        for percentile in (99.9, 100.0):
            expected, in_float32, found = (
                simulated(x, float(np.percentile(x.clamp(min=0).double(), percentile)), 200)
                for x in (truth, plainly, exactly)
            )
            ours += int((found != expected).sum())
            plain += int((in_float32 != expected).sum())
    assert plain > 0, "says nothing where float32 is as good as float64"
    assert ours <= plain


def reference(source: Trained, thetas: dict[str, float], images: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Predictions [N, steps] of the converted network, in one precision throughout and without any grid."""
    potential: dict[str, Tensor] = {}
    output: Tensor | float = 0.0
    found = []
    for _ in range(steps):
        x, before = images.to(dtype), 1.0
        for plan in source.plan[:-1]:
            x = source.module.get_submodule(plan.name).to(dtype)(x if plan.op == "conv" else x.flatten(1))
            x = F.avg_pool2d(x, 2) if plan.pool else x
            bound = torch.tensor(thetas[plan.name] / before, dtype=torch.float64).to(dtype)
            v = potential.get(plan.name, torch.zeros_like(x)) + x
            x = (v >= bound).to(dtype)
            potential[plan.name], before = v - x * bound, thetas[plan.name]
        last = source.module.get_submodule(source.plan[-1].name).to(dtype)
        output = output + last(x.flatten(1)) * before
        found.append(output.argmax(1))
    source.module.float()
    return torch.stack(found, 1)


def test_predictions_are_as_close_to_float64_as_plain_float32() -> None:
    """Of 40,000 predictions, grids of 2^-16 and 2^-20 moved 62."""
    ours = plain = changes = 0
    with torch.no_grad():
        for seed in range(4):
            source = networks.trained(seed)
            images = photographs(seed, 250, 8)
            thetas = theta(source, images, 99.5)
            expected = reference(source, thetas, images, 40, torch.float64)
            found = run(engines.create("torch", convert(source, thetas)), [images], 40).predicted
            ours += int((found != expected).sum())
            plain += int((reference(source, thetas, images, 40, torch.float32) != expected).sum())
            changes += int((expected[:, 1:] != expected[:, :-1]).sum())
    assert changes > 100, "says little if predictions hardly change over time"
    assert ours <= plain
