"""examples/resnet20.py on a few random records: it goes on where it stopped, and what it writes can be brought in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bsnn.graphs.reading import from_module

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import resnet20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Binary files of 60 training and 250 test images."""
    records = np.random.default_rng(0).integers(0, 100, (310, 3074), dtype=np.uint8)
    (tmp_path / "cifar-100-binary").mkdir()
    for part, rows in (("train", records[:60]), ("test", records[60:])):
        rows.tofile(tmp_path / f"cifar-100-binary/{part}.bin")
    return tmp_path


def trained(folder: Path, name: str, *more: str) -> Path:
    out = folder / f"{name}.safetensors"
    common = ["--epochs", "2", "--width", "4", "--batch", "16", "--precision", "float32", "--threads", "1"]
    resnet20.train(resnet20.options([str(folder), "--out", str(out), *common, *more]))
    return out


def test_going_on_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_file(trained(folder, "whole"))
    one_epoch = resnet20.one_epoch

    def stopping(epoch: int, *args, **options):  # type: ignore[no-untyped-def]
        if epoch == 1:
            raise KeyboardInterrupt
        return one_epoch(epoch, *args, **options)

    monkeypatch.setattr(resnet20, "one_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        trained(folder, "stopped")
    monkeypatch.setattr(resnet20, "one_epoch", one_epoch)
    with pytest.raises(SystemExit, match="other settings"):
        trained(folder, "stopped", "--lr", "0.1")
    again = load_file(trained(folder, "stopped"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    card = json.loads((folder / "stopped.json").read_text())
    assert [row["epoch"] for row in card["history"]] == [1, 2]
    assert not (folder / "stopped.checkpoint").exists()


def test_binary_weights_are_recognised(folder: Path) -> None:
    start = trained(folder, "full")
    file = trained(folder, "binary", "--binary", "--start", str(start))
    module = resnet20.build(4)
    module.load_state_dict(load_file(file))
    images, _ = resnet20.cifar100(folder, "test")
    graph = from_module(module, resnet20.normalised(images[:2]))
    assert len(graph.binary) == 20  # 18 convolutions of blocks, 2 of shortcuts
    assert graph.layer("conv").paths[0].weight.is_floating_point()  # type: ignore[union-attr]


def test_crops_are_parts_of_the_padded_image(folder: Path) -> None:
    images, labels = resnet20.cifar100(folder, "train")
    assert images.shape == (60, 3, 32, 32)
    assert int(labels.max()) < 100
    padded = torch.zeros(60, 40, 40, 3, dtype=torch.uint8)
    padded[:, 4:-4, 4:-4] = images.permute(0, 2, 3, 1)
    found = resnet20.augmented(padded, torch.Generator().manual_seed(0))
    for image, whole in zip(found[:8], padded.permute(0, 3, 1, 2)[:8], strict=True):
        places = whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)  # [9, 9, 3, 32, 32]
        assert any(bool((places == turned).flatten(2).all(2).any()) for turned in (image, image.flip(2)))


def test_folders_without_the_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"neither train\.bin"):
        resnet20.cifar100(tmp_path, "train")
    (tmp_path / "test.bin").write_bytes(b"torn")
    with pytest.raises(SystemExit, match="no whole records"):
        resnet20.cifar100(tmp_path, "test")
