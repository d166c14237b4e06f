"""Another try of a group of shards takes those that were finished, and only whole ones of the same settings."""

import errno
import logging
import os
from pathlib import Path

import pytest
from workflow_for_tests import TINY

from bsnn.config import merge, validate
from bsnn.pipeline import inventory
from bsnn.pipeline.job import Job
from bsnn.pipeline.stage import Place
from bsnn.stages import convert as stages_convert
from bsnn.stages import train as stages_train

SHARDED = {"weights": ["full"], "percentile": [99.0], "experiments": {"tiny": {"simulation": {"shards": 2}}}}
SETTINGS = validate(merge(TINY, SHARDED))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job.of(SETTINGS, "tiny", "full", 0, 99.0, root=tmp_path_factory.mktemp("ready") / "results")
    for stage in (stages_train.data, stages_train.network, stages_convert.activations, stages_convert.thresholds):
        stage(job)
    return job


@pytest.fixture
def finished(ready: Job, monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """The files of a shard that was simulated within a SLURM job, and then removed, as Snakemake does."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    stages_convert.simulate(ready)
    place = ("tiny", "full", 0, 99.0, 1)
    paths = [ready.pipeline.path("simulate", Place(*place)), ready.pipeline.path("simulate", Place(*place), "spikes")]
    assert all(os.stat(path).st_nlink == 2 for path in paths), "a second name takes no space"
    found = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    return found


def simulated_anew(job: Job, caplog: pytest.LogCaptureFixture) -> bool:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="bsnn"):
        stages_convert.simulate(job)
    return any(record.message.startswith("engine ") for record in caplog.records)


def test_next_job_takes_what_another_finished(
    ready: Job, finished: dict[Path, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    assert not simulated_anew(ready, caplog)
    assert "taken from a former try" in caplog.text
    assert {path: path.read_bytes() for path in finished} == finished
    assert not simulated_anew(ready, caplog), "once more, over what is there"
    assert not [path for path in ready.pipeline.root.rglob("*") if path.name.endswith(".tmp")]


def test_outside_of_slurm_it_is_simulated(
    ready: Job, finished: dict[Path, bytes], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    assert simulated_anew(ready, caplog)
    assert all(os.stat(path).st_nlink == 1 for path in finished)


def test_folder_that_cannot_be_linked_to_costs_the_simulation_alone(
    ready: Job, finished: dict[Path, bytes], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert simulated_anew(ready, caplog)
    assert "no hard links here" in caplog.text
    assert all(path.is_file() for path in finished)


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_what_is_not_whole_is_made_anew(
    ready: Job, finished: dict[Path, bytes], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    [path, _] = finished
    kept = ready.pipeline.scratch("simulate", Place("tiny", "full", 0, 99.0)) / path.name
    kept.write_bytes(kept.read_bytes()[:1000]) if damage == "short" else kept.unlink()
    assert simulated_anew(ready, caplog)
    assert all(path.is_file() for path in finished)


def test_nothing_is_kept_outside_of_slurm(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    second = Job.of(SETTINGS, "tiny", "full", 0, 99.0, 2, root=ready.pipeline.root)
    stages_convert.simulate(second)
    path = ready.pipeline.path("simulate", Place("tiny", "full", 0, 99.0, 2))
    assert os.stat(path).st_nlink == 1


def test_kept_shards_are_not_needed(ready: Job, finished: dict[Path, bytes]) -> None:
    """`bsnn clean` names their folder, once, and removes it."""
    folder = ready.pipeline.scratch("simulate", Place("tiny", "full", 0, 99.0))
    found = [item for item in inventory.artifacts(ready.pipeline) if folder in (item.path, *item.path.parents)]
    assert [(item.path, item.size > 0, item.needed) for item in found] == [(folder, True, False)]
    found[0].remove()
    assert not folder.exists()
