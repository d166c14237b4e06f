"""Which artifacts are there, and which of them the current settings need."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from bsnn.artifacts.claim import TRAINING_LOCK
from bsnn.errors import ConfigError
from bsnn.paper import plan
from bsnn.pipeline.declarations import STAGES
from bsnn.pipeline.identity import KEY_LENGTH
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.pipeline.workflow import CONSTRAINTS, place_of, unlisted

KEYED = re.compile(rf"-[0-9a-f]{{{KEY_LENGTH}}}(\.\d+of\d+)?\.(parquet|safetensors|csv)$")


@dataclass(frozen=True)
class Item:
    """One artifact, or one folder of checkpoints."""

    path: Path
    size: int  # bytes
    needed: bool

    def remove(self) -> bool:
        """Delete it; a folder of checkpoints whose training runs stays. Whether it is gone."""
        if not self.path.is_dir():
            self.path.unlink()
            return True
        # Whoever trains there holds it as long as it trains: who gets it may remove the folder.
        lock = FileLock(self.path / TRAINING_LOCK)
        try:
            with lock.acquire(blocking=False):
                shutil.rmtree(self.path)
        except Timeout:
            return False
        return True


def artifacts(pipeline: Pipeline) -> list[Item]:
    """All artifacts and checkpoints under a results folder, sorted by path; reference tables are not among them."""
    root, checkpoints = pipeline.root, _checkpoints(pipeline)
    files = [path for path in root.rglob("*") if path.is_file() and KEYED.search(path.name)]
    files = [path for path in files if not {root / "reference", root / "checkpoints"} & set(path.parents)]
    # By experiment, weights, seed and key.
    folders = [path for path in (root / "checkpoints").glob("*/*/*/*") if path.is_dir()]
    named = _named(pipeline)
    found = {path: path.resolve() in named or in_use(pipeline, path) for path in files}
    for path in folders:
        [experiment, *_] = path.relative_to(root / "checkpoints").parts
        found[path] = path in checkpoints or _may_be_needed(pipeline, {"experiment": experiment})
    return [Item(path, _size(path), needed) for path, needed in sorted(found.items())]


def _named(pipeline: Pipeline) -> set[Path]:
    """Files that settings name, which need not be what the pipeline would make now: where training starts, imports."""
    paths: list[Path | None] = []
    for experiment in pipeline.config.experiments.values():
        given = (experiment.train.start, experiment.imported.full, experiment.imported.binary)
        paths += [one.path for one in given if one is not None]
        paths += [experiment.own.weights] if experiment.own is not None else []
    return {path.resolve() for path in paths if path is not None}


def _checkpoints(pipeline: Pipeline) -> set[Path]:
    """Folders of checkpoints whose network is not there yet. Kept shards are never needed."""
    return {
        pipeline.scratch(stage, place)
        for stage in ("train", "binarize")
        for name in pipeline.config.experiments
        for place in pipeline.places(stage, name)
        if not pipeline.path(stage, place).exists()
    }


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    found = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum(file.st_size for file in found if file.st_nlink == 1)  # a second name takes no space


def in_use(pipeline: Pipeline, path: Path) -> bool:
    """Whether a path below the results folder is that of an artifact which the current settings can ask for."""
    below = path.relative_to(pipeline.root).as_posix()
    for name, kind, regex in _patterns():
        if match := regex.fullmatch(below):
            try:
                place = place_of(pipeline, name, match.groupdict())
            except ConfigError:
                # Another key than the current settings', or a place that they do not have: not in use, unless the
                # current keys cannot be known.
                return _may_be_needed(pipeline, match.groupdict())
            return place in _grid(pipeline, name, place.experiment) and pipeline.path(name, place, kind) == path
    return False


def _may_be_needed(pipeline: Pipeline, words: dict[str, str]) -> bool:
    """Whether an artifact is of images that cannot be listed now, so that no key says if it is needed."""
    return any(
        unlisted(pipeline, name)
        for name, experiment in pipeline.config.experiments.items()
        if name == words.get("experiment") or experiment.data.name == words.get("data")
    )


@cache
def _grid(pipeline: Pipeline, name: str, experiment: str) -> frozenset[Place]:
    """Every job of a stage for an experiment, the paper's percentiles included."""
    return frozenset(pipeline.places(name, experiment, plan.sweep(pipeline.config)))


@cache
def _patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    """Stage, kind and pattern of every keyed artifact."""
    return [
        (name, kind, _regex(file.path))
        for name, stage in STAGES.items()
        for kind, file in stage.files.items()
        if kind != "note"
    ]


def _regex(pattern: str) -> re.Pattern[str]:
    """Regular expression of a path with wildcards, each of which stands there once."""
    # Every other part is the name of a wildcard.
    parts = re.split(r"\{(\w+)\}", pattern)
    texts = [
        f"(?P<{part}>{CONSTRAINTS.get(part, '[^/]+')})" if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    ]
    return re.compile("".join(texts))
