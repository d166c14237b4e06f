"""`snakemake latency` after `snakemake`; what reruns after a change of a switch; its tables against the artifacts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from workflow_for_tests import RESULTS, TINY, configure, going_on, planned, run

from bsnn import artifacts, reference
from bsnn.config import merge, validate
from bsnn.datasets import evenly
from bsnn.errors import ArtifactError
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import read
from bsnn.tables.latency import KIND

METHODS: dict[str, Any] = {
    "fitted": {"threshold": "squared-error", "initial": 0.5, "correction": "potential", "signed": True},
    "two-passes": {"initial": 0.5, "second_pass": "cos", "first_pass": 2},
}
TABLES = {"latency_tables": 1, "latency_figures": 1}


def settings(**latency: Any) -> dict[str, Any]:
    changes = {"time": [2, 8], "images": 16, "methods": METHODS, **latency}
    return merge({**TINY, "weights": ["binary"]}, {"experiments": {"tiny": {"latency": changes}}})


@pytest.fixture(scope="module")
def finished(finished_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = going_on(tmp_path_factory.mktemp("methods"), settings(), finished_tiny)
    run(folder, "latency")
    return folder


def jobs(folder: Path) -> dict[str, int]:
    found = planned(folder, "--cores", "1", "latency")
    return {rule: count for rule, count in found.items() if rule != "latency"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param(
            {"methods": {**METHODS, "two-passes": {**METHODS["two-passes"], "second_pass": "srp"}}},
            {"method": 1, **TABLES},
            id="a switch",
        ),
        pytest.param(
            {"methods": {"more": {"shift": True}, **METHODS}}, {"method": 2, "ideal": 1, **TABLES}, id="a method"
        ),
        pytest.param({"time": [8]}, {"ideal": 2, **TABLES}, id="a time less"),
        pytest.param({"time": [2, 4, 8]}, {"method": 1, "ideal": 2, **TABLES}, id="a time more"),
        pytest.param({"ideal": [99.0, 99.9]}, {"ideal": 1, **TABLES}, id="an ideal curve beside the baseline's"),
    ],
)
def test_what_reruns(finished: Path, tmp_path: Path, changes: dict[str, Any], expected: dict[str, int]) -> None:
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    configure(tmp_path / "copy", settings(**changes))
    assert jobs(tmp_path / "copy") == expected


def test_tables_say_what_the_artifacts_hold(finished: Path) -> None:
    pipeline = Pipeline(validate(settings()), finished / "results")
    table = pd.read_csv(finished / "results/tiny/tables/latency.csv")
    assert list(table.columns) == [
        *("weights", "method", "T", "accuracy", "ann", "drop", "drop_se", "agreement", "spikes"),
        *("accuracy_std", "ann_std", "drop_std"),
    ]
    assert list(zip(table["method"], table["T"], strict=True)) == [
        (method, time) for method in ("baseline", *METHODS) for time in (2, 8)
    ]
    costs = pd.read_csv(finished / "results/tiny/tables/latency_costs.csv").set_index(["method", "T"])
    for row in table.itertuples():
        steps = row.T if row.method == "fitted" else 8
        predictions, spikes = (
            pq.read_table(
                pipeline.path("method", Place("tiny", "binary", 0, method=row.method, steps=steps), what)
            ).to_pandas()
            for what in ("predictions", "spikes")
        )
        predicted = np.stack(predictions["predicted"])[:, row.T - 1]
        assert len(predicted) == 50
        assert row.accuracy == pytest.approx(100 * np.mean(predicted == predictions["label"]))
        assert row.ann == pytest.approx(100 * np.mean(predictions["ann"] == predictions["label"]))
        assert row.agreement == pytest.approx(100 * np.mean(predicted == predictions["ann"]))
        assert row.drop == pytest.approx(row.ann - row.accuracy)
        right = predictions["label"].to_numpy()
        lost = (predictions["ann"].to_numpy() == right).astype(int) - (predicted == right).astype(int)
        assert row.drop_se == pytest.approx(100 * np.std(lost, ddof=1) / 50**0.5)
        sent = spikes.loc[spikes["step"] <= row.T, "spikes"].sum() / 50
        assert row.spikes == pytest.approx(sent)
        assert costs.loc[(row.method, row.T), "spikes"] == pytest.approx(sent)


def test_ideal_curves_split_the_drop(finished: Path) -> None:
    pipeline = Pipeline(validate(settings()), finished / "results")
    table = pd.read_csv(finished / "results/tiny/tables/latency_ideal.csv")
    latency = pd.read_csv(finished / "results/tiny/tables/latency.csv").set_index(["method", "T"])
    rows = [(method, time) for method in ("baseline", "fitted") for time in (2, 8)]  # two passes have no curve
    assert list(zip(table["method"], table["T"], strict=True)) == rows
    assert table["percentile"].tolist()[:2] == [99.9, 99.9]
    assert table["percentile"].isna().tolist()[2:] == [True, True]
    for row in table.itertuples():
        simulated = latency.loc[row.method, row.T]
        assert row.simulated == simulated["accuracy"]
        assert row.ann == simulated["ann"]
        assert row.clipping + row.quantisation + row.unevenness == pytest.approx(simulated["drop"])
        held = pq.read_table(pipeline.path("ideal", Place("tiny", "binary", 0, method=row.method))).to_pandas()
        predicted = np.stack(held["predicted"])
        assert predicted.shape == (50, 4)
        even, clipped = (100 * np.mean(predicted[:, at + (row.T == 8)] == held["label"]) for at in (0, 2))
        assert (row.accuracy, row.clipping) == pytest.approx((even, row.ann - clipped))
    assert "baseline, ideal" in (finished / "results/tiny/figures/latency.svg").read_text()


def test_errors_and_operations_have_every_layer(finished: Path) -> None:
    folder = finished / "results/tiny/tables"
    errors = pd.read_csv(folder / "latency_errors.csv")
    assert set(errors["method"]) == {"baseline", "fitted"}
    assert set(errors["layer"]) == {"conv1", "conv2", "fc1"}
    operations = pq.read_table(folder / "latency_operations.parquet").to_pandas()
    assert set(operations["layer"]) == {"conv1", "conv2", "fc1", "readout"}
    first = operations[(operations["layer"] == "conv1") & (operations["quantity"] == "effective_macs")]
    assert set(first.loc[first["step"] == 1, "value"]) == {4 * 3 * 22 * 22}
    assert first.loc[first["step"] > 1, "value"].eq(0).all()
    assert sorted(path.name for path in (finished / "results/tiny/figures").glob("latency*.svg")) == [
        "latency.svg", "latency_energy.svg", "latency_errors.svg", "latency_operations.svg",
    ]  # fmt: skip


def test_reference_results_keep_the_methods(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    run(folder)
    results = read(folder / "results/tiny/tables")
    place = reference.keep(results, "snakemake", tmp_path / "reference", folder / "results")
    for table in ("latency", "latency_costs", "latency_errors", "latency_ideal", "accuracy"):
        made = pd.read_csv(folder / f"results/tiny/tables/{table}.csv")
        assert pd.read_csv(place / f"{table}.csv").equals(made)
    origin = json.loads((place / "origin.json").read_text())
    assert origin["definition"]["latency"]["time"] == [2, 8]
    assert {"baseline", *METHODS} == {row["method"] for row in origin["made"] if row["stage"] == "method"}
    assert "path" not in origin["definition"]["data"]
    artifacts.write_table(folder / "results/tiny/tables/latency.parquet", pd.DataFrame({"T": [1]}), KIND, {})
    with pytest.raises(ArtifactError, match=r"other settings.* delete that file instead"):
        reference.keep(results, "snakemake", tmp_path / "other", folder / "results")


def test_fewer_simulated_images_train_nothing(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    configure(folder, merge(settings(), {"experiments": {"tiny": {"simulation": {"images": 20}}}}))
    assert jobs(folder) == {"method": 4, "ideal": 2, **TABLES}
    assert planned(folder, "--cores", "1") == {"simulate": 2, **RESULTS}
    pipeline = Pipeline(validate(merge(settings(), {"experiments": {"tiny": {"simulation": {"images": 20}}}})))
    path = pipeline.path("method", Place("tiny", "binary", 0, method="baseline", steps=8), "predictions")
    run(folder, str(path))
    found = pq.read_table(folder / path)
    assert found["image"].to_pylist() == evenly(50, 20).tolist()


def test_bursts_are_for_full_precision_alone(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    methods = {"bursts": {"burst": 3}, "channels": {"channels": True}}
    configure(folder, merge(settings(methods=methods), {"weights": ["full", "binary"]}))
    assert jobs(folder) == {"method": 3, "ideal": 3, **TABLES}
    run(folder, "latency")
    table = pd.read_csv(folder / "results/tiny/tables/latency.csv").groupby("weights")["method"].unique()
    assert list(table["binary"]) == ["baseline"]
    assert list(table["full"]) == ["baseline", *methods]


def test_early_exit_reruns_what_changed(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    few = {"early_exit": {"method": "baseline", "images": 20}}
    configure(folder, settings(**few))
    run(folder, "early_exit")
    table = pd.read_csv(folder / "results/tiny/tables/early_exit.csv")
    assert set(table["split"]) == {"held-out", "test"}
    assert (folder / "results/tiny/figures/early_exit.svg").stat().st_size > 0
    assert planned(folder, "early_exit") == {}
    for changes, expected in (
        ({"early_exit": {**few["early_exit"], "loss": 3.0}}, {"find_exit": 1, "exit_results": 1}),
        ({**few, "search": {"images": 10}}, {}),
        ({**few, "methods": {}}, {}),
    ):
        configure(folder, settings(**changes))
        assert planned(folder, "early_exit") == expected
    configure(folder, settings(**few))
    (folder / "results/tiny/figures/early_exit.svg").unlink()
    assert planned(folder, "early_exit") == {"exit_results": 1}


def test_a_simulated_percentile_is_not_simulated_again_as_the_baseline(finished_tiny: Path, tmp_path: Path) -> None:
    """`snakemake latency` after `snakemake`: the first steps of the same spikes and predictions, and no engine runs."""
    chosen = merge(settings(methods={}, percentile=99.0), {"percentile": 99.0})
    folder = going_on(tmp_path / "checkout", chosen, finished_tiny)
    run(folder)
    assert jobs(folder) == {"method": 1, "ideal": 1, **TABLES}
    run(folder, "latency")
    [log] = folder.glob("logs/method/tiny/*.log")
    assert "the first 8 steps of" in log.read_text()
    assert "engine" not in log.read_text()
    latency, accuracy = (pd.read_csv(folder / f"results/tiny/tables/{name}.csv") for name in ("latency", "accuracy"))
    at_last = accuracy.set_index("time").loc[8]
    assert latency.set_index("T").loc[8, "accuracy"] == pytest.approx(at_last["snn_mean"])
    assert latency.set_index("T").loc[8, "spikes"] == pytest.approx(at_last["spikes_per_image"])
