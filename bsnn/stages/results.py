"""Stages that show an experiment's results: tables, figures, reports, each with a note (bsnn.pipeline.notes)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from filelock import FileLock

from bsnn import artifacts
from bsnn.errors import ArtifactError
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

if TYPE_CHECKING:
    from bsnn.tables import Results

logger = logging.getLogger("bsnn")


def tables(job: Job) -> None:
    """Gather all artifacts of the experiment into tables: CSV, Parquet, Markdown."""
    from bsnn import tables

    tables.write(tables.collect(job.pipeline, job.place.experiment), job.folder("tables"))


def figures(job: Job) -> None:
    """Draw the figures from the tables: SVG, PNG."""
    from bsnn import figures, tables

    figures.draw(tables.read(job.folder("tables")), job.folder("figures"))


def report(job: Job) -> None:
    """Write the report: one HTML file with tables, figures, settings and origins."""
    from bsnn import report

    report.write(_results(job), job.folder("figures"), job.folder("report.html"), job.pipeline)


def report_lock(job: Job) -> FileLock:
    """Held while the report is looked at and written, and its note: jobs that add to it may end at the same time."""
    return FileLock(job.pipeline.root / f".{job.place.experiment}.report.lock")  # beside the lock of the run


def renew_report(job: Job) -> None:
    """Write the report that is there again, of the settings that it shows: something was added."""
    from bsnn import report

    path, place = job.folder("report.html"), Place(job.place.experiment)
    try:
        with report_lock(job):
            if not path.exists():
                return
            results = _results(job)
            pipeline = Pipeline(results.config, job.pipeline.root)
            # Tables may answer a later question than figures and report do, whose note vouches for what it vouched for.
            if all(pipeline.path(stage, place).exists() for stage in ("figures", "report")):
                report.write(results, job.folder("figures"), path, pipeline)
            else:
                logger.warning("%s stays as it is: the tables are of other settings; make both with: snakemake", path)
    except ArtifactError as error:  # of another version, or half removed: the next `snakemake` makes all of it
        logger.warning("the report stays as it is: %s", error)
    except Exception:  # whatever fails to draw must not cost the hours of the job that added something
        logger.exception("the report stays as it is: it could not be drawn")


def _results(job: Job) -> Results:
    """What the tables hold, under the job's settings where these would make the same tables: latency's may differ."""
    from bsnn import tables

    place, results = Place(job.place.experiment), tables.read(job.folder("tables"))
    same = job.pipeline.key("tables", place) == Pipeline(results.config, job.pipeline.root).key("tables", place)
    return replace(results, config=job.pipeline.config) if same else results


def latency_tables(job: Job) -> None:
    """Gather all methods of the experiment into tables."""
    from bsnn.tables import latency

    latency.write(job.pipeline, job.place.experiment, job.folder("tables"))


def latency_figures(job: Job) -> None:
    """Draw the figures of methods from their tables."""
    from bsnn.figures import latency as figures
    from bsnn.tables import latency

    stands_for = job.pipeline.identity("latency_tables", job.place)
    figures.draw(latency.load(job.folder("tables"), stands_for), job.folder("figures"))


def exit_results(job: Job) -> None:
    """Early exit of all networks of the experiment, as one table and its figures."""
    from bsnn.figures import early_exit as figures
    from bsnn.tables import early_exit

    table = early_exit.collect(job.pipeline, job.place.experiment)
    stands_for = job.pipeline.identity("exit_results", job.place)
    artifacts.write_frame(job.folder("tables/early_exit.parquet"), table, early_exit.KIND, stands_for)
    figures.draw(table, job.folder("figures"))


def paper_result(job: Job) -> None:
    """Tables and figures of one of the paper's results."""
    from bsnn.paper import write

    write.write(job.pipeline, job.place, job.folder("paper"))


def paper_report(job: Job) -> None:
    """Report of all of the paper's results, from what `paper_result` wrote."""
    from bsnn.paper import report

    report.page(job.pipeline, job.place.experiment, job.folder("paper"), job.folder("paper.html"))
