"""Search and early exit on a small trained network: chosen on held-out images, reported once on the test set."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from workflow_for_tests import TINY

from bsnn import artifacts, datasets, stages
from bsnn.config import Method, merge, validate
from bsnn.console import answer
from bsnn.conversion.search import Score
from bsnn.datasets import protocol
from bsnn.errors import ArtifactError, ConfigError
from bsnn.figures.early_exit import curve
from bsnn.pipeline.job import Job
from bsnn.pipeline.stage import Place
from bsnn.stages import convert as stages_convert
from bsnn.stages import evaluation
from bsnn.stages import results as stages_results
from bsnn.stages import search as stages_search
from bsnn.stages import train as stages_train
from bsnn.tables import latency

METHODS = {"half": {"initial": 0.5}, "fitted": {"shift": True}}
SEARCH = {"time": 4, "images": 60, "percentiles": [98.0, 100.0]}
EXIT = {"method": "half", "images": 60, "loss": 2.0}
BURSTS = {"time": [4], "methods": {"bursts": {"burst": 3}}, "early_exit": {"method": "bursts"}}


def job(**changes: Any) -> Job:
    latency = {"time": [2, 8], "images": 16, "methods": METHODS, "search": SEARCH, "early_exit": EXIT, **changes}
    settings = merge(TINY, {"weights": ["full"], "experiments": {"tiny": {"latency": latency}}})
    return Job.of(validate(settings), "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a network is trained and its activations are collected."""
    place = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for stage in (stages_train.data, stages_train.network, stages_convert.activations):
            stage(job())
    return place


def test_held_out_images_calibrate_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(folder)
    count = len(datasets.load(job().pipeline.path("data", Place("tiny"))).train)
    held = set(evaluation.held_out_images(job(), count, 60).tolist())
    assert len(held) == 60
    with caplog.at_level(logging.WARNING):
        assert len(evaluation.held_out_images(job(), count, 1000)) == count - 100
    assert f"1000 held-out images asked for, {count - 100} do not calibrate" in caplog.text
    assert not held & set(protocol.calibration(job().experiment, count).tolist())
    with pytest.raises(ConfigError, match="none is left"):
        evaluation.held_out_images(job(), 100, 60)


@pytest.mark.parametrize("dropout", [False, True])
def test_channels_are_measured_as_the_activations_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dropout: bool
) -> None:
    """Of the same images in the same batches: the largest channel's maximum is the layer's, in the activation table."""
    monkeypatch.chdir(folder)
    changes = {
        "weights": ["full"],
        "experiments": {
            "tiny": {
                "activations": {"images": 48, "batch_size": 16},
                "latency": {"images": 48, "percentile": 100.0},
                "protocol": {"calibration_dropout": dropout},
            }
        },
    }
    one = Job.of(validate(merge(TINY, changes)), "tiny")
    assert one.experiment.network.dropout > 0
    stages_convert.activations(one)
    bench = evaluation.Evaluation(one)
    whole = bench.thresholds(Method(), 8)
    silent = dict.fromkeys(whole, 0.0)  # would take the layer's, which is to be found
    monkeypatch.setattr("bsnn.conversion.method.lambdas", lambda *_, **__: silent)
    found = bench.thresholds(Method(channels=True), 8)
    largest = {name: float(torch.as_tensor(values).max()) for name, values in found.items()}
    assert largest == pytest.approx(whole, rel=0, abs=0)


def test_search_reports_its_choice_once_on_the_test_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    on_test: list[Method] = []
    score = stages_search._score

    def spied(bench: evaluation.Evaluation, steps: int, method: Method) -> Any:
        on_test.extend([] if bench.held_out else [method])
        return score(bench, steps, method)

    monkeypatch.setattr(stages_search, "_score", spied)
    stages_search.find_switches(job())
    table = pd.read_csv(job().pipeline.path("find_switches", Place("tiny", "full", 0)).with_suffix(".csv"))
    tried, held, test = (table[table["what"] == what] for what in ("tried", "chosen, held-out", "chosen, test"))
    assert len(on_test) == len(held) == len(test) == 1
    assert Method.model_validate(json.loads(test["switches"].iloc[0])) == on_test[0]
    assert held["accuracy"].iloc[0] == tried["accuracy"].max()
    assert set(table["T"]) == {4}
    assert tried["switches"].is_unique
    passed = table[table["what"] == "passed over"]
    assert passed["accuracy"].isna().all()
    assert not set(passed["switches"]) & set(tried["switches"])
    assert tried["why"].notna().all()
    assert passed["why"].notna().all()
    assert tried["ideal"].notna().any()
    assert json.loads(tried["switches"].iloc[0]) == {"percentile": 99.9}


def test_search_for_a_drop_stops_at_the_first_time_that_reaches_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(folder)
    for drop, last in ((100.0, 2), (-100.0, 8)):
        wanted = job(search={**SEARCH, "time": None, "drop": drop})
        stages_search.find_switches(wanted)
        table = pd.read_csv(wanted.pipeline.path("find_switches", Place("tiny", "full", 0)).with_suffix(".csv"))
        assert table["T"].iloc[-1] == table["T"].max() == last
        assert ("T = 8 is taken" in caplog.text) == (drop < 0)


