"""Writing and reading artifacts: whole or not at all, self-describing, checked on reading.

Every artifact carries one JSON document in its metadata: `kind` (what it is), `version` (the stage's), `identity` (all
settings that its key stands for), `provenance` (see bsnn.provenance) and whatever the stage adds under `extra`; and a
digest over the whole file, that document included (bsnn.artifacts.seals), which is compared before anything is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bsnn.artifacts import notes, tables, tensors
from bsnn.artifacts.claim import claim, claimed
from bsnn.artifacts.files import copy, link, missing, replacing, write_text
from bsnn.artifacts.notes import again, check_shard, document, read_note, with_remedy, write_note
from bsnn.artifacts.tables import read_frames, read_table, write_csv, write_frame, write_table
from bsnn.artifacts.tensors import read_tensors, write_tensors
from bsnn.errors import ArtifactError

__all__ = [
    "again",
    "check_shard",
    "claim",
    "claimed",
    "copy",
    "describe",
    "document",
    "link",
    "read_frames",
    "read_note",
    "read_table",
    "read_tensors",
    "replacing",
    "with_remedy",
    "write_csv",
    "write_frame",
    "write_note",
    "write_table",
    "write_tensors",
    "write_text",
]


def describe(path: str | Path) -> dict[str, Any]:
    """Document of any artifact; of a CSV file, that of the Parquet file beside it.

    Raises:
        ArtifactError: missing, damaged, or not written by bsnn.
    """
    path = Path(path)
    if path.suffix == ".csv" and path.with_suffix(".parquet").is_file():
        path = path.with_suffix(".parquet")
    readers = {".parquet": tables.document, ".safetensors": tensors.document}
    if not path.is_file() and path.suffix in (*readers, ".csv", ""):
        raise missing(path)
    if path.suffix not in readers:
        found = "" if path.exists() else "no such file, and "
        raise ArtifactError(f"{path}: {found}only .parquet and .safetensors artifacts, and tables, carry a description")
    notes.require_intact(path)
    try:
        text = readers[path.suffix](path)
    except Exception as error:  # a sealed file that is no such file: a decoder raises anything
        raise ArtifactError(f"{path}: damaged ({error}); {notes.again(path)}") from error
    return notes.parse(path, text)
