"""Artifacts: whole or not at all, and checked on reading."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from bsnn import artifacts
from bsnn.artifacts import notes, seals
from bsnn.errors import ArtifactError

IDENTITY = {"stage": "test", "version": 3}
TABLE = pd.DataFrame({"layer": ["a", "b"], "value": [1.5, 2.5]})
TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "sign": torch.tensor([1, -1], dtype=torch.int8)}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_table_comes_back_with_its_document(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "t.parquet"
    artifacts.write_table(path, TABLE, "test", IDENTITY, {"images": 7})
    table, document = artifacts.read_table(path, "test", {"layer": "string", "value": "double"})
    assert table.to_pandas()["value"].tolist() == [1.5, 2.5]
    assert (document["identity"], document["version"], document["extra"]) == (IDENTITY, 3, {"images": 7})
    assert {"created", "revision", "hardware", "versions"} <= set(document["provenance"])
    assert artifacts.describe(path) == document
    path.with_suffix(".csv").write_text("a\n1\n")
    assert artifacts.describe(path.with_suffix(".csv")) == document
    assert leftovers(path.parent) == []


def test_tensors_come_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    artifacts.write_tensors(path, TENSORS, "test", IDENTITY)
    tensors, document = artifacts.read_tensors(path, "test")
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert artifacts.describe(path) == document


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    artifacts.write_text(path, "old")

    def fail_half_way() -> None:
        with artifacts.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        artifacts.write_text(tmp_path / "file" / "t.txt", "x")


def written(tmp_path: Path) -> tuple[Path, Path]:
    table, tensors = tmp_path / "t.parquet", tmp_path / "t.safetensors"
    artifacts.write_table(table, TABLE, "test", IDENTITY)
    artifacts.write_tensors(tensors, TENSORS, "test", IDENTITY)
    return table, tensors


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_truncated_files_are_refused(tmp_path: Path, kept: int) -> None:
    table, tensors = written(tmp_path)
    for path in (table, tensors):
        path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"t\.parquet: damaged.*snakemake"):
        artifacts.read_table(table, "test", {})
    with pytest.raises(ArtifactError, match=r"t\.safetensors: damaged.*snakemake"):
        artifacts.read_tensors(tensors, "test")


def test_flipped_bit_is_refused(tmp_path: Path) -> None:
    _, tensors = written(tmp_path)
    raw = bytearray(tensors.read_bytes())
    raw[-1] ^= 1
    tensors.write_bytes(bytes(raw))
    with pytest.raises(ArtifactError, match="digest"):
        artifacts.read_tensors(tensors, "test")


def test_flipped_bit_in_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    artifacts.write_table(path, pd.DataFrame({"value": range(1000)}), "test", IDENTITY)
    raw = bytearray(path.read_bytes())
    raw[200] ^= 16  # inside the first data page
    path.write_bytes(bytes(raw))
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.read_table(path, "test", {"value": "int64"})


def test_edited_notes_are_refused(tmp_path: Path) -> None:
    for path in written(tmp_path):
        raw, said = path.read_bytes(), re.compile(rb'(version\\?": )3')  # safetensors writes quotes as \"
        assert said.search(raw)
        path.write_bytes(said.sub(rb"\g<1>4", raw))
        with pytest.raises(ArtifactError, match=r"does not match its digest; delete it.*snakemake"):
            artifacts.describe(path)
    note = tmp_path / "note.json"
    artifacts.write_note(note, {"key": "abc", "time": [1]})
    assert artifacts.read_note(note) == {"key": "abc", "time": [1]}
    note.write_text(note.read_text().replace("abc", "abd"))
    with pytest.raises(ArtifactError, match="does not match its digest"):
        artifacts.read_note(note)


def test_digest_is_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    """As anybody can check it, without this project."""
    for path in written(tmp_path):
        raw = path.read_bytes()
        begin = raw.index(b"bsnn-sha256:") + 12
        said = raw[begin : begin + 64]
        blank = raw[:begin] + b"0" * 64 + raw[begin + 64 :]
        assert hashlib.sha256(blank).hexdigest() == said.decode()


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"\xff{}",
        b"[]",
        b"null",
        b"3",
        b'{"kind": 3}',
        b"[" * 100_000,
        b'{"kind": "history", "identity": {}, "provenance": {}, "extra": []}',
    ],
)
def test_notes_that_are_no_document_are_refused(tmp_path: Path, text: bytes) -> None:
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [1]}, metadata={"bsnn": text, notes.SEAL: seals.BLANK}), table)
    seals.seal(table)
    for read in (artifacts.describe, lambda path: artifacts.read_table(path, "history", {})):
        with pytest.raises(ArtifactError, match=r"t\.parquet: damaged.*snakemake"):
            read(table)


def test_lost_digest_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    artifacts.write_tensors(path, TENSORS, "network", IDENTITY)
    path.write_bytes(path.read_bytes().replace(b"bsnn-sha256:", b"bsnn-sha255:"))
    with pytest.raises(ArtifactError, match="it has no digest"):
        artifacts.read_tensors(path, "network")


def test_foreign_files_and_wrong_kinds_are_refused(tmp_path: Path) -> None:
    table, tensors = written(tmp_path)
    with pytest.raises(ArtifactError, match="holds 'test', expected 'other'"):
        artifacts.read_table(table, "other", {})
    with pytest.raises(ArtifactError, match="holds 'test', expected 'other'"):
        artifacts.read_tensors(tensors, "other")
    pq.write_table(pa.table({"value": [1]}), table)
    save_file({"x": torch.zeros(1)}, tensors)
    with pytest.raises(ArtifactError, match="not written by bsnn"):
        artifacts.read_table(table, "test", {})
    with pytest.raises(ArtifactError, match="not written by bsnn"):
        artifacts.read_tensors(tensors, "test")
    with pytest.raises(ArtifactError, match="no such file"):
        artifacts.read_table(tmp_path / "none.parquet", "test", {})


def test_artifacts_of_other_settings_are_refused(tmp_path: Path) -> None:
    table, tensors = written(tmp_path)
    same = {"version": 3, "stage": "test"}  # the order is no part of an identity
    assert artifacts.read_table(table, "test", {}, same)[1]["identity"] == IDENTITY
    assert artifacts.read_tensors(tensors, "test", same)[1]["identity"] == IDENTITY
    for other in ({**IDENTITY, "version": 4}, {**IDENTITY, "seed": 0}, {}):
        with pytest.raises(ArtifactError, match=r"t\.parquet: was made with other settings.*snakemake"):
            artifacts.read_table(table, "test", {}, other)
        with pytest.raises(ArtifactError, match=r"t\.safetensors: was made with other settings.*snakemake"):
            artifacts.read_tensors(tensors, "test", other)


def test_columns_are_checked(tmp_path: Path) -> None:
    table, _ = written(tmp_path)
    with pytest.raises(ArtifactError, match="column 'count' is missing"):
        artifacts.read_table(table, "test", {"count": "int64"})
    with pytest.raises(ArtifactError, match="column 'value' has type double, expected int64"):
        artifacts.read_table(table, "test", {"value": "int64"})


def test_remains_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    script = (
        "import os, signal; from bsnn import artifacts\n"
        f"with artifacts.replacing({str(path)!r}) as p: p.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert len(leftovers(tmp_path)) == 1
    assert not path.exists()
    artifacts.write_text(path, "whole")
    assert leftovers(tmp_path) == []


def test_remains_of_a_machine_whose_name_ends_alike_are_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "cluster")
    other = tmp_path / ".t.txt.abc.123.node1.cluster.tmp"
    other.write_text("half")
    artifacts.write_text(tmp_path / "t.txt", "whole")
    assert leftovers(tmp_path) == [other.name]


def test_remains_of_another_users_process_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may signal it, or even see it (/proc with hidepid): it is there all the same."""
    monkeypatch.setattr(os, "kill", lambda process, signal: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    other = tmp_path / f".t.txt.abc.123.{platform.node()}.tmp"
    other.write_text("half")
    artifacts.write_text(tmp_path / "t.txt", "whole")
    assert leftovers(tmp_path) == [other.name]


def test_another_writer_at_work_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    with artifacts.replacing(path) as first:
        first.write_text("first")
        artifacts.write_text(path, "second")
        assert first.exists()
    assert path.read_text() == "first"
