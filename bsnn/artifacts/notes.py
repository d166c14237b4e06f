"""What an artifact says of itself: one JSON document, checked against its kind and the settings it should be of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bsnn import provenance
from bsnn.artifacts import files, seals
from bsnn.errors import ArtifactError
from bsnn.pipeline.identity import key

KEY = "bsnn"
SEAL = "seal"  # name of the digest among a file's metadata
_TYPES: dict[str, type] = {"kind": str, "identity": dict, "provenance": dict, "extra": dict}


def document(kind: str, identity: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON document that an artifact of this kind carries."""
    return {
        "kind": kind,
        "version": identity.get("version"),
        "identity": dict(identity),
        "provenance": provenance.collect(),
        "extra": dict(extra or {}),
    }


def require_intact(path: Path) -> None:
    """Compare a file with its seal, before anything is read from it.

    Raises:
        ArtifactError: missing, unreadable, changed since it was written, or without a seal.
    """
    try:
        same = seals.intact(path)
    except FileNotFoundError:
        raise files.missing(path) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error}); {again(path)}") from error
    if same is None:
        raise ArtifactError(
            f"{path}: damaged, of an earlier revision, or not written by bsnn: it has no digest; {again(path)}"
        )
    if not same:
        raise ArtifactError(f"{path}: damaged or edited: its content does not match its digest; {again(path)}")


def parse(path: Path, text: str | bytes | None) -> dict[str, Any]:
    """The document from its JSON.

    Args:
        path: of the artifact, for messages.
        text: JSON, as it stands in the file's metadata; None without any.

    Raises:
        ArtifactError: there is none, or it is no document of an artifact.
    """
    if text is None:
        raise ArtifactError(f"{path}: was not written by bsnn (no metadata); {again(path)}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged: its metadata is no JSON ({error}); {again(path)}") from error
    said = found if isinstance(found, dict) else {}
    wrong = [name for name, kind in _TYPES.items() if not isinstance(said.get(name), kind)]
    if wrong:
        raise ArtifactError(f"{path}: damaged: its metadata has no valid {', '.join(wrong)}; {again(path)}")
    return said


def check(path: Path, found: Mapping[str, Any], kind: str, stands_for: Mapping[str, Any] | None) -> None:
    """Refuse a document of another kind, or of other settings.

    Raises:
        ArtifactError: it is.
    """
    if found["kind"] != kind:
        raise ArtifactError(f"{path}: holds '{found['kind']}', expected '{kind}'; {again(path)}")
    if stands_for is not None and key(found["identity"]) != key(stands_for):
        raise ArtifactError(f"{path}: was made with other settings than the current ones; {again(path)}")


def check_shard(path: Path, found: Mapping[str, Any], shard: int, shards: int) -> None:
    """Refuse a document of another shard than the path's.

    Raises:
        ArtifactError: it is, or does not say which one it is of.
    """
    said = tuple(found["extra"].get(name) for name in ("shard", "shards"))
    if said != (shard, shards):
        raise ArtifactError(
            f"{path}: holds shard {said[0]} of {said[1]}, and its name says {shard} of {shards}; {again(path)}"
        )


def check_table(path: Path, found: Mapping[str, Any]) -> None:
    """Refuse a document of another table of results than the file's name says.

    Raises:
        ArtifactError: it is.
    """
    said = found["extra"].get("table")
    if said != path.stem:
        raise ArtifactError(f"{path}: holds the table '{said}'; {again(path)}")


def again(path: str | Path) -> str:
    """What to do about a file that cannot be used."""
    return f"delete it and make it again with: snakemake {path}"


def with_remedy(error: ArtifactError, remedy: str | None) -> ArtifactError:
    """The error of a file that `snakemake` does not make, with another remedy in the place of `again`, or with none."""
    what = str(error).rpartition("; ")[0]
    return ArtifactError(f"{what}; {remedy}" if remedy else what)


def write_note(path: str | Path, note: Mapping[str, Any]) -> None:
    """Write a JSON note that lies beside tables or figures, sealed."""
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps({**note, SEAL: seals.BLANK}, indent=2) + "\n")
        seals.seal(temporary)


def read_note(path: str | Path) -> dict[str, Any]:
    """Read a JSON note.

    Raises:
        ArtifactError: missing, damaged, edited, or without a seal.
    """
    path = Path(path)
    require_intact(path)
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged: no JSON ({error}); {again(path)}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: damaged: no note of bsnn; {again(path)}")
    return {name: value for name, value in found.items() if name != SEAL}