def test_just_the_wanted_drop_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In floats, 51.8 - 50.8 is a little more than 1."""
    monkeypatch.chdir(folder)

    def reached(bench: evaluation.Evaluation, steps: int, method: Method) -> Score:
        return Score(np.nextafter(bench.ann - 1.0, 0.0), 0.0, 0.0)

    monkeypatch.setattr(stages_search, "_score", reached)
    wanted = job(search={**SEARCH, "time": None, "drop": 1.0})
    stages_search.find_switches(wanted)
    table = pd.read_csv(wanted.pipeline.path("find_switches", Place("tiny", "full", 0)).with_suffix(".csv"))
    assert set(table["T"]) == {2}


def test_what_reaches_the_drop_is_chosen_among(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another, as accurate but for chance, agrees more often with the ANN, and loses more than is wanted."""
    monkeypatch.chdir(folder)

    def reached(bench: evaluation.Evaluation, steps: int, method: Method) -> Score:
        lost, agreement = (5, 90.0) if method.initial == 0.5 else (8, 95.0)
        right = tuple(2 * lost <= image < 40 + lost for image in range(60))
        return Score(bench.ann - lost, agreement, 0.0, right)

    monkeypatch.setattr(stages_search, "_score", reached)
    for drop, initial in ((6.0, 0.5), (8.0, 0.0)):
        wanted = job(search={**SEARCH, "time": None, "drop": drop})
        stages_search.find_switches(wanted)
        table = pd.read_csv(wanted.pipeline.path("find_switches", Place("tiny", "full", 0)).with_suffix(".csv"))
        assert table["T"].iloc[-1] == 2
        assert json.loads(table["switches"].iloc[-1]).get("initial", 0.0) == initial


def test_just_the_allowed_loss_is_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exits = stages_search._exits

    def lossy(*given: Any) -> pd.DataFrame:
        found = exits(*given)
        at_bounds = found["bound"].notna()
        return found.assign(accuracy=np.where(at_bounds, np.nextafter(88.0, 0.0), 90.0))

    monkeypatch.setattr(stages_search, "_exits", lossy)
    stages_search.find_exit(job())
    table = pd.read_csv(job().pipeline.path("find_exit", Place("tiny", "full", 0)).with_suffix(".csv"))
    assert table.loc[table["chosen"], "bound"].notna().all()


def test_early_exit_is_chosen_on_held_out_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    stages_search.find_exit(job())
    table = pd.read_csv(job().pipeline.path("find_exit", Place("tiny", "full", 0)).with_suffix(".csv"))
    held, test = (table[table["split"] == split].reset_index(drop=True) for split in ("held-out", "test"))
    assert list(held["bound"].iloc[2:]) == list(test["bound"].iloc[2:])
    for part in (held, test):
        assert part["mean_steps"].iloc[:2].tolist() == [8, 2]  # all images, without a bound
        assert part["T"].tolist() == [8, 2, *[8] * (len(part) - 2)]
        assert part["bound"].isna().tolist() == [True, True, *[False] * (len(part) - 2)]
        assert part["mean_steps"].iloc[2:].is_monotonic_increasing
        assert (part["spikes"].iloc[1:] <= part["spikes"].iloc[0]).all()
    allowed = held.drop(index=1)
    enough = allowed[allowed["accuracy"] >= allowed["accuracy"].iloc[0] - 2.0]
    assert held.loc[held["chosen"], "mean_steps"].tolist() == [enough["mean_steps"].min()]
    assert test["chosen"].tolist() == held["chosen"].tolist()
    stages_convert.method(Job.of(job().config, "tiny", method="half", steps=8))
    path = job().pipeline.path("method", Place("tiny", "full", 0, method="half", steps=8), "predictions")
    whole = pd.read_parquet(path)
    spikes = pd.read_parquet(job().pipeline.path("method", Place("tiny", "full", 0, method="half", steps=8), "spikes"))
    for row, step in ((0, 8), (1, 2)):
        right = whole["predicted"].str[step - 1] == whole["label"]
        assert test["accuracy"].iloc[row] == pytest.approx(100 * right.mean())
        sent = spikes.loc[spikes["step"] <= step, "spikes"].sum() / len(whole)
        assert test["spikes"].iloc[row] == pytest.approx(sent)


def test_the_console_ends_with_what_was_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    stages_search.find_switches(job())
    stages_search.find_exit(job())
    pipeline, place = job().pipeline, Place("tiny", "full", 0)
    search = pipeline.read("find_switches", place)[0].to_pandas().iloc[-1]
    lines = answer.text(pipeline, ["search", "early_exit"]).splitlines()
    [found] = [line for line in lines if "at T = 4 by" in line]
    assert f"tiny, full, seed 0: {search['accuracy']:.2f} % of the test images" in found
    assert search["switches"] in found
    table = pipeline.read("find_exit", place)[0].to_pandas()
    row = table[(table["split"] == "test") & table["chosen"]].iloc[0]
    [found] = [line for line in lines if "mean steps of 8" in line]
    assert f"{row['accuracy']:.2f} % of the test images" in found
    assert f"in {row['mean_steps']:.1f} mean steps" in found


