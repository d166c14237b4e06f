"""Artifacts that are not what their path says: no stage reads them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workflow_for_tests import TINY

from bsnn.config import Config, merge, validate
from bsnn.errors import ArtifactError
from bsnn.pipeline import inputs
from bsnn.pipeline.job import Job, MethodJob
from bsnn.stages import convert as stages_convert
from bsnn.stages import methods as stages_methods
from bsnn.stages import search as stages_search
from bsnn.stages import train as stages_train


def settings(**sections: Any) -> Config:
    latency = {"time": [2, 8], "images": 16, "search": {"time": 2, "images": 60, "percentiles": [100.0]}}
    return validate(merge(TINY, {"experiments": {"tiny": {"latency": latency, **sections}}}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job whose data, full network, activations and thresholds are there."""
    job = Job(settings(), "tiny", root=tmp_path_factory.mktemp("stages") / "results")
    for stage in (stages_train.data, stages_train.train, stages_convert.activations, stages_convert.thresholds):
        stage(job)
    return job


def data_of(job: Job) -> Path:
    return job.paths.data(job.name)


def network_of(job: Job) -> Path:
    return job.paths.network(job.name, "full", job.seed)


def activations_of(job: Job) -> Path:
    return job.paths.activations(job.name, "full", job.seed)


def thresholds_of(job: Job) -> Path:
    return job.paths.thresholds(job.name, "full", job.seed, job.percentile)


FEWER = {"data": {"test_images": 40}}
OTHER_PERCENTILES = {"activations": {"images": 80}}
JOB, METHOD = Job, MethodJob
STEPS = {"method": "baseline", "steps": 8}


@pytest.mark.parametrize(
    ("stage", "kind", "place", "changes", "wrong"),
    [
        (stages_train.train, JOB, {}, FEWER, data_of),
        (stages_train.train, JOB, {"weights": "binary", "seed": 1}, {}, network_of),
        (stages_convert.activations, JOB, {"seed": 1}, {}, network_of),
        (stages_convert.simulate, JOB, {"seed": 1}, {}, network_of),
        (stages_methods.method, METHOD, {"seed": 1, **STEPS}, {}, network_of),
        (stages_search.search, JOB, {"seed": 1}, {}, network_of),
        (stages_search.early_exit, JOB, {"seed": 1}, {}, network_of),
        (stages_convert.thresholds, JOB, {}, OTHER_PERCENTILES, activations_of),
        (stages_methods.method, METHOD, STEPS, OTHER_PERCENTILES, activations_of),
        (stages_convert.simulate, JOB, {"percentile": 99.0}, {}, thresholds_of),
    ],
)
def test_artifacts_of_other_settings_are_refused(
    made: Job,
    tmp_path: Path,
    stage: Callable[[Any], None],
    kind: type[Job],
    place: dict[str, Any],
    changes: dict[str, Any],
    wrong: Callable[[Job], Path],
) -> None:
    root = tmp_path / "results"
    shutil.copytree(made.root, root)
    job = kind(settings(**changes), "tiny", root=root, **place)
    path = wrong(job)
    assert not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(wrong(made), path)
    before = sorted(root.rglob("*"))
    with pytest.raises(ArtifactError, match=r"was made with other settings than its name says.*snakemake") as caught:
        stage(job)
    assert str(caught.value).startswith(f"{path}: ")
    assert sorted(root.rglob("*")) == before


def test_what_its_path_says_is_read(made: Job) -> None:
    assert len(inputs.data_set(made).test) == 50
    assert inputs.network(made).input_shape == (3, 8, 8)
    layers = set(inputs.activations(made)["layer"].to_pylist())
    assert set(inputs.thresholds(made)) == layers
    assert layers
