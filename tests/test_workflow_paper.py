"""`snakemake paper`, and what a change makes again."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from workflow_for_tests import TINY, checkout, configure, going_on, planned, run, snakemake

from bsnn.config import merge

PAPER: dict[str, Any] = {"percentile": [99.9], "chosen": 100.0}
BASE = merge({**TINY, "percentile": [99.9], "weights": ["full"]}, {"paper": PAPER})
ABLATION: dict[str, Any] = {"experiments": {"tiny": {"ablation": True}}}
VARIANTS = {"train": 3, "activations": 3, "thresholds": 3, "simulate": 3}
SWEPT = {"paper_result": 5}  # time, activity, operations, latency, hyperparameters
NEW_PERCENTILE = {"thresholds": 1, "simulate": 1, **SWEPT, "paper_report": 1}


@pytest.fixture(scope="module")
def finished(finished_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = going_on(tmp_path_factory.mktemp("paper"), BASE, finished_tiny)
    run(folder, "paper")
    return folder


def jobs(folder: Path, *target: str) -> dict[str, int]:
    found = planned(folder, "--cores", "1", *(target or ("paper",)))
    return {rule: count for rule, count in found.items() if rule not in (target or ("paper",))}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"paper": {"percentile": [99.5, 99.9]}}, NEW_PERCENTILE, id="a percentile of the sweep"),
        pytest.param({"percentile": [99.5, 99.9]}, NEW_PERCENTILE, id="a percentile of the experiment"),
        pytest.param({"paper": {"within": [3.0]}}, {"paper_result": 1, "paper_report": 1}, id="points"),
        pytest.param(ABLATION, {**VARIANTS, "paper_result": 1, "paper_report": 1}, id="ablation"),
    ],
)
def test_what_reruns(finished: Path, tmp_path: Path, changes: dict[str, Any], expected: dict[str, int]) -> None:
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    configure(tmp_path / "copy", merge(BASE, changes))
    assert jobs(tmp_path / "copy") == expected


def test_a_new_percentile_reaches_the_report(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    configure(folder, merge(BASE, {"paper": {"percentile": [99.5]}}))
    run(folder, "paper")
    assert jobs(folder) == {}
    assert set(pd.read_csv(folder / "results/tiny/paper/time.csv")["percentile"]) == {99.5, 99.9, 100.0}
    assert "99.5" in (folder / "results/tiny/paper.html").read_text()


def test_a_result_alone_needs_only_its_own(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "clone", merge(BASE, ABLATION))
    networks = {"data": 1, "train": 1}
    assert jobs(folder, "paper_hyperparameters") == {**networks, "paper_result": 1}
    simulated = {"activations": 1, "thresholds": 1, "simulate": 1}
    assert jobs(folder, "paper_accuracy") == {**networks, **simulated, "paper_result": 1}
    four = {"train": 4, "activations": 4, "thresholds": 4, "simulate": 4}
    assert jobs(folder, "paper_pooling") == {"data": 1, **four, "paper_result": 1}
    configure(folder, BASE)
    done = snakemake(folder, "-n", "paper_pooling")
    assert done.returncode != 0
    assert "ablation" in done.stdout + done.stderr
