"""The paper's results from small artifacts: published values, latencies, ablation, tables in three formats."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import artifacts_for_tests as small
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bsnn import config
from bsnn.config import merge
from bsnn.errors import ArtifactError, ConfigError
from bsnn.paper import measures, plan, published, report, write
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

ROOT = Path(__file__).parent.parent
SWEPT = {"percentile": [99.0, 99.9], "paper": {"percentile": [100.0], "chosen": 99.9}}


def committed() -> config.Config:
    return config.load(ROOT / "config.yaml")


def gathered(root: Path, result: str, **changes: Any) -> measures.Gathered:
    chosen = small.settings(**merge(SWEPT, changes))
    written = chosen.model_copy(update={"percentile": plan.sweep(chosen)})
    small.write_all(written, root, small.random_truth())
    return measures.Gathered(Pipeline(chosen, root), small.NAME, result)


def test_no_value_without_a_source() -> None:
    """The spiking networks' values were not found: nothing may stand in for them."""
    document = yaml.safe_load((ROOT / "bsnn/paper/published.yaml").read_text())
    assert set(document) == {"cifar100", "imagenet"}
    for entry in (entry for found in document.values() for entry in found["accuracy"]):
        assert entry["source"]
        assert (entry["value"] is None) == (entry["status"] == "not found")
        assert entry["network"] == "ANN" or entry["status"] != "certain"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cifar100", (64.9, 64.8)), ("imagenet", (69.05, 64.4)), ("digits", (None, None)), ("cifar10", (None, None))],
)
def test_published_anns(name: str, expected: tuple[float | None, float | None]) -> None:
    entries = published.of(committed().experiments[name]).accuracy
    assert tuple(entry.value for entry in entries if entry.network == "ANN") == expected


def test_another_network_has_nothing_published() -> None:
    entries = published.of(committed().experiments["cifar100-max-before"]).accuracy
    assert [entry.value for entry in entries] == [None] * 4


def test_published_recipes_are_those_that_run() -> None:
    for name in ("cifar100", "imagenet"):
        chosen = committed()
        found = measures.Gathered(Pipeline(chosen), name, "hyperparameters")
        from bsnn.paper.recipes import hyperparameters

        table = hyperparameters(found).set_index("setting")
        for weights in ("full", "binary"):
            stated = table[table[f"published_{weights}"].notna()].drop(index="source")
            assert len(stated) >= 13
            assert stated[f"published_{weights}"].tolist() == stated[f"used_{weights}"].tolist()


def test_recipe_says_where_training_started() -> None:
    from bsnn.paper.recipes import hyperparameters

    used = {}
    for name in ("cifar100-cpu", "cifar100-cpu-cycle2"):
        table = hyperparameters(measures.Gathered(Pipeline(committed()), name, "hyperparameters"))
        used[name] = table.set_index("setting")[["used_full", "used_binary"]].T.to_dict()
    assert used["cifar100-cpu"]["start"] == {"used_full": "fresh", "used_binary": "trained full-precision network"}
    assert set(used["cifar100-cpu-cycle2"]["start"].values()) == {"trained full-precision network"}
    assert set(used["cifar100-cpu-cycle2"]["initialisation"].values()) == {"none"}


def test_ablation_changes_the_pool_alone() -> None:
    experiments = committed().experiments
    own = experiments["digits"]
    for pool, place in (("average", "after"), ("max", "before"), ("max", "after")):
        variant = experiments[f"digits-{pool}-{place}"]
        assert (variant.network.pool, variant.network.place) == (pool, place)
        changed = {"network": own.network, "description": own.description, "ablation": True}
        assert variant.model_copy(update=changed) == own
    assert "digits-average-before" not in experiments
    assert plan.poolings(committed(), "digits")["average", "before"] == "digits"
    assert not [name for name in experiments if name.startswith("digits-original-")]


def test_only_the_sweep_depends_on_its_percentiles() -> None:
    config = committed()
    before = Pipeline(config)
    after = Pipeline(config.model_copy(update={"percentile": [99.8, *config.percentile]}))
    places = [Place("digits", result=result) for result in plan.results_of(config, "digits")]
    changed = {one.result for one in places if before.key("paper_result", one) != after.key("paper_result", one)}
    assert changed == {"time", "activity", "operations", "latency", "hyperparameters"}
    assert before.key("paper_report", places[0]) != after.key("paper_report", places[0])


def test_chosen_time() -> None:
    chosen = committed()
    assert [plan.chosen_time(chosen, name) for name in ("digits", "cifar100", "imagenet")] == [128, 100, 170]
    assert 99.9 in plan.sweep(chosen)
    with pytest.raises(ConfigError, match=r"paper.time: experiment 'digits' simulates 128 steps, not 129"):
        config.load(ROOT / "config.yaml", {"paper": {"time": 129}})


@pytest.mark.parametrize(
    ("reached", "expected"),
    [([1, 1, 1], 1), ([0, 1, 1], 2), ([1, 0, 1], 3), ([0, 0, 0], None), ([1, 1, 0], None), ([1], 1)],
)
def test_first_lasting(reached: list[int], expected: int | None) -> None:
    found = measures.first_lasting(np.array(reached, dtype=bool))
    assert np.isnan(found) if expected is None else found == expected


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_first_lasting_is_the_least_step_that_lasts(reached: list[bool]) -> None:
    lasting = [step for step in range(1, len(reached) + 1) if all(reached[step - 1 :])]
    found = measures.first_lasting(np.array(reached))
    assert found == lasting[0] if lasting else np.isnan(found)


