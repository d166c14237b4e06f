"""A network of one's own for tests of the workflow: the user's files, and an experiment that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from workflow_for_tests import TINY

from bsnn.config import Own, merge
from bsnn.graphs import plain
from bsnn.graphs.reading import from_module
from bsnn.networks import own

MODELS = """
import torch
import torch.nn.functional as F
from beside import WIDTH
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.hidden = nn.Linear(16 * WIDTH, 12)
        self.last = nn.Linear(12, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.conv(x)) + x)
        return self.last(F.relu(self.hidden(x.flatten(1))))


def build():
    return Net()


def broken():
    raise RuntimeError("no such cell")


def nothing():
    return 3
"""


def written(folder: Path) -> Path:
    """The folder, with the user's files in it: models.py, what it imports, and weights, full and binary."""
    (folder / "models.py").write_text(MODELS)
    (folder / "beside.py").write_text("WIDTH = 6\n")
    torch.manual_seed(0)
    module = built(folder)
    save_file(module.state_dict(), folder / "full.safetensors")
    for part in (module.conv, module.hidden):
        weight = part.weight.data
        alpha = weight.abs().flatten(1).mean(1).reshape(-1, *[1] * (weight.dim() - 1))
        part.weight.data = torch.where(weight >= 0, alpha, -alpha)
    save_file(module.state_dict(), folder / "binary.safetensors")
    return folder


def built(models: Path, weights: str | None = None) -> Any:
    """The module of the user's file, with random weights or those of a file beside it."""
    module = own._built(Own(module=f"{models / 'models.py'}:build", content="0" * 64))
    if weights is not None:
        own._load(module, models / f"{weights}.safetensors")
    return module


def content(models: Path, weights: str) -> str:
    return plain.digest(from_module(built(models, weights), torch.randn(2, 3, 8, 8)))


def settings(models: Path, weights: str = "binary", /, **network: Any) -> dict[str, Any]:
    """A configuration that runs the experiment `mine`."""
    given = {
        "module": f"{models / 'models.py'}:build",
        "weights": str(models / f"{weights}.safetensors"),
        "content": content(models, weights),
    }
    mine = {"extends": "tiny", "network": {**given, **network}}
    return merge(TINY, {"run": ["mine"], "weights": [weights], "experiments": {"mine": mine}})


def with_methods(models: Path, weights: str, **methods: Any) -> dict[str, Any]:
    """The same, with methods, a search and an early exit of seconds."""
    latency = {
        "time": [2, 6],
        "images": 16,
        "methods": methods,
        "search": {"time": 4, "images": 30, "percentiles": [99.0]},
        "early_exit": {"images": 30, "method": "baseline"},
    }
    return merge(settings(models, weights), {"experiments": {"mine": {"latency": latency}}})
