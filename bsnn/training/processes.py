"""The processes that train on one machine, one for each device, under Fabric; their messages, results and errors."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessRaisedException

from bsnn import config, errors, log
from bsnn.errors import ConfigError
from bsnn.training import memory, stopping
from bsnn.training.precision import choose

logger = logging.getLogger(__name__)

Found = dict[str, Any] | None


def run(
    function: Callable[[Fabric], Found], recipe: config.Train, compute: config.Compute, logs: Sequence[str]
) -> Found:
    """Run a function on all devices of this machine, also within a SLURM job; SIGTERM is handed on to every process.

    With several nodes this machine is the one that the environment names: NODE_RANK, MASTER_ADDR, MASTER_PORT.

    Args:
        function: what each process does; it can be pickled.
        recipe: its batch.
        compute: devices and precision.
        logs: the job's log files, to which the first of several processes writes its messages.

    Returns:
        What the function gives on the first device of this machine.

    Raises:
        ConfigError: devices that are not there, or that the batch cannot be spread over.
        BsnnError: an error of ours in any of the processes, as what it was.
    """
    fabric = _fabric(recipe, compute)
    alone = compute.processes == 1
    handing_on = nullcontext() if alone else stopping.on_signal(stopping.tell_children)
    try:
        with handing_on, nullcontext() if alone or compute.nodes > 1 else _store():
            found: Found = fabric.launch(partial(_process, function=function, logs=logs))
    except ProcessRaisedException as error:
        # Of another process's error only its traceback comes, as text, which ends with the error's class and message.
        _, mark, ours = str(error).rpartition("\nbsnn.errors.")
        if not mark:
            raise
        name, _, message = ours.partition(": ")
        raise errors.of_name(name, message.strip()) from error
    return found


def precision(fabric: Fabric) -> str:
    """Precision of these processes, in Fabric's words."""
    return str(fabric.strategy.precision.precision)


def _fabric(recipe: config.Train, compute: config.Compute) -> Fabric:
    """Fabric on the devices asked for: one process each."""
    found = torch.cuda.device_count()
    cuda = compute.accelerator == "cuda" or (compute.accelerator == "auto" and found > 0)
    if cuda and found < compute.devices:
        raise ConfigError(
            f"compute.devices: {compute.devices} CUDA devices asked for, {found} found; "
            "ask for as many as there are, or set compute.accelerator to cpu"
        )
    if recipe.batch_size % compute.processes:
        raise ConfigError(
            f"batch_size {recipe.batch_size} is not a multiple of compute.nodes times compute.devices, "
            f"{compute.nodes} * {compute.devices}"
        )
    alone = compute.processes == 1
    device = torch.device("cuda" if cuda else "cpu")
    return Fabric(
        accelerator=device.type,
        devices=compute.devices,
        num_nodes=compute.nodes,
        strategy="auto" if alone else "ddp_spawn",
        precision=choose(compute, device),
        plugins=None if alone else [LightningEnvironment()],
    )


@contextmanager
def _store() -> Iterator[None]:
    """The store through which the processes find each other, served by this one, as torchrun serves it.

    Fabric looks for a free port and lets it go again, for the first process to listen there later;
    another training's may be faster.
    """
    before = dict(os.environ)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.environ |= {"MASTER_ADDR": store.host, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _process(fabric: Fabric, function: Callable[[Fabric], Found], logs: Sequence[str]) -> Found:
    """What each process does; one alone is the job's own and writes to its logs already."""
    with log.messages(logs) if fabric.world_size > 1 and fabric.is_global_zero else nullcontext():
        if fabric.device.type == "cpu":
            logger.info("memory that a step frees %s", "is kept" if memory.keep_freed() else "goes back to the system")
        return function(fabric)