def test_epochs_are_those_of_networks_trained_here() -> None:
    """As in the table of accuracies, where an imported network has none."""
    file = {"path": "network.safetensors", "sha256": "0" * 64}

    def epochs(*weights: str, **imported: dict[str, str]) -> str | None:
        given = small.settings(weights=list(weights)).model_dump(mode="json", exclude_unset=True)
        changed = merge(given, {"experiments": {small.NAME: {"imported": imported}}})
        return dict(report.facts(Pipeline(config.validate(changed)), small.NAME)).get("Epochs")

    both = epochs("full", "binary")
    assert both is not None
    assert re.fullmatch(r"\d+ full, \d+ binary", both)
    assert epochs("full", "binary", binary=file) == epochs("full") == both.split(", ")[0]
    assert epochs("binary") == both  # which starts from the full-precision one
    assert epochs("binary", full=file) == both.split(", ")[1]
    assert epochs("full", "binary", full=file, binary=file) is None


def test_accuracy_against_the_artifacts(tmp_path: Path) -> None:
    table = measures.accuracy(gathered(tmp_path, "accuracy", seeds=[0, 1]))
    truth = small.random_truth()
    assert table["network"].tolist() == ["ANN", "B-ANN", "SNN", "B-SNN"]
    for row, (weights, spiking) in zip(
        table.itertuples(), [("full", 0), ("binary", 0), ("full", 1), ("binary", 1)], strict=True
    ):
        runs = [truth(weights, seed, 99.9) for seed in (0, 1)]
        found = [100 * np.mean((run.predicted[:, 3] if spiking else run.ann) == run.labels) for run in runs]
        assert row.measured_mean == pytest.approx(np.mean(found))
        assert row.measured_std == pytest.approx(np.std(found, ddof=1))
        assert np.isnan(row.published)
        assert pd.isna(row.verdict)


def test_comparison_with_a_published_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gathered(tmp_path, "accuracy", seeds=[0])
    measured = measures.accuracy(found)["measured_mean"][0]
    for published_value, verdict in ((measured + 0.9, "yes"), (measured + 1.1, "no"), (measured - 50, "yes")):
        entry = published.Accuracy(
            network="ANN", weights="full", value=published_value, tolerance=1.0, status="certain", source="x"
        )
        monkeypatch.setattr(published, "of", lambda _, entry=entry: published.Published(accuracy=[entry]))
        row = measures.accuracy(found).iloc[0]
        assert row["difference"] == pytest.approx(measured - published_value)
        assert row["verdict"] == verdict


def test_a_run_of_others_is_compared_at_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = published.Accuracy(
        network="SNN", weights="binary", value=60.48, percentile=99.0, time=2, status="third party", source="x"
    )
    monkeypatch.setattr(published, "of", lambda _: published.Published(accuracy=[entry]))
    row = measures.accuracy(gathered(tmp_path, "accuracy")).iloc[0]
    run = small.random_truth()("binary", 0, 99.0)
    assert (row["network"], row["percentile"], row["time"]) == ("B-SNN", 99.0, 2)
    assert row["measured_mean"] == pytest.approx(100 * np.mean(run.predicted[:, 1] == run.labels))
    assert row["difference"] == pytest.approx(row["measured_mean"] - 60.48)
    assert pd.isna(row["verdict"])


def test_latency_needs_every_seed(tmp_path: Path) -> None:
    table = measures.latency(gathered(tmp_path, "latency", seeds=[0, 1], paper={"within": [0.5, 100.0]}))
    assert table[table["within"] == 100]["time_mean"].eq(1).all()
    short = table[table["reached"] < 2]
    assert len(short)
    assert short["time_mean"].isna().all()


def test_three_formats_say_what_is_not_known(tmp_path: Path) -> None:
    found = gathered(tmp_path / "results", "accuracy")
    write.write(found.pipeline, Place(found.name, result="accuracy"), tmp_path / "results" / small.NAME / "paper")
    folder = tmp_path / "results" / small.NAME / "paper"
    rows = list(csv.DictReader((folder / "accuracy.csv").open()))
    assert [row["published"] for row in rows] == ["not available"] * 4
    for suffix in ("md", "tex"):
        text = (folder / f"accuracy.{suffix}").read_text()
        assert text.count("not available") >= 12
        for row in rows:
            assert f"{float(row['measured_mean']):.2f}" in text
    latex = (folder / "accuracy.tex").read_text()
    body = latex[latex.index(r"\toprule") :]
    assert not re.search(r"(?<!\\)[%_#$]", latex)
    assert body.count(r"\\") == 5
    assert not (folder / "protocols.csv").exists()


def test_written_tables_are_read_for_their_settings_alone(tmp_path: Path) -> None:
    found = gathered(tmp_path / "results", "latency")
    place, folder = Place(found.name, result="latency"), tmp_path / "results" / small.NAME / "paper"
    write.write(found.pipeline, place, folder)
    assert write.read(found.pipeline, place, folder)["latency"].equals(measures.latency(found))
    other = Pipeline(found.config.model_copy(update={"seeds": [3]}))
    with pytest.raises(ArtifactError, match="made with other settings"):
        write.read(other, place, folder)


def test_protocols_are_told_apart_by_their_names() -> None:
    """Experiments of the same networks and protocol, on fewer images perhaps, would have the same columns."""
    name, base = small.NAME, small.settings()
    same = base.experiments[name].model_copy(update={"networks_of": name})
    shifted = same.model_copy(update={"protocol": config.Protocol(preset="original")})
    more = {"again": same, "shifted": shifted, "fewer": shifted}
    chosen = base.model_copy(update={"run": [name, *more], "experiments": {**base.experiments, **more}})
    assert plan.protocols(chosen, name) == [name, "shifted"]
    assert plan.protocols(chosen, "fewer") == ["fewer", name]
