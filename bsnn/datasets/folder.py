"""Folders of image files as data sets: a Parquet index of the files, their labels and sizes as artifact."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from bsnn import artifacts, config
from bsnn.datasets.base import Channels, DataSet, check_labels, description, evenly, refuse, statistics
from bsnn.datasets.files import FileSplit
from bsnn.errors import DataError
from bsnn.folders import listing
from bsnn.folders.layouts import Entry
from bsnn.pipeline.columns import schema

logger = logging.getLogger(__name__)

KIND = "image-index"
COLUMNS = {"split": "string", "path": "string", "label": "int64", "bytes": "int64"}
SPLITS = ("train", "test")
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LEFT_OUT = "left_out"  # in the metadata: count, and paths by split, of broken files


def prepare(settings: config.Data, path: Path, identity: dict[str, Any], workers: int = 0) -> None:
    """Write the index. Mean and deviation are ImageNet's for `imagenet`; otherwise all images are decoded.

    Args:
        settings: with `broken: skip` every file is decoded, and those that hold no whole image are left out and named
            in the log and in the metadata. `train_images` and `test_images` are chosen before that.
        path: file to write.
        identity: settings that the artifact's key stands for; under `files`, the digest of the files, where it has one.
        workers: processes that decode.

    Raises:
        DataError: folders, images or labels are missing, empty, or contradict each other; or images are broken, where
            they are decoded here and not to be skipped; or none is whole; or the files are not those of the identity.
    """
    found = listing.read(settings)
    root = Path(str(settings.path))
    # The key may have been taken from a digest that was kept; here the files are listed anew.
    if identity.get("files", found.digest) != found.digest:
        raise DataError(f"{root}: its files, or their labels, have changed since their key was taken; run again")
    index = _table(_limited(found.train, settings.train_images), _limited(found.test, settings.test_images))
    extra: dict[str, Any] = {"classes": found.classes, "root": str(root), "image_size": settings.image_size}
    extra["resize"] = settings.resize
    if settings.labels is not None:
        extra["labels"] = str(settings.labels)
    if settings.broken == "skip":
        index, extra[LEFT_OUT] = _without_broken(index, root, found.classes, workers)
    if settings.name == "imagenet":
        mean, std = IMAGENET
    else:
        splits = [_split(index, name, root, settings.image_size, settings.resize) for name in SPLITS]
        counts, _ = [split.histograms(workers) for split in splits]  # of test images to find broken files in time
        mean, std = statistics(counts)
    artifacts.write_table(path, index, KIND, identity, {**extra, "mean": list(mean), "std": list(std)})


def _without_broken(index: pa.Table, root: Path, classes: list[str], workers: int) -> tuple[pa.Table, dict[str, Any]]:
    """The index of whole images, and what the metadata says of the others."""
    # Of both splits, in the index's order: numbers of broken files are rows of it.
    found = _split(index, None, root, 1).broken(workers)
    for _, problem in found:
        logger.warning("left out: %s", problem)
    wrong = np.isin(np.arange(len(index)), [number for number, _ in found])
    broken, whole = index.filter(pa.array(wrong)), index.filter(pa.array(~wrong))
    names = {split: _of(broken, split)["path"].to_pylist() for split in SPLITS}
    for split, files in names.items():
        logger.info("%d of %d %s images are broken and left out", len(files), len(_of(index, split)), split)
    lost = set(_of(index, "train")["label"].to_pylist()) - set(_of(whole, "train")["label"].to_pylist())
    if lost or not len(_of(whole, "test")):
        where = f"train/{classes[min(lost)]}" if lost else "the test images"
        raise DataError(f"{root}: not one whole image is left of {where}; replace the broken files that the log names")
    return whole, {"count": len(found), **names}


def _limited(entries: list[Entry], wanted: int | None) -> list[Entry]:
    return [entries[index] for index in evenly(len(entries), wanted).tolist()]


def _table(train: list[Entry], test: list[Entry]) -> pa.Table:
    paths, labels, sizes = zip(*train, *test, strict=True)
    split = ["train"] * len(train) + ["test"] * len(test)
    return pa.table([split, paths, labels, sizes], schema=schema(COLUMNS))


def _of(index: pa.Table, split: str) -> pa.Table:
    return index.filter(pc.equal(index["split"], split))


def _split(
    index: pa.Table, split: str | None, root: Path, image_size: int, resize: str = "margin", left_out: int = 0
) -> FileSplit:
    """Images of one split, or of the whole index."""
    rows = index if split is None else _of(index, split)
    labels = torch.from_numpy(rows["label"].to_numpy().copy())
    sizes = rows["bytes"].to_numpy()
    return FileSplit(root, rows["path"], sizes, labels, image_size, resize=resize, left_out=left_out)


def load(path: Path, stands_for: Mapping[str, Any] | None = None, root: Path | None = None) -> DataSet:
    """Read the index.

    Args:
        path: file written by `prepare`.
        stands_for: identity that its path stands for.
        root: where the images lie now; None: where they lay when the index was made.

    Raises:
        ArtifactError: missing, damaged, of another identity than `stands_for` (unless that is None), or with other
            content than `prepare` writes.
        DataError: the folder of images is gone.
    """
    index, found = artifacts.read_table(path, KIND, COLUMNS, stands_for)
    classes, mean, std = description(path, found["extra"])
    noted, image_size, resize = (found["extra"].get(name) for name in ("root", "image_size", "resize"))
    if not (isinstance(noted, str) and isinstance(image_size, int) and image_size > 0 and isinstance(resize, str)):
        said = f"{noted!r}, {image_size!r} and {resize!r}"
        raise refuse(path, f"metadata has no root, image_size and resize, but {said}")
    root = root or Path(noted)
    if any(index[name].null_count for name in COLUMNS):
        raise refuse(path, "has empty cells")
    if not root.is_dir():
        raise DataError(f"{root.absolute()}: no such folder, but {path} names images in it; bring it back")
    left_out = found["extra"].get(LEFT_OUT, {})
    train, test = (_split(index, name, root, image_size, resize, len(left_out.get(name, []))) for name in SPLITS)
    for name, split in zip(SPLITS, (train, test), strict=True):
        check_labels(path, split.labels, name, len(classes))
    return DataSet(classes, mean, std, image_size, train, test)
