"""Where a number comes from: hardware, versions, revision, time. Written into every artifact, shown in reports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import bsnn

PACKAGES = (
    "torch",
    "torchvision",
    "bindsnet",
    "snakemake",
    "numpy",
    "numba",
    "pandas",
    "pyarrow",
    "lightning-fabric",
    "triton",
)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    root = Path(bsnn.__file__).resolve().parent.parent
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def revision() -> str:
    """Git revision of the source, with `-dirty` when tracked files differ from it; `unknown` outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit


def cpu_model() -> str:
    """Name of the processor, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _of_torch() -> dict[str, object]:
    """CUDA devices by name, and the vector instructions that torch uses, which may be fewer than the processor has.

    Looks only if torch is already loaded, so that light stages stay light.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return {"gpus": []}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def cores() -> int:
    """Cores that this process may use, where the system reports them (Linux), else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, object]:
    """Processor and number of usable cores; when torch is loaded, GPUs (else none) and vector instructions."""
    return {"cpu": cpu_model(), "cores": cores(), **_of_torch()}


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on; packages that are absent are left out."""
    found = {name: _version(name) for name in PACKAGES}
    return {
        "bsnn": bsnn.__version__,
        "python": platform.python_version(),
        **{k: v for k, v in found.items() if v},
    }


def collect() -> dict[str, object]:
    """Everything above, with the time (UTC, seconds)."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "hardware": hardware(),
        "versions": versions(),
    }
