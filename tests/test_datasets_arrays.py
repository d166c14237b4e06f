"""Data sets in memory: the digits, their artifact, its batches, and what is refused on reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bsnn import artifacts, config
from bsnn.datasets import DataSet, arrays, load, prepare
from bsnn.datasets.base import histograms, statistics
from bsnn.errors import ArtifactError, DataError

IDENTITY = {"stage": "data", "version": 1}


def digits(folder: Path, **changes: Any) -> DataSet:
    settings = config.Data.model_validate({"name": "digits", "image_size": 8, **changes})
    prepare(settings, folder / "digits.safetensors", IDENTITY, cache=folder / "cache")
    return load(folder / "digits.safetensors")


def test_all_digits_are_there_once(tmp_path: Path) -> None:
    data = digits(tmp_path)
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert torch.bincount(data.test.labels).tolist() == [36] * 10
    images = torch.cat([data.train.images, data.test.images])  # type: ignore[attr-defined]
    labels = torch.cat([data.train.labels, data.test.labels])
    bunch = load_digits()
    ours = sorted(zip(labels.tolist(), images[:, 0].flatten(1).tolist(), strict=True))
    official = [[round(pixel * 255 / 16 + 1e-9) for pixel in image] for image in bunch.data]
    assert ours == sorted(zip(bunch.target.tolist(), official, strict=True))
    assert torch.equal(images, images[:, :1].expand(-1, 3, -1, -1))
    assert data.classes == tuple("0123456789")
    assert not (tmp_path / "cache").exists()


def test_digits_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = digits(tmp_path, image_size=16, train_images=500)
    pixels = data.train.images.numpy() / 255.0  # type: ignore[attr-defined]
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_limits_choose_evenly_spaced_images(tmp_path: Path) -> None:
    whole = digits(tmp_path)
    part = digits(tmp_path, train_images=3, test_images=4)
    assert part.train.images.equal(whole.train.images[[0, 479, 958]])  # type: ignore[attr-defined]
    assert part.test.images.equal(whole.test.images[[0, 90, 180, 270]])  # type: ignore[attr-defined]
    assert part.test.labels.equal(whole.test.labels[[0, 90, 180, 270]])


def test_same_settings_give_the_same_tensors(tmp_path: Path) -> None:
    digits(tmp_path / "a", image_size=12)
    digits(tmp_path / "b", image_size=12)
    paths = (tmp_path / name / "digits.safetensors" for name in "ab")
    (first, _), (second, _) = (artifacts.read_tensors(path, "images") for path in paths)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resize_doubles_by_hand() -> None:
    """Pixel centres at a quarter and three quarters: outer pixels stay, inner ones are mixed 3 to 1."""
    row = torch.tensor([0, 100], dtype=torch.uint8)
    image = torch.stack([row, row])[None, None]
    assert arrays.resized(image, 4)[0, 0].tolist() == [[0, 25, 75, 100]] * 4
    assert arrays.resized(image.mT, 4)[0, 0].mT.tolist() == [[0, 25, 75, 100]] * 4


def test_resize_smooths_before_it_shrinks() -> None:
    """A checkerboard is grey from afar; without smoothing it would stay black and white at this factor."""
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    small = arrays.resized(board.to(torch.uint8)[None, None], 5)
    assert small.to(torch.int64).sub(100).abs().max() <= 10


@pytest.mark.parametrize("size", [9, 16, 21])
def test_resize_is_the_same_image_by_image(size: int) -> None:
    images = torch.randint(256, (7, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    alone = torch.cat([arrays.resized(image[None], size) for image in images])
    assert arrays.resized(images, size, chunk=3).equal(alone)


def test_statistics_by_hand() -> None:
    images = torch.tensor([0, 255, 255, 255], dtype=torch.uint8).reshape(4, 1, 1, 1)
    mean, std = statistics(histograms([images[:1], images[1:]]))
    assert mean == pytest.approx([0.75])
    assert std == pytest.approx([0.75**0.5 / 2])


def test_statistics_refuse_constant_images() -> None:
    with pytest.raises(DataError, match="same value everywhere in channel 0"):
        statistics(histograms([torch.full((4, 1, 2, 2), 7, dtype=torch.uint8)]))


def split(count: int = 10) -> arrays.ArraySplit:
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return arrays.ArraySplit(images, torch.arange(count) * 11)


def test_batches_follow_the_order() -> None:
    order = torch.tensor([9, 3, 3, 0, 7])
    batches = list(split().batches(order, 2, "cpu"))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert images.dtype == torch.uint8
    assert images[:, 2, 1, 1].tolist() == order.tolist()
    assert labels.tolist() == (order * 11).tolist()


def test_no_order_no_batches() -> None:
    assert list(split().batches(torch.arange(0), 4, "cpu")) == []


def test_changing_a_batch_leaves_the_data_alone() -> None:
    source = split()
    next(source.batches(torch.arange(4), 4, "cpu"))[0].fill_(99)
    assert next(source.batches(torch.arange(4), 4, "cpu"))[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_resized_crop_is_refused_in_memory() -> None:
    with pytest.raises(DataError, match="folder of images"):
        next(split().batches(torch.arange(4), 4, "cpu", resized_crop=True))


def content() -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {}
    for name in ("train", "test"):
        tensors[f"{name}_images"] = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        tensors[f"{name}_labels"] = torch.tensor([0, 1, 0, 1])
    return tensors, {"classes": ["a", "b"], "mean": [0.5] * 3, "std": [0.2] * 3}


def loaded(path: Path, tensors: dict[str, Tensor], extra: dict[str, Any], kind: str = arrays.KIND) -> DataSet:
    artifacts.write_tensors(path, tensors, kind, IDENTITY, extra)
    return load(path)


def test_the_content_that_the_next_tests_spoil_is_good(tmp_path: Path) -> None:
    data = loaded(tmp_path / "x.safetensors", *content())
    assert (data.classes, data.image_size, data.mean, data.std) == (("a", "b"), 8, (0.5,) * 3, (0.2,) * 3)


BAD_TENSORS = {
    "train_images": [
        (torch.zeros(4, 3, 8, 8), "train_images is torch.float32"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), r"\[4, 1, 8, 8\]"),
        (torch.zeros(4, 3, 8, 9, dtype=torch.uint8), r"\[4, 3, 8, 9\]"),
        (torch.zeros(4, 3, 64, dtype=torch.uint8), r"\[4, 3, 64\]"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.uint8), "differ in shape"),
        (torch.zeros(5, 3, 8, 8, dtype=torch.uint8), r"train_labels is torch.int64 \[4\]"),
        (None, "train images or labels are missing"),
    ],
    "test_labels": [
        (torch.tensor([0, 1, 2, 1]), r"test label 2 is outside of 0\.\.1"),
        (torch.tensor([0, -1, 0, 1]), "test label -1"),
        (torch.tensor([0, 1, 0, 1], dtype=torch.int32), "test_labels is torch.int32"),
        (torch.tensor([0, 1, 0]), "test_labels"),
        (None, "test images or labels are missing"),
    ],
}


@pytest.mark.parametrize(
    ("name", "value", "message"), [(name, *case) for name, cases in BAD_TENSORS.items() for case in cases]
)
def test_bad_tensors_are_refused(tmp_path: Path, name: str, value: Tensor | None, message: str) -> None:
    tensors, extra = content()
    tensors.pop(name)
    if value is not None:
        tensors[name] = value
    with pytest.raises(ArtifactError, match=message) as caught:
        loaded(tmp_path / "x.safetensors", tensors, extra)
    assert "x.safetensors" in str(caught.value)
    assert "snakemake" in str(caught.value)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    tensors, extra = content()
    tensors["test_images"], tensors["test_labels"] = tensors["test_images"][:0], tensors["test_labels"][:0]
    with pytest.raises(ArtifactError, match="has no test images"):
        loaded(tmp_path / "x.safetensors", tensors, extra)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("classes", None, "class names"),
        ("classes", [], "class names"),
        ("classes", ["a", 2], "class names"),
        ("mean", [0.5], "'mean'"),
        ("mean", [0.5, float("nan"), 0.5], "'mean'"),
        ("std", None, "'std'"),
        ("std", [0.2, 0.0, 0.2], "must be positive"),
    ],
)
def test_bad_metadata_is_refused(tmp_path: Path, name: str, value: object, message: str) -> None:
    tensors, extra = content()
    with pytest.raises(ArtifactError, match=message):
        loaded(tmp_path / "x.safetensors", tensors, {**extra, name: value})


def test_other_kinds_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds 'network', expected 'images'"):
        loaded(tmp_path / "x.safetensors", *content(), kind="network")
    with pytest.raises(ArtifactError, match="no such file"):
        load(tmp_path / "none.safetensors")
