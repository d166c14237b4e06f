"""Settings of methods: what is refused before any job starts, and which keys a change reaches."""

from pathlib import Path
from typing import Any

import pytest

from bsnn import config
from bsnn.config.method import METHODS
from bsnn.errors import ConfigError
from bsnn.pipeline import inventory
from bsnn.pipeline.declarations import STAGES
from bsnn.pipeline.identity import key
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

FILE = Path(__file__).parent.parent / "config.yaml"


def load(**latency: Any) -> config.Config:
    return config.load(FILE, {"experiments": {"digits": {"latency": latency}}})


def method_keys(loaded: config.Config, name: str = "baseline", steps: int = 128) -> dict[str, str]:
    pipeline, place = Pipeline(loaded), Place("digits", "binary", 0, 99.9, method=name, steps=steps)
    stages = ("activations", "simulate", "tables", "method", "latency_tables")
    return {stage: pipeline.key(stage, place) for stage in stages}


@pytest.mark.parametrize(
    ("switches", "reason"),
    [
        ({"initial": 0.5, "shift": True}, "count twice"),
        ({"shift": True, "correction": "bias"}, "adds it again"),
        ({"second_pass": "cos", "correction": "potential"}, "same potentials for the same error"),
        ({"second_pass": "srp", "signed": True}, "cannot be combined"),
        ({"second_pass": "srp", "delay": 3}, "cannot be combined"),
        ({"second_pass": "cos", "threshold": "squared-error"}, "cannot be combined"),
        ({"threshold": "squared-error", "percentile": 99.0}, "leave the percentile out"),
        ({"first_pass": 8}, "give `second_pass` as well"),
        ({"second_pass": "srp", "first_pass": 128}, "after 128 of at most 128 time steps .* no second pass begins"),
        ({"percentiles": {10: 99.0}}, r"none of its times is in latency\.time or"),
        ({"percentile": 99.12345}, "off the grid"),
        ({"initial": 1.5}, "less than 1"),
        ({"singed": True}, "unknown key"),
    ],
)
def test_what_counts_twice_is_refused(switches: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(methods={"mine": switches})


def test_baseline_is_always_there_and_plain() -> None:
    latency = load().experiments["digits"].latency
    assert latency.names == ["baseline", *METHODS]
    assert latency.method("baseline") == config.Method()
    with pytest.raises(ConfigError, match="always there"):
        load(methods={"baseline": {"signed": True}})
    with pytest.raises(ConfigError, match="negative threshold is that of signed spikes"):
        load(methods={"mine": {"negative_threshold": 0.0}})


def test_default_methods_are_for_any_times() -> None:
    latency = load(time=[32, 64]).experiments["digits"].latency
    assert latency.method("percentile-by-time").percentile_at(32, 99.9) == 99.9
    assert load(time=[2]).experiments["digits"].latency.names == latency.names


def test_methods_may_be_for_the_time_of_the_search_alone() -> None:
    timed, twice = {"percentiles": {16: 99.0}}, {"second_pass": "srp", "initial": 0.25}
    assert load(time=[1, 2, 4], methods={"timed": timed, "twice": twice})
    with pytest.raises(ConfigError, match="after 4 of at most 4 time steps"):
        load(time=[1, 2, 4], methods={"twice": twice}, search={"drop": 1.0})


def test_own_methods_need_not_have_that_of_early_exit() -> None:
    """Nor to leave it as it is: the baseline's images leave then."""
    fitted = {"half-threshold": {"initial": 0.5, "correction": "potential"}}
    for methods in ({"mine": {"initial": 0.25}}, fitted):
        assert load(methods=methods, early_exit={"loss": 1.0}).experiments["digits"].latency.exit_method == "baseline"
    with pytest.raises(ConfigError, match=r"early_exit\.method: there is no method 'other'; methods: baseline, mine"):
        load(methods={"mine": {"initial": 0.25}}, early_exit={"method": "other"})


def test_order_of_methods_is_that_of_tables_and_figures() -> None:
    """Figures show the first and the last method."""
    one, other = ({name: METHODS[name] for name in names} for names in (("cos", "srp"), ("srp", "cos")))
    before, after = method_keys(load(methods=one), "cos"), method_keys(load(methods=other), "cos")
    assert [stage for stage in before if before[stage] != after[stage]] == ["latency_tables"]


def test_ideal_curves_are_of_thresholds_and_rounding() -> None:
    latency = load(ideal=[99.0, 99.9]).experiments["digits"].latency
    curves = latency.ideals("binary")
    assert list(curves) == [
        *("baseline", "half-threshold", "percentile-by-time", "squared-error", "balanced", "best", "p99.0")
    ]
    assert list(latency.ideals("full"))[5:] == ["channel-thresholds", "burst", "best", "p99.0"]
    assert curves["best"] == config.Method(threshold="squared-error", initial=0.5)
    for name, curve in {"signed": "baseline", "temporal-correction": "baseline", "shift": "half-threshold"}.items():
        assert latency.ideal_of(name, "binary") == curve
    assert latency.ideal_of("srp", "binary") is None
    with pytest.raises(ConfigError, match="there is no ideal curve 'signed' of binary networks, only: baseline"):
        Pipeline(load()).check("ideal", Place("digits", "binary", 0, method="signed"))


def test_keys_of_ideal_curves() -> None:
    def key_of(**latency: object) -> str:
        return Pipeline(load(**latency)).key("ideal", Place("digits", "binary", 0))

    assert key_of() == key_of(images=64) == key_of(methods={"mine": {"signed": True}}) == key_of(ideal=[98.0])
    assert len({key_of(), key_of(percentile=99.0), key_of(time=[4, 8])}) == 3
    images = [
        Pipeline(load(images=count)).key("ideal", Place("digits", "binary", 0, method="balanced"))
        for count in (64, 128)
    ]
    assert images[0] != images[1]


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"threshold": "balanced", "percentile": 99.0}, "threshold balanced chooses thresholds by itself"),
        ({"threshold": "balanced", "channels": True}, "balanced fits whole layers"),
        ({"threshold": "balanced", "burst": 3}, "balanced fits neurons of one spike per step"),
        ({"shift": True, "correction": "temporal"}, "the shift adds it again"),
        ({"second_pass": "cos", "correction": "temporal"}, "would move the same potentials"),
        ({"correction": "timed"}, "temporal"),
    ],
)
def test_new_switches_are_refused_where_they_make_no_sense(switches: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(methods={"mine": switches})


def test_methods_that_depend_on_time_run_for_each() -> None:
    latency = load(time=[8, 2, 32]).experiments["digits"].latency
    assert latency.runs("signed") == latency.runs("cos") == latency.runs("baseline") == [32]
    for name in ("shift", "squared-error", "potential-correction", "percentile-by-time", "best"):
        assert latency.runs(name) == [2, 8, 32]


def test_a_switch_reaches_its_own_method_alone() -> None:
    before = method_keys(load(methods={"mine": {"initial": 0.5}}), "mine")
    after = method_keys(load(methods={"mine": {"initial": 0.25}}), "mine")
    assert [stage for stage in before if before[stage] != after[stage]] == ["method", "latency_tables"]
    plain = load(methods={"mine": {"initial": 0.5}})
    assert method_keys(plain)["method"] == method_keys(load(methods={"mine": {"initial": 0.25}}))["method"]


def test_other_settings_leave_methods_alone() -> None:
    before = method_keys(load())
    changed = config.load(
        FILE, {"percentile": 98.0, "time": 50, "experiments": {"digits": {"simulation": {"shards": 3}}}}
    )
    assert method_keys(changed)["method"] == before["method"]
    assert method_keys(load(percentile=99.0))["method"] != before["method"]


def test_names_do_not_count_and_what_is_not_used_does_not() -> None:
    one, other = load(methods={"mine": {"initial": 0.5}}), load(methods={"yours": {"initial": 0.5}})
    assert method_keys(one, "mine")["method"] == method_keys(other, "yours")["method"]
    fitted = {"threshold": "squared-error"}
    first, second = load(methods={"mine": fitted}), load(methods={"mine": fitted}, percentile=98.0)
    assert method_keys(first, "mine", 8)["method"] == method_keys(second, "mine", 8)["method"]
    by_time = {"percentiles": {4: 98.0}}
    first, second = load(methods={"mine": by_time}), load(methods={"mine": {"percentiles": {4: 98.0, 8: 99.0}}})
    assert method_keys(first, "mine", 4)["method"] == method_keys(second, "mine", 4)["method"]
    assert method_keys(first, "mine", 8)["method"] != method_keys(second, "mine", 8)["method"]


def test_networks_are_shared_between_methods() -> None:
    loaded = load()
    pipeline, one = Pipeline(loaded), loaded.experiments["digits"]
    upstream = {
        key(pipeline.identity("method", Place("digits", "full", 0, method=name, steps=steps))["upstream"])
        for name in one.latency.names
        for steps in one.latency.runs(name)
    }
    assert len(upstream) == 1
    path = pipeline.path("method", Place("digits", "binary", 0, method="signed", steps=128), "spikes")
    assert path.parent == Path("results/digits/binary/seed0/methods/signed/T128")


def test_clean_keeps_what_settings_name(tmp_path: Path) -> None:
    """Where training starts, or what is imported: the recipe that made it may be another by now."""
    former = Pipeline(config.load(FILE), tmp_path)
    paths = [former.path("network", Place("digits", "full", seed)) for seed in range(4)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    start, full, binary = ({"path": str(path), "sha256": "0" * 64} for path in paths[:3])
    second = {"extends": "digits", "ablation": False, "train": {"start": start}}
    third = {"extends": "digits", "ablation": False, "imported": {"full": full, "binary": binary}}
    changes = {"experiments": {"digits": {"train": {"epochs": 3}}, "second": second, "third": third}}
    found = {item.path: item.needed for item in inventory.artifacts(Pipeline(config.load(FILE, changes), tmp_path))}
    assert found == {**dict.fromkeys(paths[:3], True), paths[3]: False}


def test_clean_keeps_what_methods_and_searches_leave(tmp_path: Path) -> None:
    loaded = load(methods={"mine": {"initial": 0.5}}, time=[4, 8], early_exit={"method": "mine"})
    pipeline = Pipeline(loaded, tmp_path)
    kept = [
        *(
            pipeline.path("method", Place("digits", "binary", 0, method="mine", steps=8), what)
            for what in STAGES["method"].files
        ),
        pipeline.path("find_switches", Place("digits", "binary", 0)),
        pipeline.path("find_exit", Place("digits", "full", 0)).with_suffix(".csv"),
    ]
    other = Pipeline(load(methods={"mine": {"initial": 0.25}}, time=[4, 8], early_exit={"method": "mine"}), tmp_path)
    left = other.path("method", Place("digits", "binary", 0, method="mine", steps=8), "spikes")
    for path in (*kept, left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    found = {item.path: item.needed for item in inventory.artifacts(pipeline)}
    assert found == {**dict.fromkeys(kept, True), left: False}
