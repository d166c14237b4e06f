"""Which data sets there are. A new one is one function that returns a `Source`, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bsnn import config
from bsnn.datasets import arrays, cifar, digits
from bsnn.datasets.arrays import Source
from bsnn.datasets.base import DataSet

SOURCES: dict[str, Callable[[config.Data, Path], Source]] = {
    "digits": digits.read,
    "cifar10": cifar.read,
    "cifar100": cifar.read,
}


def prepare(settings: config.Data, path: Path, identity: dict[str, Any], *, cache: Path, workers: int = 0) -> None:
    """Make the artifact of a data set: images as arrays (kind "images"), or an index of files (kind "image-index").

    Args:
        settings: which data set, and what of it. Its mean and deviation are for later stages.
        path: file to write.
        identity: settings that the artifact's key stands for.
        cache: folder for downloads.
        workers: processes that decode image files.

    Raises:
        DataError: the source is missing, damaged, or not to be had.
        ArtifactError: `path` cannot be written.
    """
    if settings.name in SOURCES:
        arrays.write(path, SOURCES[settings.name](settings, cache), settings, identity)
    else:
        from bsnn.datasets import folder  # with torchvision, which takes seconds

        folder.prepare(settings, path, identity, workers)


def load(path: Path, stands_for: Mapping[str, Any] | None = None, root: Path | None = None) -> DataSet:
    """Read the artifact of a data set, of either kind.

    Args:
        path: file written by `prepare`.
        stands_for: identity that its path stands for; None, where no setting says what the file should be.
        root: where image files lie now; None: where they lay when their index was made.

    Raises:
        ArtifactError: missing, damaged, foreign, of another identity, or with other content than `prepare` writes.
    """
    if Path(path).suffix == ".parquet":
        from bsnn.datasets import folder

        return folder.load(Path(path), stands_for, root)
    return arrays.load(Path(path), stands_for)
