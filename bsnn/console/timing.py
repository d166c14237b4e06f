"""The time that a run has left: from what jobs of their kind took, and from how far the running ones say they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bsnn import log

if TYPE_CHECKING:
    from bsnn.pipeline.costs import One

TOLD = ("train", "binarize", "simulate")  # rules whose jobs are done when their progress is
MOST = 5.0  # times faster or slower than estimated that jobs of a rule are taken to be, after others of that rule
SURE = 0.02  # part of a job that must be done before its progress says when it ends


@dataclass
class Running:
    """One job that runs."""

    job: One
    threads: int
    logs: tuple[Path, ...]
    begun: float  # seconds, as all times here
    first: tuple[float, float] | None = None  # when progress was first seen, and how far it was: not 0 where it resumes
    seen: list[int | None] = field(init=False)  # when its logs were last written to, as of the last look
    told: int = 0  # notices

    def __post_init__(self) -> None:
        self.seen = [log.changed(path) for path in self.logs]  # those of a former try, until it begins its own

    def part(self, now: float) -> float | None:
        """How far it is, from 0 to 1; None where it does not say."""
        if self.job[0] not in TOLD:
            return None
        found = next((part for path in self.logs if (part := log.progress_of(path)) is not None), None)
        if found is not None and self.first is None:
            self.first = (now, found)
        return found

    def notices(self) -> list[str]:
        """Notices in its logs that were not given before."""
        changed = [log.changed(path) for path in self.logs]
        if changed == self.seen:
            return []
        found = [text for path in self.logs for text in log.marked(path, log.NOTICE)]
        new, self.seen, self.told = found[self.told :], changed, len(found)
        return new

    def left(self, now: float, expected: float | None) -> float | None:
        """Seconds until it ends, given how long such a job takes."""
        part = self.part(now)
        # At the speed since progress was first seen: a training that goes on from a checkpoint had a part behind it by
        # then, which took none of this job's time.
        if part is not None and self.first is not None and part - self.first[1] >= SURE:
            return (1 - part) * (now - self.first[0]) / (part - self.first[1])
        if expected is None:
            return None
        return expected * (1 - part) if part else max(expected - (now - self.begun), 0.0)


@dataclass
class Timing:
    """All jobs of a run.

    Attributes:
        expected: seconds of each job, as estimated before the run; None where nothing is known.
        cores: that jobs share; None where they run elsewhere.
        threads: of a job that has not begun.
    """

    expected: Mapping[One, float | None]
    cores: int | None
    threads: int = 1
    waiting: set[One] = field(init=False)
    running: dict[int, Running] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)  # seconds of finished jobs, by rule
    paces: dict[str, list[float]] = field(default_factory=dict)  # and over what was estimated, where that is comparable
    done: int = 0

    def __post_init__(self) -> None:
        self.waiting = set(self.expected)

    def start(self, number: int, running: Running) -> None:
        """A job begins, or begins again."""
        self.waiting.discard(running.job)
        self.running[number] = running

    def finish(self, number: int, now: float) -> Running | None:
        """A job ended well; gives what is known of it."""
        found = self.running.pop(number, None)
        if found is not None:
            seconds, known = now - found.begun, self.expected.get(found.job)
            self.took.setdefault(found.job[0], []).append(seconds)
            # A job that did only a part of its work says nothing about how long a whole one takes.
            resumed = found.first is not None and found.first[1] > SURE
            if known and self.cores is not None and not resumed:  # elsewhere, time in a queue is in it
                self.paces.setdefault(found.job[0], []).append(seconds / known)
            self.done += 1
        return found

    def _expected(self, job: One) -> float | None:
        known, took, paces = self.expected.get(job), self.took.get(job[0]), self.paces.get(job[0])
        if known is None:
            return sum(took) / len(took) if took else None
        return known * min(max(sum(paces) / len(paces), 1 / MOST), MOST) if paces else known

    def left(self, now: float) -> tuple[float, list[One]]:
        """Seconds that are left, and the jobs of which nothing is known, which are not in them."""
        jobs = [(run.job, run.left(now, self._expected(run.job)), run.threads) for run in self.running.values()]
        jobs += [(job, self._expected(job), self.threads) for job in self.waiting]
        unknown = [job for job, seconds, _ in jobs if seconds is None]
        known = [(seconds, count) for _, seconds, count in jobs if seconds is not None]
        if not known:
            return 0.0, unknown
        # The work of all jobs, spread over the cores; but no less than the longest that runs, which cannot be spread.
        # Where jobs run elsewhere, as many run at once as do now.
        running = jobs[: len(self.running)]
        together = self.cores or sum(count for _, _, count in running) or 1
        busy = sum(seconds * min(count, together) for seconds, count in known) / together
        longest = max((seconds for _, seconds, _ in running if seconds is not None), default=0.0)
        return max(busy, longest), unknown
