"""Training on several nodes of a SLURM job: `srun` starts this module on each of them, and each runs its devices.

All processes together are those of as many devices on one machine. The stage that starts them is one of the job's
processes; its node is the first, so that its own address and a free port of its own are where they meet. (Where SLURM
launches tasks from is known to it by address: names of nodes need not resolve.) Nodes share the file system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from bsnn import config, errors, log, processes, stopping
from bsnn.errors import BsnnError, ConfigError

TO_RUN = "nodes.pt"  # beside the checkpoints, while the nodes train
WAIT = 60  # seconds for the other nodes to end, after the first
KEPT = ("SLURM_CLUSTER_NAME", "SLURM_CONF", "SLURM_JOB_ID")  # others tell of the step that this process is
MARK = "bsnn.errors "  # begins a line in which a node says its error


def run(
    function: Callable[[Fabric], processes.Found], recipe: config.Train, compute: config.Compute, folder: Path
) -> None:
    """Run a function on all devices of all nodes of the SLURM job that this process belongs to.

    Args:
        function: what each process does; it can be pickled, and leaves its result in a file.
        recipe: batch and precision.
        compute: nodes, and devices on each.
        folder: seen by all nodes.

    Raises:
        ConfigError: no SLURM job of so many nodes; devices that are not there, or that the batch cannot be spread over.
        BsnnError: an error of ours in any of the processes, as what it was; or nodes that ended in another way.
        ArtifactError: the folder cannot be written to.
    """
    command = [*_srun(compute.nodes), sys.executable, "-m", __name__, str(folder / TO_RUN), str(_place(compute.nodes))]
    processes.leave((function, recipe, compute, log.files()), folder / TO_RUN)
    try:
        srun = subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, text=True)
        with stopping.on_signal(srun.terminate):  # it hands the signal on
            said, _ = srun.communicate()
    finally:
        (folder / TO_RUN).unlink(missing_ok=True)
    if srun.returncode:
        _fail(said, srun.returncode)


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
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _srun(nodes: int) -> list[str]:
    """One task on each node, which takes what the job has there beside the step that this process is in."""
    step = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--cpu-bind=none"]
    return ["srun", *step, "--mpi=none", "--kill-on-bad-exit=0", f"--wait={WAIT}"]


def _environment() -> dict[str, str]:
    """Without the step's own numbers of nodes, tasks and CPUs, which srun would take for the new step's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in KEPT}
    return {**kept, "MASTER_PORT": str(find_free_network_port())}


def _fail(said: str, code: int) -> NoReturn:
    """Raise the first error of ours that a node said."""
    for line in said.splitlines():
        if line.startswith(MARK):
            name, message = json.loads(line.removeprefix(MARK))
            raise getattr(errors, name)(message)
    raise BsnnError(
        f"training on several nodes ended with exit code {code} of srun; what its processes said is in the SLURM job's "
        "own log, under .snakemake/slurm_logs"
    )


def main(path: str, first: str) -> None:
    """What srun starts on each node: the devices of this node.

    Args:
        path: the file with what to run.
        first: place among the nodes of the one that counts as the first.
    """
    function, recipe, compute, logs = torch.load(path, weights_only=False)  # written by `run`, a moment ago
    os.environ["NODE_RANK"] = str((int(os.environ["SLURM_NODEID"]) - int(first)) % compute.nodes)
    os.environ["MASTER_ADDR"] = os.environ["SLURM_LAUNCH_NODE_IPADDR"]
    try:
        processes.run(function, recipe, compute, logs)
    except BsnnError as error:
        print(MARK + json.dumps([type(error).__name__, str(error)]), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
