"""Notes that vouch for tables, figures and reports at plain names: of the files as they are, or of none."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import artifacts_for_tests as small
import pytest

from bsnn import artifacts, figures, report, stages, tables
from bsnn.errors import ArtifactError, ConfigError
from bsnn.figures import latency as latency_figures
from bsnn.paper.catalogue import CATALOGUE
from bsnn.pipeline.declarations import STAGES
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.pipeline.workflow import place_of
from bsnn.report import more
from bsnn.stages import results as results_stages
from bsnn.tables import latency as latency_tables

PLACE = Place(small.NAME)
NETWORKS = {"weights": ["full"], "seeds": [0]}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Tables of an experiment, and all that they are made of."""
    found = Job(small.write_all(small.settings(**NETWORKS), tmp_path / "results", small.random_truth()), PLACE)
    stages.run("tables", found)
    return found


def changed(job: Job, **changes: object) -> Job:
    return Job(Pipeline(small.settings(**NETWORKS, **changes), job.pipeline.root), PLACE)


def current(job: Job, stage: str = "tables") -> bool:
    """Whether Snakemake would find the stage's note."""
    return job.pipeline.path(stage, PLACE).exists()


def test_a_note_is_of_the_last_settings(job: Job) -> None:
    other = changed(job, time=[2])
    assert current(job)
    assert not current(other)
    stages.run("tables", other)
    assert current(other)
    assert not current(job)


def test_what_was_overwritten_in_part_is_vouched_for_by_nobody(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fails, or is killed, leaves tables of two settings."""
    written: list[Path] = []

    def full_disk(path: Path, text: str) -> None:
        written.append(path)
        raise ArtifactError(f"{path}: cannot be written")

    monkeypatch.setattr(artifacts, "write_text", full_disk)
    with pytest.raises(ArtifactError):
        stages.run("tables", changed(job, time=[2]))
    assert written
    assert not current(job)
    assert not current(changed(job, time=[2]))


@pytest.mark.parametrize("stage", ["figures", "report"])
def test_tables_of_other_settings_are_not_shown(job: Job, stage: str) -> None:
    stages.run("figures", job)
    other = changed(job, time=[2])
    with pytest.raises(ArtifactError, match=r"other settings.*snakemake"):
        stages.run(stage, other)
    assert not current(other, stage)


def test_a_lost_file_is_missed_whatever_notes_there_are(job: Job) -> None:
    """Those of two checkouts, for example, of which one lost a file before and the other did not."""
    shown = job.folder("tables/accuracy.csv")
    for _ in range(3):
        names = {job.pipeline.path("tables", PLACE)}
        shown.unlink()
        names.add(job.pipeline.path("tables", PLACE))
        assert not current(job)
        stages.run("tables", job)
        assert shown.is_file()
        assert current(job)
        for name in names:
            if not name.exists():
                artifacts.copy(job.pipeline.path("tables", PLACE), name)
    assert len(names) == 2


def test_a_report_is_renewed_under_its_own_settings_alone(job: Job) -> None:
    """After tables of another question, its note would vouch for a page that mixes both."""
    for stage in ("figures", "report"):
        stages.run(stage, job)
    page = job.folder("report.html")
    page.write_text("as it was")
    results_stages.renew_report(job)
    made = page.read_text()
    assert made != "as it was"
    other = changed(job, time=[2])
    stages.run("tables", other)
    results_stages.renew_report(other)
    assert page.read_text() == made
    assert current(job, "report")


def test_jobs_that_end_together_renew_a_report_one_after_the_other(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the last to write may not have seen what the other added."""
    for stage in ("figures", "report"):
        stages.run(stage, job)
    writing, both = threading.Lock(), []

    def write(*given: object) -> None:
        both.append(writing.acquire(blocking=False))
        time.sleep(0.5)  # the other has begun by then
        if both[-1]:
            writing.release()

    monkeypatch.setattr(report, "write", write)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(results_stages.renew_report, [job, job]))
    assert both == [True, True]


def test_what_ends_while_a_report_is_written_waits_for_it(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a report whose note is not there yet it would find none, and stay out of it."""
    stages.run("figures", job)
    found, looked, beside = more.found, [], ThreadPoolExecutor(1)

    def slow(pipeline: Pipeline, name: str) -> list[more.Part]:
        looked.append(found(pipeline, name))
        if len(looked) == 1:
            beside.submit(results_stages.renew_report, job)  # as a job that has just added something
            time.sleep(0.5)
        return looked[-1]

    monkeypatch.setattr(more, "found", slow)
    stages.run("report", job)
    beside.shutdown()
    assert len(looked) == 2


def test_a_renewed_report_is_of_the_latency_asked_last(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is no part of the tables' key: they are not made again, and hold the settings that they were made with."""
    for stage in ("figures", "report"):
        stages.run(stage, job)
    chosen = job.pipeline.config
    experiment = chosen.experiments[small.NAME]
    latency = experiment.latency.model_copy(update={"time": [1]})
    later = {small.NAME: experiment.model_copy(update={"latency": latency})}
    given = []
    monkeypatch.setattr(report, "write", lambda *args: given.append(args))
    other = Pipeline(chosen.model_copy(update={"experiments": later}), job.pipeline.root)
    results_stages.renew_report(Job(other, PLACE))
    [(results, _, _, pipeline)] = given
    assert results.config == pipeline.config == other.config


def test_a_report_that_cannot_be_drawn_costs_no_job(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake would remove what the job made, of hours perhaps."""
    for stage in ("figures", "report"):
        stages.run(stage, job)
    made, tried = job.folder("report.html").read_text(), []
    monkeypatch.setattr(report, "write", lambda *given: tried.append(given) or 1 / 0)
    results_stages.renew_report(job)
    assert tried
    assert job.folder("report.html").read_text() == made


@pytest.mark.parametrize(("axis", "text"), [("percentile", "99.90"), ("seed", "00")])
def test_coordinates_have_one_spelling(axis: str, text: str) -> None:
    """The job would write to the other path, and Snakemake wait for this one."""
    pipeline = Pipeline(small.settings())
    place = {"experiment": small.NAME, "weights": "full", "seed": "0", "percentile": "99.9", axis: text}
    with pytest.raises(ConfigError, match=rf"'{text}'.*p99\.9/"):
        place_of(pipeline, "thresholds", place)


def test_declared_files_are_those_that_are_written() -> None:
    """A file that is declared and never written would be made again at each run; one that is not, never missed."""

    def declared(stage: str) -> set[str]:
        return {Path(path).stem for path in STAGES[stage].shown}

    assert declared("tables") == {*tables.TABLES, "settings"}
    assert declared("figures") == set(figures.FIGURES)
    assert declared("latency_tables") == set(latency_tables.TABLES)
    assert declared("latency_figures") == set(latency_figures.FIGURES)
    assert declared("paper_result") == {"{result}"}
    for result, entry in CATALOGUE.items():
        assert not entry.tables[result].long
