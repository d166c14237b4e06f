"""Folders of image files: train/ and val/ (or test/), each with one folder a class; a Parquet index as artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from tqdm import tqdm

from bsnn import artifacts, config
from bsnn.datasets.base import Channels, DataSet, check_labels, description, evenly, histograms, refuse, statistics
from bsnn.datasets.files import FileSplit
from bsnn.errors import DataError

KIND = "image-index"
COLUMNS = {"split": "string", "path": "string", "label": "int64", "bytes": "int64"}
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAYOUT = "expected train/<class>/<images> and val/<class>/<images> (or test/ in place of val/)"
IMAGES = f"({', '.join(IMG_EXTENSIONS)})"
Entry = tuple[str, int, int]  # path relative to the root, label, bytes


def prepare(settings: config.Data, path: Path, identity: dict[str, Any]) -> None:
    """Write the index. Mean and deviation are ImageNet's for `imagenet`; otherwise all training images are decoded.

    Raises:
        DataError: folders or images are missing, empty or, for any set but `imagenet`, broken.
    """
    if settings.path is None:
        raise DataError(f"data set '{settings.name}' cannot be downloaded: set data.path to the folder that holds it")
    root = settings.path
    classes = _classes(root / "train")
    labels = {name: label for label, name in enumerate(classes)}
    train = _entries(root, root / "train", labels)
    without = sorted(set(labels.values()) - {label for _, label, _ in train})
    if without:
        raise DataError(
            f"{root / 'train' / classes[without[0]]}: has no images {IMAGES}; add some, or remove the folder"
        )
    test = _entries(root, _testing(root), labels)
    index = _table(_limited(train, settings.train_images), _limited(test, settings.test_images))
    splits = _splits(index, root, settings.image_size)
    mean, std = IMAGENET if settings.name == "imagenet" else _measured(splits["train"])
    extra = {"classes": classes, "mean": list(mean), "std": list(std)}
    extra |= {"root": str(root), "image_size": settings.image_size}
    artifacts.write_table(path, index, KIND, identity, extra)


def _classes(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    if not names:
        problem = "has no class folders" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {problem}; {LAYOUT}")
    return names


def _testing(root: Path) -> Path:
    return root / "test" if not (root / "val").exists() and (root / "test").is_dir() else root / "val"


def _entries(root: Path, folder: Path, labels: dict[str, int]) -> list[Entry]:
    """Images of one split, sorted by class and path; its classes must all be known."""
    classes = _classes(folder)
    strange = [name for name in classes if name not in labels]
    if strange:
        raise DataError(f"{folder}: no such class in train/: {', '.join(strange[:5])}; remove it or add it to train/")
    found = make_dataset(folder, {name: labels[name] for name in classes}, IMG_EXTENSIONS, allow_empty=True)
    if not found:
        raise DataError(f"{folder}: has no images {IMAGES}; {LAYOUT}")
    entries = []
    for file, label in tqdm(found, desc=f"index {folder.name}", disable=None):
        size = Path(file).stat().st_size
        if not size:
            raise DataError(f"{file}: empty file; replace or remove it")
        entries.append((Path(file).relative_to(root).as_posix(), label, size))
    return entries


def _limited(entries: list[Entry], wanted: int | None) -> list[Entry]:
    return [entries[index] for index in evenly(len(entries), wanted).tolist()]


def _table(train: list[Entry], test: list[Entry]) -> pa.Table:
    paths, labels, sizes = zip(*train, *test, strict=True)
    split = ["train"] * len(train) + ["test"] * len(test)
    columns = {
        "split": pa.array(split, pa.string()),
        "path": pa.array(paths, pa.string()),
        "label": pa.array(labels, pa.int64()),
        "bytes": pa.array(sizes, pa.int64()),
    }
    return pa.table(columns)


def _splits(index: pa.Table, root: Path, image_size: int) -> dict[str, FileSplit]:
    splits = {}
    for name in ("train", "test"):
        rows = index.filter(pc.equal(index["split"], name))
        labels = torch.from_numpy(rows["label"].to_numpy().copy())
        splits[name] = FileSplit(root, rows["path"], rows["bytes"].to_numpy(), labels, image_size)
    return splits


def _measured(split: FileSplit) -> tuple[Channels, Channels]:
    """Statistics of all training images, decoded as for evaluation by as many processes as torch has threads."""
    workers = torch.get_num_threads() if len(split) > 1000 else 0
    batches = split.batches(torch.arange(len(split)), 64, "cpu", workers)
    total = (len(split) + 63) // 64
    return statistics(histograms(images for images, _ in tqdm(batches, desc="mean", total=total, disable=None)))


def load(path: Path, stands_for: Mapping[str, Any] | None = None) -> DataSet:
    """Read the index.

    Raises:
        ArtifactError: missing, damaged, of another identity than `stands_for` (unless that is None), or with other
            content than `prepare` writes.
        DataError: the folder of images is gone.
    """
    index, found = artifacts.read_table(path, KIND, COLUMNS, stands_for)
    classes, mean, std = description(path, found["extra"])
    root, image_size = found["extra"].get("root"), found["extra"].get("image_size")
    if not isinstance(root, str) or not isinstance(image_size, int) or image_size < 1:
        raise refuse(path, f"metadata has no root and image_size, but {root!r} and {image_size!r}")
    if any(index[name].null_count for name in COLUMNS):
        raise refuse(path, "has empty cells")
    if not Path(root).is_dir():
        raise DataError(f"{Path(root).absolute()}: no such folder, but {path} names images in it; bring it back")
    splits = _splits(index, Path(root), image_size)
    for name, split in splits.items():
        check_labels(path, split.labels, name, len(classes))
    return DataSet(classes, mean, std, image_size, splits["train"], splits["test"])
