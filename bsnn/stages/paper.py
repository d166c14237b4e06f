"""Stages of the paper's results: one of its results, or the report of all."""

from __future__ import annotations

from bsnn.errors import ConfigError
from bsnn.paper import plan
from bsnn.pipeline.job import Job


def result(job: Job, which: str) -> None:
    """Tables and figures of one of the paper's results.

    Raises:
        ConfigError: when the experiment has no such result.
    """
    from bsnn.paper import write

    known = plan.results_of(job.config, job.name)
    if which not in known:
        raise ConfigError(f"experiment '{job.name}' has no result '{which}' of the paper; it has {', '.join(known)}")
    write.write(job.config, job.name, which, job.paths)


def report(job: Job) -> None:
    """Report of all of the paper's results, from what `result` wrote."""
    from bsnn.paper import report as rooms

    rooms.page(job.config, job.name, job.paths, job.root / job.name / "paper.html")
