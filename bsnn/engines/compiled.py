"""Functions that numba compiles for this CPU once, and finds again in a folder of their own.

The folder is named after the contents of bsnn/engines: numba itself compares the file that a function stands in, not
those that it calls. It lies in NUMBA_CACHE_DIR, or else in bsnn/ of the user's cache (XDG_CACHE_HOME, ~/.cache).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from bsnn.errors import EngineError


@cache
def cache_folder() -> Path:
    """Folder for what is compiled from these sources; made when missing.

    Raises:
        EngineError: when nothing can be written there.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    root = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bsnn"
    folder = root / f"compiled-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EngineError(
            f"compiled code cannot be kept in {folder} ({error.strerror}): set NUMBA_CACHE_DIR to a folder that can be "
            "written, or choose the engine 'torch'"
        ) from error
    return folder


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: compiled at its first call, without Python's lock while it runs, and kept in `cache_folder`."""
    # numba takes the folder when the decorator is applied, from one setting for the whole process: others keep theirs
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(cache_folder())
    try:
        made: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
    return made


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: a function whose code stands in the compiled ones that call it: passing a layer's shape costs time."""
    made: Callable[..., Any] = numba.njit(nogil=True, forceinline=True)(function)
    return made
