"""Mutations of every kind of artifact of a finished run: each is refused with path and remedy, or changes no result.

Bits flipped in notes and data, digits of notes edited, files swapped, shards renamed. A file is read as the stages read
it; all shards of a simulation as the tables do.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from images_for_tests import tree
from workflow_for_tests import TINY

from bsnn import artifacts, config, datasets, stages, tables
from bsnn.config import merge
from bsnn.errors import ArtifactError
from bsnn.networks import files
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import gather, latency

SHARDS = 3
CHANGES = {
    "percentile": [99.0],
    "experiments": {
        "tiny": {"simulation": {"shards": SHARDS}, "latency": {"time": [5], "images": 10, "methods": {}}},
    },
}
SETTINGS = config.validate(merge(TINY, CHANGES))
STAGES = (
    *("data", "train", "binarize", "activations", "thresholds", "simulate", "method", "ideal"),
    *("find_switches", "find_exit", "tables", "latency_tables"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "results"
    pipeline = Pipeline(SETTINGS, root)
    for name in STAGES:
        for place in pipeline.places(name, "tiny"):
            stages.run(name, Job(pipeline, place))
    pictures = tree(root.parent / "pictures")
    folder = config.Data.model_validate({"name": "folder", "path": pictures, "image_size": 8})
    datasets.prepare(folder, root / "data/index.parquet", {"stage": "data", "version": 1}, cache=root, workers=0)
    return root


Reader = Callable[[Path], Any]


def readers(root: Path) -> dict[Path, Reader]:
    """How each artifact of the run is read; what comes out can be compared."""
    found: dict[Path, Reader] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix == ".json":
            found[path] = artifacts.read_note
        elif path.suffix in (".parquet", ".safetensors"):
            note = artifacts.describe(path)
            found[path] = _reader(note["kind"], note["identity"])
    return found


def _reader(kind: str, stands_for: dict[str, Any]) -> Reader:
    if kind == "images":
        return lambda path: _data(datasets.load(path, stands_for))
    if kind == "network":
        return lambda path: _network(files.load(path, SETTINGS.experiments["tiny"].network, stands_for))
    if kind == "checkpoint":
        return lambda path: _tensors(*artifacts.read_tensors(path, kind, stands_for))
    return lambda path: _table(*artifacts.read_table(path, kind, {}, stands_for))


def _data(found: datasets.DataSet) -> Any:
    splits = [(part.images.tolist(), part.labels.tolist()) for part in (found.train, found.test)]  # type: ignore[attr-defined]
    return found.classes, found.mean, found.std, splits


def _network(found: Any) -> Any:
    state = {name: tensor.tolist() for name, tensor in found.module.state_dict().items()}
    parts = [{name: tensor.tolist() for name, tensor in held.items()} for held in (found.signs, found.alphas)]
    return found.classes, found.mean, found.std, found.input_shape, state, parts


def _tensors(tensors: Any, document: dict[str, Any]) -> Any:
    return {name: tensor.tolist() for name, tensor in tensors.items()}, document


def _table(table: Any, document: dict[str, Any]) -> Any:
    return repr(table.to_pydict()), document  # NaN equals itself as text


def flips(raw: bytes, draw: random.Random, count: int) -> Iterator[bytes]:
    """A single bit, anywhere: half of them within the notes."""
    notes = [place.span() for place in re.finditer(rb"[ -~]{200,}", raw)]
    for number in range(count):
        begin, end = draw.choice(notes) if notes and number % 2 else (0, len(raw))
        place, bit = draw.randrange(begin, end), draw.randrange(8)
        yield raw[:place] + bytes([raw[place] ^ (1 << bit)]) + raw[place + 1 :]


def edits(raw: bytes, draw: random.Random, count: int) -> Iterator[bytes]:
    """One digit of the notes becomes another."""
    digits = [place.start() for text in re.finditer(rb"[ -~]{200,}", raw) for place in _digits(raw, text)]
    for _ in range(count if digits else 0):
        place = draw.choice(digits)
        other = draw.choice(sorted({*b"0123456789"} - {raw[place]}))
        yield raw[:place] + bytes([other]) + raw[place + 1 :]


def _digits(raw: bytes, text: re.Match[bytes]) -> Iterator[re.Match[bytes]]:
    return re.compile(rb"[0-9]").finditer(raw, *text.span())


def swaps(path: Path, others: list[Path], draw: random.Random, count: int) -> Iterator[bytes]:
    """The content of another artifact with the same ending, under this name."""
    same = [other for other in others if other.suffix == path.suffix and other != path]
    yield from (other.read_bytes() for other in draw.sample(same, min(count, len(same))))


def refused(path: Path, read: Reader, expected: Any, mutated: bytes) -> bool:
    """Whether reading says what is wrong; else, it must give the same as before."""
    before = path.read_bytes()
    path.write_bytes(mutated)
    message = None
    try:
        found = read(path)
    except ArtifactError as error:
        message = str(error)
    finally:
        path.write_bytes(before)
    if message is None:
        assert found == expected, f"{path}: another result was believed"
        return False
    assert str(path) in message
    assert re.search(r"delete .* (make (it|them) again with|run again)", message), message
    return True


def mutate(root: Path, seed: int, each: int) -> tuple[int, int]:
    """Mutate each artifact, in each way; how many mutations, and how many were refused."""
    draw, all_readers, tried, noticed = random.Random(seed), readers(root), 0, 0
    for path, read in all_readers.items():
        raw, expected = path.read_bytes(), read(path)
        whole = Path(path)
        for mutated in (
            *flips(raw, draw, 2 * each),
            *edits(raw, draw, each),
            *(swaps(path, list(all_readers), draw, each) if path.suffix != ".json" else ()),
        ):
            if mutated != raw and not _same_stage(path, mutated, all_readers):
                tried, noticed = tried + 1, noticed + refused(whole, read, expected, mutated)
    return tried, noticed


def _same_stage(path: Path, mutated: bytes, all_readers: dict[Path, Reader]) -> bool:
    """Whether this is another shard or table of the same settings: `test_shards...` looks at those."""
    other = next((one for one in all_readers if one != path and one.read_bytes() == mutated), None)
    if other is None:
        return False
    one, two = artifacts.describe(path), artifacts.describe(other)
    return (one["kind"], one["identity"]) == (two["kind"], two["identity"])


def kinds(root: Path) -> set[str]:
    return {artifacts.describe(path)["kind"] for path in readers(root) if path.suffix != ".json"}


EVERY = {"images", "network", "history", "summary", "checkpoint", "activations", "thresholds", "predictions", "spikes"}
EVERY |= {"operations", "errors", "ideal", "results-table", "search", "exit", "latency-table", "image-index"}


def test_some_mutations_of_each_artifact(finished: Path) -> None:
    assert kinds(finished) == EVERY
    tried, noticed = mutate(finished, 0, 1)
    assert tried > 60
    assert noticed == tried


@pytest.mark.slow
def test_thousands_of_mutations_of_each_artifact(finished: Path) -> None:
    tried, noticed = mutate(finished, 1, 20)
    assert tried >= 1000
    assert noticed == tried


def read_simulation(root: Path, settings: config.Config = SETTINGS) -> Any:
    found = gather.Source(Pipeline(settings, root), "tiny").simulation("binary", 0, 99.0)
    return found.correct.tolist(), found.spikes.tolist(), found.labels.tolist(), found.ann_correct


def read_method(root: Path) -> Any:
    run = latency.Run(Pipeline(SETTINGS, root), Place("tiny", "binary", 0, steps=5))
    shards = gather.shards(run.pipeline, "method", run.place)
    return run.operations().to_dict(), run.errors().to_dict(), [len(shard.predictions) for shard in shards]


@pytest.mark.parametrize("kind", ["predictions", "spikes", "operations", "errors"])
def test_shards_under_the_names_of_others_are_refused(finished: Path, kind: str) -> None:
    """Each shard's file over each other's, of the simulation and of the method.

    Errors are of calibration images, the same in all shards: only the first shard's are read.
    """
    tried = 0
    for read, pattern in ((read_simulation, f"p99/{kind}-*"), (read_method, f"methods/*/*/{kind}-*")):
        shards = sorted((finished / "tiny/binary/seed0").glob(f"{pattern}.parquet"))
        expected = read(finished)
        for path, other in product(shards, shards):
            if path != other:
                is_read = kind != "errors" or f".1of{SHARDS}." in path.name
                assert refused(path, lambda _, read=read: read(finished), expected, other.read_bytes()) == is_read
                tried += 1
    assert tried == (12 if kind in ("predictions", "spikes") else 6)


@pytest.mark.parametrize("kind", ["results", "latency"])
def test_tables_under_the_names_of_others_are_refused(finished: Path, kind: str) -> None:
    folder, tried = finished / "tiny/tables", 0
    names, read = (
        (tables.TABLES, lambda: tables.read(folder).frames)
        if kind == "results"
        else (
            latency.TABLES,
            lambda: latency.load(folder, Pipeline(SETTINGS).identity("latency_tables", Place("tiny"))),
        )
    )
    expected = {name: repr(frame) for name, frame in read().items()}
    for one, other in product(names, names):
        if one != other:
            path, content = folder / f"{one}.parquet", (folder / f"{other}.parquet").read_bytes()
            assert refused(path, lambda _: {name: repr(frame) for name, frame in read().items()}, expected, content)
            tried += 1
    assert tried >= 12


def test_renamed_shards_are_refused(finished: Path, tmp_path: Path) -> None:
    """Two of three shards are no two of two, and one of three is not the only one."""
    for shards in (1, 2):
        root = tmp_path / str(shards)
        shutil.copytree(finished, root)
        for path in sorted((root / "tiny/binary/seed0/p99").glob(f"*of{SHARDS}.parquet")):
            path.rename(path.with_name(path.name.replace(f"of{SHARDS}", f"of{shards}")))
        fewer = config.validate(
            merge(TINY, merge(CHANGES, {"experiments": {"tiny": {"simulation": {"shards": shards}}}}))
        )
        with pytest.raises(ArtifactError, match=rf"holds shard 1 of 3, and its name says 1 of {shards}; delete it"):
            read_simulation(root, fewer)
