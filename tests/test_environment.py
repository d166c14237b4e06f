"""The lock file and what is made from it."""

import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def test_conda_environment_holds_the_pins_of_the_lock() -> None:
    made = runpy.run_path(str(ROOT / ".ci/environment.py"))
    lock = (ROOT / "requirements.txt").read_text()
    assert (ROOT / "environment.yml").read_text() == made["environment"](lock), "run `make lock`"
    names = re.findall(r"^([a-z0-9.-]+)==", lock, flags=re.MULTILINE)
    [listed] = [entry["pip"] for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][2:]]
    assert [pin.partition("==")[0] for pin in listed] == names


def test_lock_has_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock):
        assert "--hash=sha256:" in block, block[:60]


def test_installation_tells_what_pip_does() -> None:
    progress = runpy.run_path(str(ROOT / ".ci/install.py"))["Progress"](io.StringIO(), 1.0)
    for line, doing in (
        ("Collecting jinja2==3.1.6 (from -r requirements.txt (line 4))", "package 1, jinja2"),
        ("  Downloading jinja2-3.1.6-py3-none-any.whl.metadata (2.9 kB)", "package 1, jinja2 (2.9 kB)"),
        ("Requirement already satisfied: six", "package 1, jinja2 (2.9 kB)"),
        ("Collecting torch==2.14.1 (from -r requirements.txt (line 9))", "package 2, torch"),
        ("Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (821.4 MB)", "package 2, torch (821.4 MB)"),
        ("Processing /wheels/torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl", "package 2, torch"),
        ("Installing collected packages: torch, jinja2", "installing 2 packages"),
    ):
        progress.take(f"{line}\n")
        assert progress.doing == doing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (io.StringIO(), r"(pip, \d+ s: installing 2 packages\n)+"),
        (Terminal(), r"(\r\033\[Kpip, \d+ s: installing 2 packages)+\r\033\[K"),
    ],
)
def test_errors_and_status_of_an_installation_are_those_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], out: io.StringIO, told: str
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__init__.py").touch()
    (tmp_path / "pip/__main__.py").write_text(
        "import sys, time\n"
        "print('Installing collected packages: ' + ', '.join(sys.argv[-2:]), flush=True)\n"
        "time.sleep(3)\n"
        "sys.exit('ERROR: no space left')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    install = runpy.run_path(str(ROOT / ".ci/install.py"))["install"]
    assert install(["torch", "jinja2"], out, every=1.0) == 1
    assert capfd.readouterr() == ("", "ERROR: no space left\n")
    assert re.search(rf"{told}$", out.getvalue())


SNAKEMAKE = f"""#!{sys.executable}
import os, sys, time
try:
    print(os.getpid(), os.getppid(), flush=True)
    while "waits" in os.environ["SNAKEMAKE"]:
        time.sleep(0.1)
except KeyboardInterrupt:
    print("stopping", flush=True)
sys.exit(1)
"""


LOST = "wait: No child processes"
TRIES = 3


def interrupted(folder: Path, whom: list[str]) -> tuple[str, int | None]:
    """What `make run` says after SIGINT to some of its processes, and its status."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(["make", "run"], cwd=folder, start_new_session=True, **streams) as make:
        assert make.stdout is not None
        too_long = threading.Timer(60, os.killpg, (make.pid, signal.SIGKILL))
        too_long.start()
        assert make.stdout.readline() == "snakemake\n"
        snakemake, shell = map(int, make.stdout.readline().split())
        for one in whom:
            os.kill({"all": -make.pid, "shell": shell, "snakemake": snakemake}[one], signal.SIGINT)
        text = make.stdout.read()
        too_long.cancel()
    return text, make.returncode


@pytest.mark.parametrize(
    ("kind", "whom", "said", "status"),
    [
        ("waits", ["all"], "stopping\n", -signal.SIGINT),  # a terminal's Ctrl-C
        ("waits", ["shell", "snakemake"], r"stopping\n(make: .*\n)*", None),  # make is told by the recipe alone
        ("waits", ["snakemake"], r"stopping\nmake: .*Error 1\n", 2),
        ("fails", [], r"make: .*Error 1\n", 2),
    ],
)
def test_make_run_adds_no_line_on_ctrl_c_and_fails_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, whom: list[str], said: str, status: int | None
) -> None:
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    program = tmp_path / ".venv/bin/snakemake"
    program.parent.mkdir(parents=True)
    program.write_text(SNAKEMAKE)
    program.chmod(0o755)
    (tmp_path / ".venv/.ready").touch()
    monkeypatch.setenv("SNAKEMAKE", kind)
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # of a make that runs the tests
        monkeypatch.delenv(name, raising=False)
    for _ in range(TRIES):
        text, returned = interrupted(tmp_path, whom)
        if LOST not in text:  # else make itself lost its child, since the signal came as it began to wait: once more
            break
    assert returned not in (None, 0)
    assert re.fullmatch(said, text)
    assert status in (None, returned)
