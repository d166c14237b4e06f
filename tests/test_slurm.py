"""The pipeline on a real SLURM: submitted, spread, and going on after each fault to an undisturbed run's artifacts."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from slurm_for_tests import Lab, running, site, wait_until
from test_workflow_faults import contents
from workflow_for_tests import TINY, checkout, run

from bsnn.config import merge

pytestmark = pytest.mark.slurm

SHARDED = merge(TINY, {"percentile": [99.0], "experiments": {"tiny": {"simulation": {"shards": 3}}}})
LONG = {
    "data": {"image_size": 16, "train_images": 1400, "test_images": 100},
    "network": {"features": [32, "P", 64, "P"]},
    "train": {"epochs": 400, "optimiser": {"lr": 0.01}},  # about a minute on one core: time for faults
    "simulation": {"time": 4000, "shards": 2},
}
FAULTS = merge(TINY, {"percentile": [99.0], "weights": ["full"], "experiments": {"tiny": LONG}})
CHECKPOINT = "results/checkpoints/tiny/full/*/*/epoch-*"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def submitted(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = site(tmp_path_factory.mktemp("submitted") / "checkout", SHARDED, {})
    lab.run(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = checkout(tmp_path_factory.mktemp("undisturbed") / "checkout", FAULTS)
    run(folder, "simulations")
    [history] = folder.glob("results/tiny/full/seed0/history-*")
    losses = pq.read_table(history)["train_loss"].to_pylist()
    assert losses[-1] != losses[-2]  # still learning: equal weights mean something
    return folder


def assert_same(folder: Path, undisturbed: Path, count: int) -> None:
    found, expected = contents(folder), contents(undisturbed)
    assert len(found) == count
    assert found == {name: expected[name] for name in found}
    assert not list((folder / "results/tiny").rglob("*.tmp"))


def take(undisturbed: Path, folder: Path, *beginnings: str) -> None:
    """Finished artifacts, by the first letters of their names or of their folders'."""
    for path in (undisturbed / "results").rglob("*-*.*"):
        if path.name.startswith(beginnings) or path.parent.name.startswith(beginnings):
            target = folder / path.relative_to(undisturbed)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def test_gpu_jobs_on_gpu_nodes_and_shards_on_more_than_one(lab: Lab, submitted: Path) -> None:
    jobs = lab.accounted(submitted)
    assert {job.state for job in jobs} == {"COMPLETED"}
    expected = {"data": 1, "train": 1, "binarize": 1, "activations": 2, "simulations": 3}  # 6 shards, 2 a submission
    assert Counter(job.rule for job in jobs) == expected
    assert {job.partition for job in jobs if job.rule == "data"} == {"cpu"}
    gpu_jobs = [job for job in jobs if job.rule != "data"]
    assert all(job.partition == "gpu" and job.node in ("gpu1", "gpu2") for job in gpu_jobs)
    assert all("gres/gpu=1," in job.tres for job in gpu_jobs)
    assert len({job.node for job in jobs if job.rule == "simulations"}) > 1
    assert (submitted / "results/tiny/report.html").is_file()


def test_artifacts_are_those_of_a_local_run(submitted: Path, tmp_path: Path) -> None:
    local = checkout(tmp_path / "local", SHARDED)
    run(local)
    assert contents(submitted) == contents(local)


def test_new_percentile_submits_simulations_alone(lab: Lab, submitted: Path) -> None:
    before = lab.accounted(submitted)
    lab.run(submitted, "--config", "percentile=99.5")
    new = lab.accounted(submitted)[len(before) :]
    assert [job.rule for job in new] == ["simulations"] * 3
    assert len(list(submitted.glob("results/tiny/*/*/p99.5/thresholds-*"))) == 2  # made where snakemake runs


def test_cancelled_training_goes_on(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "cancelled", FAULTS, {})
    take(undisturbed, folder, "data")
    process = lab.start(folder, "networks")
    wait_until(lambda: list(folder.glob(CHECKPOINT)), process)
    [training] = lab.active(folder)
    lab.command("scancel", str(training))
    lab.finish(folder, process)
    states = [job.state.split()[0] for job in lab.accounted(folder) if job.rule == "train"]
    assert states == ["CANCELLED", "COMPLETED"]
    assert "going on after epoch" in next(folder.glob("logs/train/tiny/*.log")).read_text()
    assert_same(folder, undisturbed, 2)


def test_training_longer_than_its_time_limit(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "limited", FAULTS, {})
    take(undisturbed, folder, "data")
    process = lab.start(folder, "networks")
    wait_until(lambda: list(folder.glob(CHECKPOINT)), process)
    [training] = lab.active(folder)
    lab.command("scontrol", "update", f"JobId={training}", "EndTime=now+1")
    lab.finish(folder, process)
    assert [job.state for job in lab.accounted(folder) if job.rule == "train"] == ["TIMEOUT", "COMPLETED"]
    assert "going on after epoch" in next(folder.glob("logs/train/tiny/*.log")).read_text()
    assert_same(folder, undisturbed, 2)


def test_killed_head_process_and_its_orphan(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    """The second submission waits for the first one's lock; what the first trained is not trained again."""
    folder = site(tmp_path / "orphaned", FAULTS, {})
    take(undisturbed, folder, "data")
    process = lab.start(folder, "networks")
    wait_until(lambda: list(folder.glob(CHECKPOINT)), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    [orphan] = lab.active(folder)
    second = lab.start(folder, "networks")
    wait_until(lambda: len(lab.active(folder)) == 2, second)
    assert orphan in lab.active(folder)
    lab.finish(folder, second)
    jobs = [job for job in lab.accounted(folder) if job.rule == "train"]
    assert [job.state for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert "going on after epoch 400" in next(folder.glob("logs/train/tiny/*.log")).read_text()
    assert_same(folder, undisturbed, 2)


def test_dying_node_costs_the_shard_at_hand(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "dying", FAULTS, {}, **{"group-components": ["simulations=1"]})
    take(undisturbed, folder, "data", "ann-", "history-", "activations-", "thresholds-")
    process = lab.start(folder, "simulations")
    wait_until(lambda: len(list(folder.glob("logs/simulate/tiny/*.log"))) == 2, process)
    nodes = [node for _, node in lab.active(folder).values()]
    assert sorted(nodes) == ["gpu1", "gpu2"]
    lab.script("crash", "gpu1")
    lab.finish(folder, process)
    lab.script("revive", "gpu1")
    assert Counter(job.state for job in lab.accounted(folder)) == {"NODE_FAIL": 1, "COMPLETED": 2}
    assert_same(folder, undisturbed, 8)


def test_training_with_too_little_memory_gets_more(lab: Lab, submitted: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "starved", SHARDED, {"train": {"mem_mb": "500 * attempt"}}, retries=4)
    lab.run(folder, "networks")
    jobs = [job for job in lab.accounted(folder) if job.rule == "train"]
    assert [f"mem={500 * attempt}M" in job.tres for attempt, job in enumerate(jobs, 1)] == [True] * len(jobs)
    assert len(jobs) > 1
    assert {job.state for job in jobs[:-1]} <= {"OUT_OF_MEMORY", "FAILED"}
    assert jobs[-1].state == "COMPLETED"
    assert_same(folder, submitted, 5)
