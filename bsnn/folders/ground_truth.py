"""Labels of validation images that lie in one flat folder, as in ImageNet's official archive.

Files of three kinds are distinguished by their first line:

- the development kit's `ILSVRC2012_validation_ground_truth.txt`: one class number per line, for image 1, 2, ...; which
  class has which number stands in `meta.mat` beside it, and is not the order of the folders' names;
- Kaggle's `LOC_val_solution.csv`: image and class folder, then boxes, which are not read;
- a list, such as Caffe's `val.txt`: image, and its class as folder name or as place, from 0, in the sorted names, with
  white space or a comma between them. A first line of column names is skipped, and so are columns that follow a
  folder name, such as the boxes of Tiny ImageNet's `val_annotations.txt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bsnn.errors import DataError

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
KAGGLE = "ImageId,PredictionString"
META = "meta.mat"
LARGEST = 2**28  # bytes: 200 for each image of ImageNet
FIRST = {  # of the official images: distinguishes one order of classes from another
    "ILSVRC2012_val_00000001": "n01751748",
    "ILSVRC2012_val_00000002": "n09193705",
    "ILSVRC2012_val_00000003": "n02105855",
    "ILSVRC2012_val_00000004": "n04263257",
}
Row = tuple[int, str, str]  # line from 1, image without suffix, class as the file has it


def read(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """Label by image, named without folder and suffix.

    Args:
        path: file of one of the three kinds.
        classes: names of the training images' folders, sorted.

    Raises:
        DataError: the file cannot be read or understood, names an image twice or a class that is not there, or gives
            one of the first official images another class than it has.
    """
    rows = _rows(path, frozenset(classes))
    by_place = all(target.isdecimal() for _, _, target in rows) and not any(name.isdecimal() for name in classes)
    known = {str(label) if by_place else name: label for label, name in enumerate(classes)}
    expected = f"0 to {len(classes) - 1}" if by_place else "the class folders of train/"
    labels: dict[str, int] = {}
    for line, image, target in rows:
        if target not in known:
            raise DataError(f"{path}, line {line}: class {target} is not among {expected}; check file and folders")
        if image in labels:
            raise DataError(f"{path}, line {line}: image {image} has a label already; remove one of the two lines")
        labels[image] = known[target]
    _check_order(path, labels, classes)
    return labels


def _rows(path: Path, classes: frozenset[str]) -> list[Row]:
    lines = _lines(path)
    if lines[0][1] == KAGGLE:
        lines = [(number, " ".join(text.replace(",", " ").split()[:2])) for number, text in lines[1:]]
    elif lines[0][1].isdecimal():
        return _of_development_kit(path, lines)
    elif _names_columns(lines[0][1], classes) and len(lines) > 1:
        lines = lines[1:]
    fields = [(number, _fields(text, classes)) for number, text in lines]
    wrong = [number for number, found in fields if not all(found)]
    if wrong:
        raise DataError(
            f"{path}, line {wrong[0]}: expected an image and its class, a folder name of train/ or a place from 0, "
            "with a space, tab or comma between them; further columns may follow a folder name alone: remove others"
        )
    return [(number, PurePosixPath(image).stem, target) for number, (image, target) in fields]


def _columns(text: str) -> list[str]:
    return [column.strip() for column in text.split("," if "," in text else " ")]


def _names_columns(text: str, classes: frozenset[str]) -> bool:
    """Whether a first line says what the columns are: it names no image file, and neither a class nor a place.

    An image that is skipped by mistake is missed later, since every image needs a label.
    """
    _, *others = _columns(text)
    files = any(_is_image(part) for part in text.replace(",", " ").split())
    return bool(others) and not files and others[0] not in classes and not others[0].lstrip("-").isdecimal()


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)


def _fields(text: str, classes: frozenset[str]) -> tuple[str, str]:
    """Image and class; one of them is empty where there are not two fields."""
    image, space, target = text.partition(" ")
    if space and not (" " in target or image.endswith(",") or target.startswith(",")):
        return image, target
    columns = _columns(text)
    if len(columns) > 2 and (columns[1] in classes or _is_image(columns[0])):
        place = columns[1].isdecimal() and columns[1] not in classes  # or one of several: who knows
        return columns[0], "" if place else columns[1]
    image, _, target = text.rpartition(",")
    return image.strip(), target.strip()


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, with their numbers; fields are separated by one space."""
    _require_moderate(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); set data.labels to a file of labels") from error
    lines = [(number, " ".join(line.split())) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: is empty; set data.labels to a file of labels")
    return lines


def _require_moderate(path: Path) -> None:
    """Refuse what never ends, such as a pipe or a device, and what no list of images can be."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no regular file; set data.labels to a file of labels")
    if path.exists() and path.stat().st_size > LARGEST:
        raise DataError(f"{path}: has more than {LARGEST // 2**20} MiB; set data.labels to a file of labels")


def _of_development_kit(path: Path, lines: list[tuple[int, str]]) -> list[Row]:
    names = _names_by_number(path.with_name(META))
    rows = []
    for place, (number, text) in enumerate(lines, 1):
        if text not in names:
            raise DataError(f"{path}, line {number}: '{text}' is no class number of {META}; take both from one kit")
        rows.append((number, f"ILSVRC2012_val_{place:08d}", names[text]))
    return rows


def _names_by_number(path: Path) -> dict[str, str]:
    """Folder name by class number, as text, of the classes that have images."""
    from scipy.io import loadmat

    _require_moderate(path)
    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        columns = (synsets[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "num_children"))
        return {str(int(number)): str(name) for number, name, children in zip(*columns, strict=True) if not children}
    except Exception as error:  # loadmat names no common base: damaged files raise some ten kinds
        problem = (
            f"cannot be read ({type(error).__name__}: {error}); the development kit holds it beside its ground truth"
        )
        raise DataError(f"{path}: {problem}, copy both") from error


def _check_order(path: Path, labels: dict[str, int], classes: Sequence[str]) -> None:
    for image, name in FIRST.items():
        found = classes[labels[image]] if image in labels else name
        if name in classes and found != name:
            raise DataError(
                f"{path}: gives {image} class {found}, but it is of {name}: the classes are numbered in another order; "
                "use a file whose numbers are places, from 0, in the sorted folder names"
            )
