"""Folders of image files: the index, decoding to size, random crops that depend on seed and image alone."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from images_for_tests import picture, tree
from PIL import Image
from torch.utils.data import Dataset

from bsnn import artifacts, config
from bsnn.datasets import DataSet, files, folder, load, prepare
from bsnn.datasets.files import BrokenImageError, FileSplit
from bsnn.errors import ArtifactError, DataError

SIZE = 28  # so that the shorter side becomes 32
IDENTITY = {"stage": "data", "version": 1}


def made(root: Path, workers: int = 0, **changes: Any) -> DataSet:
    settings = config.Data.model_validate({"name": "folder", "path": root, "image_size": SIZE, **changes})
    target = root.parent / "index.parquet"
    try:
        prepare(settings, target, IDENTITY, cache=root.parent / "cache", workers=workers)
    except DataError:
        assert not target.exists(), "an artifact in spite of the error"
        raise
    return load(target)


def pixels(
    split: Any, order: list[int] | None = None, workers: int = 0, batch: int = 4, **options: Any
) -> torch.Tensor:
    indices = torch.arange(len(split)) if order is None else torch.tensor(order)
    return torch.cat([images for images, _ in split.batches(indices, batch, "cpu", workers, **options)])


class Signalled(Dataset[int]):
    """Items that send their own process the signals that a scheduler or a terminal sends to all processes."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return indices


def test_workers_leave_signals_to_their_process() -> None:
    assert list(files._loader(Signalled(), [[0, 1], [2]], 1)) == [[0, 1], [2]]


def test_index_of_a_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures")
    data = made(root)
    table, note = artifacts.read_table(tmp_path / "index.parquet", "image-index", folder.COLUMNS)
    rows = table.to_pylist()
    assert [(row["split"], row["path"], row["label"]) for row in rows] == [
        ("train", "train/cat/0.jpg", 0),
        ("train", "train/cat/1.PNG", 0),
        ("train", "train/cat/2.jpeg", 0),
        ("train", "train/dog/0.jpg", 1),
        ("train", "train/dog/1.PNG", 1),
        ("train", "train/dog/2.jpeg", 1),
        ("test", "val/cat/0.jpg", 0),
        ("test", "val/cat/1.PNG", 0),
        ("test", "val/dog/0.jpg", 1),
        ("test", "val/dog/1.PNG", 1),
    ]
    assert all(row["bytes"] == (root / row["path"]).stat().st_size for row in rows)
    assert note["extra"]["root"] == str(root)
    assert data.classes == ("cat", "dog")
    assert data.image_size == SIZE
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_test_may_stand_for_val(tmp_path: Path) -> None:
    assert made(tree(tmp_path / "pictures", "test")).test.labels.tolist() == [0, 0, 1, 1]


def test_limits_are_evenly_spaced(tmp_path: Path) -> None:
    data = made(tree(tmp_path / "pictures"), train_images=2, test_images=1)
    assert data.train.labels.tolist() == [0, 1]
    assert len(data.test) == 1


def test_statistics_of_the_training_images(tmp_path: Path) -> None:
    data = made(tree(tmp_path / "pictures"), workers=2)
    values = pixels(data.train).numpy() / 255.0
    np.testing.assert_allclose(data.mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, values.std((0, 2, 3)), rtol=1e-12)


def test_imagenet_has_its_customary_statistics(tmp_path: Path) -> None:
    data = made(tree(tmp_path / "pictures"), name="imagenet")
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_evaluation_takes_the_centre_after_resizing(tmp_path: Path) -> None:
    """Pillow alone: shorter side to 32, then 28 x 28 from the middle."""
    root = tree(tmp_path / "pictures")
    data = made(root)
    found = pixels(data.test)
    assert found.dtype == torch.uint8
    for image, path in zip(found, ["cat/0.jpg", "cat/1.PNG", "dog/0.jpg", "dog/1.PNG"], strict=True):
        whole = Image.open(root / "val" / path).convert("RGB")
        width = int(whole.width * 32 / 40)
        left = round((width - SIZE) / 2)
        scaled = whole.resize((width, 32), Image.Resampling.BILINEAR)
        expected = np.asarray(scaled.crop((left, 2, left + SIZE, 2 + SIZE)))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    grey = pixels(made(tree(tmp_path / "pictures")).train, [2])
    assert grey.shape == (1, 3, SIZE, SIZE)
    assert grey.equal(grey[:, :1].expand(-1, 3, -1, -1))


def test_workers_and_order_change_nothing(tmp_path: Path) -> None:
    train = made(tree(tmp_path / "pictures")).train
    order = [4, 0, 5, 5, 1]
    options: dict[str, Any] = {"resized_crop": True, "seed": 7}
    whole = pixels(train, **options)
    assert pixels(train, order, workers=2, batch=2, **options).equal(whole[order])
    labels = torch.cat([labels for _, labels in train.batches(torch.tensor(order), 2, "cpu", 2)])
    assert labels.tolist() == [1, 0, 1, 1, 0]


