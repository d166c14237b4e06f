"""The pipeline on a real SLURM: submitted, spread, and going on after each fault to an undisturbed run's artifacts."""

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from own_for_tests import with_methods, written
from slurm_for_tests import Lab, running, site, wait_until
from test_workflow_faults import contents
from workflow_for_tests import TINY, checkout, run

from bsnn.config import merge, validate
from bsnn.pipeline import exchange

pytestmark = pytest.mark.slurm

SHARDED = merge(TINY, {"percentile": [99.0], "experiments": {"tiny": {"simulation": {"shards": 3}}}})
LONG = {
    "data": {"image_size": 16, "train_images": 1400, "test_images": 100},
    "network": {"features": [32, "P", 64, "P"]},
    "train": {"epochs": 400, "optimiser": {"lr": 0.01}},  # about a minute on one core: time for faults
    "activations": {"images": 1400, "batch_size": 1},  # some seconds
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


def test_second_checkout_with_the_common_folder_trains_nothing(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    """It asks for one percentile more."""
    exchange.share(validate(FAULTS), tmp_path / "common", undisturbed / "results")
    folder = site(tmp_path / "second", {**FAULTS, "percentile": [98.0, 99.0]}, {})
    exchange.fetch(validate(FAULTS), tmp_path / "common", folder / "results")
    lab.run(folder, "simulations")
    assert [job.rule for job in lab.accounted(folder)] == ["simulations"]
    found, expected = contents(folder), contents(undisturbed)
    assert {name: found[name] for name in expected} == expected
    assert len(found) == len(expected) + 5  # thresholds; predictions and spikes of two shards


def test_network_of_ones_own(lab: Lab, tmp_path: Path) -> None:
    """Read, converted, simulated in shards, with methods, search and early exit: all on the cluster, as at home."""
    models = tmp_path / "models"
    models.mkdir()
    fitted = {"threshold": "squared-error", "initial": 0.5, "signed": True}
    config = with_methods(written(models), "binary", fitted=fitted)
    config = merge(config, {"percentile": [99.0], "experiments": {"mine": {"simulation": {"shards": 2}}}})
    targets = ("all", "latency", "search", "early_exit")
    folder = site(tmp_path / "submitted", config, {})
    lab.run(folder, *targets)
    jobs = lab.accounted(folder)
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert {job.rule for job in jobs if job.partition == "cpu"} == {"data"}
    submitted = Counter(job.rule for job in jobs)
    assert submitted["binarize"] == submitted["activations"] == submitted["simulations"] == 1  # both shards in one
    assert {"method", "find", "ideal"} < set(submitted)

    local = checkout(tmp_path / "local", config)
    run(local, *targets)
    found = contents(folder, "mine")
    assert found == contents(local, "mine")
    assert sum("predictions-" in name for name in found) >= 2
    for name in ("accuracy", "latency", "early_exit"):
        table = Path("results/mine/tables") / f"{name}.csv"
        assert (folder / table).read_bytes() == (local / table).read_bytes()


@dataclass(frozen=True)
class Stage:
    """A stage to disturb: its rule's job, alone."""

    target: str
    needs: tuple[str, ...]  # beginnings of the names of what is there before
    sign: str  # a file that is there as soon as it works
    count: int  # artifacts afterwards


NETWORK = ("data", "ann-", "history-")
STAGES = {
    "train": Stage("networks", ("data",), CHECKPOINT, 2),
    "activations": Stage("activation_tables", NETWORK, "logs/activations/tiny/*.log", 3),
    "simulate": Stage("simulations", (*NETWORK, "activations-", "thresholds-"), "logs/simulate/tiny/*.log", 8),
}
stages = pytest.mark.parametrize("name", STAGES)


@dataclass
class Disturbed:
    """A stage at work on the cluster, and the head process that submitted it."""

    lab: Lab
    name: str
    folder: Path
    process: subprocess.Popen[str]

    @property
    def job(self) -> int:
        [job] = self.lab.active(self.folder)
        return job

    def states(self, undisturbed: Path) -> list[str]:
        """Wait for the end, compare the artifacts, and say how the submissions ended, in their order."""
        self.lab.finish(self.folder, self.process)
        assert_same(self.folder, undisturbed, STAGES[self.name].count)
        return [job.state.split()[0] for job in self.lab.accounted(self.folder)]

    def log(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob(f"logs/{self.name}/tiny/*.log"))


def at_work(lab: Lab, undisturbed: Path, folder: Path, name: str) -> Disturbed:
    stage = STAGES[name]
    site(folder, FAULTS, {})
    take(undisturbed, folder, *stage.needs)
    process = lab.start(folder, stage.target)
    wait_until(lambda: list(folder.glob(stage.sign)), process)
    return Disturbed(lab, name, folder, process)


@stages
def test_cancelled_job_is_submitted_again(lab: Lab, undisturbed: Path, tmp_path: Path, name: str) -> None:
    """Training stops within an epoch on the signal before the kill."""
    found = at_work(lab, undisturbed, tmp_path / "cancelled", name)
    lab.command("scancel", str(found.job))
    assert found.states(undisturbed) == ["CANCELLED", "COMPLETED"]
    assert name != "train" or "steps of the next" in found.log()


@stages
def test_job_longer_than_its_time_limit(lab: Lab, undisturbed: Path, tmp_path: Path, name: str) -> None:
    """Training is told 120 s before its limit, and leaves by itself."""
    found = at_work(lab, undisturbed, tmp_path / "limited", name)
    left = 60 if name == "train" else 1
    lab.command("scontrol", "update", f"JobId={found.job}", f"EndTime=now+{left}")
    assert found.states(undisturbed) == ["FAILED" if name == "train" else "TIMEOUT", "COMPLETED"]
    assert name != "train" or "steps of the next" in found.log()


@stages
def test_dying_node(lab: Lab, undisturbed: Path, tmp_path: Path, name: str) -> None:
    found = at_work(lab, undisturbed, tmp_path / "dying", name)
    [(_, node)] = lab.active(found.folder).values()
    lab.script("crash", node)
    try:
        assert found.states(undisturbed) == ["NODE_FAIL", "COMPLETED"]
    finally:
        lab.script("revive", node)
    assert name != "train" or "going on after epoch" in found.log()


@stages
def test_restarted_controller_is_not_noticed(lab: Lab, undisturbed: Path, tmp_path: Path, name: str) -> None:
    found = at_work(lab, undisturbed, tmp_path / "restarted", name)
    lab.script("restart")
    assert found.states(undisturbed) == ["COMPLETED"]


@stages
def test_killed_head_process_and_its_orphan(lab: Lab, undisturbed: Path, tmp_path: Path, name: str) -> None:
    """A second training waits for the first one's lock and trains nothing again; other stages write the same twice."""
    found = at_work(lab, undisturbed, tmp_path / "orphaned", name)
    orphan = found.job
    os.killpg(found.process.pid, signal.SIGKILL)
    found.process.wait()
    found.process = lab.start(found.folder, STAGES[name].target)
    if name == "train":
        wait_until(lambda: len(lab.active(found.folder)) == 2, found.process)
        assert orphan in lab.active(found.folder)
    states = found.states(undisturbed)
    assert states in (["COMPLETED"], ["COMPLETED", "COMPLETED"])  # once, if the orphan ended before the second began
    assert name != "train" or "going on after epoch 400" in found.log()


@stages
def test_too_little_memory_gets_more(lab: Lab, undisturbed: Path, tmp_path: Path, name: str) -> None:
    folder = site(tmp_path / "starved", FAULTS, {name: {"mem_mb": "500 * attempt", "runtime": 60}}, retries=4)
    take(undisturbed, folder, *STAGES[name].needs)
    lab.run(folder, STAGES[name].target)
    jobs = lab.accounted(folder)
    assert [f"mem={500 * attempt}M" in job.tres for attempt, job in enumerate(jobs, 1)] == [True] * len(jobs)
    assert len(jobs) > 1
    assert {job.state for job in jobs[:-1]} <= {"OUT_OF_MEMORY", "FAILED"}
    assert jobs[-1].state == "COMPLETED"
    assert_same(folder, undisturbed, STAGES[name].count)


def test_cancelled_group_keeps_its_finished_shard(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    """Both shards are one submission; the second is at work."""
    folder = site(tmp_path / "grouped", FAULTS, {})
    take(undisturbed, folder, *STAGES["simulate"].needs)
    process = lab.start(folder, "simulations")
    logs = "logs/simulate/tiny/*.log"
    wait_until(lambda: len([path for path in folder.glob(logs) if "engine" in path.read_text()]) == 2, process)
    [job] = lab.active(folder)
    lab.command("scancel", str(job))
    lab.finish(folder, process)
    assert [found.state.split()[0] for found in lab.accounted(folder)] == ["CANCELLED", "COMPLETED"]
    assert sorted("taken from a former try" in path.read_text() for path in folder.glob(logs)) == [False, True]
    assert_same(folder, undisturbed, 8)


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
