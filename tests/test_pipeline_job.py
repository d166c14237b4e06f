"""Jobs, from the paths of what they make."""

from pathlib import Path
from typing import Any

import pytest
from workflow_for_tests import TINY

from bsnn import stages
from bsnn.config import merge, validate
from bsnn.errors import ConfigError
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.pipeline.workflow import place_of

NETWORK = {"experiment": "tiny", "weights": "binary", "seed": "0"}


def pipeline(**sections: Any) -> Pipeline:
    latency = {"time": [2, 8], "methods": {"bursts": {"burst": 3}}}
    return Pipeline(validate(merge(TINY, {"experiments": {"tiny": {"latency": latency, **sections}}})))


def test_a_place_from_the_wildcards_of_a_path() -> None:
    found = pipeline(simulation={"shards": 2})
    key = found.key("activations", Place("tiny", "binary"))
    assert place_of(found, "activations", {**NETWORK, "key": key}) == Place("tiny", "binary")
    shard = {**NETWORK, "percentile": "99.5", "shard": "2", "shards": "2"}
    assert place_of(found, "simulate", shard) == Place("tiny", "binary", 0, 99.5, 2)
    assert place_of(found, "tables", {"experiment": "tiny"}) == Place("tiny")
    with pytest.raises(ConfigError, match="shard 3 does not exist"):
        place_of(found, "simulate", {**shard, "shard": "3"})
    with pytest.raises(ConfigError, match="shards '3' is not the current settings'"):
        place_of(found, "simulate", {**shard, "shards": "3"})
    with pytest.raises(ConfigError, match="key 0123456789ab does not belong to the current settings"):
        place_of(found, "activations", {**NETWORK, "key": "0123456789ab"})
    with pytest.raises(ConfigError, match="there is no experiment 'other'"):
        place_of(found, "tables", {"experiment": "other"})


def test_a_place_of_a_method_from_the_wildcards_of_a_path() -> None:
    found, words = pipeline(), {**NETWORK, "steps": "8", "shard": "1"}
    place = place_of(found, "method", {**words, "method": "baseline"})
    assert place == Place("tiny", "binary", method="baseline", steps=8)
    for changes, message in (
        ({"method": "other"}, "there is no method 'other'"),
        ({"method": "bursts"}, "for full-precision networks only"),
        ({"method": "baseline", "steps": "4"}, r"simulated for \[8\] steps, not 4"),
    ):
        with pytest.raises(ConfigError, match=message):
            place_of(found, "method", {**words, **changes})


def test_experiments_with_the_same_images_share_a_data_set() -> None:
    config = validate(merge(TINY, {"experiments": {"other": {"extends": "tiny", "data": {"mean": [0.5] * 3}}}}))
    found = Pipeline(config)
    assert found.at("data", Place("other", seed=3)) == Place("tiny")
    assert found.path("data", Place("other")) == found.path("data", Place("tiny"))
    assert found.path("network", Place("other")) != found.path("network", Place("tiny"))


def test_a_path_of_an_experiment_that_does_not_run_stops_none_that_does(tmp_path: Path) -> None:
    """It serves those that run where it is there, and is asked for where it is their own."""

    def owner(path: Path, run: list[str]) -> str:
        other = {"extends": "tiny", "data": {"path": str(path)}}
        return Pipeline(validate(merge(TINY, {"run": run, "experiments": {"other": other}}))).data_owners["tiny"]

    assert owner(tmp_path / "none", ["tiny"]) == "tiny"
    assert owner(tmp_path, ["tiny"]) == "other"
    assert owner(tmp_path / "none", ["tiny", "other"]) == "other"


@pytest.mark.parametrize(("target", "rule"), [("search", "find_switches"), ("early_exit", "find_exit")])
def test_delayed_propagation_is_refused_where_steps_are_chosen(target: str, rule: str) -> None:
    """Its shift applies to every number that is shown of an experiment, or the number is not made."""
    found = pipeline(protocol="original")
    with pytest.raises(ConfigError, match=r"experiments\.tiny\.protocol: .*delayed"):
        found.target(target)
    with pytest.raises(ConfigError, match=r"protocol: \{preset: original, delayed: false\}"):
        stages.run(rule, Job(found, Place("tiny", "binary")))
    assert pipeline(protocol={"preset": "original", "delayed": False}).target(target)
    assert found.target("latency")


def test_early_exit_is_refused_where_no_image_can_leave() -> None:
    with pytest.raises(ConfigError, match=r"latency\.time: images leave after steps 4, 8 and so on, and no more"):
        pipeline(latency={"time": [2, 4]}).target("early_exit")
    assert pipeline(latency={"time": [2, 5]}).target("early_exit")
