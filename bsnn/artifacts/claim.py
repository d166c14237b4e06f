"""One run at a time in a folder of results.

Before a job Snakemake removes the files that the job is to make. Of two runs that both found a file missing, the later
one would so remove what the earlier has made, perhaps while a job of the earlier reads it. A run therefore claims its
folder first, and a second run is refused. The lock is the operating system's: it goes with its process, however that
ends, so a killed run leaves no claim.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from bsnn.artifacts.files import write_text
from bsnn.errors import BsnnError

LOCK = ".run.lock"
TRAINING_LOCK = "lock"  # in a folder of checkpoints: held by the process that trains there
HOLDER = ".run.txt"  # who holds the lock, for the message to those who are refused


def claim(folder: Path) -> FileLock:
    """Claim a folder of results for this process, until the lock is released or the process ends.

    Raises:
        BsnnError: another process holds it; or the folder cannot be written, or has no locks.
    """
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        known = holder.read_text().strip() if holder.is_file() else "an unknown process"
        raise BsnnError(
            f"{folder}: another run is at work there ({known}); two at once could remove each other's files. Wait "
            "until it has ended, or work in a clone of your own (`bsnn fetch` brings finished artifacts there)"
        ) from None
    except OSError as error:
        raise BsnnError(
            f"{folder}: cannot be claimed for this run ({error}); results need a folder that can be written, on a file "
            "system with locks"
        ) from error
    # For the message alone: the lock is what counts, and this file outlives it.
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    write_text(holder, f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
    return lock


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder of results for the time of a block; raises as `claim` does."""
    lock = claim(folder)
    try:
        yield
    finally:
        lock.release()
