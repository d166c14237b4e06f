"""Writing and reading artifacts: whole or not at all, self-describing, checked on reading.

Every artifact is written under a name unique to its process, flushed to disk and renamed. It carries one JSON
document in its metadata: `kind` (what it is), `version` (the stage's), `identity` (all settings that its key stands
for), `provenance` (see bsnn.provenance) and whatever the stage adds under `extra`. Parquet pages carry checksums;
tensor files carry a digest of their tensors.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn import provenance
from bsnn.errors import ArtifactError
from bsnn.pipeline.identity import key

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch

KEY = "bsnn"


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
        prefix, suffix = f".{path.name}.", f".{os.getpid()}.{platform.node()}.tmp"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
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
    ending = f".{platform.node()}.tmp"
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{glob.escape(ending)}"):
        process = left.name.removesuffix(ending).rpartition(".")[2]
        if not _alive(int(process)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
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
        raise _missing(Path(source))
    with replacing(path) as temporary:
        shutil.copyfile(source, temporary)


def link(source: Path, path: Path) -> None:
    """A second name (a hard link) for a file, which takes no space.

    Raises:
        ArtifactError: the file system has none, or refuses it.
    """
    with replacing(path) as temporary:
        temporary.unlink()
        os.link(source, temporary)


def document(kind: str, identity: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON document that an artifact of this kind carries."""
    return {
        "kind": kind,
        "version": identity.get("version"),
        "identity": dict(identity),
        "provenance": provenance.collect(),
        "extra": dict(extra or {}),
    }


def _check(
    path: Path, found: Mapping[str, Any] | None, kind: str, stands_for: Mapping[str, Any] | None
) -> dict[str, Any]:
    if found is None:
        raise ArtifactError(f"{path}: was not written by bsnn (no metadata); {_again(path)}")
    if found.get("kind") != kind:
        raise ArtifactError(f"{path}: holds '{found.get('kind')}', expected '{kind}'; {_again(path)}")
    if stands_for is not None and key(found.get("identity", {})) != key(stands_for):
        raise ArtifactError(f"{path}: was made with other settings than its name says; {_again(path)}")
    return dict(found)


def _again(path: Path) -> str:
    return f"delete it and make it again with: snakemake {path}"


def _missing(path: Path) -> ArtifactError:
    return ArtifactError(f"{path}: no such file; make it with: snakemake {path}")


def write_table(
    path: str | Path,
    table: pd.DataFrame | pa.Table,
    kind: str,
    identity: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a Parquet table with page checksums and the artifact's document in the schema metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.cast(pa.schema([_plain(field) for field in arrow.schema], arrow.schema.metadata))
    note = json.dumps(document(kind, identity, extra))
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), KEY.encode(): note.encode()})
    with replacing(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd", write_page_checksum=True)


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    try:
        table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
    except FileNotFoundError:
        raise _missing(path) from None
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path}: damaged Parquet file ({error}); {_again(path)}") from error
    note = (table.schema.metadata or {}).get(KEY.encode())
    found = _check(path, None if note is None else json.loads(note), kind, stands_for)
    for name, kind_ in columns.items():
        if name not in table.schema.names:
            raise ArtifactError(f"{path}: column '{name}' is missing, has {table.schema.names}; {_again(path)}")
        if str(table.schema.field(name).type) != kind_:
            actual = table.schema.field(name).type
            raise ArtifactError(f"{path}: column '{name}' has type {actual}, expected {kind_}; {_again(path)}")
    return table, found


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    kind: str,
    identity: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a safetensors file with a digest of its content and the artifact's document in the metadata."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    note = {**document(kind, identity, extra), "digest": _digest(plain)}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={KEY: json.dumps(note)})
        except SafetensorError as error:  # of plain tensors: what the file system said
            raise OSError(str(error)) from error


def read_tensors(
    path: str | Path, kind: str, stands_for: Mapping[str, Any] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a safetensors file and its document.

    Args:
        path: file to read.
        kind: what it must hold.
        stands_for: identity that its path stands for; None, where no setting says what the file should be.

    Raises:
        ArtifactError: missing, damaged (digest differs), foreign, or of another kind or identity.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise _missing(path)
    try:
        with safe_open(path, framework="pt") as file:
            note = (file.metadata() or {}).get(KEY)
            found = _check(path, None if note is None else json.loads(note), kind, stands_for)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: damaged tensor file ({error}); {_again(path)}") from error
    if _digest(tensors) != found.get("digest"):
        raise ArtifactError(f"{path}: content does not match its digest; {_again(path)}")
    return tensors, found


def describe(path: str | Path) -> dict[str, Any]:
    """Document of any artifact, read without its content; of a CSV file, that of the Parquet file beside it.

    Raises:
        ArtifactError: missing, damaged, or not written by bsnn.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.suffix == ".csv" and path.with_suffix(".parquet").is_file():
        path = path.with_suffix(".parquet")
    if not path.is_file():
        raise _missing(path)
    note: str | bytes | None
    try:
        if path.suffix == ".parquet":
            note = (pq.read_schema(path).metadata or {}).get(KEY.encode())
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                note = (file.metadata() or {}).get(KEY)
        else:
            raise ArtifactError(f"{path}: only .parquet and .safetensors artifacts carry a description")
    except (pa.ArrowException, SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); {_again(path)}") from error
    if note is None:
        raise ArtifactError(f"{path}: was not written by bsnn (no metadata)")
    return dict(json.loads(note))
