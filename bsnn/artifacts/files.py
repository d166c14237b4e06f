"""Writing files whole or not at all: under a name unique to the process, flushed to disk, then renamed."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bsnn.errors import ArtifactError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Path to write to; becomes `path` if the block ends well, and leaves nothing behind if it does not.

    Raises:
        ArtifactError: when the file system refuses (full, read-only), with what to do.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        # Process and machine in the name, by which `_sweep` knows what a killed process has left.
        prefix, suffix = f".{path.name}.", f".{os.getpid()}.{platform.node()}.tmp"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # Before the new name: a machine that crashes must not leave a name without its content. mkstemp makes files
        # that only their owner can read.
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written: {error.strerror or error}; make room or give write access, then run again"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what killed processes of this machine left behind of earlier tries to write this file."""
    # A process's number says something on its own machine alone: files of others are left to them.
    ending = f".{platform.node()}.tmp"
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{glob.escape(ending)}"):
        process = left.name.removesuffix(ending).rpartition(".")[2]
        # Of a machine whose name ends like this one's it is no number, and not ours to ask about.
        if process.isdigit() and not _alive(int(process)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing: asks whether it is there
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def copy(source: str | Path, path: str | Path) -> None:
    """Copy a file, whole or not at all."""
    if not Path(source).is_file():
        raise missing(Path(source))
    with replacing(path) as temporary:
        shutil.copyfile(source, temporary)


def link(source: Path, path: Path) -> None:
    """A second name (a hard link) for a file, which takes no space.

    Raises:
        ArtifactError: the file system has none, or refuses it.
    """
    with replacing(path) as temporary:
        temporary.unlink()  # a link needs a free name
        os.link(source, temporary)


def missing(path: Path) -> ArtifactError:
    """What to do about a file that is not there."""
    return ArtifactError(f"{path}: no such file; make it with: snakemake {path}")
