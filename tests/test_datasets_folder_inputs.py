"""Folders of images that lie: links in circles, files that are none, names and pixels that are not what they seem."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from images_for_tests import picture, tree
from PIL import Image

from bsnn import config
from bsnn.datasets.files import BrokenImageError, FileSplit
from bsnn.errors import DataError
from bsnn.folders import layouts


def entries(root: Path, **changes: Any) -> tuple[list[str], list[Any], list[Any]]:
    settings = {"name": "folder", "path": root, **changes}
    return layouts.entries(config.Data.model_validate(settings), root)


@pytest.mark.parametrize(
    ("link", "target"),
    [("cat/loop", ".."), ("cat/loop", "."), ("dog/more", "../cat"), ("cow", "cat")],
    ids=["the split", "itself", "another class", "as a class"],
)
def test_links_to_folders_that_are_there_already_are_refused(tmp_path: Path, link: str, target: str) -> None:
    """They gave hundreds of images for six, of both classes, all labelled cat."""
    root = tree(tmp_path / "pictures")
    (root / "train" / link).symlink_to(target)
    again = rf"train/{link}: is the folder .*train.* again, by a link; remove the link"
    with pytest.raises(DataError, match=again):
        entries(root)


def test_links_to_other_folders_and_to_files_are_followed(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures")
    expected = entries(root)
    (root / "train" / "cat").rename(tmp_path / "elsewhere")
    (root / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "val" / "cat" / "0.jpg").rename(tmp_path / "0.jpg")
    (root / "val" / "cat" / "0.jpg").symlink_to(tmp_path / "0.jpg")
    assert entries(root) == expected


@pytest.mark.parametrize("link", ["train/cow", "train/cat/more", "val/cow"])
def test_links_to_nothing_are_refused(tmp_path: Path, link: str) -> None:
    """A class, or a part of one, would be missing without a word, as where a disk is not mounted."""
    root = tree(tmp_path / "pictures")
    (root / link).symlink_to(tmp_path / "not mounted")
    with pytest.raises(DataError, match=rf"{link}: is a link to nothing; bring its target back"):
        entries(root)


def test_images_below_folders_come_in_the_order_of_folders_and_names(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures")
    for name in ("b/1.png", "a/2.png", "a/1.PNG", "a/deep/0.png", "a-/0.png", "a/notes.txt"):
        (root / "train" / "cat" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(1).save(root / "train" / "cat" / name, "PNG")
    names = ["0.jpg", "1.PNG", "2.jpeg", "a/1.PNG", "a/2.png", "a-/0.png", "a/deep/0.png", "b/1.png"]
    assert [path for path, label, _ in entries(root)[1] if label == 0] == [f"train/cat/{name}" for name in names]


@pytest.mark.parametrize("broken", ["stop", "skip"])
def test_a_pipe_is_no_image(tmp_path: Path, broken: str) -> None:
    """Who opens one waits for ever."""
    root = tree(tmp_path / "pictures")
    os.mkfifo(root / "train" / "dog" / "3.jpg")
    with pytest.raises(DataError, match=r"dog/3\.jpg: is called an image, but is no regular file; remove it"):
        entries(root, broken=broken)


def test_names_that_are_not_utf_8_are_told_in_ascii(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures")
    os.rename(root / "train" / "dog" / "0.jpg", os.fsencode(root / "train" / "dog") + b"/caf\xe9.jpg")
    with pytest.raises(DataError, match=r"dog/caf\\xe9\.jpg: its name is not UTF-8.*; rename it") as caught:
        entries(root)
    str(caught.value).encode()


def test_a_class_whose_name_is_not_utf_8_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path / "pictures")
    for split in ("train", "val"):
        os.rename(root / split / "dog", os.fsencode(root / split) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"train/caf\\xe9/0\.jpg: its name is not UTF-8") as caught:
        entries(root)
    str(caught.value).encode()


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was skipped, and its images with it."""
    root = tree(tmp_path / "pictures")
    (root / "train" / "cat" / "inner").mkdir()
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if os.fspath(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"cat/inner: cannot be read \(Permission denied\); give read access"):
        entries(root)


def read(root: Path, name: str) -> Image.Image:
    sizes = np.array([(root / name).stat().st_size])
    return FileSplit(root, pa.array([name]), sizes, torch.zeros(1, dtype=torch.int64), 8).read(0)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_grey_of_16_bits_keeps_its_shades(tmp_path: Path, name: str) -> None:
    """The high byte counts, as Pillow has it of 16 bits of colour; it clipped all of grey above 255 to white."""
    shades = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(shades).save(tmp_path / name)
    found = np.asarray(read(tmp_path, name))
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.repeat((shades // 256)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_grey_without_a_known_white_is_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.ones((8, 8), kind)).save(tmp_path / "a.tiff")
    with pytest.raises(BrokenImageError, match=r"a\.tiff: .*grey of 32 bits, with an unknown white"):
        read(tmp_path, "a.tiff")


def test_an_image_that_became_a_pipe_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    split = FileSplit(tmp_path, pa.array(["a.png"]), np.array([7]), torch.zeros(1, dtype=torch.int64), 8)
    with pytest.raises(DataError, match=r"a\.png: has 0 bytes, but 7 when the index was made"):
        split.read(0)
