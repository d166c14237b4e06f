"""One report of all results of the paper: an HTML file that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bsnn import artifacts
from bsnn.config import Binarize, Config, Full, Weights, format_percentile
from bsnn.paper import plan, write
from bsnn.paper.catalogue import CATALOGUE
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.report import about, section, template
from bsnn.tables import Results
from bsnn.tables.columns import column


def page(pipeline: Pipeline, name: str, folder: Path, path: Path) -> None:
    """Write the report from the results' folder.

    Raises:
        ArtifactError: when a table or figure is missing or of other settings, or the file cannot be written.
    """
    config = pipeline.config
    read = {place.result: write.read(pipeline, place, folder) for place in pipeline.places("paper_result", name)}
    origins = _origins(config, name, read)
    text = template("paper.html.j2").render(
        name=name,
        description=config.experiments[name].description,
        facts=facts(pipeline, name),
        sections=[_section(result, frames, folder) for result, frames in read.items()],
        machines=_view(about.machines(origins), ""),
        versions=_view(about.versions(origins), ""),
        key=pipeline.key("paper_report", Place(name)),
    )
    artifacts.write_text(path, text)


def _origins(config: Config, name: str, read: dict[str, Any]) -> Results:
    """Origins of all results, as the functions of an experiment's report take them."""
    parts = [frames[key] for frames in read.values() for key in frames if key.endswith(write.ORIGINS)]
    return Results(config, name, {"origins": pd.concat(parts).drop_duplicates(ignore_index=True)})


def facts(pipeline: Pipeline, name: str) -> list[tuple[str, str]]:
    """What the results are of, in a few words each."""
    config, experiment = pipeline.config, pipeline.config.experiments[name]
    recipes: dict[str, tuple[Weights, Full | Binarize]]
    recipes = {"train": ("full", experiment.train), "binarize": ("binary", experiment.binarize)}
    trained = [
        f"{recipe.epochs} {weights}"
        for stage, (weights, recipe) in recipes.items()
        if any(pipeline.places(stage, name)) and not experiment.given(weights)  # not read from a file
    ]
    return [
        ("Data set", f"{experiment.data.name}, {experiment.data.image_size} × {experiment.data.image_size}"),
        ("Pool", f"{experiment.family.pool}, {experiment.family.place} the ReLU"),
        ("Protocol", experiment.protocol_name),
        *([("Epochs", ", ".join(trained))] if trained else []),
        ("Seeds", ", ".join(map(str, config.seeds))),
        ("Simulated steps", str(experiment.simulation.time)),
        (
            "Chosen",
            f"percentile {format_percentile(config.paper.chosen)}, T = {plan.chosen_time(config, name)}",
        ),
    ]


def _section(result: str, frames: Any, folder: Path) -> dict[str, Any]:
    entry = CATALOGUE[result]
    shown = {name: table for name, table in entry.tables.items() if not table.long and len(frames[name])}
    captions = {name: picture.caption for name, picture in entry.figures.items()}
    views = [_view(frames[name], table.caption) for name, table in shown.items()]
    return section(entry.title, captions, views, folder, result)


def _view(frame: pd.DataFrame, caption: str) -> dict[str, Any]:
    """A table for the template."""
    texts = write.written(frame)
    headings = [{"text": column(name).heading, "kind": _kind(name)} for name in map(str, texts.columns)]
    return {"caption": caption, "headings": headings, "rows": write.rows_of(texts)}


def _kind(name: str) -> str:
    words = name in write.WORDS or name in ("versions", "stage")
    return "words" if words else "number" if column(name).number else "text"
