"""The console tells what a run does in few lines: jobs in words, the time left, progress, and errors as they are."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from workflow_for_tests import TINY

from bsnn import log
from bsnn.cluster import signals
from bsnn.config import validate
from bsnn.console import answer, handler, jobs, timing
from bsnn.pipeline import costs
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables.columns import compact

FULL, BINARY = Place("digits", "full", 0, 99.0), Place("digits", "binary", 0, 99.9)


def test_jobs_are_counted_by_what_they_make() -> None:
    ones = [("simulate", FULL), ("simulate", FULL._replace(shard=2)), ("simulate", BINARY), ("data", Place("digits"))]
    ones += [("binarize", BINARY), ("train", FULL), ("report", Place("digits"))]
    assert jobs.counted(ones) == "1 data set, 2 networks, 2 simulations, 1 report"
    assert jobs.counted([]) == ""


def test_a_job_is_named_by_its_coordinates() -> None:
    assert jobs.label(("simulate", BINARY)) == "simulate digits, binary, seed 0, percentile 99.9, shard 1"
    assert jobs.label(("train", FULL)) == "train digits, full precision, seed 0"
    assert jobs.label(("binarize", BINARY)) == "binarize digits, binary, seed 0"
    assert jobs.label(("latency_tables", Place("digits"))) == "latency tables digits"


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.0, "10 s"), (44.0, "40 s"), (90.0, "2 min"), (3000.0, "50 min"), (9000.0, "2.5 h")]
)
def test_durations_are_round(seconds: float, text: str) -> None:
    assert costs.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0"), (950.4, "950"), (4312.0, "4.3k"), (184_000.0, "184k"), (1.23e6, "1.2M")]
)
def test_counts_are_short(number: float, text: str) -> None:
    assert compact(number) == text


def test_time_left_shares_the_cores(tmp_path: Path) -> None:
    """Two running jobs of one thread on two cores, and two that wait; one of them goes by its own progress."""
    expected = {
        ("train", FULL): 100.0,
        ("binarize", BINARY): 100.0,
        ("simulate", FULL): 40.0,
        ("simulate", BINARY): 40.0,
    }
    found = timing.Timing(expected, cores=2)
    assert found.left(0.0) == (140.0, [])  # 280 s of one thread
    path = tmp_path / "train.log"
    found.start(1, timing.Running(("train", FULL), 1, (path,), 0.0))
    found.start(2, timing.Running(("binarize", BINARY), 1, (), 0.0))
    assert found.left(20.0) == (120.0, [])
    note = Path(f"{path}.progress")
    note.write_text("0.5\n")
    assert found.left(20.0)[0] == pytest.approx((50 + 80 + 80) / 2)  # first seen: half of what is expected
    note.write_text("0.6\n")
    assert found.left(30.0)[0] == pytest.approx((40 + 70 + 80) / 2)  # a tenth in ten seconds
    found.finish(2, 60.0)
    assert found.done == 1


def test_time_left_follows_the_pace_of_this_run() -> None:
    """Where a simulation takes three times as long as estimated, on a busy machine or another, so will the next one."""
    expected = {("simulate", FULL): 10.0, ("simulate", BINARY): 20.0, ("train", FULL): 1000.0}
    found = timing.Timing(expected, cores=1)
    found.start(1, timing.Running(("simulate", FULL), 1, (), 0.0))
    found.finish(1, 30.0)
    assert found.left(30.0) == (60.0 + 1000.0, [])
    found.start(2, timing.Running(("simulate", BINARY), 1, (), 30.0))
    assert found.left(50.0) == (40.0 + 1000.0, [])
    elsewhere = timing.Timing(expected, cores=None)
    elsewhere.start(1, timing.Running(("simulate", FULL), 1, (), 0.0))
    elsewhere.finish(1, 3600.0)  # most of it in a queue
    elsewhere.start(2, timing.Running(("simulate", BINARY), 1, (), 3600.0))
    assert elsewhere.left(3600.0)[0] == 1020.0


def test_a_resumed_job_is_no_measure_of_the_next_one(tmp_path: Path) -> None:
    found = timing.Timing({("train", FULL): 1000.0, ("train", FULL._replace(seed=1)): 1000.0}, cores=1)
    Path(f"{tmp_path}/a.log.progress").write_text("0.9\n")
    found.start(1, timing.Running(("train", FULL), 1, (tmp_path / "a.log",), 0.0))
    assert found.left(0.0)[0] == pytest.approx(1100.0)
    found.finish(1, 100.0)
    assert found.left(100.0) == (1000.0, [])


def test_what_was_never_measured_is_said_and_learnt() -> None:
    found = timing.Timing({("simulate", FULL): None, ("simulate", BINARY): None}, cores=1)
    left, unknown = found.left(0.0)
    assert (left, set(unknown)) == (0.0, set(found.expected))
    found.start(1, timing.Running(("simulate", FULL), 1, (), 0.0))
    found.finish(1, 30.0)
    assert found.left(30.0) == (30.0, [])


def test_progress_is_noted_beside_the_log_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_noted", -1e9)
    path = tmp_path / "job.log"
    with log.job(path):
        log.progress(0.25)
        log.progress(0.5)  # too soon after the first
        assert log.progress_of(path) == 0.25
    assert log.progress_of(path) is None
    assert [file.name for file in tmp_path.iterdir()] == ["job.log"]


def test_bar_notes_progress_though_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[float] = []
    monkeypatch.setattr(log, "progress", noted.append)
    with log.Bar(total=8, disable=True) as bar:
        bar.update(2)
        bar.update(4)
    assert noted == [0.25, 0.75]


class Workflow:
    """A console over a stream, with a run of two simulations."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        before = logging.StreamHandler(self.stream)
        before.name = "DefaultStreamHandler"
        self.logger = logging.Logger("test")
        self.logger.addHandler(before)
        self.answers = 0
        run = handler.Run(self.ahead, self.reused, self.one, self.answer, lambda: 2, threads=lambda: 2)
        found = handler.attach(self.logger, run)
        assert found is not None
        self.console = found

    def ahead(self) -> Mapping[Any, float | None]:
        return {("simulate", FULL): 30.0, ("simulate", BINARY): 30.0}

    def reused(self, ahead: Collection[Any]) -> list[Any]:
        return [("train", FULL)]

    def one(self, rule: str, wildcards: Mapping[str, str]) -> Any:
        return rule, FULL

    def answer(self) -> str:
        self.answers += 1
        return "the answer"

    def say(self, message: str, level: int = logging.INFO, **extra: Any) -> None:
        self.logger.log(level, message, extra=extra)

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def workflow(monkeypatch: pytest.MonkeyPatch) -> Workflow:
    monkeypatch.setenv(log.ALONE, "0")  # set by a console; restored afterwards
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    return Workflow()


