"""Checkpoints that are damaged, or that tell of other weights than they hold: refused before they are used."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bsnn.errors import ArtifactError
from bsnn.networks import original_checkpoint

RANDOM = torch.Generator().manual_seed(1)
STATE = {
    "features.0.weight": torch.rand(8, 3, 3, 3, generator=RANDOM),
    "classifier.1.weight": torch.rand(10, 512, generator=RANDOM),
}
Change = Callable[[dict[str, Tensor]], object]


def with_first(change: Callable[[Tensor], object]) -> Change:
    return lambda state: {**state, "features.0.weight": change(state["features.0.weight"])}


LIES: dict[str, tuple[Change, str]] = {
    "twice": (lambda state: {**state, "module.features.0.weight": torch.ones(8, 3, 3, 3)}, "features.0.weight twice"),
    "expanded": (with_first(lambda _: torch.ones(1, 1).expand(10**6, 10**6)), r"features.0.weight [1000000, 1000000]"),
    "shared": (lambda state: dict.fromkeys(map(str, range(9)), state["classifier.1.weight"]), "more weights than it"),
    "float8": (with_first(lambda weight: weight.to(torch.float8_e4m3fn)), "features.0.weight (torch.float8_e4m3fn)"),
    "complex": (with_first(lambda weight: weight.to(torch.complex64)), "features.0.weight (torch.complex64)"),
    "sparse": (with_first(lambda weight: weight.to_sparse()), "features.0.weight (sparse or nested"),
    "nested": (with_first(lambda weight: torch.nested.nested_tensor([weight[0]])), "features.0.weight (sparse or nes"),
    "meta": (with_first(lambda weight: weight.to("meta")), "features.0.weight (on device meta, without values)"),
    "no weights": (with_first(lambda weight: weight[:, :0]), "features.0.weight (of shape [8, 0, 3, 3])"),
}


@pytest.mark.parametrize("case", LIES)
@pytest.mark.filterwarnings("ignore")  # of torch, about types that it may change
def test_tensors_that_are_no_weights_are_refused(tmp_path: Path, case: str) -> None:
    change, words = LIES[case]
    path = tmp_path / "model.pth.tar"
    torch.save(change(STATE), path)
    with pytest.raises(ArtifactError) as caught:
        original_checkpoint.read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_weights_of_other_real_types_come_as_float32(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({"weight": torch.tensor([[0.5, -2.0]], dtype=dtype)}, tmp_path / "model.pth.tar")
        held = original_checkpoint.read(tmp_path / "model.pth.tar")["weight"]
        assert held.dtype == torch.float32
        assert held.tolist() == [[0.5, -2.0]]


def test_flipped_bits_never_give_other_weights(tmp_path: Path) -> None:
    """Whatever lies under checksums is refused; a few bits lie elsewhere, as those of a time of writing."""
    path = tmp_path / "model.pth.tar"
    torch.save(STATE, path)
    content, weights = path.read_bytes(), original_checkpoint.read(path)
    random = np.random.default_rng(0)
    refused = 0
    for place, bit in zip(random.integers(0, len(content), 300), random.integers(0, 8, 300), strict=True):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            held = original_checkpoint.read(path)
        except ArtifactError:
            refused += 1
        else:
            assert held.keys() == weights.keys()
            assert all(torch.equal(held[name], weights[name]) for name in weights)
    assert refused > 250


def test_a_changed_weight_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save({"weight": torch.full((4, 4), 0.5)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(0.5).tobytes() * 16)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"damaged: model\.pth/data/0 has another checksum .*copy the file again"):
        original_checkpoint.read(path)


def rewritten(path: Path, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]) -> None:
    with zipfile.ZipFile(path) as source:
        parts = [(part, source.read(part)) for part in source.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts:
            change(archive, part, content)


def test_archives_that_unfold_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb: some kilobytes on disk, and 64 MiB of zeros in memory."""
    path = tmp_path / "model.pth.tar"
    torch.save({"weight": torch.zeros(2**12, 2**12)}, path)
    rewritten(path, lambda archive, part, content: archive.writestr(part.filename, content, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 10**5
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # nothing is unpacked, neither here
    monkeypatch.setattr(torch, "load", None)  # nor there
    with pytest.raises(ArtifactError, match="compressed or overlap"):
        original_checkpoint.read(path)


def test_archives_whose_parts_overlap_are_refused(tmp_path: Path) -> None:
    """Many entries of the directory that name the same bytes."""
    path = tmp_path / "model.pth.tar"
    torch.save({"weight": torch.zeros(64, 64)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        [whole] = [part for part in archive.infolist() if part.filename.endswith("data/0")]
        archive.filelist.extend([whole] * 50)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(ArtifactError, match="compressed or overlap"):
        original_checkpoint.read(path)


def test_damaged_safetensors_are_no_checkpoint(tmp_path: Path) -> None:
    """torch.load reads the format, and fails with that library's errors."""
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"model\.safetensors: damaged, or no checkpoint of torch"):
        original_checkpoint.read(path)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pth.tar")
    for reader in (original_checkpoint.read, original_checkpoint.sha256):
        with pytest.raises(ArtifactError, match="no regular file"):
            reader(tmp_path / "model.pth.tar")


def test_checkpoints_from_before_archives_are_read(tmp_path: Path) -> None:
    """As torch wrote them until 1.5: the original's own."""
    path = tmp_path / "model.pth.tar"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    held = original_checkpoint.read(path)
    assert all(torch.equal(held[name], STATE[name]) for name in STATE)
