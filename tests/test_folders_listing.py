"""A folder of images is known by the names, sizes and labels of its files, wherever it lies."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from images_for_tests import WNIDS, imagenet, picture, tree, write_list
from test_imagenet import settings
from torchvision.datasets import folder as torchvisions

from bsnn import config
from bsnn.errors import ConfigError, DataError
from bsnn.folders import layouts, listing
from bsnn.folders.ground_truth import IMG_EXTENSIONS
from bsnn.pipeline import inventory, workflow
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.stages import train as stages_train

PLACE = Place("images", "full", 0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bsnn" / "folders"


def key(root: Path, labels: Path | None = None, results: Path = Path("nowhere"), **data: Any) -> str:
    """Of the trained network."""
    return Pipeline(settings(root, labels=labels, **data), results).key("network", PLACE)


def data(root: Path, labels: Path | None = None) -> config.Data:
    return settings(root, labels=labels).experiments["images"].data


def settled(root: Path) -> None:
    """As if nothing below had changed for an hour."""
    for path in [root, *root.rglob("*")]:
        then = path.stat().st_mtime - 3600
        os.utime(path, (then, then))


def test_a_moved_folder_has_the_same_keys_and_is_read_where_it_lies(tmp_path: Path) -> None:
    root, results = imagenet(tmp_path / "here"), tmp_path / "results"
    before = key(root)
    job = Job.of(settings(root), "images", root=results)
    stages_train.data(job)
    images = [batch for batch, _ in job.data_set().train.batches(torch.arange(24), 24, "cpu", 0)]
    root.rename(tmp_path / "there")
    moved = Job.of(settings(tmp_path / "there"), "images", root=results)
    assert key(tmp_path / "there") == before
    assert moved.pipeline.path("data", PLACE) == job.pipeline.path("data", PLACE)
    again = [batch for batch, _ in moved.data_set().train.batches(torch.arange(24), 24, "cpu", 0)]
    assert torch.equal(torch.cat(again), torch.cat(images))
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert key(tmp_path / "link") == before


def test_an_edited_list_of_labels_is_another_data_set(tmp_path: Path) -> None:
    root, labels = imagenet(tmp_path / "images", flat=True), write_list(tmp_path / "val.txt")
    before = key(root, labels)
    text = labels.read_text()
    labels.write_text(text.replace(WNIDS[0], "?").replace(WNIDS[1], WNIDS[0]).replace("?", WNIDS[1]))
    assert len(labels.read_text()) == len(text)
    assert key(root, labels) != before
    write_list(tmp_path / "other.txt", "place")  # the same labels, in other words and elsewhere
    assert key(root, tmp_path / "other.txt") == before


@pytest.mark.parametrize("change", ["name", "size", "label", "more", "fewer", "class"])
def test_whatever_changes_the_images_changes_the_key(tmp_path: Path, change: str) -> None:
    root = imagenet(tmp_path / "images")
    settled(root)
    before, file = key(root), root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    if change == "name":
        file.rename(file.with_name("other.JPEG"))
    elif change == "size":
        (tmp_path / "larger").write_bytes(file.read_bytes() + b"?")
        (tmp_path / "larger").rename(file)
    elif change == "label":
        file.rename(root / "train" / WNIDS[1] / file.name)
    elif change == "more":
        picture(1).save(root / "val" / WNIDS[0] / "a.png")
    elif change == "fewer":
        file.unlink()
    else:
        (root / "train" / WNIDS[0]).rename(root / "train" / "n0")
        (root / "val" / WNIDS[0]).rename(root / "val" / "n0")
    assert key(root) != before
    assert key(root, train_images=5) != key(root)


def test_the_digest_is_the_recorded_one(tmp_path: Path) -> None:
    """It stands in every key of every network that was trained on a folder."""
    for name in ("train/a/1.png", "train/b/x/2.JPG", "val/b/3.webp", "val/b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?" * len(name))
    found = listing.read(data(tmp_path))
    assert found.train == [("train/a/1.png", 0, 13), ("train/b/x/2.JPG", 1, 15)]
    assert found.test == [("val/b/3.webp", 1, 12)]
    assert found.digest == "0f68cf0ff5377fb81685033b5a53188d205de0ea5f8f30546e1f8ec40615769c"


def test_the_digest_is_kept_until_a_folder_or_the_labels_change(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, labels = imagenet(tmp_path / "images", flat=True), write_list(tmp_path / "val.txt")
    listed: list[Path] = []
    entries = layouts.entries
    monkeypatch.setattr(layouts, "entries", lambda *given: (listed.append(root), entries(*given))[1])
    first = listing.digest(data(root, labels))
    assert not cache.exists(), "a folder that has just changed may change again unseen"
    settled(tmp_path)
    assert [listing.digest(data(root, labels)) for _ in range(3)] == [first] * 3
    assert len(listed) == 2
    for path in (root / "val", root / "train" / WNIDS[3], root, labels):
        os.utime(path)
        assert listing.digest(data(root, labels)) == first
        settled(path)
    assert len(listed) == 6
    [kept] = cache.iterdir()
    kept.write_text("[]")
    assert listing.digest(data(root, labels)) == first
    monkeypatch.chdir(root)
    assert listing.digest(data(Path("."), labels)) == first
    assert len(listed) == 7


def test_without_the_images_the_key_is_that_of_their_index(tmp_path: Path) -> None:
    root, results = imagenet(tmp_path / "images"), tmp_path / "results"
    job = Job.of(settings(root), "images", root=results)
    stages_train.data(job)
    stages_train.network(job)
    before = key(root, results=results)
    root.rename(tmp_path / "unmounted")
    assert key(root, results=results) == before
    root.mkdir()  # where a disk is to be mounted
    assert key(root, results=results) == before
    there = inventory.artifacts(Pipeline(settings(root), results))
    assert {item.path.suffix for item in there if item.needed} >= {".parquet", ".safetensors"}
    assert all(item.needed for item in there if item.path.is_file())
    [index] = (results / "data").glob("*.parquet")
    index.unlink()
    assert key(root, results=results) != before
    left = inventory.artifacts(Pipeline(settings(root), results))
    assert left
    assert all(item.needed for item in left), "nothing says which key these have"


def test_two_indexes_of_one_folder_do_not_say_which(tmp_path: Path) -> None:
    root, results = imagenet(tmp_path / "images"), tmp_path / "results"
    stages_train.data(Job.of(settings(root), "images", root=results))
    (root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").unlink()
    stages_train.data(Job.of(settings(root), "images", root=results))
    assert len(list((results / "data").glob("*.parquet"))) == 2
    (tmp_path / "images").rename(tmp_path / "gone")
    assert workflow.unlisted(Pipeline(settings(root), results), "images")


def test_files_that_change_after_the_key_was_taken_are_refused(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "images")
    job = Job.of(settings(root), "images", root=tmp_path / "results")
    path = job.pipeline.path("data", PLACE)
    (root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").unlink()
    with pytest.raises(DataError, match=r"images: its files, or their labels, have changed since .* run again"):
        stages_train.data(job)
    assert not path.exists()


def test_a_rewritten_file_is_found_by_the_data_stage(tmp_path: Path) -> None:
    """In place: no folder's time tells of it. The second run has its key."""
    root = imagenet(tmp_path / "images")
    settled(root)
    before = key(root)
    file = root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    file.write_bytes(file.read_bytes() + b"?")
    assert key(root) == before
    with pytest.raises(DataError, match="have changed since"):
        stages_train.data(Job.of(settings(root), "images", root=tmp_path / "results"))
    assert key(root) != before
    stages_train.data(Job.of(settings(root), "images", root=tmp_path / "results"))


