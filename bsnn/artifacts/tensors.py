"""Tensors: safetensors with the artifact's document in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn.artifacts import files, notes, seals
from bsnn.errors import ArtifactError

if TYPE_CHECKING:
    import torch


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    kind: str,
    identity: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a safetensors file, sealed, with the artifact's document in the metadata."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    note = json.dumps(notes.document(kind, identity, extra))
    with files.replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={notes.KEY: note, notes.SEAL: seals.BLANK})
        except SafetensorError as error:  # of plain tensors: what the file system said
            raise OSError(str(error)) from error
        seals.seal(temporary)


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
    from safetensors import safe_open

    path = Path(path)
    notes.require_intact(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(notes.KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except Exception as error:  # a sealed file that is no such file: a decoder raises anything
        raise ArtifactError(f"{path}: damaged tensor file ({error}); {notes.again(path)}") from error
    found = notes.parse(path, text)
    notes.check(path, found, kind, stands_for)
    return tensors, found


def document(path: Path) -> str | bytes | None:
    """The document's JSON, without reading the tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        found: str | None = (file.metadata() or {}).get(notes.KEY)
    return found