def test_a_shard_without_images_has_no_weight(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images in three shards: operations are those of the same two in one."""
    monkeypatch.chdir(folder)
    found = []
    for shards in (1, 3):
        changes = {"experiments": {"tiny": {"simulation": {"shards": shards, "images": 2}}}}
        chosen = validate(merge(job().config.model_dump(mode="json"), changes))
        for shard in range(1, shards + 1):
            stages_convert.method(Job.of(chosen, "tiny", method="half", steps=8, shard=shard))
        place = Place("tiny", "full", 0, method="half", steps=8)
        found.append(latency.Run(Job.of(chosen, "tiny").pipeline, place).operations())
    pd.testing.assert_frame_equal(*found)


def test_early_exit_of_all_networks_in_one_table_and_its_figures(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One measured network, and another that is as if it had been measured."""
    monkeypatch.chdir(folder)
    first = job(early_exit={**EXIT, "images": 50})
    stages_search.find_exit(first)
    monkeypatch.chdir(tmp_path)
    both = Job.of(first.config.model_copy(update={"seeds": [0, 1]}), "tiny")
    measured, _ = artifacts.read_table(folder / first.pipeline.path("find_exit", Place("tiny", "full", 0)), "exit", {})
    for seed in (0, 1):
        own = measured.to_pandas().assign(accuracy=lambda frame, seed=seed: frame["accuracy"] - seed)
        stands_for = both.pipeline.identity("find_exit", Place("tiny", "full", seed))
        artifacts.write_table(both.pipeline.path("find_exit", Place("tiny", "full", seed)), own, "exit", stands_for)
    stages_results.exit_results(both)
    table = pd.read_csv("results/tiny/tables/early_exit.csv")
    assert table.groupby("seed").size().tolist() == [len(measured)] * 2
    assert set(table["method"]) == {"half"}
    assert (table.loc[table["seed"] == 0, "accuracy"].mean() - table.loc[table["seed"] == 1, "accuracy"].mean()) == 1
    for name in ("early_exit", "early_exit_operations"):
        assert Path(f"results/tiny/figures/{name}.svg").stat().st_size > 0
    lines = curve(table, "mean_steps", "mean steps").axes[0].lines
    assert [line.get_label() for line in lines[:6:2]] == ["same steps for all", "early exit", "chosen"]
    assert lines[0].get_xdata().tolist() == lines[1].get_xdata().tolist() == [2, 8]
    assert len(lines[2].get_xdata()) == (table["bound"].notna() & (table["split"] == "test")).sum() / 2
    assert [len(line.get_xdata()) for line in lines[4:6]] == [1, 1]
    both.pipeline.path("find_exit", Place("tiny", "full", 1)).unlink()
    with pytest.raises(ArtifactError, match="exit-"):
        stages_results.exit_results(both)


def test_early_exit_needs_a_method_that_is_read_at_every_step() -> None:
    with pytest.raises(ConfigError, match="fitted to one number of steps"):
        job(early_exit={"method": "fitted"})
    with pytest.raises(ConfigError, match="there is no method 'other'"):
        job(early_exit={"method": "other"})
    with pytest.raises(ConfigError, match="'bursts' is for full-precision networks alone"):
        validate(merge(TINY, {"experiments": {"tiny": {"latency": BURSTS}}}))
    validate(merge(TINY, {"weights": ["full"], "experiments": {"tiny": {"latency": BURSTS}}}))
    with pytest.raises(ConfigError, match="not both"):
        job(search={"time": 4, "drop": 1.0})
    with pytest.raises(ConfigError, match="there is no method"):
        job().pipeline.check("method", Place("tiny", method="other", steps=8))
    with pytest.raises(ConfigError, match=r"simulated for \[8\] steps, not 4"):
        job().pipeline.check("method", Place("tiny", method="half", steps=4))


def test_a_delay_counts_from_the_image_under_delayed_propagation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the first spikes have come to the read-out, after six steps, it leaves out what is not there."""
    monkeypatch.chdir(folder)
    latency_of = {"time": [8, 12, 16], "images": 16, "methods": {"late": {"delay": 6}}}
    changes = {"protocol": {"delayed": True}, "latency": latency_of}
    pipeline = Job.of(validate(merge(TINY, {"weights": ["full"], "experiments": {"tiny": changes}})), "tiny").pipeline
    for rule in ("method", "ideal"):
        for place in pipeline.places(rule, "tiny"):
            stages.run(rule, Job(pipeline, place))
    found = latency.collect(pipeline, "tiny")["latency"].set_index("method").drop(columns="weights")
    assert found.loc["baseline", "accuracy"].nunique() > 1
    assert np.array_equal(found.loc["baseline"], found.loc["late"], equal_nan=True)
