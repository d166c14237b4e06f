"""Tables: Parquet with the artifact's document in its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn.artifacts import files, notes, seals
from bsnn.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def write_table(
    path: str | Path,
    table: pd.DataFrame | pa.Table,
    kind: str,
    identity: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a Parquet table, sealed, with the artifact's document in the schema metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.cast(pa.schema([_plain(field) for field in arrow.schema], arrow.schema.metadata))
    note = json.dumps(notes.document(kind, identity, extra))
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), notes.KEY.encode(): note.encode()})
    with files.replacing(path) as temporary:
        with pq.ParquetWriter(temporary, arrow.schema, compression="zstd", write_page_checksum=True) as writer:
            writer.write_table(arrow)
            writer.add_key_value_metadata({notes.SEAL: seals.BLANK})
        seals.seal(temporary)


def _plain(field: pa.Field) -> pa.Field:
    """Strings as `string`, whatever pandas made of them."""
    import pyarrow as pa

    return field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field


def read_table(
    path: str | Path, kind: str, columns: Mapping[str, str], stands_for: Mapping[str, Any] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a Parquet table and its document.

    Args:
        path: file to read.
        kind: what it must hold.
        columns: name and Arrow type (as text, for example `int64`) of each column that must be there.
        stands_for: identity that its path stands for; None, where no setting says what the file should be.

    Raises:
        ArtifactError: missing, damaged, of another kind or identity, or with other columns.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    notes.require_intact(path)
    try:
        table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
    except Exception as error:  # a sealed file that is no such file: a decoder raises anything
        raise ArtifactError(f"{path}: damaged Parquet file ({error}); {notes.again(path)}") from error
    found = notes.parse(path, (table.schema.metadata or {}).get(notes.KEY.encode()))
    notes.check(path, found, kind, stands_for)
    for name, kind_ in columns.items():
        if name not in table.schema.names:
            raise ArtifactError(f"{path}: column '{name}' is missing, has {table.schema.names}; {notes.again(path)}")
        if str(table.schema.field(name).type) != kind_:
            actual = table.schema.field(name).type
            raise ArtifactError(f"{path}: column '{name}' has type {actual}, expected {kind_}; {notes.again(path)}")
    return table, found


def write_frame(path: Path, frame: pd.DataFrame, kind: str, identity: Mapping[str, Any], *, csv: bool = True) -> None:
    """Write a table at a plain name as Parquet, and as CSV beside it for people."""
    write_table(path, frame, kind, identity, {"table": path.stem})
    if csv:
        write_csv(path.with_suffix(".csv"), frame)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV, the same bytes on every system."""
    files.write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def read_frames(
    folder: Path, names: Iterable[str], kind: str, stands_for: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """Tables at plain names, as `write_frame` left them.

    Raises:
        ArtifactError: one is missing, damaged, another table than its name says, or of other settings.
    """
    found = {}
    for name in names:
        path = folder / f"{name}.parquet"
        table, said = read_table(path, kind, {}, stands_for)
        notes.check_table(path, said)
        found[name] = table.to_pandas()
    return found


def document(path: Path) -> str | bytes | None:
    """The document's JSON, without reading the table."""
    import pyarrow.parquet as pq

    found: bytes | None = (pq.read_schema(path).metadata or {}).get(notes.KEY.encode())
    return found
