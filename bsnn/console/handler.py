"""Snakemake's events, told briefly: what runs, what is reused, the time that is left, and complete errors.

A handler of Python's `logging` that stands in front of Snakemake's own. It passes warnings and errors on to that one
as they are, and drops what else Snakemake would print. (A logger plugin, Snakemake's way to replace its output, must be
a package that is installed as a copy: one of an editable installation is not found.)
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bsnn import log
from bsnn.cluster import signals
from bsnn.console import jobs
from bsnn.console.timing import Running, Timing
from bsnn.errors import meant
from bsnn.pipeline.costs import One, duration
from bsnn.pipeline.declarations import STAGES, TARGETS

EVERY = 60.0  # seconds between two lines of progress in a file
REDRAWN = 1.0  # seconds between two looks of a line on a terminal
STOPPING = "Terminating processes on user request"  # as Snakemake says it on Ctrl-C
ENDING = "Will exit after finishing currently running jobs"  # on SIGTERM, at each look at what runs
NOTHING = "Nothing to be done"
STOPPED = ("train", "binarize")  # rules whose jobs SIGTERM ends early, with a checkpoint
FAILED = ("Exiting because a job execution failed", "At least one job did not complete")  # of any job, at the end
ENDED = {
    "all": "finished files and checkpoints of trainings are kept",
    "trainings": "trainings keep a checkpoint, other jobs that run are finished",
    "none": "jobs that run are finished",
}
WARNINGS = 2  # of one job, that are shown
SHOWN = 2  # running jobs that a line of progress names


@dataclass(frozen=True)
class Run:
    """What a run is about; asked once Snakemake has made its plan."""

    ahead: Callable[[], Mapping[One, float | None]]  # jobs that run, with the seconds that each will take
    reused: Callable[[Collection[One]], list[One]]  # jobs behind the targets whose files are there, beside those ahead
    one: Callable[[str, Mapping[str, str]], One]  # job of a rule and wildcards
    answer: Callable[[], str]  # what the run was for, once its files are there
    cores: Callable[[], int | None]  # that jobs share; None where they run elsewhere
    threads: Callable[[], int]  # of a job that has not begun
    dry: bool = False


@dataclass
class State:
    """What is known of a run while it goes on."""

    timing: Timing | None = None
    stopping: bool = False  # on Ctrl-C
    ending: bool = False  # on SIGTERM: no job begins any more
    stopped: bool = False  # a training failed for that reason
    over: bool = False
    told: float = field(default_factory=time.monotonic)  # when a line of progress was last written
    open: bool = False  # a line on the terminal waits to be drawn over


class Console(logging.Handler):
    """Events of one run of Snakemake.

    Args:
        run: what it is about.
        before: Snakemake's own handler.
    """

    def __init__(self, run: Run, before: logging.StreamHandler[Any]) -> None:
        super().__init__()
        self.run, self.before, self.state = run, before, State()
        self.rules = {"run_info": self._planned, "job_info": self._started, "job_finished": self._finished}

    @property
    def terminal(self) -> bool:
        """Whether somebody watches."""
        return bool(self.before.stream.isatty())

    def emit(self, record: logging.LogRecord) -> None:
        """Tell an event, or pass it on."""
        try:
            self._emit(record)
        except Exception:
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage() if record.msg else ""
        if message.startswith(STOPPING):
            self.state.stopping = True
            self._line("stopping: finished files and checkpoints of trainings are kept, and the same command goes on")
        elif message.startswith(ENDING):
            self._ending()
        elif message.startswith(NOTHING):
            self._nothing()
        elif record.levelno >= logging.WARNING:
            if getattr(record, "event", "") == "job_error":
                self._failed(record.__dict__)
            if not self._expected(record, message):
                self._clear()
                self.before.handle(record)
                if found := re.search(r"No rule to produce (\S+)", message):
                    what = f"neither a target nor a file of the current settings{meant(found[1], TARGETS)}"
                    self._line(f"{found[1]}: {what}; targets: {', '.join(TARGETS)}")
        elif (tell := self.rules.get(str(getattr(record, "event", "")))) is not None:
            tell(record.__dict__)

    def _expected(self, record: logging.LogRecord, message: str) -> bool:
        """Whether a message is of the failure of a job that was told to stop: no news.

        On Ctrl-C that is every failure. On SIGTERM trainings alone are told to stop, but in a step of a SLURM job.
        """
        if self.state.stopping or (self.state.ending and self._told == "all"):
            return True
        if not self.state.ending or self._told == "none" or record.levelno < logging.ERROR:
            return False
        if getattr(record, "event", "") == "job_error":  # names its rule; other messages do not
            return record.__dict__["rule_name"] in STOPPED
        if any(words in message for words in FAILED):
            return self.state.stopped
        running = {} if self.state.timing is None else self.state.timing.running
        return any(one.job[0] in STOPPED for one in running.values())

    @property
    def _told(self) -> Literal["all", "trainings", "none"]:
        """Which running jobs SIGTERM to Snakemake is handed on to."""
        if self.run.cores() is None or not signals.HANDED_ON:
            return "none"
        return "all" if signals.in_step() else "trainings"

    # What Snakemake says.

    def _planned(self, _: Mapping[str, Any]) -> None:
        if self.state.timing is not None:  # a dry run says it again at its end
            return
        ahead = self.run.ahead()
        self.state.timing = Timing(ahead, self.run.cores(), self.run.threads())
        left, unknown = self.state.timing.left(time.monotonic())
        beside = f", and {jobs.counted(unknown)}: never measured" if unknown else ""
        about = f" (about {duration(left)}{beside})" if left else ""
        self._line(f"{'would run' if self.run.dry else 'runs'}: {jobs.counted(ahead)}{about}")
        self._reused(ahead)
        if not self.run.dry:
            os.environ[log.ALONE] = "1"
            threading.Thread(target=self._watch, daemon=True).start()

    def _ending(self) -> None:
        if not self.state.ending:
            self.state.ending = True
            self._line(f"stopping: {ENDED[self._told]}, and the same command goes on")

    def _reused(self, ahead: Collection[One]) -> None:
        found = self.run.reused(ahead)
        if found:
            self._line(f"reused: {jobs.counted(found)}")

    def _nothing(self) -> None:
        self._line("nothing to run: all files are there")
        self._reused([])
        self.answer()

    def _started(self, event: Mapping[str, Any]) -> None:
        if self.state.timing is None or self.run.dry or event["rule_name"] not in STAGES:  # a target is no work
            return
        job = self.run.one(event["rule_name"], event["wildcards"])
        running = Running(job, event["threads"], tuple(map(Path, event["log"])), time.monotonic())
        self.state.timing.start(event["jobid"], running)

    def _finished(self, event: Mapping[str, Any]) -> None:
        ended = self.state.timing and self.state.timing.finish(event["job_id"], time.monotonic())
        if ended:
            self._notices(ended)
            found = [warning for path in ended.logs for warning in log.marked(path, logging.WARNING)]
            for warning in found[:WARNINGS]:
                self._line(f"warning of {jobs.label(ended.job)}: {warning}")
            if len(found) > WARNINGS:
                self._line(f"and {len(found) - WARNINGS} more warnings, in {', '.join(map(str, ended.logs))}")

    def _failed(self, event: Mapping[str, Any]) -> None:
        if self.state.timing is not None:
            self.state.timing.running.pop(event["jobid"], None)
        self.state.stopped |= self.state.ending and event["rule_name"] in STOPPED

    # What is told meanwhile, and at the end.

    def _notices(self, running: Running) -> None:
        for text in running.notices():
            self._line(f"{jobs.label(running.job)}: {text}")

    def _watch(self) -> None:
        """Tell the progress, until the process ends."""
        while True:
            time.sleep(REDRAWN)
            now = time.monotonic()
            with self.lock or threading.RLock():
                if self.state.stopping or self.state.over:
                    return
                for one in [] if self.state.timing is None else self.state.timing.running.values():
                    self._notices(one)
                if self.terminal:
                    width = os.get_terminal_size(self.before.stream.fileno()).columns
                    self.before.stream.write(f"\r\033[K{self._progress(now)[: width - 1]}")
                    self.before.stream.flush()
                    self.state.open = True
                elif now - self.state.told >= EVERY:
                    self._line(f"{time.strftime('%H:%M:%S')} {self._progress(now)}")
                    self.state.told = now

    def _progress(self, now: float) -> str:
        timing = self.state.timing or Timing({}, None)
        left, unknown = timing.left(now)
        more = "more than " if unknown else ""
        texts = [f"{timing.done} of {len(timing.expected)} jobs"]
        texts += [f"{more}{duration(left)} left"] if left else []
        running = list(timing.running.values())
        for one in running[:SHOWN]:
            part = one.part(now)
            texts.append(jobs.label(one.job) + ("" if part is None else f" {100 * part:.0f} %"))
        texts += [f"and {len(running) - SHOWN} more"] if len(running) > SHOWN else []
        return "; ".join(texts)

    def ended(self, *, well: bool, complete: str) -> None:
        """The run is over: tell the answer, or what is left of it.

        Args:
            well: whether all its jobs ended well.
            complete: paths of Snakemake's own log.
        """
        with self.lock or threading.RLock():
            self.state.over = True
            self._clear()
            if well:
                self.answer()
            elif not self.state.stopping:
                self._line(f"all of Snakemake's messages: {complete}")

    def answer(self) -> None:
        """What the run was for, on standard output."""
        if not self.run.dry:
            self._clear()
            sys.stdout.write(f"{self.run.answer()}\n")
            sys.stdout.flush()

    def _line(self, text: str) -> None:
        self._clear()
        self.before.stream.write(f"{text}\n")
        self.before.stream.flush()

    def _clear(self) -> None:
        if self.state.open:
            self.before.stream.write("\r\033[K")
            self.before.stream.flush()
            self.state.open = False


def attach(logger: logging.Logger, run: Run) -> Console | None:
    """Put a console in front of Snakemake's own handler of the terminal; None where a plugin has taken its place."""
    found = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    if not found or not isinstance(found[0], logging.StreamHandler):
        return None
    console = Console(run, found[0])
    logger.removeHandler(found[0])
    logger.addHandler(console)
    return console
