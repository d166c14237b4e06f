"""Training on several nodes: here two processes that a stand-in for srun starts on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor
from workflow_for_tests import TINY

from bsnn import log
from bsnn.cluster import nodes
from bsnn.config import merge, validate
from bsnn.errors import BsnnError, ConfigError
from bsnn.pipeline.job import Job
from bsnn.pipeline.stage import Place
from bsnn.stages import train as stages_train
from bsnn.training import checkpoint

SRUN = """#!/bin/sh
# Two tasks, as `srun --nodes=2 --ntasks-per-node=1` starts them. On SIGTERM it kills them, as srun does; SLURM itself
# signals the tasks. The first failure is the result.
echo "$@" > srun.arguments
env > srun.environment
while [ "${1#--}" != "$1" ]; do shift; done
trap 'kill -9 $tasks' TERM
for node in 0 1; do
    SLURM_NODEID=$node SLURM_LAUNCH_NODE_IPADDR=127.0.0.1 "$@" &
    tasks="$tasks $!"
done
echo $tasks > srun.tasks
code=0
for task in $tasks; do
    wait $task || code=$?
done
exit $code
"""
SQUEUE = """#!/bin/sh
[ "$*" = "--noheader --jobs 11 --format %N" ] && echo 'node[7-8]'
"""
SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames node[7-8]" ] && printf 'node7\\nnode8\\n'
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM job of two nodes; this process is on the second. Gives the folder to work in."""
    for name, text in {"srun": SRUN, "squeue": SQUEUE, "scontrol": SCONTROL}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    slurm = {"JOB_ID": "11", "JOB_NODELIST": "node8", "NNODES": "1", "CPUS_PER_TASK": "1"}
    for name, value in {f"SLURM_{name}": value for name, value in slurm.items()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURMD_NODENAME", "node8")
    return tmp_path


def job_of(folder: Path, changes: dict[str, Any] | None = None, **compute: Any) -> Job:
    """The full-precision network of a small experiment, with dropout; its data set is made."""
    network = {"network": {"dropout": 0.1}, "train": {"augment": {"crop": 1}}}
    settings = merge(merge(TINY, {"experiments": {"tiny": network}}), {"experiments": {"tiny": changes or {}}})
    found = Job.of(validate(merge(settings, {"compute": compute})), "tiny", root=folder / "results")
    if not found.pipeline.path("data", Place("tiny")).exists():
        stages_train.data(found)
    return found


def trained(job: Job) -> tuple[dict[str, Tensor], list[float]]:
    """Weights and losses, by the stage."""
    stages_train.network(job)
    place = ("tiny", "full", 0)
    history = pq.read_table(job.pipeline.path("network", Place(*place), "history"))
    return load_file(job.pipeline.path("network", Place(*place))), history["train_loss"].to_pylist()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def left(job: Job) -> list[Path]:
    return list(job.pipeline.root.rglob(nodes.TO_RUN))


def test_two_nodes_are_two_devices_of_one_machine(job: Path) -> None:
    """Bit for bit, dropout and crops included; and srun is not told what the stage's own step has."""
    here = job_of(job / "nodes", nodes=2)
    with log.job(job / "train.log"):
        spread, losses = trained(here)
    together, losses_together = trained(job_of(job / "devices", devices=2))
    assert same(spread, together)
    assert losses == losses_together
    assert not left(here)
    assert len(list(job.glob("nodes/results/checkpoints/tiny/full/*/*/epoch-*"))) == checkpoint.KEEP
    assert [f"epoch {epoch}/3" in (job / "train.log").read_text() for epoch in (1, 2, 3)] == [True] * 3
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --overlap" in (job / "srun.arguments").read_text()
    told = (job / "srun.environment").read_text().splitlines()
    assert sorted(line for line in told if line.startswith("SLURM_")) == ["SLURM_JOB_ID=11"]


def test_an_error_on_a_node_comes_back_as_what_it_was(job: Path) -> None:
    wild = job_of(job / "wild", {"train": {"optimiser": {"name": "sgd", "lr": 1e30}}}, nodes=2)
    with pytest.raises(BsnnError, match=r"epoch 1 at learning rate 1e\+30.*train\.optimiser\.lr"):
        stages_train.network(wild)
    assert not left(wild)


def test_errors_of_two_nodes_that_run_into_one_another(job: Path) -> None:
    line = nodes.MARK + json.dumps(["ConfigError", "no such device"])
    (job / "bin" / "srun").write_text(f"#!/bin/sh\necho 'noise {line[:25]}{line}{line}'\necho\nexit 1\n")
    with pytest.raises(ConfigError, match=r"^no such device$"):
        stages_train.network(job_of(job / "both", nodes=2))


def test_devices_that_a_node_does_not_have_are_refused(job: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ConfigError, match="1 CUDA devices asked for, 0 found"):
        stages_train.network(job_of(job / "cuda", accelerator="cuda", nodes=2))


def test_nodes_that_end_without_a_word_are_an_error(job: Path) -> None:
    (job / "bin" / "srun").write_text("#!/bin/sh\necho nothing of ours\nexit 9\n")
    with pytest.raises(BsnnError, match=r"exit code 9 of srun.*\.snakemake/slurm_logs"):
        stages_train.network(job_of(job / "silent", nodes=2))


@pytest.mark.parametrize("name", ["squeue", "srun"])
def test_slurm_that_does_not_answer_is_an_error_of_ours(job: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    here = job_of(job / "down", nodes=2)
    if name == "srun":
        (job / "bin" / "srun").unlink()
        monkeypatch.setenv("PATH", str(job / "bin"))
        (job / "bin" / "sh").symlink_to("/bin/sh")
        expected = "srun cannot be started"
    else:
        (job / "bin" / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
        expected = "squeue --noheader --jobs 11 --format %N: Unable to contact slurm controller"
    with pytest.raises(BsnnError, match=expected):
        stages_train.network(here)
    assert not left(here)


def test_outside_a_job_of_so_many_nodes_it_says_what_to_ask_for(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"5 nodes asked for, and the SLURM job has 2, node\[7-8\]; set `nodes: 5`"):
        stages_train.network(job_of(job / "five", nodes=5))
    monkeypatch.delenv("SLURM_JOB_ID")
    here = job_of(job / "none", nodes=2)
    with pytest.raises(ConfigError, match=r"2 nodes train together only within a SLURM job.*set compute.nodes to 1"):
        stages_train.network(here)
    assert not left(here)


def test_batch_that_all_nodes_cannot_share_is_refused() -> None:
    """Before anything is submitted: batches of 50, which two nodes could share, but not with three devices each."""
    six = {"compute": {"nodes": 2, "devices": 3}}
    with pytest.raises(ConfigError, match=r"6 devices \(of all compute.nodes\) cannot share a batch of 50 evenly"):
        validate(merge(TINY, six))
    validate(merge(TINY, {"compute": {"nodes": 2}}))


STAGE = """
import sys
from pathlib import Path
from test_cluster_nodes import LONG, job_of
from bsnn import log
from bsnn.pipeline.job import Job
from bsnn.stages import train as stages_train
if __name__ == "__main__":
    with log.job("stage.log"):
        stages_train.network(job_of(Path("stopped"), LONG, nodes=2))
"""
LONG = {"train": {"epochs": 40}}


@pytest.mark.slow
def test_signal_to_nodes_and_stage_stops_all_at_the_same_step(job: Path) -> None:
    """As SLURM and the relay send it. Two devices of one machine go on from there, to the undisturbed weights."""
    (job / "stage.py").write_text(STAGE)
    stage = subprocess.Popen([sys.executable, "stage.py"])
    deadline = time.monotonic() + 300
    while not list(job.glob("stopped/results/checkpoints/tiny/full/*/*/epoch-*")):
        assert stage.poll() is None, "ended too early"
        assert time.monotonic() < deadline, "trained no epoch"
        time.sleep(0.01)
    for process in [stage.pid, *map(int, (job / "srun.tasks").read_text().split())]:
        os.kill(process, signal.SIGTERM)
    assert stage.wait(300) == 1
    assert "error: stopped by SIGTERM after" in (job / "stage.log").read_text()
    assert len(list(job.glob("stopped/results/checkpoints/tiny/full/*/*/epoch-*.step-*"))) == 1
    with log.job(job / "again.log"):
        again, losses = trained(job_of(job / "stopped", LONG, devices=2))
    assert "steps of the next" in (job / "again.log").read_text()
    whole, expected = trained(job_of(job / "whole", LONG, devices=2))
    assert same(again, whole)
    assert losses == expected


def test_interrupt_leaves_no_srun_behind(job: Path) -> None:
    """As Ctrl-C in an interactive allocation: what runs on the nodes would go on without anybody waiting for it."""
    (job / "bin" / "srun").write_text(
        "#!/bin/sh\necho $$ > srun.unfinished\nmv srun.unfinished srun.pid\nexec sleep 600\n"
    )
    here = os.getpid()

    def interrupt() -> None:
        while not (job / "srun.pid").exists():
            time.sleep(0.01)
        os.kill(here, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        stages_train.network(job_of(job, nodes=2))
    with pytest.raises(ProcessLookupError):
        os.kill(int((job / "srun.pid").read_text()), 0)


class Seen:
    """Stands in for a Fabric whose processes restored different checkpoints."""

    device = torch.device("cpu")

    def all_gather(self, mine: Tensor) -> Tensor:
        return torch.stack([mine, mine + torch.tensor([0, 3])])


def test_nodes_that_see_different_checkpoints_do_not_go_on(tmp_path: Path) -> None:
    with pytest.raises(BsnnError, match=r"\[\[4, 0\], \[4, 3\]\].*must share this folder"):
        checkpoint.require_same(tmp_path, Seen(), 4, None)  # type: ignore[arg-type]
    checkpoint.require_same(tmp_path, Fabric(accelerator="cpu", devices=1), 4, None)
