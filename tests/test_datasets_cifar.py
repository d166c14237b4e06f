"""CIFAR from archives and folders made here, in the official layout but small, and everything that can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bsnn import config
from bsnn.datasets import DataSet, cifar, load, prepare
from bsnn.errors import DataError

COUNTS = {"train.bin": 300, "test.bin": 200}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def records(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 3, 32, 32] and fine labels of a file, random but always the same."""
    generator = np.random.default_rng(COUNTS[name])
    images = generator.integers(0, 256, (COUNTS[name], 3, 32, 32), np.uint8)
    return images, (np.arange(COUNTS[name]) % 100).astype(np.uint8)


def binary(name: str) -> bytes:
    """The official layout, record by record: coarse label, fine label, red, green, blue."""
    images, labels = records(name)
    return b"".join(bytes([199, label]) + image.tobytes() for image, label in zip(images, labels.tolist(), strict=True))


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-100-binary/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FILES = {"train.bin": binary("train.bin"), "test.bin": binary("test.bin")}
ARCHIVE = archive(FILES)


def register(
    monkeypatch: pytest.MonkeyPatch, content: bytes, url: str = "file:///nowhere/cifar-100-binary.tar.gz"
) -> None:
    """Put the small archive instead of the official one."""
    small = replace(
        cifar.SETS["cifar100"],
        url=url,
        md5=md5(content),
        train={"train.bin": md5(FILES["train.bin"])},
        test={"test.bin": md5(FILES["test.bin"])},
    )
    monkeypatch.setitem(cifar.SETS, "cifar100", small)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ARCHIVE)


def made(folder: Path, **changes: object) -> DataSet:
    settings = config.Data.model_validate({"name": "cifar100", **changes})
    target = folder / "data.safetensors"
    try:
        prepare(settings, target, {"stage": "data", "version": 1}, cache=folder / "cache")
    except DataError:
        assert not list(folder.glob("*.safetensors")), "an artifact in spite of the error"
        raise
    return load(target)


def spread(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def check(data: DataSet) -> None:
    for split, name in ((data.train, "train.bin"), (data.test, "test.bin")):
        images, labels = records(name)
        assert np.array_equal(split.images.numpy(), images)  # type: ignore[attr-defined]
        assert np.array_equal(split.labels.numpy(), labels)
    assert data.image_size == 32
    assert data.mean == (0.50707516, 0.48654887, 0.44091784)


def test_from_an_archive_in_a_folder(tmp_path: Path) -> None:
    data = made(tmp_path, path=spread(tmp_path / "raw", {"cifar-100-binary.tar.gz": ARCHIVE}))
    check(data)
    assert data.classes[:2] == ("apple", "aquarium_fish")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["cifar-100-binary.tar.gz"]


@pytest.mark.parametrize("inner", [".", "cifar-100-binary"])
def test_from_binary_files(tmp_path: Path, inner: str) -> None:
    spread(tmp_path / "raw" / inner, FILES)
    data = made(tmp_path, path=tmp_path / "raw")
    check(data)


@pytest.mark.parametrize(("name", "count", "last"), [("cifar10", 10, "truck"), ("cifar100", 100, "worm")])
def test_class_names_are_sorted_and_all_there(name: str, count: int, last: str) -> None:
    """As in the official archives' files of names, where both sets have them in alphabetical order."""
    classes = cifar.SETS[name].classes
    assert classes == tuple(sorted(set(classes)))
    assert (len(classes), classes[-1]) == (count, last)


def test_a_file_of_names_changes_nothing(tmp_path: Path) -> None:
    """One key, one content: with a file of names beside the images, whatever it says, and without."""
    for name, more in (("with", {"fine_label_names.txt": b"class0\n"}), ("without", {})):
        data = made(tmp_path / name, path=spread(tmp_path / name / "raw", {**FILES, **more}))
        assert data.classes == cifar.SETS["cifar100"].classes


def test_from_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spread(tmp_path / "server", {"cifar-100-binary.tar.gz": ARCHIVE})
    register(monkeypatch, ARCHIVE, (tmp_path / "server" / "cifar-100-binary.tar.gz").as_uri())
    check(made(tmp_path))
    (tmp_path / "server" / "cifar-100-binary.tar.gz").unlink()
    check(made(tmp_path))  # from the cache now


def test_limits_and_size(tmp_path: Path) -> None:
    raw = spread(tmp_path / "raw", FILES)
    data = made(tmp_path, path=raw, image_size=64, train_images=30, test_images=20)
    assert data.train.images.shape == (30, 3, 64, 64)  # type: ignore[attr-defined]
    assert data.train.labels.tolist() == [(10 * index) % 100 for index in range(30)]
    corners = torch.from_numpy(records("test.bin")[0])[::10, :, ::31, ::31]
    assert data.test.images[:, :, ::63, ::63].equal(corners)  # type: ignore[attr-defined]


def test_ten_classes_have_one_label_byte_and_five_training_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = cifar.SETS["cifar10"]
    files = {name: bytes([index]) + bytes([index + 1] * 3072) for index, name in enumerate(spec.files)}
    tables = {part: {name: md5(files[name]) for name in getattr(spec, part)} for part in ("train", "test")}
    monkeypatch.setitem(cifar.SETS, "cifar10", replace(spec, **tables))
    data = made(tmp_path, name="cifar10", path=spread(tmp_path / "raw", files))
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4]
    assert data.train.images[:, 2, 31, 31].tolist() == [1, 2, 3, 4, 5]  # type: ignore[attr-defined]
    assert data.test.labels.tolist() == [5]


