"""Files of labels for flat folders: all that people have, and all that can be wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from images_for_tests import VALIDATION, WNIDS, validation_name, write_list
from scipy.io import savemat

from bsnn.errors import DataError
from bsnn.folders import ground_truth

EXPECTED = {validation_name(number): label for number, label in enumerate(VALIDATION, 1)}
NUMBERS = (3, 1, 4, 2)  # of the classes in the development kit, which does not sort them


def development_kit(folder: Path, first: str = "", *, compressed: bool = False) -> Path:
    """Ground truth and meta.mat; a fifth entry of the latter is no class but the family of two of them."""
    names = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    synsets = np.zeros((5, 1), [(name, object) for name in names])
    for row, (number, wnid) in enumerate(zip((*NUMBERS, 5), (*WNIDS, "n00000001"), strict=True)):
        synsets[row, 0] = (float(number), wnid, f"name of {wnid}", 2.0 if number == 5 else 0.0)
    savemat(folder / "meta.mat", {"synsets": synsets}, do_compression=compressed)
    file = folder / "ILSVRC2012_validation_ground_truth.txt"
    file.write_text(first + "".join(f"{NUMBERS[label]}\n" for label in VALIDATION))
    return file


def kaggle(folder: Path) -> Path:
    """In an order of its own, as the real one, and with one box or two."""
    rows = [
        f"{image},{WNIDS[label]} 85 1 499 272 {WNIDS[label]} 1 2 3 4"[: 60 + 20 * label]
        for image, label in EXPECTED.items()
    ]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows[::-1]]) + "\n")
    return folder / "LOC_val_solution.csv"


def test_all_kinds_say_the_same(tmp_path: Path) -> None:
    files = [write_list(tmp_path / f"{what}.txt", what) for what in ("wnid", "place")]
    for file in (*files, development_kit(tmp_path), kaggle(tmp_path)):
        assert ground_truth.read(file, WNIDS) == EXPECTED, file


def test_lists_may_name_folders_and_leave_lines_empty(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("val/b.jpeg\t1\n\n  val/a.JPEG   0\n")
    assert ground_truth.read(tmp_path / "val.txt", ("x", "y")) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    "text",
    ["a.png,1\nb.png,0\n", "\ufeffa.png,1\r\nb.png,0\r\n", "val/a.png, 1\n\nval/b.png ,0\n", "a.png,y\nb.png,x\n"],
    ids=["plain", "as spreadsheets write", "with spaces", "names"],
)
def test_lists_may_have_commas(tmp_path: Path, text: str) -> None:
    (tmp_path / "val.csv").write_bytes(text.encode())
    assert ground_truth.read(tmp_path / "val.csv", ("x", "y")) == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na.png,1\nb.png,0\n",
        "\ufefffile name,class\r\na.png,y\r\nb.png,x\r\n",
        "image\tclass\na.png\ty\nb.png\tx\n",
        "a.png\ty\t0\t32\t44\t62\nb.png\tx\t52\t55\t57\t59\n",
        "a.png,y,0,32\nb.png,x,52,55\n",
        "filename,class,left,top\na.png, y, 0, 32\nb.png, x, 52, 55\n",
        "Image Class Left\na.png y 0\nb.png x 1\n",
    ],
    ids=["header", "as spreadsheets write", "tabs", "Tiny ImageNet", "commas", "both", "spaces"],
)
def test_lists_may_have_a_header_and_further_columns(tmp_path: Path, text: str) -> None:
    (tmp_path / "val.txt").write_bytes(text.encode())
    assert ground_truth.read(tmp_path / "val.txt", ("x", "y")) == {"a": 1, "b": 0}


def test_a_first_image_is_no_header(tmp_path: Path) -> None:
    """Without suffixes, and with a place or a class."""
    for text in ("a 1\nb 0\n", "a,y\nb,x\n", "image y\nb x\n"):
        (tmp_path / "val.txt").write_text(text)
        assert list(ground_truth.read(tmp_path / "val.txt", ("x", "y")).values()) == [1, 0]


def test_commas_may_belong_to_names(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("a,b.png x,y\nc.png z\nd,e.png,z\n")
    assert ground_truth.read(tmp_path / "val.txt", ("x,y", "z")) == {"a,b": 0, "c": 1, "d,e": 1}


def test_folders_that_are_numbers_are_names(tmp_path: Path) -> None:
    """Sorted as text: 0, 10, 2."""
    (tmp_path / "val.txt").write_text("a.png 2\nb.png 10\n")
    assert ground_truth.read(tmp_path / "val.txt", ("0", "10", "2")) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a.png 0\nb.png 4\n", "line 2: class 4 is not among 0 to 3"),
        ("a.png -1\n", "line 1: class -1 is not among the class folders"),
        ("a.png n01751748\nb.png n00000009\n", "line 2: class n00000009 is not among the class folders of train/"),
        ("a.png\nb.png 1\n", "line 1: expected an image and its class"),
        ("a.png n01751748\nb c.png,0\n", r"line 2: class c\.png,0 is not among"),
        ("a.png;0\nb.png;1\n", "line 1: expected an image and its class"),
        ("image,label\n", "line 1: class label is not among"),
        ("image,label\na.png,0\nb.png,4\n", "line 3: class 4 is not among 0 to 3"),
        ("a.png,n00000009,1,2\n", "line 1: class n00000009 is not among"),
        ("a.png,0,1,2\n", "line 1: expected an image and its class.* further columns may follow a folder name alone"),
        ("a.png,0\nb.png,\n", "line 2: expected an image and its class"),
        ("a.png 0\nb.png\n", "line 2: expected an image and its class"),
        ("a.png 0 1\n", "line 1: expected an image and its class"),
        ("a.png 0\nb.png 1\nval/a.png 0\n", "line 3: image a has a label already"),
        (
            "ILSVRC2012_val_00000002.JPEG 0\n",
            "ILSVRC2012_val_00000002 class n01751748, but it is of n09193705: .*order",
        ),
        ("ImageId,PredictionString\na,n1 1 2 3 4\n", "line 2: class n1 is not among the class folders"),
    ],
)
def test_lists_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "val.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        ground_truth.read(tmp_path / "val.txt", WNIDS)


def test_numbers_of_the_kit_are_not_taken_for_places(tmp_path: Path) -> None:
    """Class numbers from 1, in the kit's order, beside image names: all but one would pass as places from 0."""
    lines = [f"{image}.JPEG {NUMBERS[label] - 1}" for image, label in EXPECTED.items()]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match="numbered in another order"):
        ground_truth.read(tmp_path / "val.txt", WNIDS)


