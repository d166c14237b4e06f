"""Where a job's messages go: its log file and the terminal. Users' errors are one message, others a traceback.

Beside its log file a job notes how far it is (`progress`), for whoever shows the time that is left.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from bsnn.errors import BsnnError

logger = logging.getLogger("bsnn")

ALONE = "BSNN_JOBS_WRITE_LOGS_ALONE"  # environment variable, set while a console shows the progress of all jobs
NOTICE = logging.INFO + 5  # level of what a user should hear while the job runs
MARKS = {logging.WARNING: "warning: ", NOTICE: "notice: "}  # before such a message, after its time
SECONDS = 2.0  # between two notes of progress
_noted = 0.0  # when progress was last noted


@contextmanager
def job(path: str | Path | None = None, *, alone: bool = False) -> Iterator[None]:
    """Run a job: messages of `bsnn` loggers to stderr and, if given, to a log file; errors end the process with 1.

    Args:
        path: the log file.
        alone: all that the process writes goes to the log file, and nothing to the terminal.
    """
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("")
        if alone:
            _redirect(Path(path))
    with messages([] if path is None else [path]):
        try:
            yield
        except BsnnError as error:
            logger.error("error: %s", error)
            sys.exit(1)
        except KeyboardInterrupt:
            logger.error("stopped by SIGINT (Ctrl-C); the same command makes it again")
            sys.exit(130)
        except BrokenPipeError:  # who read the output has read enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(141)  # as a process that SIGPIPE ends
        except Exception:
            logger.exception("unexpected error; please report it with this log")
            sys.exit(1)
        finally:
            for name in files():
                _beside(name).unlink(missing_ok=True)


def _redirect(path: Path) -> None:
    """Standard output and error of this process, and of those that it starts, to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _beside(path: str | Path) -> Path:
    """File in which a job notes how far it is."""
    return Path(f"{path}.progress")


def progress(part: float) -> None:
    """Note how far the job is, from 0 to 1, beside its log files; at most every two seconds."""
    global _noted
    now = time.monotonic()
    if now - _noted < SECONDS:
        return
    _noted = now
    for name in files():
        with suppress(OSError):  # a full disk is for what the job writes to tell
            _beside(name).write_text(f"{part:.6f}\n")


class Bar(tqdm):  # type: ignore[type-arg]  # no generic class when it runs
    """A progress bar that notes its progress, whether or not it is drawn."""

    def update(self, n: float | None = 1) -> bool | None:
        """Count on, draw if it is time, and note."""
        drawn: bool | None = super().update(n)
        if self.disable:  # tqdm then counts nothing
            self.n += n or 0
        if self.total:
            progress(self.n / self.total)
        return drawn


def progress_of(path: Path) -> float | None:
    """How far the job of a log file is; None where it has noted nothing, or is noting it just now."""
    try:
        return float(_beside(path).read_text())
    except (OSError, ValueError):
        return None


class _Format(logging.Formatter):
    """Time and message; warnings and notices are marked, so that they are found again."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = MARKS.get(record.levelno, "") + record.message
        return super().formatMessage(record)


def marked(path: Path, level: int) -> list[str]:
    """Warnings or notices in a job's log, without their times; none where there is no such file."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(" ")[2].removeprefix(MARKS[level]) for line in lines if line[9:].startswith(MARKS[level])]


def changed(path: Path) -> int | None:
    """When a log was last written to, in nanoseconds; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


@contextmanager
def messages(paths: Sequence[str | Path]) -> Iterator[None]:
    """Messages of `bsnn` loggers to stderr and to the end of log files, to which other processes may write too."""
    handlers: list[logging.Handler] = [*map(logging.FileHandler, paths)]
    if not any(_is_stderr(path) for path in paths):
        handlers.insert(0, logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(_Format("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _is_stderr(path: str | Path) -> bool:
    """Whether standard error goes to this file."""
    try:
        return os.path.samestat(os.fstat(2), os.stat(path))
    except OSError:
        return False


def files() -> list[str]:
    """Log files to which messages go now."""
    return [handler.baseFilename for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
