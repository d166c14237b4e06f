"""Fetching a file whose checksum is known: whole and verified, or not there at all."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from bsnn.errors import DataError

log = logging.getLogger(__name__)

ATTEMPTS = 5
PAUSE = 2.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
PATIENCE = 60.0  # seconds until an answer begins: its headers, those of redirections, and what these send beside them
AHEAD = 2**20  # bytes until then
LONGEST = 4 * 3600.0  # seconds, all attempts together: 12 kB/s for CIFAR's archives
LARGEST = 2**29  # bytes; CIFAR's archives have a third of that
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}  # no use in asking the server again
PASSING = {408, 425, 429}  # client errors of HTTP that may be gone the next time


class _EndlessError(DataError):
    """A server sends more, or for longer, than can be right: no use in asking it again."""


@dataclass
class _Allowance:
    """What may still come from a server, and until when; changed where an answer begins."""

    bytes: int
    until: float  # of time.monotonic
    too_much: str
    too_late: str

    def take(self, count: int) -> None:
        """Raise _EndlessError where a server has sent too much, or for too long."""
        self.bytes -= count
        if self.bytes < 0:
            raise _EndlessError(self.too_much)
        if time.monotonic() > self.until:
            raise _EndlessError(self.too_late)


class _Bounded(io.RawIOBase):
    """What a server sends: headers, sizes of chunks, trailers and all, of which http.client bounds lines alone."""

    def __init__(self, source: io.RawIOBase, allowance: _Allowance) -> None:
        self.source, self.allowance = source, allowance

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        count = self.source.readinto(buffer) or 0
        self.allowance.take(count)
        return count

    def close(self) -> None:
        """Close both."""
        self.source.close()
        super().close()


def _opener(allowance: _Allowance) -> urllib.request.OpenerDirector:
    """What opens addresses with the usual proxies and redirections, within an allowance."""

    class Response(HTTPResponse):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            # Everything of an answer is read from here, its status line and headers too.
            self.fp = io.BufferedReader(_Bounded(self.fp.detach(), allowance))

    class Plain(HTTPConnection):
        response_class = Response

    class Secure(HTTPSConnection):
        response_class = Response

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Plain, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Secure, request)

    return urllib.request.build_opener(PlainHandler, SecureHandler)


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check(name: str | Path, found: str, expected: str, what_to_do: str) -> None:
    """Refuse content with another checksum.

    Args:
        name: of the file, for the message.
        found: MD5 of its content.
        expected: MD5 that it should have.
        what_to_do: end of the message.

    Raises:
        DataError: with both checksums and `what_to_do`.
    """
    if found != expected:
        raise DataError(f"{name}: md5 is {found}, expected {expected}: damaged, or not the official file; {what_to_do}")


def fetch(url: str, path: Path, md5: str) -> Path:
    """The verified file at `path`: the one that is there, or else downloaded.

    A download goes to `<name>.part` and takes its name only once its checksum is right; what a killed process left
    there is overwritten. A file at `path` with a wrong checksum is removed, with a warning, and fetched again.
    Processes that want the same file wait for each other.

    Raises:
        DataError: not to be had after several attempts, larger than `LARGEST`, not whole after `LONGEST` seconds, or
            nowhere to write to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not _whole(path, md5):  # within the lock: another process may have fetched it meanwhile
                _persist(url, path, md5)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}; make room or give write access, then run again"
        ) from error
    return path


def _whole(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    found = md5_of(path)
    if found == md5:
        return True
    log.warning("%s: md5 is %s, expected %s: damaged; removed, will be downloaded again", path, found, md5)
    path.unlink()
    return False


def _persist(url: str, path: Path, md5: str) -> None:
    """Try several times, waiting longer each time; then give up with what the last attempt met."""
    part = path.with_name(f"{path.name}.part")
    problem: Exception | None = None
    deadline = time.monotonic() + LONGEST
    for attempt in range(ATTEMPTS):
        if problem is not None:
            pause = PAUSE * 2 ** (attempt - 1)
            log.warning("%s; attempt %d of %d in %g s", problem, attempt + 1, ATTEMPTS, pause)
            time.sleep(pause)
        try:
            _download(url, part, deadline)
            check(part, md5_of(part), md5, f"downloaded from {url}")
            part.replace(path)
            return
        except (OSError, HTTPException, DataError) as error:
            if isinstance(error, OSError) and error.errno in LOCAL:
                raise
            problem = error
            if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code not in PASSING:
                break
            if isinstance(error, _EndlessError):
                break
        finally:
            part.unlink(missing_ok=True)
    raise DataError(
        f"{url}: cannot be downloaded: {problem}; check the network and run again, "
        f"or put {path.name} into a folder and set data.path to that folder"
    ) from problem


def _download(url: str, part: Path, deadline: float) -> None:
    """What the server sends, up to `LARGEST` bytes and until the deadline; its word on the length is for display."""
    ahead = f"more than {AHEAD // 2**20} MiB before an answer", f"no answer within {PATIENCE:g} s"
    allowance = _Allowance(AHEAD, min(deadline, time.monotonic() + PATIENCE), *ahead)
    with _opener(allowance).open(url, timeout=TIMEOUT) as response, part.open("wb") as file:
        # The answer has begun: from here on the limits are those of the file.
        allowance.bytes, allowance.too_much = LARGEST, f"more than {LARGEST // 2**20} MiB"
        allowance.until, allowance.too_late = deadline, f"not whole after {LONGEST:g} s"
        announced = str(response.headers.get("Content-Length"))
        total = int(announced) if re.fullmatch("[0-9]{1,18}", announced) else None
        with tqdm(total=total, desc=part.stem, unit="B", unit_scale=True, miniters=1, disable=None) as progress:
            if (total or 0) > LARGEST:
                raise _EndlessError(allowance.too_much)
            while block := response.read1(2**16):  # what there is: `read` would wait for all of it
                progress.update(file.write(block))
