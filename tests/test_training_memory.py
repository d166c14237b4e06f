"""Memory that is kept between steps: in a process of its own, since it is a setting of the whole of one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from bsnn.training import memory

COUNTED = """
import resource, torch
from bsnn.training import memory
kept = memory.keep_freed() if {keep} else None
torch.ones(2**24)  # 64 MiB: more than glibc ever keeps by itself
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> tuple[str, int]:
    """What the function says, and how many pages the kernel made for twenty tensors, each freed before the next."""
    code = COUNTED.format(keep=keep)
    kept, pages = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    kept, few = faults(True)
    _, many = faults(False)
    assert kept == "True"
    assert few < many / 2


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_freed()
