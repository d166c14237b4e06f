"""A file system that fills up during each target: the command fails by name, and succeeds once there is room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_full_disk import BLOCK, files, fill, mounted
from test_workflow_faults import contents
from workflow_for_tests import TINY, checkout, planned, run, snakemake

from bsnn.config import merge

pytestmark = pytest.mark.slow

FEW = {"time": [2, 5], "images": 20, "methods": {"half": {"initial": 0.5}, "corrected": {"correction": "potential"}}}
CHOICES = {"search": {"images": 20}, "early_exit": {"method": "half", "images": 20}}
CONFIG = merge(TINY, {"percentile": [99.0], "weights": ["full"], "paper": {"percentile": [99.0], "chosen": 99.0}})
CONFIG = merge(CONFIG, {"experiments": {"tiny": {"latency": {**FEW, **CHOICES}}}})
TARGETS = ["networks", "activation_tables", "threshold_tables", "simulations", "all"]
TARGETS += ["latency", "search", "early_exit", "paper"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = checkout(tmp_path / "small", CONFIG)
    shutil.rmtree(folder / "results")
    with mounted(folder / "results"):
        yield folder


def test_each_target_fails_by_name_and_goes_on_when_there_is_room(small: Path, tmp_path: Path) -> None:
    undisturbed = checkout(tmp_path / "undisturbed", CONFIG)
    run(undisturbed, *TARGETS)
    for target in TARGETS:
        before, filler = files(small / "results"), fill(small / "results", BLOCK)
        done = snakemake(small, "--cores", "2", target)
        said = done.stdout + done.stderr
        assert done.returncode != 0, target
        assert "cannot be written" in said, said
        assert "make room" in said, said
        after = files(small / "results")
        assert {path: after[path] for path in before} == before, target
        assert not any(path.endswith(".tmp") for path in after), target
        filler.unlink()
        run(small, target)
    assert planned(small, *TARGETS) == {}
    assert contents(small) == contents(undisturbed)
    made = [{path for path in files(folder / "results") if path.startswith("tiny/")} for folder in (small, undisturbed)]
    assert made[0] == made[1]
