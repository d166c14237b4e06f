"""What a folder of images is known by: a digest over its files' names, sizes and labels, wherever it lies.

A key needs the digest, so every command and every job asks for it. Listing ImageNet's 1.3 million files takes seconds
on a local disk and may take minutes on a busy network, so the digest is kept in the user's cache (XDG_CACHE_HOME or
~/.cache) with the time at which each folder was last changed: a file that is added, removed or renamed changes its
folder's. One that is rewritten in place does not; whoever reads it finds another size than in the index and refuses it.
Where contents count (`data.contents`), the time of every file is kept, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bsnn import artifacts, config
from bsnn.errors import ArtifactError, DataError
from bsnn.folders import ground_truth, layouts
from bsnn.folders.layouts import Entry

logger = logging.getLogger("bsnn")

TOGETHER = 64  # files that a thread reads one after another
SETTLED = 2.0  # seconds: a folder changed within them may change again without another time


@dataclass(frozen=True)
class Listing:
    """Image files of a folder."""

    classes: list[str]
    train: list[Entry]
    test: list[Entry]
    contents: str | None = None  # SHA-256 over those of all files, where they count

    @property
    def digest(self) -> str:
        """SHA-256 over classes, names below the root, labels and sizes, and contents if they count; 64 hex digits."""
        parts = [self.classes, self.train, self.test, *([self.contents] if self.contents else [])]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read(settings: config.Data) -> Listing:
    """List the files anew, and keep their digest.

    Raises:
        DataError: folders, images or labels are missing, empty, cannot be read, or contradict each other.
    """
    try:
        return _read(settings)
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); give read access, or remove it"
        ) from error


def _read(settings: config.Data) -> Listing:
    root, started = _root(settings), time.time_ns()
    walked: dict[str, int] = {}
    found = Listing(*layouts.entries(settings, root, walked))
    if settings.contents:
        files = [str(root / name) for name, *_ in (*found.train, *found.test)]
        walked |= {file: os.stat(file).st_mtime_ns for file in files}
        found = replace(found, contents=_contents(files))
    walked |= {str(file): file.stat().st_mtime_ns for file in _files_of_labels(settings)}
    if max(walked.values()) < started - SETTLED * 1e9:
        changed = {os.path.abspath(path): when for path, when in walked.items()}
        with suppress(ArtifactError):  # a home that cannot be written: the next one lists again
            artifacts.write_text(_place(settings), json.dumps({"digest": found.digest, "changed": changed}))
    return found


def digest(settings: config.Data) -> str:
    """The digest: the kept one, where no folder and no file of labels has changed since.

    Raises:
        DataError: see `read`.
    """
    try:
        kept = json.loads(_place(settings).read_text())
        if all(os.stat(path).st_mtime_ns == changed for path, changed in kept["changed"].items()):
            return str(kept["digest"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or nothing that this module wrote
        pass
    return read(settings).digest


def known(settings: config.Data, identity: dict[str, Any], results: Path) -> str | None:
    """The digest; where the images are not there, that of the only index of them; None if there is none, or several.

    The index serves a machine without the images, to which results were copied, and one where a disk is not mounted.
    None, too, where images are there but cannot be listed: an index would stand for what they were.

    Args:
        settings: which folder.
        identity: of the data set, except for the digest.
        results: folder of artifacts.
    """
    if _there(settings):
        with suppress(DataError):
            return digest(settings)
        return None
    found = set()
    for path in (results / "data").glob(f"{settings.name}-*.parquet"):
        try:
            document = artifacts.describe(path)
        except ArtifactError as error:
            logger.warning("an index is left out: %s", error)
            continue
        files = document["identity"].get("files")
        made = {**document["identity"], "files": None}, document["extra"].get("root"), document["extra"].get("labels")
        labels = None if settings.labels is None else str(settings.labels)
        if files and made == ({**identity, "files": None}, str(settings.path), labels):
            found.add(str(files))
    return found.pop() if len(found) == 1 else None


def _there(settings: config.Data) -> bool:
    """Whether there is a folder of training images, and the file of labels if one is named."""
    try:
        listed = settings.path is not None and (settings.path / "train").is_dir()
        return listed and (settings.labels is None or settings.labels.exists())
    except OSError:  # no access
        return False


def _contents(files: list[str]) -> str:
    """SHA-256 over those of all files."""
    whole = hashlib.sha256()
    parts = [files[first : first + TOGETHER] for first in range(0, len(files), TOGETHER)]
    with ThreadPoolExecutor() as pool:
        for found in tqdm(
            pool.map(_sha256, parts), "contents", len(parts), unit="file", unit_scale=TOGETHER, disable=None
        ):
            whole.update(found)
    return whole.hexdigest()


def _sha256(files: list[str]) -> bytes:
    """SHA-256 of each, one after another."""
    found = []
    for path in files:
        with open(path, "rb") as file:
            found.append(hashlib.file_digest(file, "sha256").digest())
    return b"".join(found)


def _root(settings: config.Data) -> Path:
    if settings.path is None:
        raise DataError(f"data set '{settings.name}' cannot be downloaded: set data.path to the folder that holds it")
    return settings.path


def _files_of_labels(settings: config.Data) -> list[Path]:
    """The file of labels, and the one beside it that may name its classes."""
    if settings.labels is None:
        return []
    return [path for path in (settings.labels, settings.labels.with_name(ground_truth.META)) if path.is_file()]


def _place(settings: config.Data) -> Path:
    """Where the digest of these settings is kept."""
    asked = [os.path.abspath(path) for path in (_root(settings), settings.labels) if path is not None]
    name = hashlib.sha256(json.dumps([asked, settings.broken, settings.contents]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "bsnn" / "folders" / f"{name}.json"