def test_events_are_told_briefly(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "REDRAWN", 0.01)
    monkeypatch.setattr(handler, "EVERY", 0.0)
    workflow.say("Building DAG of jobs...")
    workflow.say("Job stats:", event="run_info")
    workflow.say("", event="job_info", rule_name="simulate", wildcards={}, jobid=3, threads=2, log=[], output=["x"])
    workflow.console.state.told = 0.0
    for _ in range(200):
        if "0 of 2 jobs" in workflow.text:
            break
        time.sleep(0.02)
    workflow.say("", event="job_finished", job_id=3)
    workflow.console.ended(well=True, complete="none")
    first, second, third, *_ = workflow.text.splitlines()
    assert first == "runs: 2 simulations (about 60 s)"
    assert second == "reused: 1 network"
    assert third.endswith("0 of 2 jobs; 60 s left; simulate digits, full precision, seed 0, percentile 99, shard 1")
    assert workflow.answers == 1
    assert workflow.console.state.timing is not None
    assert workflow.console.state.timing.done == 1


def test_warnings_of_a_job_are_told_at_its_end(workflow: Workflow, tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with log.job(path):
        logger = logging.getLogger("bsnn.test")
        logger.info("no warning: nothing")
        for number in range(3):
            logger.warning("file %d was left out", number)
    assert log.marked(path, logging.WARNING) == [f"file {number} was left out" for number in range(3)]
    assert log.marked(tmp_path / "none", logging.WARNING) == []
    workflow.say("Job stats:", event="run_info")
    event = {"rule_name": "simulate", "wildcards": {}, "jobid": 3, "threads": 2, "log": [str(path)], "output": ["x"]}
    workflow.say("", event="job_info", **event)
    workflow.say("", event="job_finished", job_id=3)
    workflow.console.ended(well=True, complete="none")
    where = "simulate digits, full precision, seed 0, percentile 99, shard 1"
    assert workflow.text.splitlines()[2:] == [
        f"warning of {where}: file 0 was left out",
        f"warning of {where}: file 1 was left out",
        f"and 1 more warnings, in {path}",
    ]


def test_notices_of_a_job_are_told_while_it_runs(
    workflow: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, and none of a former try, whose log lies there until the job begins its own."""
    monkeypatch.setattr(handler, "REDRAWN", 0.01)
    path, logger = tmp_path / "job.log", logging.getLogger("bsnn.test")
    with log.job(path):
        logger.log(log.NOTICE, "going on after epoch 2 of 40")
    event = {"rule_name": "train", "wildcards": {}, "jobid": 3, "threads": 2, "log": [str(path)], "output": ["x"]}
    workflow.say("Job stats:", event="run_info")
    workflow.say("", event="job_info", **event)
    time.sleep(0.1)
    with log.job(path):
        logger.log(log.NOTICE, "going on after epoch 3 of 40")
        for _ in range(200):
            if "epoch 3" in workflow.text:
                break
            time.sleep(0.02)
        assert "epoch 3" in workflow.text
        logger.info("epoch 4/40")
        time.sleep(0.1)
    workflow.say("", event="job_finished", job_id=3)
    workflow.console.ended(well=True, complete="none")
    assert workflow.text.splitlines()[2:] == ["train digits, full precision, seed 0: going on after epoch 3 of 40"]


def test_errors_pass_as_they_are(workflow: Workflow) -> None:
    workflow.say(
        "Error in rule simulate\n  of many lines", logging.ERROR, event="job_error", rule_name="simulate", jobid=1
    )
    workflow.say("be careful", logging.WARNING)
    workflow.console.ended(well=False, complete="a.log")
    assert workflow.text == "Error in rule simulate\n  of many lines\nbe careful\nall of Snakemake's messages: a.log\n"
    assert workflow.answers == 0


def test_a_misspelled_target_gets_those_that_there_are(workflow: Workflow) -> None:
    workflow.say("MissingRuleException:\nNo rule to produce latncy (if you use input functions ...).", logging.ERROR)
    said = workflow.text.splitlines()[-1]
    assert said.startswith(
        "latncy: neither a target nor a file of the current settings; is 'latency' meant?; targets: all,"
    )


def test_a_stopped_run_says_so_once(workflow: Workflow) -> None:
    workflow.say("Terminating processes on user request, this might take some time.")
    workflow.say("Error in rule train", logging.ERROR, event="job_error", rule_name="train", jobid=1)
    workflow.console.ended(well=False, complete="a.log")
    [line] = workflow.text.splitlines()
    assert "are kept, and the same command goes on" in line


ENDING = "Will exit after finishing currently running jobs (scheduler)."


def begins(workflow: Workflow, rule: str, number: int) -> dict[str, Any]:
    """A job runs; what says that it failed."""
    event = {"rule_name": rule, "wildcards": {}, "jobid": number, "threads": 1, "log": [], "output": ["x"]}
    workflow.say("", event="job_info", **event)
    return {"event": "job_error", "rule_name": rule, "jobid": number}


def test_sigterm_is_told_once_and_errors_of_stopped_trainings_are_not(workflow: Workflow) -> None:
    workflow.say("Job stats:", event="run_info")
    training, simulation = begins(workflow, "train", 1), begins(workflow, "simulate", 2)
    for _ in range(2):
        workflow.say(ENDING)
    workflow.say("RuleException: CalledProcessError", logging.ERROR)
    workflow.say("Error in rule train", logging.ERROR, **training)
    workflow.say("No space left on device", logging.ERROR)
    workflow.say("Error in rule simulate", logging.ERROR, **simulation)
    workflow.say("Exiting because a job execution failed.", logging.ERROR)
    workflow.console.ended(well=False, complete="a.log")
    assert workflow.text.splitlines()[2:] == [
        "stopping: trainings keep a checkpoint, other jobs that run are finished, and the same command goes on",
        "No space left on device",
        "Error in rule simulate",
        "all of Snakemake's messages: a.log",
    ]


def test_a_failed_job_runs_no_more(workflow: Workflow) -> None:
    workflow.say("Job stats:", event="run_info")
    simulation = begins(workflow, "simulate", 2)
    assert "simulate" in workflow.console._progress(0)
    workflow.say("Error in rule simulate", logging.ERROR, **simulation)
    assert "simulate" not in workflow.console._progress(0)


def test_ctrl_c_after_sigterm_ends_all(workflow: Workflow) -> None:
    workflow.say("Job stats:", event="run_info")
    simulation = begins(workflow, "simulate", 2)
    workflow.say(ENDING)
    workflow.say("Terminating processes on user request, this might take some time.")
    workflow.say("Error in rule simulate", logging.ERROR, **simulation)
    assert "Error" not in workflow.text


def test_sigterm_in_a_step_of_slurm_ends_all(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    workflow.say("Job stats:", event="run_info")
    simulation = begins(workflow, "simulate", 2)
    workflow.say(ENDING)
    workflow.say("Error in rule simulate", logging.ERROR, **simulation)
    assert workflow.text.splitlines()[2:] == [
        "stopping: finished files and checkpoints of trainings are kept, and the same command goes on"
    ]


def test_sigterm_stops_nothing_where_processes_cannot_be_seen(workflow: Workflow, monkeypatch) -> None:
    monkeypatch.setattr(signals, "HANDED_ON", False)
    workflow.say("Will exit after finishing currently running jobs (scheduler).")
    workflow.say("Error in rule train", logging.ERROR, event="job_error", rule_name="train", jobid=1)
    assert workflow.text.splitlines() == [
        "stopping: jobs that run are finished, and the same command goes on",
        "Error in rule train",
    ]


def test_sigterm_stops_no_job_that_runs_elsewhere(workflow: Workflow) -> None:
    workflow.console.run = replace(workflow.console.run, cores=lambda: None)
    workflow.say("Will exit after finishing currently running jobs (scheduler).")
    workflow.say("Error in rule train", logging.ERROR, event="job_error", rule_name="train", jobid=1)
    assert workflow.text.splitlines() == [
        "stopping: jobs that run are finished, and the same command goes on",
        "Error in rule train",
    ]


def test_nothing_to_run_still_answers(workflow: Workflow) -> None:
    workflow.say("Nothing to be done (all requested files are present and up to date).")
    assert workflow.text == "nothing to run: all files are there\nreused: 1 network\n"
    assert workflow.answers == 1


def test_a_plugin_of_the_user_keeps_its_place() -> None:
    logger = logging.Logger("test")
    logger.addHandler(logging.NullHandler())
    run = handler.Run(dict, lambda ahead: [], lambda rule, wildcards: ("", FULL), str, lambda: None, lambda: 1)
    assert handler.attach(logger, run) is None
    assert [type(one) for one in logger.handlers] == [logging.NullHandler]


def test_answer_of_networks_is_where_they_lie(tmp_path: Path) -> None:
    pipeline = Pipeline(validate(TINY), tmp_path)
    lines = answer.text(pipeline, ["networks"]).splitlines()
    assert lines == [f"networks: {pipeline.path('network', place)}" for _, place in pipeline.target("networks")]
