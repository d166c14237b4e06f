"""Memory of one training step kept for the next.

glibc hands large blocks back to the system when they are freed, and the next step's are new pages again, which the
kernel clears one by one as they are touched: a sixth of a step's time on a CPU.
"""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h


def keep_freed() -> bool:
    """From now on, and for good, this process keeps memory that it frees; says whether it does, which needs glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # No block has pages of its own (and is handed back whole), and the heap is never cut off at its end.
    return bool(libc.mallopt(MMAP_MAX, 0) == 1 and libc.mallopt(TRIM_THRESHOLD, -1) == 1)
