"""A digest in each file over all of its bytes, its notes included, compared before anything is read from it.

A writer puts `BLANK` among the file's metadata. `seal` replaces the zeros there by the SHA-256 of the file as it is
with the zeros. A reader so refuses every changed bit before it decodes any: a digit in a note, a page, a length.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from pathlib import Path

from bsnn.errors import ArtifactError

MARK = b"bsnn-sha256:"
_LENGTH = 64
_ZEROS = b"0" * _LENGTH
BLANK = (MARK + _ZEROS).decode()
_SEAL = re.compile(re.escape(MARK) + rb"([0-9a-f]{%d})" % _LENGTH)


def seal(path: Path) -> None:
    """Put the digest in the place of `BLANK`, of which a file must have exactly one.

    Raises:
        ArtifactError: it has none, or several.
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            places = [found.end() for found in re.finditer(re.escape(MARK), view)]
        # Of two marks a reader could not tell which is the seal's: one may stand in a text of the artifact.
        if len(places) != 1:
            raise ArtifactError(
                f"{path}: has {len(places)} places for its digest, needs one; no text may hold '{MARK.decode()}'"
            )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(places[0])
        file.write(digest.encode())


def intact(path: Path) -> bool | None:
    """Whether the file is unchanged since it was sealed; None without a seal.

    Raises:
        OSError: the file cannot be read.
    """
    # An empty file cannot be mapped.
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        found = _SEAL.search(view)
        if found is None:
            return None
        begin, end, said = found.start(1), found.end(1), found[1].decode()
        digest = hashlib.sha256()
        # Slices without copies, let go of before the map is closed, which it cannot be while one is held.
        with memoryview(view) as content, content[:begin] as before, content[end:] as after:
            for part in (before, _ZEROS, after):
                digest.update(part)
    return digest.hexdigest() == said
