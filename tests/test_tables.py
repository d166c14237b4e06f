"""Tables against numbers counted by hand, and against damage: shards that do not belong together."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import artifacts_for_tests as small
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsnn import artifacts, config, tables
from bsnn.errors import ArtifactError
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import columns
from bsnn.tables.shards import Shard, join

# Four images, two steps of four reported at 2 and 4; layer conv1 of 8 neurons, fc1 of 2. Seed 1 is right once more.
LABELS = np.array([0, 1, 2, 3])
PREDICTED = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 2, 2], [0, 0, 0, 0]])  # right: 1, 2, 3, 3


def by_hand(weights: str, seed: int, percentile: float) -> small.Truth:
    predicted = PREDICTED.copy()
    predicted[3, 3] = 3 if seed else 0
    return small.Truth(
        labels=LABELS,
        ann=np.array([0, 1, 2, 3 if seed else 0]),
        predicted=predicted,
        spikes={"conv1": np.full((4, 4), 4), "fc1": np.tile([0, 1, 1, 2], (4, 1))},
        neurons={"conv1": 8, "fc1": 2},
        thresholds={"conv1": 3.0, "fc1": 0.5 + seed},
        means={"conv1": 2.0, "fc1": 0.25},
    )


@pytest.fixture
def results(tmp_path: Path) -> tables.Results:
    chosen = small.settings(seeds=[0, 1])
    return tables.collect(small.write_all(chosen, tmp_path, by_hand), small.NAME)


def row(frame: pd.DataFrame, **which: object) -> pd.Series:
    found = frame
    for name, value in which.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_accuracy_by_hand(results: tables.Results) -> None:
    frame = results["accuracy"]
    assert frame[["weights", "percentile", "time"]].values.tolist() == [
        ["full", 99.0, 2],
        ["full", 99.0, 4],
        ["binary", 99.0, 2],
        ["binary", 99.0, 4],
    ]
    last = row(frame, weights="binary", time=4)
    assert (last["ann_mean"], last["snn_mean"], last["drop"]) == (87.5, 87.5, 0.0)  # 75 and 100 each
    assert last["snn_std"] == pytest.approx(25 / np.sqrt(2))  # n - 1
    early = row(frame, weights="full", time=2)
    assert (early["snn_mean"], early["snn_std"], early["drop"]) == (50.0, 0.0, 37.5)
    assert (early["spikes_per_image"], last["spikes_per_image"]) == (8 + 1, 16 + 4)
    assert (early["spikes_per_neuron"], last["spikes_per_neuron"]) == (0.9, 2.0)  # of 10 neurons
    assert (last["seeds"], last["images"]) == (2, 4)


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    chosen = small.settings()
    found = tables.collect(small.write_all(chosen, tmp_path, by_hand), small.NAME)
    assert found["accuracy"][["ann_std", "snn_std"]].isna().all(axis=None)
    assert found["accuracy"]["seeds"].tolist() == [1] * 4


def test_accuracy_over_time_by_hand(results: tables.Results) -> None:
    frame = results["accuracy_over_time"]
    chosen = frame[(frame["weights"] == "full") & (frame["seed"] == 1)]
    assert chosen["step"].tolist() == [1, 2, 3, 4]
    assert chosen["accuracy"].tolist() == [25.0, 50.0, 75.0, 100.0]
    assert len(frame) == 2 * 2 * 4


def test_steps_beyond_the_reported_ones_are_left_out(tmp_path: Path) -> None:
    chosen = small.settings(time=[2])
    found = tables.collect(small.write_all(chosen, tmp_path, by_hand), small.NAME)
    assert found["accuracy_over_time"]["step"].max() == 2
    assert row(found["spikes_by_layer"], weights="full", layer="conv1")["spikes_per_neuron"] == 1.0


def test_spikes_and_rates_by_hand(results: tables.Results) -> None:
    spikes, rates = results["spikes_by_layer"], results["rates"]
    assert spikes["layer"].tolist() == ["conv1", "fc1"] * 2
    first = row(spikes, weights="full", layer="conv1")
    assert (first["neurons"], first["spikes_per_neuron"], first["firing_rate"]) == (8, 2.0, 0.5)
    last = row(rates, weights="full", layer="fc1")
    assert last["threshold"] == 1.0  # mean of 0.5 and 1.5
    assert (last["firing_rate"], last["estimate"], last["activation"]) == (0.5, 0.5, 0.25)
    assert last["ratio"] == 2.0
    assert row(rates, weights="full", layer="conv1")["ratio"] == 0.75  # 3 x 0.5 against 2; not population positive's 4


def test_binary_summary_adds_up(results: tables.Results) -> None:
    frame = results["binary_summary"]
    assert frame["layer"].tolist() == ["conv1", "fc1", "fc2", "total"]
    total = frame.iloc[-1]
    assert (total["weights_1bit"], total["weights_32bit"], total["memory_bytes"], total["macs"]) == (
        320,
        168,
        712,
        7292,
    )
    assert total["scale_bytes"] == 16
    assert total["compression"] == 4 * 488 / 728
    assert pd.isna(total["binary"])


def test_no_binary_network_no_summary(tmp_path: Path) -> None:
    chosen = small.settings(weights=["full"])
    found = tables.collect(small.write_all(chosen, tmp_path, by_hand), small.NAME)
    assert len(found["binary_summary"]) == 0
    tables.write(found, tmp_path / "tables")
    assert (tmp_path / "tables/binary_summary.csv").read_text().startswith("layer,weights_1bit")


def test_training_is_the_last_epoch_with_all_seconds(results: tables.Results) -> None:
    last = row(results["training"], weights="full", seed=1)
    assert (last["epoch"], last["train_loss"], last["test_accuracy"], last["seconds"]) == (2, 1.5, 62.5, 5.0)
    assert len(results["training_history"]) == 2 * 2 * 2


def test_origins_name_key_engine_and_machine(results: tables.Results) -> None:
    frame = results["origins"]
    simulated = row(frame, stage="simulate", weights="binary", seed=1)
    expected = Pipeline(results.config).key("simulate", Place(small.NAME, "binary", 1, 99.0))
    assert (simulated["key"], simulated["engine"], simulated["reason"]) == (expected, "torch", "for the test")
    assert json.loads(simulated["settings"])["settings"] == {"time": 4}
    assert simulated["cores"] >= 1
    assert "numpy" in json.loads(simulated["versions"])
    assert set(frame["stage"]) == {"data", "train", "binarize", "activations", "thresholds", "simulate"}


@pytest.mark.parametrize("shards", [4, 30])  # 30 shards of 23 images: some are empty
def test_sharding_changes_nothing(tmp_path: Path, shards: int) -> None:
    found = []
    for count in (1, shards):
        chosen = small.settings(shards=count, weights=["binary"])
        found.append(tables.collect(small.write_all(chosen, tmp_path, small.random_truth()), small.NAME))
    whole, parted = found
    for name in tables.TABLES:
        if name != "origins":
            pd.testing.assert_frame_equal(whole[name], parted[name], check_exact=True)
    simulated = row(parted["origins"], stage="simulate")
    assert (simulated["shards"], simulated["images"], simulated["seconds"]) == (shards, 23, 1.5 * shards)


@settings(max_examples=25)
@given(owner=st.lists(st.integers(0, 3), min_size=1, max_size=12), steps=st.integers(1, 4))
def test_any_partition_of_the_images_joins_to_the_same(owner: list[int], steps: int) -> None:
    truth = small.random_truth(images=len(owner))("full", 0, 99.0)
    groups = [np.flatnonzero(np.array(owner) == shard) for shard in range(4)]
    for parts in ([np.arange(len(owner))], groups, groups[::-1]):
        found = join([shard_of(truth, images) for images in parts], 4, steps)
        right = [int((truth.predicted[:, step] == truth.labels).sum()) for step in range(steps)]
        assert found.correct.tolist() == right
        assert found.labels.tolist() == truth.labels.tolist()
        assert found.ann_correct == (truth.ann == truth.labels).sum()
        assert found.spikes.tolist() == [counts[:, :steps].sum(0).tolist() for counts in truth.spikes.values()]


def shard_of(truth: small.Truth, images: np.ndarray) -> Shard:
    """A shard in memory."""
    spikes, noted = pa.Table.from_pandas(small.spikes(truth, images)), small.placed(images, 1, 1, len(truth.labels))
    return Shard(Path("shard.parquet"), small.predictions(truth, images), spikes, {"extra": noted})


def test_markdown_rounds_and_csv_does_not(tmp_path: Path) -> None:
    chosen = small.settings(percentile=[99, 99.9, 100], steps=5)
    truth = small.random_truth(images=7, steps=5)
    found = tables.collect(small.write_all(chosen, tmp_path, truth), small.NAME)
    tables.write(found, tmp_path / "tables")
    value = found["accuracy"]["snn_mean"].iloc[0]
    assert round(value, 2) != value  # sevenths
    lines = (tmp_path / "tables/accuracy.md").read_text().splitlines()
    cells = [cell.strip() for cell in lines[6].strip("|").split("|")]
    assert lines[5].startswith("|:")
    assert cells[:3] == ["full", "99", "2"]
    assert f"{value:.2f}" in cells
    assert cells[columns_of(found).index("snn_std")] == ""
    assert pd.read_csv(tmp_path / "tables/accuracy.csv")["snn_mean"].iloc[0] == value


def columns_of(found: tables.Results) -> list[str]:
    return list(found["accuracy"].columns)


def test_written_tables_read_back(results: tables.Results, tmp_path: Path) -> None:
    tables.write(results, tmp_path / "tables")
    back = tables.read(tmp_path / "tables")
    assert back.name == small.NAME
    for name in tables.TABLES:
        pd.testing.assert_frame_equal(back[name], results[name])
    settings = json.loads((tmp_path / "tables/settings.json").read_text())
    assert settings["key"] == Pipeline(results.config).key("tables", Place(small.NAME))
    assert config.validate(settings["config"]) == results.config


def test_tables_of_other_settings_are_refused(results: tables.Results, tmp_path: Path) -> None:
    tables.write(results, tmp_path)
    path = tmp_path / "settings.json"
    noted = artifacts.read_note(path)
    noted["config"]["time"] = [3]
    artifacts.write_note(path, noted)
    with pytest.raises(ArtifactError, match="other settings"):
        tables.read(tmp_path)
    path.write_text(path.read_text().replace('"seeds": [', '"seeds": [9,', 1))
    with pytest.raises(ArtifactError, match="does not match its digest"):
        tables.read(tmp_path)
    artifacts.write_note(path, {})
    with pytest.raises(ArtifactError, match="not settings"):
        tables.read(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="make the tables first"):
        tables.read(tmp_path)


WHICH: tuple[config.Weights, int, float] = ("binary", 0, 99.0)


SECOND = small.placed(np.arange(8, 16), 2, 3, 23)  # of three shards of 23 images


def sharded(tmp_path: Path) -> tuple[config.Config, Pipeline, dict]:
    """Three shards of random findings, of the binary network alone."""
    chosen = small.settings(shards=3, weights=["binary"])
    pipeline = small.write_all(chosen, tmp_path, small.random_truth())
    return chosen, pipeline, pipeline.identity("simulate", Place(small.NAME, *WHICH))


def test_missing_shard_names_its_file(tmp_path: Path) -> None:
    _, pipeline, _ = sharded(tmp_path)
    pipeline.path("simulate", Place(small.NAME, *WHICH, 2)).unlink()
    with pytest.raises(ArtifactError, match=r"2of3.*no such file"):
        tables.collect(pipeline, small.NAME)


@pytest.mark.parametrize(
    ("images", "message"),
    [(range(8), "appear twice"), (range(9, 16), "are missing"), (range(100, 108), "are missing")],
)
def test_shards_must_make_up_the_test_set(tmp_path: Path, images: range, message: str) -> None:
    _, pipeline, stands_for = sharded(tmp_path)
    table = small.predictions(small.random_truth(200)(*WHICH), np.array(images))
    path, note = pipeline.path("simulate", Place(small.NAME, *WHICH, 2)), small.placed(np.array(images), 2, 3, 23)
    artifacts.write_table(path, table, "predictions", stands_for, note)
    with pytest.raises(ArtifactError, match=message):
        tables.collect(pipeline, small.NAME)


@pytest.mark.parametrize("kind", ["predictions", "spikes"])
def test_shard_under_the_name_of_another_is_refused(tmp_path: Path, kind: str) -> None:
    _, pipeline, _ = sharded(tmp_path)
    first, second = (pipeline.path("simulate", Place(small.NAME, *WHICH, shard), kind) for shard in (1, 2))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ArtifactError, match="holds shard 1 of 3, and its name says 2 of 3"):
        tables.collect(pipeline, small.NAME)


def test_two_shards_of_three_are_not_both_of_two(tmp_path: Path) -> None:
    _, of_three, _ = sharded(tmp_path)
    of_two = Pipeline(small.settings(shards=2, weights=["binary"]), tmp_path)
    for kind, shard in product(("predictions", "spikes"), (1, 2)):
        place = Place(small.NAME, *WHICH, shard)
        of_three.path("simulate", place, kind).rename(of_two.path("simulate", place, kind))
    with pytest.raises(ArtifactError, match="holds shard 1 of 3, and its name says 1 of 2"):
        tables.collect(of_two, small.NAME)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"first": 7}, "holds images 8 to 15, says 7 to 15"),
        ({"last": 16}, "holds images 8 to 15, says 8 to 16"),
        ({"total": 24}, "is of 24 test images, and all shards together hold 23"),
    ],
)
def test_shards_must_be_what_they_note(tmp_path: Path, said: dict[str, int], message: str) -> None:
    _, pipeline, stands_for = sharded(tmp_path)
    table = small.predictions(small.random_truth()(*WHICH), np.arange(8, 16))
    path = pipeline.path("simulate", Place(small.NAME, *WHICH, 2))
    artifacts.write_table(path, table, "predictions", stands_for, SECOND | said)
    with pytest.raises(ArtifactError, match=message):
        tables.collect(pipeline, small.NAME)


def test_truncated_last_shard_is_noticed(tmp_path: Path) -> None:
    _, pipeline, stands_for = sharded(tmp_path)
    table = small.predictions(small.random_truth()(*WHICH), np.arange(16, 20))
    artifacts.write_table(
        pipeline.path("simulate", Place(small.NAME, *WHICH, 3)),
        table,
        "predictions",
        stands_for,
        SECOND | {"shard": 3, "images": 7},
    )
    with pytest.raises(ArtifactError, match="holds 4 images, says 7"):
        tables.collect(pipeline, small.NAME)


def test_shard_of_another_identity_is_refused(tmp_path: Path) -> None:
    _, pipeline, stands_for = sharded(tmp_path)
    table = small.predictions(small.random_truth()(*WHICH), np.arange(8, 16))
    other = {**stands_for, "version": stands_for["version"] + 1}
    artifacts.write_table(pipeline.path("simulate", Place(small.NAME, *WHICH, 2)), table, "predictions", other)
    with pytest.raises(ArtifactError, match="other settings"):
        tables.collect(pipeline, small.NAME)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda frame: frame[frame["step"] < 4], "not of steps 1 to 4"),
        (lambda frame: pd.concat([frame, frame.tail(1)]), "not of steps 1 to 4"),
        (lambda frame: frame.assign(images=1), "different images"),
        (lambda frame: frame.assign(layer="conv" + frame["layer"]), "has layers"),
        (lambda frame: frame.assign(neurons=frame["step"]), "number of neurons changes"),
        (lambda frame: frame.drop(columns="spikes"), "'spikes' is missing"),
        (lambda frame: frame.assign(spikes="many"), "other types"),
    ],
)
def test_damaged_spikes_are_refused(tmp_path: Path, damage: object, message: str) -> None:
    _, pipeline, stands_for = sharded(tmp_path)
    frame = damage(small.spikes(small.random_truth()(*WHICH), np.arange(8, 16)))  # type: ignore[operator]
    path = pipeline.path("simulate", Place(small.NAME, *WHICH, 2), "spikes")
    artifacts.write_table(path, frame, "spikes", stands_for, SECOND)
    with pytest.raises(ArtifactError, match=message):
        tables.collect(pipeline, small.NAME)


def test_images_may_leave_early(tmp_path: Path) -> None:
    _, pipeline, stands_for = sharded(tmp_path)
    expected = tables.collect(pipeline, small.NAME)["accuracy"]
    frame = small.spikes(small.random_truth()(*WHICH), np.arange(8, 16))
    frame.loc[frame["step"] > 2, "images"] = 3
    path = pipeline.path("simulate", Place(small.NAME, *WHICH, 2), "spikes")
    artifacts.write_table(path, frame, "spikes", stands_for, SECOND)
    pd.testing.assert_frame_equal(tables.collect(pipeline, small.NAME)["accuracy"], expected)


def test_fewer_steps_than_simulated_are_refused(tmp_path: Path) -> None:
    _, pipeline, stands_for = sharded(tmp_path)
    table = small.predictions(small.random_truth(steps=3)(*WHICH), np.arange(8, 16))
    path = pipeline.path("simulate", Place(small.NAME, *WHICH, 2))
    artifacts.write_table(path, table, "predictions", stands_for, SECOND)
    with pytest.raises(ArtifactError, match="4 simulated steps"):
        tables.collect(pipeline, small.NAME)


def test_simulations_must_be_of_the_same_images(tmp_path: Path) -> None:
    chosen = small.settings(percentile=[99.0, 99.9], weights=["full"])
    truth = small.random_truth()
    pipeline = small.write_all(chosen, tmp_path, lambda *which: truth(*which) if which[2] == 99.0 else by_hand(*which))
    with pytest.raises(ArtifactError, match="its 4 test images are not the 23"):
        tables.collect(pipeline, small.NAME)


def test_spiking_layer_without_threshold_is_named(tmp_path: Path) -> None:
    chosen = small.settings(weights=["binary"])
    truth = small.random_truth()
    pipeline = small.write_all(chosen, tmp_path, truth)
    less = truth(*WHICH)
    less.thresholds.pop("fc1")
    small.write_thresholds(chosen, tmp_path, WHICH, less)
    with pytest.raises(ArtifactError, match="layer 'fc1' spikes but has no threshold"):
        tables.collect(pipeline, small.NAME)


def test_every_column_of_numbers_says_how_they_are_written(results: tables.Results) -> None:
    frames = results.frames.values()
    assert {name for frame in frames for name in frame.select_dtypes("number").columns} <= set(columns.COLUMNS)


def test_a_column_without_heading_is_still_shown() -> None:
    text = columns.markdown(pd.DataFrame({"nowhere_else": ["64.9", None], "layer": ["a|b", "c"]}))
    assert "nowhere_else" in text
    assert "a\\|b" in text
