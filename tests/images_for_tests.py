"""Trees of generated image files: a small one, and one in the layout of ImageNet, with broken files if wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01751748", "n02105855", "n04263257", "n09193705")  # classes of the first four official images, sorted
VALIDATION = (0, 3, 1, 2, 2, 1, 0, 3, 3, 0)  # place of the class of image 1, 2, ...: the first four as they are
TRAINING = 6  # images per class


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """Smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def tree(root: Path, second: str = "val") -> Path:
    """Two classes; three training images each, two for testing; JPEG, PNG and a grey one among them."""
    for split, count in (("train", 3), (second, 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                image = picture(100 * label + 10 * number + (split == "train"), 48 + 4 * number)
                suffix = ("jpg", "PNG", "jpeg")[number]
                (image.convert("L") if number == 2 else image).save(root / split / name / f"{number}.{suffix}")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    return root


def validation_name(number: int) -> str:
    """Official name, without suffix, of validation image 1, 2, ..."""
    return f"ILSVRC2012_val_{number:08d}"


def imagenet(root: Path, *, flat: bool = False) -> Path:
    """Four classes of six training images, and ten validation images, in class folders or in one flat folder."""
    for label, wnid in enumerate(WNIDS):
        (root / "train" / wnid).mkdir(parents=True)
        for number in range(TRAINING):
            picture(100 * label + number, 44 + 4 * number).save(root / "train" / wnid / f"{wnid}_{number}.JPEG")
    for number, label in enumerate(VALIDATION, 1):
        folder = root / "val" / ("" if flat else WNIDS[label])
        folder.mkdir(parents=True, exist_ok=True)
        picture(1000 + number).save(folder / f"{validation_name(number)}.JPEG")
    return root


def spoil(root: Path) -> dict[str, list[str]]:
    """Break some files of `imagenet`'s tree; gives their paths below the root, by split, in the order of the index."""
    [cut, text, empty] = [root / "train" / WNIDS[label] / f"{WNIDS[label]}_{label}.JPEG" for label in (0, 1, 3)]
    [cut_test, empty_test] = [next((root / "val").rglob(f"{validation_name(number)}.JPEG")) for number in (1, 8)]
    for file in (cut, cut_test):
        file.write_bytes(file.read_bytes()[:-200])
    text.write_text("<html>404</html>" * 20)
    for file in (empty, empty_test):
        file.write_bytes(b"")
    broken = {"train": [cut, text, empty], "test": [cut_test, empty_test]}
    return {split: [file.relative_to(root).as_posix() for file in files] for split, files in broken.items()}


def write_list(path: Path, what: str = "wnid") -> Path:
    """File of labels of `imagenet`'s validation images: class folders (wnid) or places in their order (place)."""
    written = {"wnid": WNIDS, "place": range(len(WNIDS))}[what]
    lines = [f"{validation_name(number)}.JPEG {written[label]}" for number, label in enumerate(VALIDATION, 1)]
    path.write_text("\n".join(lines) + "\n")
    return path
