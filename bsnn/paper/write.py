"""The paper's results on disk: CSV, Markdown and LaTeX for people, Parquet to read back, figures as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bsnn import artifacts
from bsnn.figures import style
from bsnn.paper import plan
from bsnn.paper.catalogue import CATALOGUE
from bsnn.paper.measures import Gathered
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import Results
from bsnn.tables.columns import cells, column, pipes
from bsnn.tables.origins import origins

KIND = "paper-table"
ORIGINS = "origins"
MISSING = {  # what is said where a value is not known
    "published": "not available",
    "difference": "not available",
    "tolerance": "none",
    "verdict": "not available",
    "published_full": "not available",
    "published_binary": "not available",
    "time_mean": "not reached",
}
WORDS = ("source", "published_full", "published_binary", "used_full", "used_binary")  # columns that wrap
SPECIAL = {character: f"\\{character}" for character in "%&_#$"}


def collect(pipeline: Pipeline, name: str, result: str) -> dict[str, pd.DataFrame]:
    """Tables of a result, by name, and the origins of what is behind them.

    Raises:
        ArtifactError: when an artifact is missing, damaged or made with other settings.
    """
    gathered = Gathered(pipeline, name, result)
    frames = {table: entry.make(gathered) for table, entry in CATALOGUE[result].tables.items()}
    parts = [origins(source) for source in gathered.sources.values()]
    return {**frames, **({f"{result}-{ORIGINS}": pd.concat(parts)} if parts else {})}


def write(pipeline: Pipeline, place: Place, folder: Path) -> None:
    """Make one result: its tables and its figures."""
    config, name, result = pipeline.config, place.experiment, place.result
    stands_for = pipeline.identity("paper_result", place)
    frames = collect(pipeline, name, result)
    for table, frame in frames.items():
        artifacts.write_frame(folder / f"{table}.parquet", frame, KIND, stands_for, csv=False)
    for table, entry in CATALOGUE[result].tables.items():
        _write_texts(folder / table, frames[table], entry.caption, long=entry.long)
    last = plan.simulated(config, name, result).get(name, [])
    pictures = {figure: picture.draw for figure, picture in CATALOGUE[result].figures.items()}
    style.draw(pictures, folder, Results(plan.view(config, name, last), name, frames))


def _write_texts(path: Path, frame: pd.DataFrame, caption: str, *, long: bool) -> None:
    if frame.empty:  # what an earlier run left says nothing about this one
        for suffix in (".csv", ".md", ".tex"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        return
    artifacts.write_csv(path.with_suffix(".csv"), said(frame))
    if long:
        return
    texts = written(frame)
    artifacts.write_text(
        path.with_suffix(".md"), f"{caption}\n\n{pipes([str(name) for name in texts.columns], rows_of(texts))}\n"
    )
    artifacts.write_text(path.with_suffix(".tex"), latex(texts, caption, path.name))


def said(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with words instead of unknown values."""
    found = frame.astype(object)
    for name in found.columns.intersection(list(MISSING)):
        found[name] = found[name].where(found[name].notna(), MISSING[str(name)])
    return found


def written(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: texts, rounded; words for what is not known, no columns without any value."""
    texts = pd.DataFrame(cells(frame), columns=frame.columns, dtype="string").where(frame.notna())
    kept = [name for name in texts.columns if name in MISSING or texts[name].notna().any()]
    return said(texts)[kept]


def rows_of(texts: pd.DataFrame) -> list[list[str]]:
    """Rows of the texts, empty where there is none."""
    return [list(row) for row in texts.fillna("").itertuples(index=False, name=None)]


def latex(texts: pd.DataFrame, caption: str, label: str) -> str:
    """A LaTeX table (package booktabs) of texts as `written` gives them; their special characters are escaped."""
    shown = texts.fillna("").rename(columns=lambda name: column(str(name)).heading)
    sides = ["p{4cm}" if name in WORDS else "r" if column(str(name)).number else "l" for name in texts.columns]
    plain = "".join(SPECIAL.get(character, character) for character in caption)
    made = shown.to_latex(index=False, escape=True, column_format="".join(sides), caption=plain, label=f"tab:{label}")
    return str(made)


def read(
    pipeline: Pipeline, place: Place, folder: Path, stands_for: Mapping[str, Any] | None = None
) -> Mapping[str, pd.DataFrame]:
    """Tables of a result as `write` left them, without the long ones.

    Args:
        pipeline: the configuration, its files and keys.
        place: the result.
        folder: where its tables lie.
        stands_for: what they are to be of; by default the result under these settings.

    Raises:
        ArtifactError: when one is missing, damaged, another table, or of other settings.
    """
    stands_for, result = stands_for or pipeline.identity("paper_result", place), place.result
    names = [table for table, entry in CATALOGUE[result].tables.items() if not entry.long]
    names += [f"{result}-{ORIGINS}"] if plan.simulated(pipeline.config, place.experiment, result) else []
    return artifacts.read_frames(folder, names, KIND, stands_for)