def test_random_crops_depend_on_seed_and_image_alone(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures")
    (root / "train" / "cat" / "1.PNG").unlink()
    picture(1).save(root / "train" / "cat" / "0b.png")  # the same picture twice
    picture(1).save(root / "train" / "cat" / "0a.png")
    train = made(root).train
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = pixels(train, resized_crop=True, seed=1)
    assert torch.random.get_rng_state().equal(before), "the global generator was used"
    torch.manual_seed(1)
    assert pixels(train, resized_crop=True, seed=1).equal(first)
    assert not any(
        image.equal(other) for image, other in zip(pixels(train, resized_crop=True, seed=2), first, strict=True)
    )
    paths = train.paths.to_pylist()  # type: ignore[attr-defined]
    twins = [paths.index(f"train/cat/0{letter}.png") for letter in "ab"]
    assert not first[twins[0]].equal(first[twins[1]])


def test_random_crop_lies_inside_the_image(tmp_path: Path) -> None:
    """An image whose red grows to the right and whose green grows downwards: so must every part of it."""
    root = tree(tmp_path / "pictures")
    ramp = np.zeros((200, 240, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(240), np.arange(200)[:, None]
    Image.fromarray(ramp).save(root / "train" / "cat" / "0.png")
    train = made(root).train
    index = train.paths.to_pylist().index("train/cat/0.png")  # type: ignore[attr-defined]
    shares = []
    for seed in range(40):
        red, green = pixels(train, [index], resized_crop=True, seed=seed)[0, :2].numpy().astype(int)
        assert (np.diff(red, axis=1) >= 0).all()
        assert (np.diff(green, axis=0) >= 0).all()
        width, height = (np.ptp(red) + 1) * SIZE / (SIZE - 1), (np.ptp(green) + 1) * SIZE / (SIZE - 1)
        shares.append(width * height / (200 * 240))
    assert 0.06 < min(shares) < 0.3
    assert 0.7 < max(shares) < 1.15


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["0.jpg", "1.PNG"])
def test_truncated_images_are_named(tmp_path: Path, name: str, workers: int) -> None:
    root = tree(tmp_path / "pictures")
    broken = root / "val" / "dog" / name
    broken.write_bytes(broken.read_bytes()[:-100])
    data = made(root, name="imagenet")
    with pytest.raises(DataError) as caught:
        pixels(data.test, workers=workers)
    assert str(caught.value).startswith(f"{broken}: not a whole image")
    good = [index for index, path in enumerate(data.test.paths.to_pylist()) if not path.endswith(f"dog/{name}")]  # type: ignore[attr-defined]
    assert len(pixels(data.test, good, workers=workers)) == 3


def damaged(format: str) -> Iterator[bytes]:
    """A small image, each of its first bytes replaced in turn."""
    file = io.BytesIO()
    picture(3, 12, 10).save(file, format)
    for place in range(min(file.tell(), 140)):
        for value in (0, 1, 255):
            content = bytearray(file.getvalue())
            content[place] = value
            yield bytes(content)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM", "TGA", "DDS", "ICNS"])
@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it passes over
def test_damage_is_no_image_or_another_one(tmp_path: Path, format: str) -> None:
    """Whatever Pillow raises: its formats are known by content, so a file of any of them may be called .jpg."""
    contents = list(damaged(format))
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    names = pa.array([f"{number}.jpg" for number in range(len(contents))])
    sizes = np.array([len(content) for content in contents])
    found = FileSplit(tmp_path, names, sizes, torch.zeros(len(contents), dtype=torch.int64), SIZE).broken(0)
    assert 0 < len(found) < len(contents)
    for number, problem in found:
        reason = r"\((no known format|\w+: .+)\)"
        assert re.fullmatch(rf"{tmp_path}/{number}\.jpg: not a whole image {reason}", problem, re.DOTALL)


def test_the_kind_of_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyError's text alone, 'mode', would say nothing; want of memory is no fault of the file."""

    def opening(error: BaseException) -> Callable[[io.BytesIO], Image.Image]:
        def open(_: io.BytesIO) -> Image.Image:
            raise error

        return open

    train = made(tree(tmp_path / "pictures"), name="imagenet").train
    assert isinstance(train, FileSplit)
    monkeypatch.setattr(Image, "open", opening(KeyError("mode")))
    with pytest.raises(BrokenImageError, match=r"cat/0\.jpg: not a whole image \(KeyError: 'mode'\)"):
        train.read(0)
    monkeypatch.setattr(Image, "open", opening(MemoryError()))
    with pytest.raises(MemoryError):
        train.broken(0)


def test_processes_that_decode_end_with_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """They ignore SIGTERM: one that was left would keep the whole run from ending."""
    train = made(tree(tmp_path / "pictures"), name="imagenet").train
    assert isinstance(train, FileSplit)
    (tmp_path / "pictures/train/cat/0.jpg").unlink()
    with pytest.raises(DataError, match=r"cat/0\.jpg"):
        train.broken(1)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["train/cat/2.jpeg", "val/dog/0.jpg"])
def test_a_truncated_image_fails_the_preparation(tmp_path: Path, name: str, workers: int) -> None:
    """Also a test image, which passed, and was met hours later."""
    root = tree(tmp_path / "pictures")
    broken = root / name
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DataError, match=rf"{name}: not a whole image .*; replace it, or .* data\.broken: skip"):
        made(root, workers=workers)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("gone", "cannot be read .*delete the index"),
        ("other", "has .* bytes, but .* when the index was made"),
        ("text", r"not a whole image \(no known format\); .*data.broken: skip"),
    ],
)
def test_images_that_change_after_the_index_are_named(tmp_path: Path, change: str, problem: str) -> None:
    root = tree(tmp_path / "pictures")
    data, file = made(root), root / "train" / "dog" / "0.jpg"
    if change == "gone":
        file.unlink()
    elif change == "other":
        picture(5, 90, 90).save(file)
    else:
        file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DataError, match=rf"dog/0\.jpg: {problem}"):
        pixels(data.train)


