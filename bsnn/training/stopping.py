"""Stopping within an epoch, on SIGTERM or SIGINT, with a checkpoint to go on from.

SLURM sends SIGTERM some time before it kills: at a walltime limit, a preemption, `scancel`, and with
`--signal=TERM@SECONDS` earlier. A terminal sends SIGINT on Ctrl-C. Every few minutes a checkpoint is written
without either: a dying machine gives no signal.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning_fabric import Fabric

from bsnn.errors import Interrupted
from bsnn.training.position import Position, Running

logger = logging.getLogger(__name__)

SECONDS = 15 * 60.0  # between checkpoints
SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGREE = 10  # of several processes every so many looks: to agree, they wait for each other and for their devices


@contextmanager
def on_signal(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `act` on SIGTERM and SIGINT, instead of ending at once.

    Signals belong to the main thread: in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda found, _: act(signal.Signals(found))) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_children(_: signal.Signals) -> None:
    """Send SIGTERM on to the processes that this one started; it goes on itself, to wait for them."""
    for child in multiprocessing.active_children():
        child.terminate()


class Pauses:
    """Between steps: write a checkpoint if it is time, and stop if a signal came.

    Args:
        fabric: of the processes that train; they stop at the same step.
        write: writes the checkpoint of a position and gives its path; called by the first process alone.
    """

    def __init__(self, fabric: Fabric, write: Callable[[Position], Path]) -> None:
        self.fabric, self.write = fabric, write
        self.asked = False
        self.by = signal.SIGTERM
        self.looks = 0
        self.restart()

    def ask(self, by: signal.Signals) -> None:
        """Stop after the step at hand, since a signal came."""
        self.asked, self.by = True, by

    def restart(self) -> None:
        """A checkpoint was written just now."""
        self.written = time.monotonic()

    def look(self, running: Running) -> None:
        """Called by every process after the same steps, of training or of evaluation.

        Raises:
            Interrupted: after a signal to any of them, when the checkpoint is there.
            ArtifactError: it cannot be written.
        """
        self.looks += 1
        if self.fabric.world_size > 1 and self.looks % AGREE:
            return
        stop, due = self._agreed(self.asked, time.monotonic() - self.written >= SECONDS)
        if not (stop or due):
            return
        position = running.position()
        if self.fabric.is_global_zero:
            logger.info("checkpoint within the epoch: %s", self.write(position))
        self.restart()
        self.fabric.barrier()  # who leaves first takes the others along
        if stop:
            raise Interrupted(
                f"stopped by {self.by.name} after {position.steps} steps of the epoch; the checkpoint is written, and "
                "the same command goes on from there"
            )

    def _agreed(self, *wishes: bool) -> list[bool]:
        """What any of the processes wishes."""
        if self.fabric.world_size == 1:
            return list(wishes)
        flags = torch.tensor(wishes, dtype=torch.int64, device=self.fabric.device)
        return [bool(flag) for flag in self.fabric.all_reduce(flags, reduce_op="sum")]
