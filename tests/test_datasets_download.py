"""Downloads against a server of our own: whole and verified, or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsnn.datasets import download
from bsnn.errors import DataError

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


ANSWER = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {  # how an answer begins, and what follows again and again
    "headers by bytes": (ANSWER + b"X-Name: ", b"x"),
    "status by bytes": (b"HTTP/1.1 200 ", b"x"),
    "announcements": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "redirection": (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", bytes(2**16)),
    "size of a chunk by bytes": (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Name: value\r\n" * 1000),
    "trailers by bytes": (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Name: ", b"x"),
}


class Server(http.server.ThreadingHTTPServer):
    """Answers each request by the next item of `plan`; the last one goes on."""

    plan: list[str]
    asked: int
    release: threading.Event


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        what = self.server.plan[min(self.server.asked, len(self.server.plan) - 1)]
        self.server.asked += 1
        if what.isdigit():
            self.send_error(int(what))
            return
        if what in ENDLESS:
            begin, more = ENDLESS[what]
            self.repeat(begin, more)
            return
        self.send_response(302 if what == "moved" else 200)
        if what == "moved":
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        lengths = {"no number": "many", "endless": None, "drops": None, "huge": str(10**15), "more": str(len(CONTENT))}
        if (length := lengths.get(what, str(len(CONTENT)))) is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        if what in ("endless", "drops"):
            self.go_on(1 if what == "drops" else 2**16)
        elif what == "more":
            self.wfile.write(CONTENT + CONTENT)
        elif what in ("whole", "no number"):
            self.wfile.write(CONTENT)
        elif what == "spoiled":
            self.wfile.write(CONTENT[::-1])
        else:  # half
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        if what == "hang":
            self.wfile.flush()
            self.server.release.wait(60)

    def go_on(self, size: int) -> None:
        with contextlib.suppress(OSError):  # until the other side has had enough
            while not self.server.release.wait(0.01 if size == 1 else 0):
                self.wfile.write(bytes(size))
                self.wfile.flush()

    def repeat(self, begin: bytes, more: bytes) -> None:
        """An answer that goes on; slowly, where it goes on by single bytes."""
        with contextlib.suppress(OSError):
            self.wfile.write(begin)
            while not self.server.release.wait(0.01 if len(more) == 1 else 0):
                self.wfile.write(more)
                self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.plan, running.asked, running.release = ["whole"], 0, threading.Event()
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.release.set()
        running.shutdown()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/archive.tar.gz"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"archive.tar.gz.lock"}


@pytest.mark.parametrize(
    "plan",
    [["whole"], ["503", "503", "whole"], ["half", "half", "whole"], ["spoiled", "429", "whole"]],
    ids=lambda plan: "-".join(plan),
)
def test_a_failing_server_is_asked_again(server: Server, tmp_path: Path, plan: list[str]) -> None:
    server.plan = plan
    path = download.fetch(url(server), tmp_path / "cache" / "archive.tar.gz", MD5)
    assert path.read_bytes() == CONTENT
    assert server.asked == len(plan)
    assert files(path.parent) == {"archive.tar.gz"}


def test_a_whole_file_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert server.asked == 1


def test_a_damaged_file_in_the_cache_is_replaced(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "archive.tar.gz").write_bytes(CONTENT[:1000])
    path = download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert path.read_bytes() == CONTENT
    assert str(path) in caplog.text
    assert hashlib.md5(CONTENT[:1000]).hexdigest() in caplog.text


@pytest.mark.parametrize("what", ["half", "spoiled", "500"])
def test_it_gives_up_and_leaves_nothing(server: Server, tmp_path: Path, what: str) -> None:
    server.plan = [what]
    with pytest.raises(DataError) as caught:
        download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert server.asked == download.ATTEMPTS
    assert files(tmp_path) == set()
    for message in (url(server), "data.path", "500" if what == "500" else MD5):
        assert message in str(caught.value)


@pytest.mark.parametrize("what", ["no number", "more"])
def test_a_length_that_is_wrong_does_not_matter(server: Server, tmp_path: Path, what: str) -> None:
    """The checksum decides; of a stream longer than announced, the announced part is read."""
    server.plan = [what]
    assert download.fetch(url(server), tmp_path / "archive.tar.gz", MD5).read_bytes() == CONTENT
    assert server.asked == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [("endless", "more than 2 MiB"), ("huge", "more than 2 MiB"), ("drops", r"not whole after 0\.5 s")],
)
def test_what_has_no_end_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, words: str
) -> None:
    """Also one byte at a time, which never is a time without a byte. It is not asked for again."""
    monkeypatch.setattr(download, "LARGEST", 2**21)
    monkeypatch.setattr(download, "LONGEST", 0.5)
    server.plan = [what]
    with pytest.raises(DataError, match=rf"{words}.*data\.path"):
        download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert server.asked == 1
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("headers by bytes", r"no answer within 0\.5 s"),
        ("status by bytes", r"no answer within 0\.5 s"),
        ("announcements", "more than 1 MiB before an answer"),
        ("redirection", "more than 1 MiB before an answer"),
        ("size of a chunk by bytes", r"not whole after 1 s"),
        ("trailers", "more than 2 MiB"),
        ("trailers by bytes", r"not whole after 1 s"),
    ],
)
def test_what_has_no_end_around_the_content_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, words: str
) -> None:
    """Python bounds lines and the number of headers, neither time nor what it passes over by itself."""
    by_time = " s" in words  # those that end by their size have all the time that a busy machine needs
    for name, value in (("LARGEST", 2**21), ("LONGEST", 1 if by_time else 60), ("PATIENCE", 0.5 if by_time else 60)):
        monkeypatch.setattr(download, name, value)
    server.plan = [what]
    with pytest.raises(DataError, match=rf"{words}.*data\.path"):
        download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert server.asked == 1
    assert files(tmp_path) == set()


def test_redirections_are_followed(server: Server, tmp_path: Path) -> None:
    server.plan = ["moved", "whole"]
    assert download.fetch(url(server), tmp_path / "archive.tar.gz", MD5).read_bytes() == CONTENT
    assert server.asked == 2


def test_an_interrupted_download_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert files(tmp_path) == set()


def test_a_missing_page_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    server.plan = ["404"]
    with pytest.raises(DataError, match="404"):
        download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert server.asked == 1


def test_no_server_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with pytest.raises(DataError, match="cannot be downloaded"):
        download.fetch((tmp_path / "none").as_uri(), tmp_path / "archive.tar.gz", MD5)


def test_pauses_double(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    monkeypatch.setattr(download, "PAUSE", 2.0)
    server.plan = ["503", "503", "503", "whole"]
    download.fetch(url(server), tmp_path / "archive.tar.gz", MD5)
    assert pauses == [2.0, 4.0, 8.0]


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        download.fetch(url(server), tmp_path / "cache" / "archive.tar.gz", MD5)


def test_a_killed_download_is_never_taken_for_whole(server: Server, tmp_path: Path) -> None:
    """A process is killed in the middle; what it leaves does not bear the name, and the next one starts afresh."""
    server.plan = ["hang", "whole"]
    path = tmp_path / "archive.tar.gz"
    code = (
        "import pathlib, sys; from bsnn.datasets.download import fetch;"
        "fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url(server), str(path), MD5], stderr=subprocess.DEVNULL)
    part = tmp_path / "archive.tar.gz.part"
    waiting = threading.Event()
    for _ in range(600):
        if (part.is_file() and part.stat().st_size) or process.poll() is not None:
            break
        waiting.wait(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert files(tmp_path) == {"archive.tar.gz.part"}
    assert download.fetch(url(server), path, MD5).read_bytes() == CONTENT
    assert files(tmp_path) == {"archive.tar.gz"}
