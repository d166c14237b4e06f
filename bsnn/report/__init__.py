"""The report of an experiment: one HTML file that needs nothing beside it, made from written tables and figures.

SECTIONS is its table of contents; what else was made of the same networks (`more`) follows. Modules: `glance` (the
answer), `explorer` (chart and table to choose from), `about` (how the numbers were made).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from bsnn import artifacts, tables
from bsnn.errors import ArtifactError
from bsnn.figures import FIGURES
from bsnn.pipeline import identity
from bsnn.pipeline.model import Pipeline
from bsnn.report import about, explorer, glance, more
from bsnn.tables import TABLES, Results
from bsnn.tables.columns import cells, column

Entry = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One section: its figures, then its tables, by their names."""

    title: str
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


SECTIONS = (
    Section("Accuracy, spikes and energy", ("accuracy_over_time", "accuracy_over_cost"), ("accuracy",)),
    Section("Spikes by layer", ("spikes_by_layer",), ("spikes_by_layer",)),
    Section("Rates and activations", ("rates",), ("rates",)),
    Section("Binary network", (), ("binary_summary",)),
    Section("Training", ("training",), ("training",)),
)


def write(
    source: Results | str | Path, figures: str | Path, path: str | Path, pipeline: Pipeline | None = None
) -> None:
    """Write the report.

    Args:
        source: results, or the folder of their tables.
        figures: folder of the figures.
        path: HTML file to write.
        pipeline: where to look for results of methods, search and early exit; none are shown without it.

    Raises:
        ArtifactError: when tables or figures are missing, or the file cannot be written.
    """
    results = source if isinstance(source, Results) else tables.read(source)
    found = more.found(pipeline, results.name) if pipeline is not None else []
    methods = next((part.methods for part in found if part.methods is not None), None)
    sections = [_own(one, results, Path(figures)) for one in SECTIONS]
    sections += [_further(part, Path(figures)) for part in found]
    view = explorer.view(results, methods)
    page = template("report.html.j2").render(
        name=results.name,
        description=results.config.experiments[results.name].description,
        facts=about.facts(results),
        advice=glance.advice(results),
        rows=glance.rows(results),
        times=glance.times(results),
        caption=glance.caption(results),
        explorer={**view, "data": Markup(view["data"]), "script": Markup(view["script"])},
        sections=[one for one in sections if one["figures"] or one["tables"]],
        protocol=about.protocol(results),
        origins=_view(about.artifacts(results), TABLES["origins"].caption),
        machines=_view(about.machines(results), "Where the artifacts were made."),
        versions=_view(about.versions(results), "Versions of the software that made them."),
        settings=yaml.safe_dump(tables.settings_of(results), sort_keys=False, allow_unicode=True),
        key=identity.key(results.identity),
    )
    artifacts.write_text(path, page)


def _own(planned: Section, results: Results, folder: Path) -> Entry:
    views = [
        {**_view(results[name], TABLES[name].caption, total=TABLES[name].total), "title": TABLES[name].title}
        for name in planned.tables
        if len(results[name])
    ]
    return section(planned.title, {name: FIGURES[name].caption for name in planned.figures}, views, folder)


def _further(part: more.Part, folder: Path) -> Entry:
    view = {**_view(part.table, part.caption), "title": part.title}
    return section(part.title, part.figures, [view], folder)


def template(name: str) -> jinja2.Template:
    """A page's template; a value that it is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bsnn"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def section(
    title: str, captions: Mapping[str, str], views: list[Entry], folder: Path, name: str | None = None
) -> Entry:
    """A section for the template.

    Args:
        title: heading.
        captions: of its figures, by their names.
        views: its tables.
        folder: where the figures lie.
        name: what links point to; by default made of the title.

    Raises:
        ArtifactError: when a figure is missing.
    """
    target = name or "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    shown = [_figure(folder / f"{figure}.svg", caption) for figure, caption in captions.items()]
    return {"title": title, "id": target, "figures": shown, "tables": views}


def _figure(path: Path, caption: str) -> Entry:
    """A figure inside the page: as an image, so that identifiers of two drawings cannot meet."""
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); make the figures first") from error
    return {"uri": f"data:image/svg+xml;base64,{data}", "caption": caption}


def _view(frame: pd.DataFrame, caption: str, *, total: bool = False) -> Entry:
    """A table for the template; columns without any value are left out."""
    shown = frame.dropna(axis=1, how="all")
    headings = [column(str(name)) for name in shown.columns]
    return {"caption": caption, "headings": headings, "rows": cells(shown), "total": total}
