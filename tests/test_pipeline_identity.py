"""Keys: which change of the settings changes which stage's key, and nothing else does."""

from dataclasses import replace
from pathlib import Path

import pytest

from bsnn import config
from bsnn.pipeline import declarations
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

FILE = Path(__file__).parent.parent / "config.yaml"
STAGES = ["data", "train", "binarize", "activations", "thresholds", "simulate", "results"]


def keys(changes: dict[str, object], weights: config.Weights = "binary", name: str = "digits") -> dict[str, str]:
    loaded = config.load(FILE, changes)
    pipeline, place = Pipeline(loaded), Place(name, weights, loaded.seeds[0], loaded.percentile[0])
    return {stage: pipeline.key("tables" if stage == "results" else stage, place) for stage in STAGES}


def digits(**sections: object) -> dict[str, object]:
    return {"experiments": {"digits": sections}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"percentile": 99.5}, ["thresholds", "simulate", "results"]),
        ({"time": 50}, ["results"]),
        (digits(simulation={"time": 150}), ["simulate", "results"]),
        (digits(simulation={"initial": 0.5}), ["simulate", "results"]),
        (digits(simulation={"shards": 4}), []),
        (digits(thresholds={"population": "positive"}), ["thresholds", "simulate", "results"]),
        (digits(activations={"images": 500}), ["activations", "thresholds", "simulate", "results"]),
        (digits(binarize={"epochs": 3}), ["binarize", "activations", "thresholds", "simulate", "results"]),
        (digits(train={"epochs": 3}), STAGES[1:]),
        (digits(data={"mean": [0.5, 0.5, 0.5]}), STAGES[1:]),
        (digits(network={"hidden": [99]}), STAGES[1:]),
        ({"seeds": 1}, STAGES[1:]),
        (digits(data={"image_size": 24}), STAGES),
        (digits(data={"path": "/elsewhere"}), []),
        (digits(description="other words"), ["results"]),
        ({"compute": {"engine": "torch", "threads": 1, "batch_size": 7}}, ["results"]),
    ],
)
def test_change_reaches_exactly_these_stages(changes: dict[str, object], expected: list[str]) -> None:
    before, after = keys({"weights": "binary"}), keys({"weights": "binary", **changes})
    if changes.get("compute"):
        expected = []
    assert [stage for stage in STAGES if before[stage] != after[stage]] == expected


def test_engine_counts_for_full_precision_only() -> None:
    changes = {"compute": {"engine": "torch"}}
    assert keys(changes, "full")["simulate"] != keys({}, "full")["simulate"]
    assert keys(changes, "binary")["simulate"] == keys({}, "binary")["simulate"]


def test_search_counts_where_it_begins() -> None:
    def found(**latency: object) -> dict[str, object]:
        loaded = config.load(FILE, digits(latency=latency))
        return Pipeline(loaded).identity("find_switches", Place("digits", "binary", 0))

    assert found(percentile=99.0) != found()
    assert found(percentile=99.9) == found()  # the default


@pytest.mark.parametrize(
    ("quirk", "reaches"), [("augmented_test", True), ("augmented_calibration", True), ("first_images", False)]
)
def test_seed_of_crops_counts_for_a_module_of_ones_own(quirk: str, reaches: bool) -> None:
    own = {"module": "m.py:f", "weights": "w.safetensors", "content": "0" * 64}
    mine = {"extends": "digits", "network": own, "ablation": False, "protocol": {quirk: True}}
    before, after = (keys({"experiments": {"mine": mine}, "seeds": seed}, name="mine") for seed in (0, 1))
    changed = ["activations", "thresholds", "simulate"] if reaches else []
    assert [stage for stage in STAGES[:-1] if before[stage] != after[stage]] == changed


def test_path_of_unverified_data_counts() -> None:
    changes = {"experiments": {"imagenet": {"data": {"path": "/elsewhere"}}}}
    assert keys(changes, name="imagenet")["data"] != keys({}, name="imagenet")["data"]


def test_order_and_spelling_do_not_count() -> None:
    loaded = config.load(FILE)
    raw = loaded.model_dump(mode="json")
    turned = {name: raw[name] for name in reversed(raw)}
    place = Place("digits")
    turned["experiments"]["digits"] = dict(reversed(raw["experiments"]["digits"].items()))
    assert Pipeline(config.validate(turned)).key("tables", place) == Pipeline(loaded).key("tables", place)
    assert keys(digits(network={"dropout": 0.10})) == keys({})


def test_version_of_a_stage_reaches_everything_below(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys({})
    monkeypatch.setitem(declarations.STAGES, "activations", replace(declarations.STAGES["activations"], version=99))
    after = keys({})
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == ["activations", "thresholds", "simulate", "results"]


def test_paths_name_what_a_person_varies() -> None:
    pipeline = Pipeline(config.load(FILE))
    path = pipeline.path("simulate", Place("digits", "binary", 0, 99.9, 1))
    assert path.parent == Path("results/digits/binary/seed0/p99.9")
    assert path.name.endswith(".1of1.parquet")