def test_impossible_folders_are_refused(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            made(root)

    root = tmp_path / "pictures"
    refused(r"train: no such folder; expected train/<class>")
    (root / "train").mkdir(parents=True)
    refused("train: has no class folders")
    (root / "train" / "cat").mkdir()
    refused("train: has no images")
    picture(1).save(root / "train" / "cat" / "1.png")
    refused("val: no such folder")
    (root / "val").mkdir()
    picture(1).save(root / "val" / "1.png")  # as ImageNet's validation images come
    refused(r"val/1\.png: not in a class folder; .*data\.labels")
    (root / "val" / "cow").mkdir()
    refused(r"val/1\.png: not in a class folder")  # both layouts at once
    (root / "val" / "1.png").replace(tmp_path / "1.png")
    refused("val: no such class in train/: cow")
    (root / "val" / "cow").rename(root / "val" / "cat")
    refused("val: has no images")
    (root / "val" / "cat" / "1.png").write_bytes(b"")
    refused(r"val/cat/1\.png: empty file")
    (tmp_path / "1.png").replace(root / "val" / "cat" / "1.png")
    (root / "val" / "cat" / "2.png").symlink_to(tmp_path / "nowhere.png")
    refused(r"val/cat/2\.png: cannot be read")
    (root / "val" / "cat" / "2.png").unlink()
    (root / "train" / "dog").mkdir()
    refused("train/dog: has no images")
    (root / "train" / "dog").rmdir()
    assert made(root).classes == ("cat",)


def index(**changes: Any) -> pa.Table:
    columns = {"split": ["train", "test"], "path": ["a.png", "b.png"], "label": [0, 1], "bytes": [1, 2], **changes}
    return pa.table(columns)


EXTRA = {"classes": ["a", "b"], "mean": [0.5] * 3, "std": [0.2] * 3, "root": ".", "image_size": 8, "resize": "auto"}


def written(path: Path, table: pa.Table, extra: dict[str, Any]) -> DataSet:
    artifacts.write_table(path / "index.parquet", table, folder.KIND, IDENTITY, extra)
    return load(path / "index.parquet")


def test_the_index_that_the_next_tests_spoil_is_good(tmp_path: Path) -> None:
    data = written(tmp_path, index(), EXTRA)
    assert (len(data.train), len(data.test)) == (1, 1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (index(label=[0, 2]), r"test label 2 is outside of 0\.\.1"),
        (index(label=[-1, 1]), "train label -1"),
        (index(label=[0.0, 1.0]), "column 'label' has type double"),
        (index(split=["train", "train"]), "has no test images"),
        (index(path=["a.png", None]), "empty cells"),
        (index().drop_columns("path"), "column 'path' is missing"),
    ],
)
def test_bad_indices_are_refused(tmp_path: Path, table: pa.Table, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        written(tmp_path, table, EXTRA)


@pytest.mark.parametrize(
    ("name", "value"), [("root", None), ("image_size", "8"), ("image_size", 0), ("resize", None), ("classes", None)]
)
def test_bad_metadata_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ArtifactError, match="metadata has no"):
        written(tmp_path, index(), {**EXTRA, name: value})


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures")
    made(root)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="pictures: no such folder"):
        load(tmp_path / "index.parquet")


def test_a_truncated_index_is_refused(tmp_path: Path) -> None:
    made(tree(tmp_path / "pictures"))
    file = tmp_path / "index.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ArtifactError, match="damaged"):
        load(file)


def test_an_index_of_other_settings_is_refused(tmp_path: Path) -> None:
    written(tmp_path, index(), EXTRA)
    assert load(tmp_path / "index.parquet", IDENTITY).classes == ("a", "b")
    with pytest.raises(ArtifactError, match="was made with other settings"):
        load(tmp_path / "index.parquet", {**IDENTITY, "more": 1})
