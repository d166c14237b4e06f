"""The committed table of engines and peers: what a new run adds to it."""

import importlib
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent


def test_rows_are_added_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other machines and settings stay, with their ratios; those measured again are replaced."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    simulation = importlib.import_module("simulation")
    kept = pd.read_csv(ROOT / "results/reference/simulation.csv")
    setting = {"device": "cpu", "network": "vgg15-32", "batch": 3, "steps": 32, "size": 32}
    rows = [{"engine": "bindsnet", **setting, "seconds": 4.0}, {"engine": "packed", **setting, "seconds": 0.5}]
    path = tmp_path / "simulation.csv"
    path.write_text(kept.to_csv(index=False))
    for factor in (1, 2):
        slower = [{**row, "seconds": factor * float(row["seconds"])} for row in rows]
        found = simulation.compared(simulation.added(simulation.completed(slower, "cpu"), path))
        path.write_text(found.to_csv(index=False))
    assert len(found) == len(kept) + 2
    assert found["ratio_to_bindsnet"].tolist()[-2:] == [1.0, 8.0]
    assert found["seconds"].tolist()[-2:] == [8.0, 1.0]
    assert found["ratio_to_bindsnet"].tolist()[:-2] == pytest.approx(kept["ratio_to_bindsnet"].tolist(), nan_ok=True)
