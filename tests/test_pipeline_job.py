"""Jobs, from the paths of what they make."""

from typing import Any

import pytest
from workflow_for_tests import TINY

from bsnn.config import Config, merge, validate
from bsnn.errors import ConfigError
from bsnn.pipeline.job import Job, MethodJob

WILDCARDS = {"experiment": "tiny", "weights": "binary", "seed": "3", "key": "0123456789ab"}


def settings(**sections: Any) -> Config:
    latency = {"time": [2, 8]}
    return validate(merge(TINY, {"experiments": {"tiny": {"latency": latency, **sections}}}))


def test_a_job_from_the_wildcards_of_a_path() -> None:
    config = settings(simulation={"shards": 2})
    assert Job.of(config, WILDCARDS) == Job(config, "tiny", "binary", 3)
    shard = {"percentile": "99.5", "shard": "2", "shards": "2"}
    assert Job.of(config, {**WILDCARDS, **shard}) == Job(config, "tiny", "binary", 3, 99.5, 2)
    assert Job.of(config, {"experiment": "tiny"}) == Job(config, "tiny")
    with pytest.raises(ConfigError, match="shard 3 does not exist"):
        Job.of(config, {**WILDCARDS, "shard": "3"})


def test_a_job_of_a_method_from_the_wildcards_of_a_path() -> None:
    config = settings()
    found = MethodJob.of(config, {**WILDCARDS, "method": "baseline", "steps": "8", "shard": "1"})
    assert found == MethodJob(config, "tiny", "binary", 3, method="baseline", steps=8)
    with pytest.raises(ConfigError, match="there is no method 'other'"):
        MethodJob.of(config, {**WILDCARDS, "method": "other", "steps": "8"})
