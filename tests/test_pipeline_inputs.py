"""Artifacts that are not what their path says: no stage reads them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workflow_for_tests import TINY

from bsnn.config import Config, merge, validate
from bsnn.errors import ArtifactError
from bsnn.pipeline.job import Job
from bsnn.pipeline.stage import Place
from bsnn.stages import convert as stages_convert
from bsnn.stages import search as stages_search
from bsnn.stages import train as stages_train


def settings(**sections: Any) -> Config:
    latency = {"time": [2, 8], "images": 16, "search": {"time": 2, "images": 60, "percentiles": [100.0]}}
    return validate(merge(TINY, {"experiments": {"tiny": {"latency": latency, **sections}}}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job whose data, full network, activations and thresholds are there."""
    job = Job.of(settings(), "tiny", root=tmp_path_factory.mktemp("stages") / "results")
    for stage in (stages_train.data, stages_train.network, stages_convert.activations, stages_convert.thresholds):
        stage(job)
    return job


def data_of(job: Job) -> Path:
    return job.pipeline.path("data", Place(job.place.experiment))


def network_of(job: Job) -> Path:
    return job.pipeline.path("network", Place(job.place.experiment, "full", job.place.seed))


def activations_of(job: Job) -> Path:
    return job.pipeline.path("activations", Place(job.place.experiment, "full", job.place.seed))


def thresholds_of(job: Job) -> Path:
    return job.pipeline.path("thresholds", Place(job.place.experiment, "full", job.place.seed, job.place.percentile))


FEWER = {"data": {"test_images": 40}}
OTHER_PERCENTILES = {"activations": {"images": 80}}
STEPS = {"method": "baseline", "steps": 8}


@pytest.mark.parametrize(
    ("stage", "place", "changes", "wrong"),
    [
        (stages_train.network, {}, FEWER, data_of),
        (stages_train.binarize, {"weights": "binary", "seed": 1}, {}, network_of),
        (stages_convert.activations, {"seed": 1}, {}, network_of),
        (stages_convert.simulate, {"seed": 1}, {}, network_of),
        (stages_convert.method, {"seed": 1, **STEPS}, {}, network_of),
        (stages_search.find_switches, {"seed": 1}, {}, network_of),
        (stages_search.find_exit, {"seed": 1}, {}, network_of),
        (stages_convert.thresholds, {}, OTHER_PERCENTILES, activations_of),
        (stages_convert.method, STEPS, OTHER_PERCENTILES, activations_of),
        (stages_convert.simulate, {"percentile": 99.0}, {}, thresholds_of),
    ],
)
def test_artifacts_of_other_settings_are_refused(
    made: Job,
    tmp_path: Path,
    stage: Callable[[Any], None],
    place: dict[str, Any],
    changes: dict[str, Any],
    wrong: Callable[[Job], Path],
) -> None:
    root = tmp_path / "results"
    shutil.copytree(made.pipeline.root, root)
    job = Job.of(settings(**changes), "tiny", root=root, **place)
    path = wrong(job)
    assert not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(wrong(made), path)
    before = sorted(root.rglob("*"))
    with pytest.raises(ArtifactError, match=r"was made with other settings than the current ones.*snakemake") as caught:
        stage(job)
    assert str(caught.value).startswith(f"{path}: ")
    assert sorted(root.rglob("*")) == before


def test_what_its_path_says_is_read(made: Job) -> None:
    assert len(made.data_set().test) == 50
    assert made.network().input_shape == (3, 8, 8)
    layers = set(made.pipeline.read("activations", made.place)[0]["layer"].to_pylist())
    assert set(made.thresholds()) == layers
    assert layers
