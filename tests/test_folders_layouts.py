"""Validation images in one flat folder: the same index as from class folders, and contradictions refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from images_for_tests import VALIDATION, WNIDS, imagenet, picture, validation_name, write_list

from bsnn import config
from bsnn.errors import DataError
from bsnn.folders import layouts


def entries(root: Path, labels: Path | None, **changes: Any) -> tuple[list[str], list[Any], list[Any]]:
    settings = {"name": "imagenet", "path": root, "labels": labels, **changes}
    return layouts.entries(config.Data.model_validate(settings), root)


def test_both_layouts_give_the_same_images_in_the_same_order(tmp_path: Path) -> None:
    flat = imagenet(tmp_path / "flat", flat=True)
    classes, train, test = entries(flat, write_list(tmp_path / "val.txt"))
    assert classes == list(WNIDS)
    again = entries(imagenet(tmp_path / "folders"), None)
    assert again[:2] == (classes, train)
    assert [(Path(path).name, label, size) for path, label, size in again[2]] == [
        (Path(path).name, label, size) for path, label, size in test
    ]
    assert [label for _, label, _ in test] == sorted(VALIDATION)
    assert test[0][0] == f"val/{validation_name(1)}.JPEG"
    assert test[0][2] == (flat / test[0][0]).stat().st_size


def test_contradictions_are_refused(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            entries(root, labels)

    root, labels = imagenet(tmp_path / "images", flat=True), write_list(tmp_path / "val.txt")
    first, further = (root / "val" / f"{validation_name(number)}.JPEG" for number in (1, 11))
    first.rename(tmp_path / "kept")
    refused(rf"val: has no image {first.stem}, one of 1 missing ones that .*val\.txt names")
    (tmp_path / "kept").rename(first)
    picture(1).save(further)
    refused(rf"val\.txt: has no label for {further.name}, one of 1 such images in .*val")
    further.unlink()
    picture(1).save(first.with_suffix(".png"))
    refused(rf"val: has 2 images {first.stem}, which differ in their suffix")
    first.with_suffix(".png").unlink()
    (root / "val" / WNIDS[0]).mkdir()
    refused("val: has folders, but data.labels is for images")
    (root / "val" / WNIDS[0]).rmdir()
    (root / "val" / "readme.txt").write_text("no image")
    assert len(entries(root, labels)[2]) == len(VALIDATION)
    first.write_bytes(b"")
    refused(rf"{first.name}: empty file; .*data.broken: skip")
    assert len(entries(root, labels, broken="skip")[2]) == len(VALIDATION)


def test_a_flat_folder_needs_labels_and_class_folders_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"val_00000001\.JPEG and 9 more: not in a class folder; .*data\.labels"):
        entries(imagenet(tmp_path / "flat", flat=True), None)
    with pytest.raises(DataError, match=r"val: has folders, but data\.labels"):
        entries(imagenet(tmp_path / "folders"), write_list(tmp_path / "val.txt"))


def test_images_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    """As those of Tiny ImageNet, with its file of labels and boxes beside them."""
    root = imagenet(tmp_path / "images", flat=True)
    expected = entries(root, write_list(tmp_path / "val.txt"))[2]
    (root / "val").rename(tmp_path / "inner")
    (root / "val").mkdir()
    (tmp_path / "inner").rename(root / "val" / "images")
    rows = [f"{validation_name(n)}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n" for n, label in enumerate(VALIDATION, 1)]
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    found = entries(root, root / "val" / "val_annotations.txt")[2]
    assert found == [(path.replace("val/", "val/images/"), label, size) for path, label, size in expected]
    advice = r"val: no such class in train/: images; .* set data\.labels to .* \(.*/val/val_annotations\.txt\)"
    with pytest.raises(DataError, match=advice):
        entries(root, None)


def test_a_flat_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "flat", flat=True)
    (root / "val").rename(root / "validation")
    with pytest.raises(DataError, match="val: has no image ILSVRC2012_val_00000001, one of 10"):
        entries(root, write_list(tmp_path / "val.txt"))


@pytest.mark.parametrize("setting", [{"labels": "val.txt"}, {"broken": "skip"}, {"resize": "auto"}, {"contents": True}])
def test_settings_of_folders_are_refused_elsewhere(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`resize` and `contents` are for folders of images, and 'digits'"):
        config.Data.model_validate({"name": "digits", **setting})
