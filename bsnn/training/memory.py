"""Memory of one training step kept for the next.

glibc hands large blocks back to the system when they are freed, and the next step's are new pages again, which the
kernel clears one by one as they are touched: a sixth of a step's time on a CPU.
"""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
MOST = 2**31 - 1  # bytes; mallopt takes an int


def keep_freed() -> bool:
    """From now on this process keeps memory that it frees; says whether it does, which needs glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, MOST) == 1 for option in (TRIM_THRESHOLD, MMAP_THRESHOLD))
