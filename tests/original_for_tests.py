"""The original's script on small files: its network, its command line's files, and its algorithm written out."""

from __future__ import annotations

import copy
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from test_datasets_cifar import ARCHIVE, FILES, records, register, spread
from test_networks_original_checkpoint import binarised, parallel
from torch import Tensor, nn
from typer.testing import CliRunner

from bsnn import cli
from bsnn.cli import convert
from bsnn.datasets.transforms import FixedAugment
from bsnn.seeds import derived_seed

SMALL = {"features": [6, 8, "P", 8, "P", 8, "P"], "hidden": [24], "dropout": 0.1}
MEAN, STD = torch.tensor([0.507, 0.487, 0.441]), torch.tensor([0.267, 0.256, 0.276])


class Vgg(nn.Module):
    """SMALL in the original's layout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.AvgPool2d(2), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.AvgPool2d(2), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.AvgPool2d(2), nn.ReLU()),
        )
        self.classifier = nn.Sequential(
            *(nn.Dropout(0.1), nn.Linear(128, 24, bias=False), nn.ReLU(), nn.Dropout(0.1)),
            nn.Linear(24, 100, bias=False),
        )

    @property
    def chain(self) -> list[nn.Module]:
        return [*self.features, nn.Flatten(), *self.classifier]


@cache
def _network(binary: bool) -> Vgg:
    torch.manual_seed(11)
    found = Vgg().eval()
    if binary:
        binarised(found)
    labels = torch.from_numpy(records("test.bin")[1]).long()
    hidden = found.classifier[:3](found.features(seen("test.bin", "test", 0)).flatten(1)).detach()
    targets = nn.functional.one_hot(labels, 100).float()
    found.classifier[4].weight.data = torch.linalg.lstsq(hidden, targets).solution.T.contiguous()
    return found


def network(binary: bool) -> Vgg:
    """Random weights except for the read-out, which is fitted to the test images: many are right, at changing steps."""
    return copy.deepcopy(_network(binary))


def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make it a working directory with a checkpoint of each kind and the data, all small."""
    register(monkeypatch, ARCHIVE)
    monkeypatch.setitem(convert.ARCHITECTURES, "vgg15ab", SMALL)
    monkeypatch.chdir(tmp_path)
    spread(tmp_path / "cifar-100-binary", FILES)
    torch.save({"state_dict": parallel(network(True)), "best_acc": 1.0}, "bin_cifar100.pth.tar")
    torch.save({"state_dict": parallel(network(False))}, "full.pth.tar")
    return tmp_path


def run(line: str) -> str:
    done = CliRunner().invoke(cli.app, ["convert", *shlex.split(line)])
    assert done.exit_code == 0, done.output
    return done.stdout


def lines(path: str) -> list[list[str]]:
    header, *rest = Path(path).read_text().splitlines()
    assert header == "seed,simulation time,batch size,inference time,accuracy"
    return [line.split(",") for line in rest]


def seen(file: str, use: str, seed: int) -> Tensor:
    """Images as the original's loaders show them, with this project's draws: crop, flip, the script's constants."""
    pixels = torch.from_numpy(records(file)[0])
    count = torch.arange(len(pixels))
    cut = FixedAugment(len(pixels), 4, derived_seed(seed, use, "augmentation"))(pixels, count)
    return (cut.float() / 255 - MEAN[:, None, None]) / STD[:, None, None]


def scaled(source: Vgg, percentile: float, seed: int) -> list[nn.Module]:
    """The original's normalisation: W_l * lambda_(l-1) / lambda_l, over augmented images, dropout on; in float64."""
    source.train()
    heard: dict[int, list[Tensor]] = {}
    torch.manual_seed(derived_seed(seed, "calibration", "dropout"))
    with torch.no_grad():
        for batch in seen("train.bin", "calibration", seed).split(100):
            x = batch
            for position, module in enumerate(source.chain):
                x = module(x)
                if isinstance(module, nn.ReLU):
                    heard.setdefault(position, []).append(x)
    chain = [copy.deepcopy(module).double() for module in source.chain]
    weighted: nn.Module | None = None
    before = 1.0
    for position, module in enumerate(chain):
        if isinstance(module, nn.Conv2d | nn.Linear):
            weighted = module
        elif isinstance(module, nn.ReLU) and weighted is not None:
            factor = float(np.percentile(torch.cat(heard[position]).double().numpy(), percentile))
            weighted.weight.data *= before / factor  # type: ignore[union-attr]
            before = factor
    return chain


def synchronous(chain: list[nn.Module], pixels: Tensor, labels: Tensor, steps: int) -> np.ndarray:
    """The original's simulation: every node is given what its source sent in the step before.

    A convolution before a pool holds what it is given; every other node fires at 1 and subtracts 1.
    """
    skipped = (nn.ReLU, nn.Dropout, nn.Flatten)
    nodes = [module for module in chain if not isinstance(module, skipped)]
    holds = [isinstance(after, nn.AvgPool2d) for after in nodes[1:]] + [False]
    source: Tensor = torch.zeros_like(pixels).double()
    sent: list[Tensor | None] = [None] * len(nodes)
    potential: list[Tensor] = [torch.zeros(())] * len(nodes)
    correct = []
    for step in range(steps):
        before: list[Tensor | None] = [source if step else torch.zeros_like(source), *sent[:-1]]
        source = pixels.double()
        for number, node in enumerate(nodes):
            held = before[number]
            if held is None:
                continue
            held = held.flatten(1) if isinstance(node, nn.Linear) else held
            current = node(held)
            if holds[number]:
                sent[number] = current
                continue
            potential[number] = potential[number] + current
            if number < len(nodes) - 1:
                fired = (potential[number] >= 1).double()
                potential[number] = potential[number] - fired
                sent[number] = fired
        output = potential[-1] if potential[-1].dim() else torch.zeros(len(labels), 100)
        correct.append(int((output.argmax(1) == labels).sum()))
    return np.array(correct)


@torch.no_grad()
def expected(source: Vgg, percentile: float, steps: int, seed: int = 0) -> np.ndarray:
    """Test images that are right after each step."""
    chain = scaled(source, percentile, seed)
    labels = torch.from_numpy(records("test.bin")[1]).long()
    return synchronous(chain, seen("test.bin", "test", seed), labels, steps)
