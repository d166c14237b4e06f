"""Training on several nodes of a SLURM job: `srun` starts a module on each of them, and each runs its devices.

All processes together are those of as many devices on one machine. The stage that starts them is one of the job's
processes; its node is the first, so that its own address and a free port of its own are where they meet. (Where SLURM
launches tasks from is known to it by address: names of nodes need not resolve.) Nodes share the file system.

SLURM's SIGTERM goes to the processes on the nodes, which write a checkpoint and end. `srun` must not get it: it would
kill them at once (SLURM's `_srun_signal_mgr`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from lightning_fabric.plugins.environments.lightning import find_free_network_port

from bsnn import artifacts, errors, log
from bsnn.errors import BsnnError, ConfigError
from bsnn.pipeline.job import Job
from bsnn.training import stopping

logger = logging.getLogger("bsnn")

TO_RUN = "nodes.json"  # beside the checkpoints, while the nodes train
WAIT = 60  # seconds for the other nodes to end, after the first
KEPT = ("SLURM_CLUSTER_NAME", "SLURM_CONF", "SLURM_JOB_ID")  # others describe the step that this process is
MARK = "bsnn.errors "  # comes before an error that a node says; lines of several nodes may run into one another


def run(job: Job, module: str) -> None:
    """Train on all devices of all nodes of the SLURM job that this process belongs to.

    The first process leaves the result beside the checkpoints (`bsnn.training.train.HANDED_OVER`).

    Args:
        job: the network to train.
        module: what to start on each node; it is given the file with what to run, and the first node's place.

    Raises:
        ConfigError: no SLURM job of so many nodes; devices that are not there.
        BsnnError: an error of ours in any of the processes, as what it was; or nodes that ended in another way, or
            SLURM that does not answer.
        ArtifactError: the folder of the checkpoints cannot be written to.
    """
    compute = job.config.compute
    note = job.pipeline.scratch("network", job.place) / TO_RUN
    command = [*_srun(compute.nodes), sys.executable, "-m", module, str(note), str(_place(compute.nodes))]
    artifacts.write_text(note, json.dumps(_to_run(job)))
    try:
        srun = _start(command)
        with stopping.on_signal(_leave_it_to_the_nodes):
            said, _ = _waited_for(srun)
    finally:
        note.unlink(missing_ok=True)
    if srun.returncode:
        _fail(said, srun.returncode)


def _to_run(job: Job) -> dict[str, object]:
    place = {**job.place._asdict(), "root": str(job.pipeline.root)}
    return {"config": job.config.model_dump(mode="json"), "place": place, "logs": log.files()}


def _start(command: list[str]) -> subprocess.Popen[str]:
    """In a session of its own, away from signals to this process's group."""
    try:
        return subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, text=True, start_new_session=True)
    except OSError as error:
        raise BsnnError(
            f"srun cannot be started ({error}); training on several nodes needs SLURM's commands"
        ) from error


def _waited_for(srun: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return srun.communicate()
    except KeyboardInterrupt:  # it did not see it, in its own session
        srun.terminate()  # kills its processes: in an interactive allocation they would go on, and nobody would wait
        srun.wait()
        raise


def _leave_it_to_the_nodes(by: signal.Signals) -> None:
    if by == signal.SIGINT:  # of a terminal, which SLURM knows nothing of
        raise KeyboardInterrupt
    logger.info("SIGTERM: waiting for the processes on the nodes, which SLURM signals as well")


def _place(nodes: int) -> int:
    """Place of this process's node among the nodes of its SLURM job, from 0."""
    job, here = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURMD_NODENAME")
    if job is None or here is None:
        raise ConfigError(
            f"compute.nodes: {nodes} nodes train together only within a SLURM job, and this process is in none; "
            "submit it with the profile of docs/cluster.md, or set compute.nodes to 1"
        )
    listed = _said("squeue", "--noheader", "--jobs", job, "--format", "%N")  # SLURM_JOB_NODELIST is the step's here
    names = _said("scontrol", "show", "hostnames", listed).split()
    if len(names) != nodes or here not in names:
        raise ConfigError(
            f"compute.nodes: {nodes} nodes asked for, and the SLURM job has {len(names)}, {listed}; set "
            f"`nodes: {nodes}` for train and binarize in the profile (docs/cluster.md), or change compute.nodes"
        )
    return names.index(here)


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise BsnnError(f"{' '.join(command)}: {said}; SLURM must answer where a job starts on its nodes") from error


def _srun(nodes: int) -> list[str]:
    """One task on each node, which takes what the job has there beside the step that this process is in."""
    step = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--cpu-bind=none"]
    # A process that ends, well or not, does not take the others along at once: they have WAIT seconds for their own
    # end.
    return ["srun", *step, "--mpi=none", "--kill-on-bad-exit=0", f"--wait={WAIT}"]


def _environment() -> dict[str, str]:
    """Without the step's own numbers of nodes, tasks and CPUs, which srun would take for the new step's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in KEPT}
    return {**kept, "MASTER_PORT": str(find_free_network_port())}


def _fail(said: str, code: int) -> NoReturn:
    """Raise the first error of ours that a node said."""
    for part in said.split(MARK)[1:]:
        with suppress(json.JSONDecodeError):  # a line that another node's cut in two
            raise errors.of_name(*json.JSONDecoder().raw_decode(part)[0])
    raise BsnnError(
        f"training on several nodes ended with exit code {code} of srun; what its processes said is in the SLURM job's "
        "own log, under .snakemake/slurm_logs"
    )
