"""The package as users install it: a wheel, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Folder that holds the wheel's content alone."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if name.startswith("bsnn/") or name in ("pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run([*command, str(source)], check=True)
    [wheel] = folder.glob("bsnn-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_wheel_has_all_that_the_package_reads(installed: Path) -> None:
    code = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "bsnn").rglob("*") if path.is_file()}
    kept = {path for path in code if "__pycache__" not in path.parts}
    assert {path for path in kept if not (installed / path).is_file()} == set()


def test_command_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    program = "import bsnn, bsnn.cli; print(bsnn.__file__); bsnn.cli.app(['--help'], standalone_mode=False)"
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert shown.startswith(str(installed))
    assert "simulate" in shown
