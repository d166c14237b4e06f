"""Stages that show an experiment's results: tables, figures, report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bsnn import artifacts

if TYPE_CHECKING:
    from bsnn.pipeline.job import Job


def tables(job: Job) -> None:
    """Gather all artifacts of the experiment into tables: CSV, Parquet, Markdown."""
    from bsnn import tables as rooms

    rooms.write(rooms.collect(job.config, job.name, job.paths), job.paths.tables(job.name))


def figures(job: Job) -> None:
    """Draw the figures from the tables: SVG, PNG."""
    from bsnn import figures as rooms
    from bsnn import tables as gathered

    folder = job.paths.figures(job.name)
    source = job.paths.tables(job.name)
    rooms.draw(gathered.read(source), folder)
    artifacts.copy(source / gathered.SETTINGS, folder / gathered.SETTINGS)


def report(job: Job) -> None:
    """Write the report: one HTML file with tables, figures, settings and origins."""
    from bsnn import report as rooms
    from bsnn import tables as gathered

    results = gathered.read(job.paths.tables(job.name))
    rooms.write(results, job.paths.figures(job.name), job.paths.report(job.name))