def test_kits_that_are_wrong_are_refused(tmp_path: Path) -> None:
    def refused(file: Path, message: str) -> None:
        with pytest.raises(DataError, match=message):
            ground_truth.read(file, WNIDS)

    refused(development_kit(tmp_path, "5\n"), r"line 1: '5' is no class number of meta\.mat")
    refused(development_kit(tmp_path, "0\n"), r"line 1: '0' is no class number")
    refused(development_kit(tmp_path, "1\n"), "ILSVRC2012_val_00000001 class n02105855, but it is of n01751748")
    file = development_kit(tmp_path)
    (tmp_path / "meta.mat").write_bytes((tmp_path / "meta.mat").read_bytes()[:300])
    refused(file, r"meta\.mat: cannot be read")
    development_kit(tmp_path, compressed=True)
    content = bytearray((tmp_path / "meta.mat").read_bytes())
    content[200] ^= 0xFF
    (tmp_path / "meta.mat").write_bytes(content)
    refused(file, r"meta\.mat: cannot be read \(error: Error -3 while decompressing.*copy both")
    (tmp_path / "meta.mat").unlink()
    refused(file, r"meta\.mat: cannot be read .*copy both")
    refused(tmp_path / "none.txt", r"none\.txt: cannot be read")


def test_what_never_ends_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match=r"is no regular file; set data\.labels"):
            ground_truth.read(path, WNIDS)
    labels = development_kit(tmp_path)
    (tmp_path / "meta.mat").unlink()
    os.mkfifo(tmp_path / "meta.mat")
    with pytest.raises(DataError, match=r"meta\.mat: is no regular file"):
        ground_truth.read(labels, WNIDS)
    monkeypatch.setattr(ground_truth, "LARGEST", 2**20)
    (tmp_path / "large.txt").write_text("a.png 0\n" * 2**18)
    with pytest.raises(DataError, match="has more than 1 MiB"):
        ground_truth.read(tmp_path / "large.txt", WNIDS)
