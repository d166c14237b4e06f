"""Every result of the paper from networks that were really trained and simulated, by the stages in one process."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from workflow_for_tests import TINY

from bsnn import reference, stages, tables
from bsnn.config import Config, merge, validate
from bsnn.errors import ConfigError
from bsnn.paper import plan
from bsnn.pipeline.job import Job
from bsnn.pipeline.stage import Place
from bsnn.stages import convert as stages_convert
from bsnn.stages import train as stages_train

CHANGES: dict[str, Any] = {
    "run": ["tiny", "tiny-original"],
    "percentile": [99.9],
    "weights": ["full"],
    "paper": {"percentile": [99.9], "chosen": 100.0},
    "experiments": {
        "tiny": {"ablation": True},
        "tiny-original": {"extends": "tiny", "networks_of": "tiny", "protocol": "original"},
    },
}


def simulated(config: Config, name: str, percentiles: list[float], root: Path) -> None:
    job = Job.of(config, name, root=root)
    if not job.pipeline.path("data", Place(name)).exists():
        stages_train.data(job)
    if not job.pipeline.path("network", Place(name, "full", 0)).exists():
        stages_train.network(job)
    stages_convert.activations(job)
    for percentile in percentiles:
        job = Job.of(config, name, percentile=percentile, root=root)
        stages_convert.thresholds(job)
        stages_convert.simulate(job)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder above results/."""
    folder = tmp_path_factory.mktemp("paper")
    root, config = folder / "results", validate(merge(TINY, CHANGES))
    for name in ("tiny", "tiny-average-after", "tiny-max-before", "tiny-max-after", "tiny-original"):
        simulated(config, name, plan.sweep(config) if name == "tiny" else [100.0], root)
    for result in plan.results_of(config, "tiny"):
        stages.run("paper_result", Job.of(config, "tiny", result=result, root=root))
    stages.run("paper_report", Job.of(config, "tiny", root=root))
    return folder


def test_protocols_stand_side_by_side(finished: Path) -> None:
    table = pd.read_csv(finished / "results/tiny/paper/protocols.csv")
    assert [name for name in table.columns if name.startswith("snn")] == ["snn_mean|clean", "snn_mean|original"]
    accuracy = pd.read_csv(finished / "results/tiny/paper/accuracy.csv")
    assert accuracy["protocol"].tolist() == ["clean", "original"] * 2
    last = table[table["time"] == 10].iloc[0]
    spiking = accuracy[accuracy["network"] == "SNN"].set_index("protocol")["measured_mean"]
    assert last["snn_mean|original"] == pytest.approx(spiking["original"])


def test_a_result_that_an_experiment_lacks(finished: Path) -> None:
    job = Job.of(validate(merge(TINY, CHANGES)), "tiny-original", result="pooling", root=finished / "results")
    with pytest.raises(ConfigError, match="has no result 'pooling'"):
        stages.run("paper_result", job)


def test_every_result_in_every_format(finished: Path) -> None:
    folder = finished / "results/tiny/paper"
    tables = {"accuracy", "protocols", "time", "pooling", "activity", "operations", "latency", "hyperparameters"}
    figures = tables - {"accuracy", "protocols", "hyperparameters"}
    for suffix, names in (
        ("csv", tables | {"curves"}),
        ("md", tables),
        ("tex", tables),
        ("svg", figures),
        ("png", figures),
    ):
        assert {path.stem for path in folder.glob(f"*.{suffix}")} == names


def test_references_keep_the_protocols_that_stand_side_by_side(finished: Path, tmp_path: Path) -> None:
    """The settings that an experiment's tables were made with may know of no other experiment."""
    config = merge(TINY, {**CHANGES, "run": ["tiny"]})
    del config["experiments"]["tiny-original"]
    results = tables.Results(validate(config), "tiny", {"origins": pd.DataFrame({"key": []})})
    place = reference.keep(results, "snakemake paper", tmp_path, finished / "results")
    for table in ("accuracy", "protocols", "time"):
        made = (finished / f"results/tiny/paper/{table}.csv").read_text()
        assert (place / f"paper/{table}.csv").read_text() == made
    made = json.loads((place / "origin.json").read_text())["made"]
    assert sum("augmented_test" in row["settings"] for row in made if row["stage"] == "simulate") == 1
    other = tables.Results(validate(merge(config, {"paper": {"chosen": 99.9}})), "tiny", results.frames)
    place = reference.keep(other, "snakemake paper", tmp_path, finished / "results")
    assert "accuracy.csv" not in {path.name for path in (place / "paper").iterdir()}


def test_operations_of_the_ann_by_hand(finished: Path) -> None:
    """Images of 3 x 8 x 8: 22 x 22 places of a kernel's row and column; pools between; two linear layers."""
    table = pd.read_csv(finished / "results/tiny/paper/operations.csv")
    dense = 4 * 3 * 22**2 + 8 * 4 * 10**2 + 16 * 8 * 2 * 2 + 10 * 16
    assert table["ann_operations"].eq(dense).all()
    assert table["snn_macs"].eq(4 * 3 * 22**2).all()
    total = table["snn_macs"] + table["snn_acs"] + table["snn_binary_acs"]
    assert table["ratio"].tolist() == pytest.approx((total / dense).tolist())
    later = 4 * 3 * 22**2 * (table["time"] - 1)
    assert table["ratio_every_step"].tolist() == pytest.approx(((total + later) / dense).tolist())
    assert (table["snn_acs"] > 0).all()


def test_pooling_tells_the_variants_apart(finished: Path) -> None:
    table = pd.read_csv(finished / "results/tiny/paper/pooling.csv")
    found = list(zip(table["pool"], table["place"], strict=True))
    assert found == [("average", "before"), ("average", "after"), ("max", "before"), ("max", "after")]
    own = pd.read_csv(finished / "results/tiny/paper/accuracy.csv")
    own = own[own["protocol"] == "clean"].set_index("network")["measured_mean"]
    assert table["ann_mean"][0] == pytest.approx(own["ANN"])
    assert table["snn_mean"][0] == pytest.approx(own["SNN"])


class Addresses(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_report_holds_everything(finished: Path) -> None:
    text = (finished / "results/tiny/paper.html").read_text()
    addresses: Iterator[str] = iter(Addresses(text).found)
    inside = [address for address in addresses if not address.startswith("#")]
    assert len(inside) == 5
    assert all(address.startswith("data:image/svg+xml") for address in inside)
    assert "not available" in text
