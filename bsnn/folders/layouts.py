"""Which image files a folder holds, and of which class: class folders, or one flat folder and a file of labels."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from bsnn import config
from bsnn.errors import DataError
from bsnn.folders import ground_truth
from bsnn.folders.ground_truth import IMG_EXTENSIONS

LAYOUT = (
    "expected train/<class>/<images> and val/<class>/<images>, or test/ instead of val/, or val/<images> (or "
    "val/images/<images>) and data.labels, the file with their classes"
)
IMAGES = f"({', '.join(IMG_EXTENSIONS)})"
Entry = tuple[str, int, int]  # path relative to the root, label, bytes


def entries(
    settings: config.Data, root: Path, walked: dict[str, int] | None = None
) -> tuple[list[str], list[Entry], list[Entry]]:
    """Classes, training images and test images, sorted by class and then by path, in either layout.

    Args:
        settings: where labels stand, and whether empty files are an error.
        root: folder with train/ and val/.
        walked: is given every folder that was looked into, with the time of its last change in nanoseconds.

    Raises:
        DataError: folders, images or labels are missing, empty, or contradict each other.
    """
    walked = {} if walked is None else walked
    classes = _class_folders(root / "train")
    train = _in_class_folders(root / "train", classes, walked)
    without = sorted(set(range(len(classes))) - {label for _, label in train})
    if without:
        raise DataError(
            f"{root / 'train' / classes[without[0]]}: has no images {IMAGES}; add some, or remove the folder"
        )
    folder = root / "test" if not (root / "val").exists() and (root / "test").is_dir() else root / "val"
    flat = settings.labels
    given = (folder, classes, walked)
    test = _in_class_folders(*given) if flat is None else _in_flat_folder(*given, flat)
    # The folders above the classes, too: a new class folder changes the time of its own parent alone.
    walked |= {str(place): place.stat().st_mtime_ns for place in (root, root / "train", folder)}
    checked = settings.broken == "stop"
    return classes, _sized(root, train, checked), _sized(root, test, checked)


def _class_folders(folder: Path) -> list[str]:
    """Their names, sorted; no image may lie beside them."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    names = [entry.name for entry in inside if entry.is_dir()]
    for entry in inside:
        _require_target(entry)
    loose = _images(folder)
    if loose:
        more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
        raise DataError(f"{loose[0]}{more}: not in a class folder; {LAYOUT}")
    if not names:
        problem = "has no class folders" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {problem}; {LAYOUT}")
    return names


def _images(folder: Path) -> list[Path]:
    """Images that lie in the folder itself, sorted."""
    files = folder.iterdir() if folder.is_dir() else []
    return sorted(file for file in files if file.suffix.lower() in IMG_EXTENSIONS and not file.is_dir())


def _in_class_folders(folder: Path, classes: list[str], walked: dict[str, int]) -> list[tuple[str, int]]:
    names = _class_folders(folder)
    strange = [name for name in names if name not in classes]
    if strange:
        advice = "remove it or add it to train/"
        if len(names) == 1:
            advice += f"; or, if it holds all images, set data.labels to a file of their classes{_candidates(folder)}"
        raise DataError(f"{folder}: no such class in train/: {', '.join(strange[:5])}; {advice}")
    labels = {name: classes.index(name) for name in names}
    status = folder.stat()
    seen = {(status.st_dev, status.st_ino): str(folder)}
    found = [(file, labels[name]) for name in names for file in _below(folder / name, seen, walked)]
    if not found:
        raise DataError(f"{folder}: has no images {IMAGES}; {LAYOUT}")
    return found


def _candidates(folder: Path) -> str:
    """Files beside the images that may hold their classes."""
    files = sorted(str(file) for file in folder.iterdir() if file.suffix.lower() in (".txt", ".csv", ".tsv"))
    return f" ({' or '.join(files[:3])})" if files else ""


