"""A file system without room, at each stage: an error that names the file, nothing by half, and a rerun that succeeds.

On a small file system in memory, which only root can mount.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_workflow_faults import contents
from workflow_for_tests import TINY

from bsnn import config, stages
from bsnn.config import merge
from bsnn.errors import ArtifactError
from bsnn.pipeline.job import Job

SETTINGS = config.validate(merge(TINY, {"percentile": [99.0]}))
BLOCK = 4096
STAGES: dict[str, config.Weights] = {
    **dict.fromkeys(("data", "train"), "full"),
    **dict.fromkeys(("binarize", "activations", "thresholds", "simulate"), "binary"),
    **dict.fromkeys(("tables", "figures", "report"), "full"),
}
MADE = {  # patterns of what each stage makes, below the results
    "data": ["data/*"],
    "train": ["tiny/full/seed0/ann-*", "tiny/full/seed0/history-*", "checkpoints/tiny/full/*/*/epoch-*"],
    "binarize": [*(f"tiny/binary/seed0/{what}-*" for what in ("ann", "history", "summary")), "checkpoints/tiny/binary"],
    "activations": ["tiny/binary/seed0/activations-*"],
    "thresholds": ["tiny/binary/seed0/p*/thresholds-*"],
    "simulate": ["tiny/binary/seed0/p*/predictions-*", "tiny/binary/seed0/p*/spikes-*"],
    "tables": ["tiny/tables"],
    "figures": ["tiny/figures"],
    "report": ["tiny/report*"],
}


def make(name: str, folder: Path, weights: config.Weights | None = None) -> None:
    stages.run(name, Job.of(SETTINGS, "tiny", weights or STAGES[name], 0, 99.0, root=folder / "results"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    make("data", folder)
    make("train", folder)
    make("binarize", folder)
    for weights in ("full", "binary"):
        for name in ("activations", "thresholds", "simulate"):
            make(name, folder, weights)
    for name in ("tables", "figures", "report"):
        make(name, folder)
    return folder


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A file system of 32 MiB there; skips the test where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() if done else 'no command mount'}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder whose results lie on a small file system."""
    with mounted(tmp_path / "results"):
        yield tmp_path


def fill(folder: Path, room: int) -> Path:
    """Take all space except some bytes."""
    path = folder / "filler"
    with path.open("wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - room))
    assert shutil.disk_usage(folder).free == room
    return path


def files(folder: Path) -> dict[str, bytes]:
    """All files that a reader looks at; locks hold nothing, or who runs."""
    found = {path for path in folder.rglob("*") if path.is_file() and path.name not in ("filler", "lock", ".run.txt")}
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("room", [0, pytest.param(BLOCK, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STAGES)
def test_full_file_system(finished: Path, small: Path, name: str, room: int) -> None:
    """No room at all, and some: a file is begun and cannot be ended."""
    results = small / "results"
    shutil.copytree(finished / "results", results, dirs_exist_ok=True)
    for path in [path for pattern in MADE[name] for path in results.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before, filler = files(results), fill(results, room)
    with pytest.raises(
        ArtifactError, match=rf"^{results}/.*: cannot be written: .*No space left.*make room.*run again"
    ):
        make(name, small)
    after = files(results)
    assert {path: after[path] for path in before} == before
    new = set(after) - set(before)
    assert not any(path.endswith(".tmp") for path in new)
    assert not any(path.endswith(("settings.json", "report.html")) for path in new), "the last file came first"
    if name not in ("tables", "figures", "train", "binarize"):
        assert not new
    filler.unlink()
    make(name, small)
    assert contents(small) == contents(finished)
    assert set(files(results)) == set(files(finished / "results"))
