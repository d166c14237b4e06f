"""Notes beside files at plain names: which settings the tables, figures and reports of an experiment are of.

The name of a note carries the key, and Snakemake asks for the note alone: a changed setting is a missing file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bsnn import artifacts
from bsnn.pipeline.identity import KEY_LENGTH

if TYPE_CHECKING:
    from bsnn.pipeline.model import Pipeline
    from bsnn.pipeline.stage import Place

AGAIN = ".again"
MADE = rf"[0-9a-f]{{{KEY_LENGTH}}}({re.escape(AGAIN)})?"  # what a note's name ends with


def path(pipeline: Pipeline, name: str, place: Place) -> Path:
    """The note that vouches for the shown files of a stage.

    Should one of these files be lost while the note is there, they must be made again, so the note must not be there.
    Its second name, with `.again`, is then the one to make, until the next loss.
    """
    names = _names(pipeline, name, place)
    there = [path for path in names if path.exists()]
    shown = [pipeline.root / pipeline.filled(path, name, place) for path in pipeline.stage(name, place).shown]
    if there and all(path.exists() for path in shown):
        return there[0]
    return next(path for path in names if path not in there)


def write(pipeline: Pipeline, name: str, place: Place) -> None:
    """Note what the shown files of a stage stand for, and remove the note of what they stood for before."""
    base, again = _names(pipeline, name, place)
    target = again if base.exists() else base
    key, stands_for = pipeline.key(name, place), pipeline.identity(name, place)
    artifacts.write_note(target, {"key": key, **stands_for})
    beginning = base.name.removesuffix(f"{key}.json")
    for path in target.parent.iterdir():
        if path != target and re.fullmatch(rf"{re.escape(beginning)}{MADE}\.json", path.name):
            path.unlink()


def _names(pipeline: Pipeline, name: str, place: Place) -> list[Path]:
    pattern, key = pipeline.stage(name, place).files["note"].path, pipeline.key(name, place)
    return [pipeline.root / pipeline.filled(pattern, name, place, made=made) for made in (key, key + AGAIN)]
