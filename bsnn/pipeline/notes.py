"""Notes beside files at plain names: which settings the tables, figures and reports of an experiment are of.

The name of a note carries the key, and Snakemake asks for the note alone: a changed setting is a missing file. A note
is removed before the files that it vouches for are written, and its successor is written after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bsnn import artifacts
from bsnn.errors import ArtifactError
from bsnn.pipeline.identity import KEY_LENGTH

if TYPE_CHECKING:
    from bsnn.pipeline.model import Pipeline
    from bsnn.pipeline.stage import Place

NUMBER = r"(\.\d+)?"  # from the second note of the same settings on: .2, .3, ...
MADE = f"[0-9a-f]{{{KEY_LENGTH}}}{NUMBER}"  # what a note's name ends with


def path(pipeline: Pipeline, name: str, place: Place) -> Path:
    """The note that vouches for the shown files of a stage; one to make, where a file is missing or out of date."""
    # Snakemake looks for the note alone: a lost file, too, must be a note that is missing.
    whole = all(path.exists() for path in shown(pipeline, name, place))
    there = _there(pipeline, name, place, pipeline.key(name, place) + NUMBER) if whole else []
    return there[0] if there else _free(pipeline, name, place)


def shown(pipeline: Pipeline, name: str, place: Place) -> list[Path]:
    """Files at plain names that a stage writes."""
    return [pipeline.root / pipeline.filled(path, name, place) for path in pipeline.stage(name, place).shown]


@contextmanager
def renewed(pipeline: Pipeline, name: str, place: Place) -> Iterator[None]:
    """Within, a stage writes its shown files; no note vouches for them until all are written.

    Raises:
        ArtifactError: what they are made from, shown files of another stage, is missing or of other settings.
    """
    for need in pipeline.reads(name, place):
        if need.kind == "note" and not (note := pipeline.path(*need)).exists():
            raise ArtifactError(
                f"{note}: no such file: what it vouches for is missing, or of other settings; make it with: "
                f"snakemake {note}"
            )
    # Chosen while the old notes are there, as when Snakemake asked for it: without them the name would be another.
    target = _free(pipeline, name, place)
    for old in _there(pipeline, name, place, MADE):
        old.unlink()
    yield
    artifacts.write_note(target, {"key": pipeline.key(name, place), **pipeline.identity(name, place)})


def _free(pipeline: Pipeline, name: str, place: Place) -> Path:
    """The first name for a note under which there is none: Snakemake makes what is missing."""
    key = pipeline.key(name, place)
    names = (_named(pipeline, name, place, key if number == 1 else f"{key}.{number}") for number in count(1))
    return next(path for path in names if not path.exists())


def _there(pipeline: Pipeline, name: str, place: Place, made: str) -> list[Path]:
    """Notes of a stage, those whose names end with a regular expression."""
    blank = _named(pipeline, name, place, "")
    found = blank.parent.glob(f"{blank.stem}*.json")
    return sorted(path for path in found if re.fullmatch(made, path.stem.removeprefix(blank.stem)))


def _named(pipeline: Pipeline, name: str, place: Place, made: str) -> Path:
    pattern = pipeline.stage(name, place).files["note"].path
    return pipeline.root / pipeline.filled(pattern, name, place, made=made)
