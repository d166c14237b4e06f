"""Two runs at once in one folder: the second is refused, and a killed run leaves no claim."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from test_workflow_faults import contents
from typer.testing import CliRunner
from workflow_for_tests import TINY, checkout, planned, run, start

from bsnn import artifacts
from bsnn.artifacts import claim
from bsnn.cli import app
from bsnn.config import merge
from bsnn.errors import BsnnError
from bsnn.training import checkpoint

PAIRS = int(os.environ.get("BSNN_PAIRS", "10"))
REFUSED = "another run is at work there"


def test_second_claim_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    program = (
        f"from pathlib import Path; from bsnn.artifacts import claim; lock = claim(Path({str(tmp_path)!r})); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as first:
        deadline = time.monotonic() + 60
        while not (tmp_path / ".run.txt").is_file():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(BsnnError, match=rf"{REFUSED} \(process {first.pid} on .*, since 2"):
            claim(tmp_path)
        first.kill()
    claim(tmp_path).release()


def test_clean_waits_for_no_run(tmp_path: Path, monkeypatch) -> None:
    """It refuses to remove files beside a run; to tell what it would remove, it needs no claim."""
    checkout(tmp_path, TINY)
    monkeypatch.chdir(tmp_path)
    lock = claim(tmp_path / "results")
    refused = CliRunner().invoke(app, ["clean", "--yes"])
    assert refused.exit_code == 1
    assert CliRunner().invoke(app, ["clean"]).exit_code == 0
    lock.release()
    assert CliRunner().invoke(app, ["clean", "--yes"]).exit_code == 0


def test_a_folder_without_locks_is_an_error_of_ours(tmp_path: Path, monkeypatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", fails)
    with pytest.raises(BsnnError, match=r"cannot be claimed for this run .*No locks available.*file system with locks"):
        claim(tmp_path)


def test_clean_leaves_the_checkpoints_of_a_running_training(tmp_path: Path, monkeypatch) -> None:
    checkout(tmp_path, TINY)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/checkpoints/tiny/full/seed0/0123456789ab"
    with checkpoint.exclusive(folder):
        kept = CliRunner().invoke(app, ["clean", "--yes"])
    assert "0123456789ab: a training is writing it" in kept.output
    assert folder.exists()
    assert "removed" in CliRunner().invoke(app, ["clean", "--yes"]).output
    assert not folder.exists()


def made(folder: Path) -> list[Path]:
    """Artifacts that are there."""
    return [
        path for path in sorted((folder / "results/tiny").rglob("*")) if path.suffix in (".parquet", ".safetensors")
    ]


@pytest.mark.slow
def test_pairs_of_runs_killed_at_random(tmp_path: Path) -> None:
    """What is left each time is whole, and at the end equal to an undisturbed run's.

    Each pair finds something to do: a third of what is there is lost before it.
    """
    chain = merge(TINY, {"weights": ["full"], "percentile": [99.0]})
    whole, began = checkout(tmp_path / "whole", chain), time.monotonic()
    run(whole)
    lasting, silent = time.monotonic() - began, {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    folder, draw = checkout(tmp_path / "pairs", chain), random.Random(0)
    refused, killed = 0, 0
    for _ in range(PAIRS):
        for path in made(folder):
            if draw.random() < 1 / 3:
                path.unlink()
        pair = [start(folder, **silent), start(folder, **silent)]
        time.sleep(draw.uniform(0.1, 0.8) * lasting)
        os.killpg(draw.choice(pair).pid, signal.SIGKILL)
        for one in pair:
            errors = one.communicate(timeout=600)[1]
            assert one.returncode in (0, -signal.SIGKILL) or REFUSED in errors, errors
            refused += REFUSED in errors
            killed += one.returncode == -signal.SIGKILL
        for path in made(folder):
            artifacts.describe(path)
    run(folder)
    assert planned(folder) == {}
    assert contents(folder) == contents(whole)
    assert refused > 0
    assert killed > 0
