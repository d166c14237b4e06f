"""Threads that give way to other work on the same cores.

Threads of one step wait for each other hundreds of times. Where another process takes one of their cores, each wait
lasts until the scheduler lets the late one run: two trainings with two threads each on two cores take seven times as
long as one. With as many threads as there are free cores nobody waits. (OpenMP's own dynamic adjustment goes by the
load average of a quarter of an hour.)
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch

logger = logging.getLogger(__name__)

EVERY = 2.0  # seconds between looks


@dataclass(frozen=True)
class Work:
    """Seconds that cores have worked until a moment."""

    at: float  # the moment, in seconds of wall-clock time
    own: float  # for this process
    all: float  # for every process, on the cores that this one may use

    @classmethod
    def now(cls) -> Work:
        """Since the process and the machine began."""
        times, usable, own = psutil.cpu_times(percpu=True), cores(), psutil.Process().cpu_times()
        if max(usable) < len(times):  # elsewhere (containers that number anew, cores that are off) they are all ours
            times = [times[core] for core in usable]
        return cls(time.monotonic(), own.user + own.system, sum(map(_busy, times)))


def _busy(times: Any) -> float:
    """Seconds in which a core was not free; what a hypervisor took of it counts, too."""
    free = ("idle", "iowait", "guest", "guest_nice")  # guests' seconds stand among the users' as well
    return float(sum(seconds for name, seconds in times._asdict().items() if name not in free))


def cores() -> list[int]:
    """Cores that this process may use."""
    process = psutil.Process()
    return list(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else list(range(psutil.cpu_count() or 1))


def wanted(most: int, usable: int, before: Work, now: Work) -> int:
    """As many threads as there were free cores between two moments, to the nearest number: 1 to `most`."""
    seconds = now.at - before.at
    others = max(0.0, (now.all - before.all) - (now.own - before.own)) / seconds  # cores, on average
    return max(1, min(most, int(usable - others + 0.5)))


class Dynamic:
    """The number of torch's threads in this process, changed between steps; what it is at first is never exceeded."""

    def __init__(self) -> None:
        self.most = self.threads = torch.get_num_threads()
        self.before = Work.now() if self.most > 1 else None  # a single thread waits for nobody

    def look(self) -> None:
        """Called between steps: change the number if what others take of the cores has changed."""
        if self.before is None or time.monotonic() - self.before.at < EVERY:
            return
        now = Work.now()
        threads = wanted(self.most, len(cores()), self.before, now)
        self.before = now
        if threads != self.threads:
            logger.info("threads: %d, as many as there are free cores (were %d)", threads, self.threads)
            self.threads = threads
            torch.set_num_threads(threads)