def test_contents_count_where_they_are_asked_for(tmp_path: Path) -> None:
    """Of a file that is rewritten with as many bytes; the time alone says nothing."""
    root = imagenet(tmp_path / "images")
    settled(root)
    names, contents = key(root), key(root, contents=True)
    assert names != contents
    file = root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    os.utime(file, (1, 1))
    assert key(root, contents=True) == contents
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert key(root) == names
    assert key(root, contents=True) != contents


def test_a_folder_without_read_access_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = imagenet(tmp_path / "images")
    iterdir = Path.iterdir

    def refused(path: Path) -> Any:
        if path == root / "train":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(DataError, match=r"images/train: cannot be read \(Permission denied\); give read access"):
        listing.read(data(root))
    assert workflow.unlisted(Pipeline(settings(root), tmp_path / "results"), "images")


def test_what_is_wrong_with_a_folder_is_told_before_anything_runs(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    (root / "val" / "dog").rename(root / "val" / "cow")
    pipeline = Pipeline(settings(root), tmp_path / "results")
    words = {"data": "imagenet", "key": pipeline.key("data", PLACE), "suffix": "parquet"}
    with pytest.raises(ConfigError, match=r"experiments\.images\.data: .*val: no such class in train/: cow"):
        workflow.inputs(pipeline, "data", words)


def test_an_index_does_not_stand_for_images_that_are_there(tmp_path: Path) -> None:
    """They would be left out without a word."""
    root, results = tree(tmp_path / "images"), tmp_path / "results"
    stages_train.data(Job.of(settings(root), "images", root=results))
    (root / "val" / "dog").rename(root / "val" / "cow")
    pipeline = Pipeline(settings(root), results)
    assert workflow.unlisted(pipeline, "images")
    words = {"data": "imagenet", "key": pipeline.key("data", PLACE), "suffix": "parquet"}
    with pytest.raises(ConfigError, match=r"val: no such class in train/: cow"):
        workflow.inputs(pipeline, "data", words)


def test_suffixes_of_images_are_torchvisions() -> None:
    assert IMG_EXTENSIONS == torchvisions.IMG_EXTENSIONS


def test_a_key_needs_no_torch(tmp_path: Path) -> None:
    """It is asked for by every dry run."""
    code = "import sys, bsnn.folders.listing, bsnn.pipeline.workflow; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
