"""Augmentation against a slow plain loop, normalisation against NumPy in float64, and even spacing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bsnn import config
from bsnn.datasets import Normalise, augment, evenly
from bsnn.errors import DataError


def numbered(count: int, height: int = 5, width: int = 7) -> Tensor:
    """Images whose pixels are all different and none of them 0, so that each pixel tells where it comes from."""
    pixels = torch.arange(1, 1 + 2 * height * width).reshape(1, 2, height, width)
    return ((pixels + 90 * torch.arange(count).reshape(-1, 1, 1, 1)) % 255 + 1).to(torch.uint8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_crop(image: np.ndarray, padding: int, top: int, left: int) -> np.ndarray:
    """One pixel after the other, straight from the definition."""
    result = np.zeros_like(image)
    channels, height, width = image.shape
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                y, x = row + top - padding, column + left - padding
                if 0 <= y < height and 0 <= x < width:
                    result[channel, row, column] = image[channel, y, x]
    return result


def places(image: np.ndarray, result: np.ndarray, padding: int, *, flip: bool = False) -> list[tuple[int, int, bool]]:
    """All ways (top, left, flipped) in which `result` can have come from `image`."""
    found = []
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = plain_crop(image, padding, top, left)
            if np.array_equal(crop, result):
                found.append((top, left, False))
            if flip and np.array_equal(crop[:, :, ::-1], result):
                found.append((top, left, True))
    return found


@given(seed=st.integers(0, 2**32), padding=st.integers(1, 4), flip=st.booleans())
def test_each_image_is_one_of_the_possible_crops(seed: int, padding: int, flip: bool) -> None:
    batch = numbered(3)
    result = augment(batch, config.Augment(crop=padding, flip=flip), seeded(seed))
    assert result.dtype == torch.uint8
    assert result.shape == batch.shape
    for image, crop in zip(batch.numpy(), result.numpy(), strict=True):
        assert len(places(image, crop, padding, flip=flip)) == 1


def test_all_places_and_both_sides_occur_equally_often() -> None:
    count, padding = 9000, 1
    batch = numbered(1, 3, 3).expand(count, -1, -1, -1)
    result = augment(batch, config.Augment(crop=padding, flip=True), seeded(3)).numpy()
    names, seen = np.unique(result.reshape(count, -1), axis=0, return_counts=True)
    assert len(names) == 9 * 2
    assert np.abs(seen - count / 18).max() < 5 * np.sqrt(count / 18)


def test_images_of_a_batch_are_drawn_one_by_one() -> None:
    batch = numbered(1).expand(64, -1, -1, -1)
    crops = augment(batch, config.Augment(crop=2), seeded(0))
    flips = augment(batch, config.Augment(flip=True), seeded(0))
    assert len(torch.unique(crops, dim=0)) > 10
    assert len(torch.unique(flips, dim=0)) == 2


def test_augmentation_depends_on_the_generator_alone() -> None:
    batch, settings = numbered(16), config.Augment(crop=3, flip=True)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = augment(batch, settings, seeded(5))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    generator = seeded(5)
    assert torch.equal(augment(batch, settings, generator), first)
    assert not torch.equal(augment(batch, settings, generator), first)
    assert torch.equal(batch, numbered(16))


def test_nothing_to_do_changes_nothing_and_draws_nothing() -> None:
    generator = seeded(1)
    state = generator.get_state()
    assert torch.equal(augment(numbered(2), config.Augment(), generator), numbered(2))
    assert torch.equal(generator.get_state(), state)


def test_normalise_by_hand() -> None:
    batch = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    result = Normalise((0.5, 0.1, 0.0), (0.5, 0.2, 4.0))(batch)
    assert result.dtype == torch.float32
    assert result.flatten().tolist() == pytest.approx([-1.0, 0.5, 0.25], abs=1e-7)
    assert batch.flatten().tolist() == [0, 51, 255]


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5,), (0.0,)), ((0.5,), (-0.2,)), ((0.5,), (float("nan"),)), ((float("inf"),), (0.2,)), ((0.5,), (1e-60,))],
)
def test_impossible_normalisations_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """As float32 at the latest: all images would become NaN, infinite or turned over, and the accuracy a number."""
    with pytest.raises(DataError, match=r"by mean \[.*\] and std \[.*\]: .* positive.* make that file again"):
        Normalise(mean, std)


def test_normalise_equals_float64_to_float32_precision() -> None:
    batch = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)
    mean, std = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
    expected = (batch.numpy() / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(Normalise(mean, std)(batch).numpy(), expected, atol=1e-6, rtol=0)


@given(count=st.integers(1, 5000), wanted=st.integers(1, 5000))
def test_evenly_spaced(count: int, wanted: int) -> None:
    chosen = evenly(count, wanted)
    assert chosen.dtype == torch.int64
    assert len(chosen) == min(count, wanted)
    assert chosen[0] == 0
    assert chosen[-1] < count
    gaps = set(torch.diff(torch.cat([chosen, torch.tensor([count])])).tolist())
    spacing = max(count / wanted, 1)
    assert gaps <= {int(np.floor(spacing)), int(np.ceil(spacing))}


def test_evenly_by_hand() -> None:
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(3, None).tolist() == [0, 1, 2]
    assert evenly(3, 9).tolist() == [0, 1, 2]


@pytest.mark.parametrize("wanted", [0, -1])
def test_evenly_refuses_less_than_one(wanted: int) -> None:
    with pytest.raises(DataError, match="at least 1"):
        evenly(3, wanted)
