"""Image files, decoded and cut to size by worker processes."""

from __future__ import annotations

import io
import signal
import stat
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from bsnn.datasets.base import Batches, Split
from bsnn.errors import DataError

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # RandomResizedCrop's own defaults (Szegedy et al. 2015)
CHUNK = 64  # files that a process checks at once
AGAIN = "bring it back as it was, or delete the index (results/data/) to have it made again"


class BrokenImageError(DataError):
    """A file can be read, but holds no whole image."""


class FileSplit(Split):
    """Image files under a root, in the order of an index.

    Args:
        root: folder that the paths are relative to.
        paths: Arrow strings, which worker processes share without copying.
        sizes: int64 [N], bytes of each file when the index was made.
        labels: int64 [N].
        image_size: height and width to deliver, in pixels.
        resize: how evaluation brings images to that size (config.Data).
        left_out: broken files that the index does not name.
    """

    def __init__(
        self,
        root: Path,
        paths: Any,
        sizes: np.ndarray,
        labels: Tensor,
        image_size: int,
        *,
        resize: str = "margin",
        left_out: int = 0,
    ) -> None:
        self.root = root
        self.paths = paths
        self.sizes = sizes
        self.labels = labels
        self.image_size = image_size
        self.resize = resize
        self.left_out = left_out
        self.stretch = False  # images are cut to a square; else made square before they are cut

    def stretched(self) -> FileSplit:
        """See `Split.stretched`."""
        other = copy(self)
        other.stretch = True
        return other

    def _read(self, order: Tensor, batch_size: int, device: torch.device, workers: int, crop: int | None) -> Batches:
        """See `Split`. Without `crop` images come as `centre` has them."""
        chunks = [chosen.tolist() for chosen in order.split(batch_size) if len(chosen)]
        for images, labels in _each(partial(self._decoded, crop), chunks, workers, pin_memory=device.type == "cuda"):
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def histograms(self, workers: int) -> Tensor:
        """How often each pixel value occurs in all images, as for evaluation: int64 [3, 256]. Every file is decoded.

        Counted where they are decoded: to hand over pixels takes longer than to decode them.

        Raises:
            DataError: a file cannot be read or decoded.
        """
        chunks = [chunk.tolist() for chunk in torch.arange(len(self)).split(CHUNK)]
        total = torch.zeros(3, 256, dtype=torch.int64)
        for counts in tqdm(_each(self._counted, chunks, workers), "decode", len(chunks), disable=None):
            total += counts
        return total

    def broken(self, workers: int) -> list[tuple[int, str]]:
        """Files that hold no whole image: index, and what is wrong with which file. Every file is decoded.

        Args:
            workers: processes that decode.

        Raises:
            DataError: a file cannot be read, which says nothing about its image.
        """
        chunks = [chunk.tolist() for chunk in torch.arange(len(self)).split(CHUNK)]
        problems = chain.from_iterable(_each(self._problems, chunks, workers))
        shown = tqdm(problems, "check", len(self), unit="image", disable=None)
        return [(index, problem) for index, problem in enumerate(shown) if problem is not None]

    def _decoded(self, crop: int | None, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Images and labels; see `_read`."""
        cut = (self.centre(index) if crop is None else self._random(crop, index) for index in indices)
        return torch.stack([functional.pil_to_tensor(image) for image in cut]), self.labels[indices]

    def _counted(self, indices: list[int]) -> Tensor:
        """How often pixel values occur in these images; see `histograms`."""
        counts = np.sum([self.centre(index).histogram() for index in indices], axis=0)
        return torch.from_numpy(counts).reshape(3, 256)

    def _problems(self, indices: list[int]) -> list[str | None]:
        """What is wrong with the image of each file; None where nothing is."""
        found: list[str | None] = []
        for index in indices:
            try:
                self.read(index)
                found.append(None)
            except BrokenImageError as error:
                found.append(str(error))
        return found

    def _random(self, seed: int, index: int) -> Image.Image:
        """A random part of an image, the same for the same seed and index in any process and any order."""
        image = self.read(index)
        state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):  # the crop draws from the CPU's global generator
            torch.default_generator.manual_seed(int(state[0] >> np.uint64(1)))
            place = RandomResizedCrop.get_params(image, list(AREA), list(ASPECT))
        cut: Image.Image = functional.resized_crop(image, *place, size=[self.image_size, self.image_size])
        return cut

    def centre(self, index: int) -> Image.Image:
        """An image as evaluation has it: resized and cut as the setting says (`_centre`).

        Raises:
            DataError: see `read`; or it has another size, and none is to be resized.
        """
        image = self.read(index)
        if self.resize != "margin" and image.size == (self.image_size, self.image_size):
            return image
        if self.resize == "none":
            size = f"{image.width} x {image.height} pixels, but data.image_size is {self.image_size}"
            raise DataError(
                f"{self.root / self.paths[index].as_py()}: has {size}, and data.resize none leaves images as they are; "
                "bring it to that size, or set data.resize to auto"
            )
        return _centre(image, self.image_size, self.stretch)

    def read(self, index: int) -> Image.Image:
        """Decode one file, whole.

        Raises:
            BrokenImageError: it holds no whole image.
            DataError: it is missing, cannot be read, or has another size than in the index.
        """
        path = self.root / self.paths[index].as_py()
        try:
            status = path.stat()  # first, since a pipe is never read to its end
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}); {AGAIN}") from error
        if len(content) != self.sizes[index]:
            problem = f"{len(content)} bytes, but {self.sizes[index]} when the index was made"
            raise DataError(f"{path}: has {problem}; {AGAIN}")
        try:
            return _colours(Image.open(io.BytesIO(content)))
        except MemoryError:  # says nothing about the image
            raise
        except Exception as error:  # Pillow names no common base: its plugins raise some ten kinds
            raise BrokenImageError(f"{path}: not a whole image ({_reason(error, content)})") from error


def _colours(image: Image.Image) -> Image.Image:
    """Eight bits per channel, three channels. Of 16 the high ones count, as Pillow has it of colours; grey it clips.

    Raises:
        ValueError: grey of 32 bits or in floats, of which nothing says what white is.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # 0..65535
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("grey of 32 bits, with an unknown white; save it with 8 or 16")
    return image.convert("RGB")


def _reason(error: Exception, content: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):  # whose message names an object in memory
        return "no known format" if content else "empty file"
    return f"{type(error).__name__}: {error}"


def _each(
    work: Callable[[list[int]], Any], chunks: list[list[int]], workers: int, *, pin_memory: bool = False
) -> Iterator[Any]:
    """What work gives for each chunk of indices, done by processes.

    Raises:
        DataError: the first one of the work.
    """
    for found in _loader(_Chunks(work), chunks, workers, pin_memory=pin_memory):
        if isinstance(found, BrokenImageError):
            raise DataError(f"{found}; replace it, or leave such files out with data.broken: skip")
        if isinstance(found, DataError):
            raise found
        yield found


def _loader(items: Dataset[Any], chunks: list[list[int]], workers: int, *, pin_memory: bool = False) -> DataLoader[Any]:
    return DataLoader(
        items,
        batch_sampler=chunks,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_outlast,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # so that the global one is left alone
    )


class _Chunks(Dataset[Any]):
    """What the loader's processes do; an error is handed over as a value, so that its message stays readable."""

    def __init__(self, work: Callable[[list[int]], Any]) -> None:
        self.work = work

    def __getitems__(self, indices: list[int]) -> Any:
        try:
            return self.work(indices)
        except DataError as error:
            return error


def _centre(image: Image.Image, size: int, stretch: bool) -> Image.Image:
    shorter = round(size * 256 / 224)
    resized = functional.resize(image, [shorter, shorter] if stretch else [shorter])
    cut: Image.Image = functional.center_crop(resized, [size, size])
    return cut


def _outlast(_: int) -> None:
    """Leave signals to the process that is decoded for: it may have a checkpoint to write, and ends its workers.

    Both can reach all processes at once: SIGTERM from SLURM, SIGINT from a terminal.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
