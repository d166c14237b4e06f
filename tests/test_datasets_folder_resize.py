"""Setting data.resize: images that have the network's size are taken as they are, and who says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images_for_tests import picture
from PIL import Image
from torch import Tensor

from bsnn import config
from bsnn.datasets import DataSet, load, prepare
from bsnn.errors import DataError
from bsnn.pipeline import identity

SIZE = 28


def settings(root: Path, **changes: Any) -> config.Data:
    return config.Data.model_validate({"name": "folder", "path": root, "image_size": SIZE, **changes})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of the network's size, and as the second of each class a larger one."""
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for number, (width, height) in enumerate([(SIZE, SIZE), (48, 40)]):
                picture(10 * label + number, width, height).save(tmp_path / "pictures" / split / name / f"{number}.png")
    return tmp_path / "pictures"


def made(root: Path, **changes: Any) -> DataSet:
    prepare(settings(root, **changes), root.parent / "index.parquet", {}, cache=root)
    return load(root.parent / "index.parquet")


def shown(data: DataSet) -> Tensor:
    return torch.cat([images for images, _ in data.test.batches(torch.arange(len(data.test)), 4, "cpu")])


def whole(root: Path, name: str) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(root / name).convert("RGB")).copy()).permute(2, 0, 1)


def with_margin(root: Path, name: str) -> Tensor:
    """Pillow alone: shorter side to 32, then 28 x 28 from the middle."""
    image = Image.open(root / name).convert("RGB")
    width = 32 * image.width // image.height
    left = round((width - SIZE) / 2)
    cut = image.resize((width, 32), Image.Resampling.BILINEAR).crop((left, 2, left + SIZE, 2 + SIZE))
    return torch.from_numpy(np.asarray(cut).copy()).permute(2, 0, 1)


def test_images_that_have_the_size_stay_as_they_are(root: Path) -> None:
    """They were enlarged to 32 x 32, and an eighth of their width and height was cut off."""
    found = shown(made(root))
    assert found[0].equal(whole(root, "val/cat/0.png"))
    assert found[2].equal(whole(root, "val/dog/0.png"))
    assert found[1].equal(with_margin(root, "val/cat/1.png"))


@pytest.mark.parametrize("changes", [{"name": "imagenet"}, {"resize": "margin"}])
def test_the_margin_is_imagenets_and_may_be_asked_for(root: Path, changes: dict[str, Any]) -> None:
    found = shown(made(root, **changes))
    for image, name in zip(found, ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"), strict=True):
        assert image.equal(with_margin(root, f"val/{name}"))


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_without_resizing_images_of_another_size_are_told(root: Path, name: str) -> None:
    """By the data stage, where it looks at all images; else when they are met."""
    message = r"cat/1\.png: has 48 x 40 pixels, but data\.image_size is 28.* set data\.resize to auto"
    with pytest.raises(DataError, match=message):
        shown(made(root, name=name, resize="none"))
    for large in root.rglob("1.png"):
        large.unlink()
    assert shown(made(root, name=name, resize="none"))[1].equal(whole(root, "val/dog/0.png"))


def test_statistics_are_of_the_images_as_they_are_seen(root: Path) -> None:
    data = made(root)
    seen = torch.cat([images for images, _ in data.train.batches(torch.arange(4), 3, "cpu")]).double() / 255
    torch.testing.assert_close(torch.tensor(data.mean).double(), seen.mean((0, 2, 3)))


def test_the_default_of_folders_is_a_part_of_keys_and_the_margin_is_none() -> None:
    """Artifacts of folders that were made with the margin keep their keys, if that is asked for; so do all others."""

    def canonical(**changes: Any) -> dict[str, Any]:
        return identity.canonical(settings(Path("x"), **changes))

    assert canonical()["resize"] == "auto"
    assert canonical(resize="none")["resize"] == "none"
    assert "resize" not in canonical(resize="margin")
    assert "resize" not in canonical(name="imagenet")
    digits = config.Data.model_validate({"name": "digits"})
    assert identity.canonical(digits) == {"name": "digits"}
    assert settings(Path("x")) == config.Data.model_validate(settings(Path("x")).model_dump())