def _below(folder: Path, seen: dict[tuple[int, int], str], walked: dict[str, int]) -> list[str]:
    """Images in a class folder and in folders below it, also behind links, sorted by folder and then by name.

    Args:
        folder: class folder.
        seen: folders that were met, by device and inode: a link that leads to one of them again is refused, since it
            leads round in a circle, or gives images a second class.
        walked: is given each folder, with the time of its last change.
    """

    def unreadable(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); give read access, or remove it"
        ) from error

    found: list[str] = []
    places: list[tuple[str, list[str]]] = []
    for place, _, names in os.walk(folder, onerror=unreadable, followlinks=True):
        status = os.stat(place)
        before = seen.setdefault((status.st_dev, status.st_ino), place)
        if before != place:
            raise DataError(f"{shown(place)}: is the folder {shown(before)} again, by a link; remove the link")
        walked[place] = status.st_mtime_ns
        places.append((place, names))
    for place, names in sorted(places):
        for name in sorted(names):
            if name.lower().endswith(IMG_EXTENSIONS):
                found.append(f"{place}/{name}")
            else:
                _require_target(Path(place, name))
    return found


def _require_target(entry: Path) -> None:
    """Refuse a link to nothing, which may stand for a folder of images on a disk that is not there."""
    if entry.is_symlink() and not entry.exists():
        raise DataError(f"{shown(entry)}: is a link to nothing; bring its target back, or remove the link")


def shown(path: str | Path) -> str:
    """A path as it can be printed, also where its name is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _in_flat_folder(folder: Path, classes: list[str], walked: dict[str, int], source: Path) -> list[tuple[str, int]]:
    """Sorted as they would be in class folders; every image has a label, every label an image.

    They lie in the folder, or in the only one in it, as val/images/ of Tiny ImageNet.
    """
    labels = ground_truth.read(source, classes)
    inner = [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    if len(inner) == 1 and inner[0].name not in classes and not _images(folder):
        [folder] = inner
    if folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir()):
        raise DataError(
            f"{folder}: has folders, but data.labels is for images that lie in it without any; "
            "leave data.labels out, or remove the folders"
        )
    images = _images(folder)
    unlabelled = [image.name for image in images if image.stem not in labels]
    if unlabelled:
        problem = f"has no label for {unlabelled[0]}, one of {len(unlabelled)} such images in {folder}"
        raise DataError(f"{source}: {problem}; set data.labels to the file that belongs to these images")
    [(name, count)] = Counter(image.stem for image in images).most_common(1) or [("", 0)]
    if count > 1:
        raise DataError(f"{folder}: has {count} images {name}, which differ in their suffix; remove all but one")
    if folder.is_dir():
        walked[str(folder)] = folder.stat().st_mtime_ns
    missing = sorted(labels.keys() - {image.stem for image in images})
    if missing:
        problem = f"has no image {missing[0]}, one of {len(missing)} missing ones that {source} names"
        raise DataError(f"{folder}: {problem}; bring them back")
    ordered = sorted(((image, labels[image.stem]) for image in images), key=lambda item: (item[1], item[0]))
    return [(str(image), label) for image, label in ordered]


def _sized(root: Path, found: list[tuple[str, int]], refuse_empty: bool) -> list[Entry]:
    """With paths below the root, and sizes. Texts, since a Path takes as long as the system's answer."""
    # The root and a separator; nothing of the root `.`, with which no path below it begins.
    sized, above = [], len(str(root / "_")) - 1
    for file, label in tqdm(found, desc="index", unit="file", disable=None):
        name = file[above:]
        # Bytes that are no UTF-8 are not printable: the second, slower look is for few names.
        if not name.isprintable() and shown(name) != name:
            raise DataError(f"{shown(file)}: its name is not UTF-8, as the index needs it; rename it")
        try:
            status = os.stat(file)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); bring it back, or remove it") from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{file}: is called an image, but is no regular file; remove it")
        size = status.st_size
        if not size and refuse_empty:
            raise DataError(f"{file}: empty file; replace it, or leave such files out with data.broken: skip")
        sized.append((name, label, size))
    return sized
