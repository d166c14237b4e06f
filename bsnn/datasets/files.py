"""Image files, decoded and cut to size by worker processes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional

from bsnn.datasets.base import Split
from bsnn.errors import DataError

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # RandomResizedCrop's own defaults (Szegedy et al. 2015)


class FileSplit(Split):
    """Image files under a root, in the order of an index.

    Args:
        root: folder that the paths are relative to.
        paths: Arrow strings, which worker processes share without copying.
        sizes: int64 [N], bytes of each file when the index was made.
        labels: int64 [N].
        image_size: height and width to deliver, in pixels.
        stretch: whether images are made square before they are cut, rather than cut to a square.
    """

    def __init__(
        self, root: Path, paths: Any, sizes: np.ndarray, labels: Tensor, image_size: int, *, stretch: bool = False
    ) -> None:
        self.root = root
        self.paths = paths
        self.sizes = sizes
        self.labels = labels
        self.image_size = image_size
        self.stretch = stretch

    def stretched(self) -> FileSplit:
        """See `Split.stretched`."""
        return FileSplit(self.root, self.paths, self.sizes, self.labels, self.image_size, stretch=True)

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        device: torch.device | str,
        workers: int = 0,
        *,
        resized_crop: bool = False,
        seed: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.batches`. Without `resized_crop` the shorter side becomes 256/224 of the size, then the centre."""
        loader = DataLoader(
            _Decoded(self, seed if resized_crop else None),
            batch_sampler=[chosen.tolist() for chosen in order.split(batch_size) if len(chosen)],
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=torch.device(device).type == "cuda",
            generator=torch.Generator(),  # so that the global one is left alone
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            images, labels = batch
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def read(self, index: int) -> Image.Image:
        """Decode one file, whole.

        Raises:
            DataError: the file is missing, has another size than in the index, or cannot be decoded.
        """
        path = self.root / self.paths[index].as_py()
        try:
            content = path.read_bytes()
            if len(content) != self.sizes[index]:
                raise OSError(f"{len(content)} bytes, {self.sizes[index]} when the index was made")
            return Image.open(io.BytesIO(content)).convert("RGB")
        except BROKEN as error:
            raise DataError(f"{path}: not a whole image ({error}); replace it, or remove it and its index") from error


class _Decoded(Dataset[Any]):
    """What the loader's processes do. A broken file is handed over as a value, so that its message stays readable."""

    def __init__(self, split: FileSplit, seed: int | None) -> None:
        self.split = split
        self.seed = seed

    def __getitem__(self, index: int) -> Tensor:
        image = self.split.read(index)
        cut = (
            _centre(image, self.split.image_size, self.split.stretch)
            if self.seed is None
            else self._random(image, index)
        )
        pixels: Tensor = functional.pil_to_tensor(cut)
        return pixels

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor] | DataError:
        try:
            return torch.stack([self[index] for index in indices]), self.split.labels[indices]
        except DataError as error:
            return error

    def _random(self, image: Image.Image, index: int) -> Image.Image:
        """A random part, the same for the same seed and index in any process and any order."""
        size = self.split.image_size
        state = np.random.SeedSequence([self.seed or 0, index]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):  # the crop draws from the CPU's global generator
            torch.default_generator.manual_seed(int(state[0] >> np.uint64(1)))
            place = RandomResizedCrop.get_params(image, list(AREA), list(ASPECT))
        cut: Image.Image = functional.resized_crop(image, *place, size=[size, size])
        return cut


def _centre(image: Image.Image, size: int, stretch: bool) -> Image.Image:
    shorter = round(size * 256 / 224)
    resized = functional.resize(image, [shorter, shorter] if stretch else [shorter])
    cut: Image.Image = functional.center_crop(resized, [size, size])
    return cut


def _as_it_is(batch: Any) -> Any:
    return batch
