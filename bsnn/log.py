"""Where a job's messages go: its log file and the terminal. Users' errors are one message, others a traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bsnn.errors import BsnnError

logger = logging.getLogger("bsnn")


@contextmanager
def job(path: str | Path | None = None) -> Iterator[None]:
    """Run a job: messages of `bsnn` loggers to stderr and, if given, to a log file; errors end the process with 1."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("")
    with messages([] if path is None else [path]):
        try:
            yield
        except BsnnError as error:
            logger.error("error: %s", error)
            sys.exit(1)
        except Exception:
            logger.exception("unexpected error; please report it with this log")
            sys.exit(1)


@contextmanager
def messages(paths: Sequence[str | Path]) -> Iterator[None]:
    """Messages of `bsnn` loggers to stderr and to the end of log files, to which other processes may write too."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), *map(logging.FileHandler, paths)]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
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


def files() -> list[str]:
    """Log files to which messages go now."""
    return [handler.baseFilename for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
