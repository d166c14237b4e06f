"""Training on several nodes: here two processes that a stand-in for srun starts on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from training_for_tests import data_set, experiment
from workflow_for_tests import TINY

from bsnn import checkpoint, config, log, nodes, train
from bsnn.errors import BsnnError, ConfigError

TWO_NODES = config.Compute(accelerator="cpu", nodes=2)
SRUN = """#!/bin/sh
# Two tasks, as `srun --nodes=2 --ntasks-per-node=1` starts them; SIGTERM is handed on, the first failure is the result.
echo "$@" > srun.arguments
env > srun.environment
while [ "${1#--}" != "$1" ]; do shift; done
trap 'kill $tasks' TERM
for node in 0 1; do
    SLURM_NODEID=$node SLURM_LAUNCH_NODE_IPADDR=127.0.0.1 "$@" &
    tasks="$tasks $!"
done
code=0
for task in $tasks; do
    while kill -0 $task 2> /dev/null; do wait $task; ended=$?; done
    [ $ended = 0 ] || code=$ended
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


def fit(folder: Path, compute: config.Compute, **changes: object) -> tuple[dict[str, Tensor], list[float]]:
    changes = {"train__epochs": 3, **changes}
    trained, history = train.fit(experiment(**changes), "full", 0, data_set(), compute, folder, None)
    return dict(trained.module.state_dict()), history["train_loss"].tolist()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_nodes_are_two_devices_of_one_machine(job: Path) -> None:
    """Bit for bit, dropout and flips included; and srun is not told what the stage's own step has."""
    with log.job(job / "train.log"):
        spread, losses = fit(job / "nodes", TWO_NODES)
    together, losses_together = fit(job / "devices", config.Compute(accelerator="cpu", devices=2))
    assert same(spread, together)
    assert losses == losses_together
    assert not (job / "nodes" / nodes.TO_RUN).exists()
    assert len(list((job / "nodes").glob("epoch-*"))) == checkpoint.KEEP
    assert [f"epoch {epoch}/3" in (job / "train.log").read_text() for epoch in (1, 2, 3)] == [True] * 3
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --overlap" in (job / "srun.arguments").read_text()
    told = (job / "srun.environment").read_text().splitlines()
    assert sorted(line for line in told if line.startswith("SLURM_")) == ["SLURM_JOB_ID=11"]


def test_an_error_on_a_node_comes_back_as_what_it_was(job: Path) -> None:
    wild = {"name": "sgd", "lr": 1e30}
    with pytest.raises(BsnnError, match=r"epoch 1 at learning rate 1e\+30.*train\.optimiser\.lr"):
        fit(job / "wild", TWO_NODES, train__optimiser=wild)
    assert not (job / "wild" / nodes.TO_RUN).exists()


def test_devices_that_a_node_does_not_have_are_refused(job: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ConfigError, match="1 CUDA devices asked for, 0 found"):
        fit(job / "cuda", config.Compute(accelerator="cuda", nodes=2))


def test_nodes_that_end_without_a_word_are_an_error(job: Path) -> None:
    (job / "bin" / "srun").write_text("#!/bin/sh\necho nothing of ours\nexit 9\n")
    with pytest.raises(BsnnError, match=r"exit code 9 of srun.*\.snakemake/slurm_logs"):
        fit(job / "silent", TWO_NODES)


def test_outside_a_job_of_so_many_nodes_it_says_what_to_ask_for(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"4 nodes asked for, and the SLURM job has 2, node\[7-8\]; set `nodes: 4`"):
        fit(job / "four", config.Compute(accelerator="cpu", nodes=4))
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(ConfigError, match=r"2 nodes train together only within a SLURM job.*set compute.nodes to 1"):
        fit(job / "none", TWO_NODES)
    assert not list(job.rglob("*.pt"))


def test_batch_that_all_nodes_cannot_share_is_refused() -> None:
    """Before anything is submitted: batches of 50, which two nodes could share, but not with three devices each."""
    six = {"compute": {"nodes": 2, "devices": 3}}
    with pytest.raises(ConfigError, match=r"6 devices \(of all compute.nodes\) cannot share a batch of 50 evenly"):
        config.validate(config.merge(TINY, six))
    config.validate(config.merge(TINY, {"compute": {"nodes": 2}}))


STAGE = """
import sys
from pathlib import Path
from training_for_tests import data_set, experiment
from bsnn import config, log, train
if __name__ == "__main__":
    with log.job("stage.log"):
        two = config.Compute(accelerator="cpu", nodes=2)
        train.fit(experiment(train__epochs=40), "full", 0, data_set(), two, Path("stopped"), None)
"""


@pytest.mark.slow
def test_signal_to_the_stage_stops_all_nodes_at_the_same_step(job: Path) -> None:
    """Two devices of one machine go on from there, to the undisturbed weights: they are as many processes."""
    (job / "stage.py").write_text(STAGE)
    stage = subprocess.Popen([sys.executable, "stage.py"])
    deadline = time.monotonic() + 300
    while not list(job.glob("stopped/epoch-*")):
        assert stage.poll() is None, "ended too early"
        assert time.monotonic() < deadline, "trained no epoch"
        time.sleep(0.01)
    stage.send_signal(signal.SIGTERM)
    assert stage.wait(300) == 1
    assert "error: stopped by SIGTERM after" in (job / "stage.log").read_text()
    assert len(list(job.glob("stopped/epoch-*.step-*"))) == 1
    two = config.Compute(accelerator="cpu", devices=2)
    with log.job(job / "again.log"):
        again, losses = fit(job / "stopped", two, train__epochs=40)
    assert "steps of the next, from" in (job / "again.log").read_text()
    whole, expected = fit(job / "whole", two, train__epochs=40)
    assert same(again, whole)
    assert losses == expected


class Seen:
    """Stands in for a Fabric whose processes restored different checkpoints."""

    device = torch.device("cpu")

    def all_gather(self, mine: Tensor) -> Tensor:
        return torch.stack([mine, mine + torch.tensor([0, 3])])


def test_nodes_that_see_different_checkpoints_do_not_go_on(tmp_path: Path) -> None:
    with pytest.raises(BsnnError, match=r"\[\[4, 0\], \[4, 3\]\].*must share this folder"):
        checkpoint.require_same(tmp_path, Seen(), 4, None)  # type: ignore[arg-type]
    checkpoint.require_same(tmp_path, Fabric(accelerator="cpu", devices=1), 4, None)
