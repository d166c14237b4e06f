"""A checkout of its own for each workflow test: copied source, a tiny configuration, and Snakemake run on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent

TINY: dict[str, Any] = {
    "run": ["tiny"],
    "percentile": [99.0, 100.0],
    "time": [4, 8],
    "compute": {"threads": 1, "accelerator": "cpu"},
    "experiments": {
        "tiny": {
            "data": {"name": "digits", "image_size": 8, "train_images": 200, "test_images": 50},
            "network": {"features": [4, "P", 8, "P"], "hidden": [16]},
            "train": {"epochs": 3, "batch_size": 50, "optimiser": {"name": "sgd", "lr": 0.05}},
            "binarize": {"epochs": 3, "batch_size": 50, "optimiser": {"name": "adam", "lr": 0.001}},
            "activations": {"images": 100, "batch_size": 50},
            "simulation": {"time": 10},
        }
    },
}
RESULTS = {"tables": 1, "figures": 1, "report": 1}


def checkout(folder: Path, config: dict[str, Any]) -> Path:
    """Copy of the source as a clone would hold it, but for the shipped networks (80 MB), with another configuration."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        source, target = ROOT / name, folder / name
        if source.suffix != ".safetensors" and (source.exists() or source.is_symlink()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target, follow_symlinks=False)
    configure(folder, config)
    return folder


def going_on(folder: Path, config: dict[str, Any], finished: Path) -> Path:
    """A checkout that has all results of a finished run."""
    shutil.copytree(finished / "results", checkout(folder, config) / "results", symlinks=True, dirs_exist_ok=True)
    return folder


def configure(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(folder), "PATH": path, "OMP_NUM_THREADS": "1"}


def start(folder: Path, *arguments: str, **streams: Any) -> subprocess.Popen[Any]:
    """Snakemake in a session of its own, so that a signal to its group reaches its jobs alone; streams as of Popen."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(folder), start_new_session=True, **streams)


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(folder), timeout=600)


def run(folder: Path, *arguments: str) -> None:
    done = snakemake(folder, "--cores", "2", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """How many jobs of each rule a dry run would start."""
    done = snakemake(folder, "-n", *arguments, "--quiet", "host", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    counts: Counter[str] = Counter()
    table = done.stdout.partition("Job stats:")[2].partition("\n\n")[0]
    for line in table.splitlines()[3:]:
        rule, count = line.split()
        counts[rule] = int(count)
    return {rule: count for rule, count in counts.items() if rule not in ("all", "total", *arguments)}
