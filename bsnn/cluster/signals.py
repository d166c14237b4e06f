"""SIGTERM to Snakemake, handed on to the processes that compute.

Snakemake then starts no more jobs, and waits for those that run without passing the signal on. With proctrack/cgroup,
SLURM sends it to the first process of a step alone, which is Snakemake: a training would be killed without having
written its checkpoint. On one machine, a Snakemake that was sent SIGTERM would wait for a training of days.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

PASSED_OVER = ("bash", "sh", "srun")  # shells would end at once, srun would kill its processes; both end with them
HANDED_ON = Path("/proc/self/status").exists()  # this system says which processes there are, and what they catch
AGAIN = 0.5  # seconds between two looks for processes that know what to do


def within_step() -> None:
    """In a step of a SLURM job: send SIGTERM on to all processes that this one starts; elsewhere nothing.

    Works beside any handler that is set later, as Snakemake sets its own. Only in the main thread.
    """
    if in_step():
        _on_sigterm(_tell_all)


def to_trainings() -> None:
    """Elsewhere: send SIGTERM on to those that catch it, as trainings do to write their checkpoint and end.

    Others would lose what they have done, and run to their end. As `within_step`; on Linux alone.
    """
    if not in_step():
        _on_sigterm(_tell_who_catch)


def in_step() -> bool:
    """Whether this process runs in a step of a SLURM job."""
    return "SLURM_STEP_ID" in os.environ


def _on_sigterm(act: Callable[[], None]) -> None:
    """Call `act` in a thread of its own on each SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        return
    # By this descriptor, which Python writes to whichever handler is set: one of ours would be replaced by Snakemake's.
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    signal.set_wakeup_fd(pythons.detach(), warn_on_full_buffer=False)  # Python writes each signal's number there
    threading.Thread(target=_listen, args=(ours, act), daemon=True).start()


def _listen(signals: socket.socket, act: Callable[[], None]) -> None:
    while number := signals.recv(1):
        if number[0] == signal.SIGTERM:
            act()


def _tell_all() -> None:
    for process in _below(os.getpid()):
        _tell(process)


def _tell_who_catch() -> None:
    """Each once, until this process ends: one that has just been started catches it some seconds later."""
    told: set[int] = set()
    while True:
        for process in _below(os.getpid()):
            if process not in told and _catches(process):
                told.add(process)
                _tell(process)
        time.sleep(AGAIN)


def _catches(process: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it ended meanwhile
        return False
    caught = int(status.partition("SigCgt:")[2].split(maxsplit=1)[0], 16)  # a bit for each signal, from 1
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _below(process: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{process}/task")
    except OSError:  # it ended meanwhile, or this system has no such files
        return []
    # The system lists children by the thread that started them.
    for thread in threads:
        try:
            children += map(int, Path(f"/proc/{process}/task/{thread}/children").read_text().split())
        except OSError:
            continue
    return [other for child in children for other in (child, *_below(child))]


def _tell(process: int) -> None:
    try:
        if Path(f"/proc/{process}/comm").read_text().strip() not in PASSED_OVER:
            os.kill(process, signal.SIGTERM)
    except OSError:  # it ended meanwhile
        return