def refused(folder: Path, raw: Path, *messages: str) -> None:
    with pytest.raises(DataError) as caught:
        made(folder, path=raw)
    for message in (str(raw), *messages):
        assert message in str(caught.value)


def test_a_wrong_checksum_names_file_and_both_sums(tmp_path: Path) -> None:
    spoiled = bytearray(FILES["test.bin"])
    spoiled[5000] ^= 1
    raw = spread(tmp_path / "raw", {**FILES, "test.bin": bytes(spoiled)})
    refused(tmp_path, raw, "test.bin", md5(bytes(spoiled)), md5(FILES["test.bin"]), "replace it")
    assert (raw / "test.bin").read_bytes() == spoiled, "a user's file is never removed"


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    raw = spread(tmp_path / "raw", {"cifar-100-binary.tar.gz": ARCHIVE[: len(ARCHIVE) // 2]})
    refused(tmp_path, raw, "cifar-100-binary.tar.gz", md5(ARCHIVE), md5(ARCHIVE[: len(ARCHIVE) // 2]))


@pytest.mark.parametrize(
    "content",
    [ARCHIVE[: len(ARCHIVE) // 2], b"no archive at all", gzip.compress(b"no tar"), b""],
    ids=["truncated", "no gzip", "no tar", "empty"],
)
def test_an_archive_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its checksum were right."""
    register(monkeypatch, content)
    refused(tmp_path, spread(tmp_path / "raw", {"cifar-100-binary.tar.gz": content}), "cifar-100-binary.tar.gz")


def test_an_archive_without_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive({"train.bin": FILES["train.bin"]})
    register(monkeypatch, content)
    refused(tmp_path, spread(tmp_path / "raw", {"cifar-100-binary.tar.gz": content}), "has not test.bin")


def test_missing_files_are_named(tmp_path: Path) -> None:
    refused(tmp_path, spread(tmp_path / "raw", {"train.bin": FILES["train.bin"]}), "has not test.bin;")
    refused(tmp_path, spread(tmp_path / "empty", {}), "has not train.bin, test.bin", "cifar-100-binary.tar.gz")
    refused(tmp_path, tmp_path / "none", "no such folder")
