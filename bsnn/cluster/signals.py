"""SLURM's warning before it kills, handed on to the process that computes.

With proctrack/cgroup, SLURM sends SIGTERM to the first process of a step alone: Snakemake, which then waits for its
job to end without passing the signal on. A training would be killed without having written its checkpoint.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

PASSED_OVER = ("bash", "sh", "srun")  # shells would end at once, srun would kill its processes; both end with them


def within_step() -> None:
    """In a step of a SLURM job: send SIGTERM on to the processes that this one starts; elsewhere nothing.

    Works beside any handler that is set later, as Snakemake sets its own. Only in the main thread.
    """
    if "SLURM_STEP_ID" not in os.environ or threading.current_thread() is not threading.main_thread():
        return
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    signal.set_wakeup_fd(pythons.detach(), warn_on_full_buffer=False)  # Python writes each signal's number there
    threading.Thread(target=_hand_on, args=(ours,), daemon=True).start()


def _hand_on(signals: socket.socket) -> None:
    while number := signals.recv(1):
        if number[0] == signal.SIGTERM:
            for process in _below(os.getpid()):
                _tell(process)


def _below(process: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    children: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children += map(int, thread.read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return [other for child in children for other in (child, *_below(child))]


def _tell(process: int) -> None:
    try:
        if Path(f"/proc/{process}/comm").read_text().strip() not in PASSED_OVER:
            os.kill(process, signal.SIGTERM)
    except OSError:  # it ended meanwhile
        return
