"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official binary archives, downloaded or at hand.

A record of the binary files is the label (CIFAR-100: coarse, then fine), then 1024 bytes each of red, green and
blue, row by row. Archives and files are verified by MD5; no file is ever unpacked to disk. Class names stand here, in
the order of the labels, so that they are the same whether or not the archive's file of names is at hand.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from bsnn import config
from bsnn.datasets.arrays import Source
from bsnn.datasets.base import Channels
from bsnn.datasets.download import check, fetch, md5_of
from bsnn.errors import DataError

PIXELS = 3 * 32 * 32
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple motorcycle
mountain mouse mushroom oak orange orchid otter palm pear pickup_truck pine plain plate poppy porcupine possum rabbit
raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower
sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow wolf woman
worm
"""
REPLACE = "replace it with the official one, or leave data.path out to download it"


@dataclass(frozen=True)
class Cifar:
    """One of the two sets."""

    url: str
    md5: str  # of the archive
    folder: str  # inside the archive
    train: Mapping[str, str]  # MD5 by file name, in the order of the images
    test: Mapping[str, str]
    classes: tuple[str, ...]
    label_bytes: int  # the last one is the label
    mean: Channels
    std: Channels

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return self.url.rsplit("/", 1)[1]

    @property
    def files(self) -> dict[str, str]:
        """MD5 of every binary file."""
        return {**self.train, **self.test}


SETS = {
    "cifar10": Cifar(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        train={
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        },
        test={"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
        classes=tuple(CIFAR10.split()),
        label_bytes=1,
        mean=(0.49139968, 0.48215841, 0.44653091),
        std=(0.24703223, 0.24348513, 0.26158784),
    ),
    "cifar100": Cifar(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        train={"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
        test={"test.bin": "4499cfba6c016c1be1438163640a0898"},
        classes=tuple(CIFAR100.split()),
        label_bytes=2,
        mean=(0.50707516, 0.48654887, 0.44091784),
        std=(0.26733429, 0.25643846, 0.27615047),
    ),
}


def read(settings: config.Data, cache: Path) -> Source:
    """The whole set, from `settings.path` if that is given, else from the archive in `cache`, downloaded if need be.

    Raises:
        DataError: files missing, damaged, or not to be had.
    """
    spec = SETS[settings.name]
    if settings.path is None:
        content = _from_archive(spec, fetch(spec.url, cache / spec.archive, spec.md5))
    else:
        content = _from_folder(spec, settings.path)
    train, test = (_records(spec, [content[name] for name in files]) for files in (spec.train, spec.test))
    return Source({"train": train, "test": test}, spec.classes, (spec.mean, spec.std))


def _from_folder(spec: Cifar, root: Path) -> dict[str, bytes]:
    """Verified binary files from the folder, its subfolder of the official name, or the archive in it."""
    for folder in (root, root / spec.folder):
        if all((folder / name).is_file() for name in spec.files):
            return _verified(spec, folder, {name: (folder / name).read_bytes() for name in spec.files})
    archive = root / spec.archive
    if archive.is_file():
        check(archive, md5_of(archive), spec.md5, REPLACE)
        return _from_archive(spec, archive)
    raise _nothing(spec, root)


def _nothing(spec: Cifar, root: Path) -> DataError:
    inner = root / spec.folder
    missing = [name for name in spec.files if not (root / name).is_file() and not (inner / name).is_file()]
    problem = f"has not {', '.join(missing or spec.files)}" if root.is_dir() else "no such folder"
    return DataError(
        f"{root}: {problem}; data.path must name a folder with {spec.archive}, "
        f"or with {', '.join(spec.files)} (all there, or all in {spec.folder}/)"
    )


def _from_archive(spec: Cifar, archive: Path) -> dict[str, bytes]:
    content = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                file = tar.extractfile(member) if name in spec.files else None
                if file is not None:
                    content[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{archive}: damaged archive ({error}); {REPLACE}") from error
    missing = [name for name in spec.files if name not in content]
    if missing:
        raise DataError(f"{archive}: has not {', '.join(missing)}; {REPLACE}")
    return _verified(spec, archive, content)


def _verified(spec: Cifar, origin: Path, content: dict[str, bytes]) -> dict[str, bytes]:
    for name, md5 in spec.files.items():
        found = hashlib.md5(content[name], usedforsecurity=False).hexdigest()
        check(origin / name, found, md5, REPLACE)
    return content


def _records(spec: Cifar, files: list[bytes]) -> tuple[Tensor, Tensor]:
    """Images, uint8 [N, 3, 32, 32], and labels, int64 [N]."""
    records = np.frombuffer(bytearray().join(files), np.uint8).reshape(-1, spec.label_bytes + PIXELS)
    labels = torch.from_numpy(records[:, spec.label_bytes - 1].astype(np.int64))
    return torch.from_numpy(records[:, spec.label_bytes :]).reshape(-1, 3, 32, 32), labels
