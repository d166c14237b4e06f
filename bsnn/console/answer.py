"""What a run was for: a small table and where the rest is, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isnan
from typing import TYPE_CHECKING

from bsnn.errors import ArtifactError

if TYPE_CHECKING:
    from bsnn.pipeline.model import Pipeline
    from bsnn.tables import Results

READABLE = (".csv", ".json", ".safetensors")  # files without a table of their own that are named
ROWS = 12  # of the small table; more are in the report


def text(pipeline: Pipeline, targets: Iterable[str]) -> str:
    """The answer of some targets, whose files are there."""
    lines: list[str] = []
    for target in targets:
        for name in pipeline.config.run:
            lines += _experiment(pipeline, name) if target == "all" else _files(pipeline, target, name)
            lines += _chosen(pipeline, target, name)
    return "\n".join(dict.fromkeys(lines))


def _files(pipeline: Pipeline, target: str, name: str) -> Iterator[str]:
    """Paths of what a target made for people to read; of several experiments with the same files, each once."""
    for stage, place in pipeline.target(target):
        if place.experiment == name:
            shown = [pipeline.root / pipeline.filled(path, stage, place) for path in pipeline.stage(stage, place).shown]
            paths = shown or [path for path in pipeline.files(stage, place) if path.suffix in READABLE]
            yield from (f"{target}: {path}" for path in paths if path.suffix != ".parquet")


def _chosen(pipeline: Pipeline, target: str, name: str) -> Iterator[str]:
    """What a search, or early exit, chose for each network, and what it reaches on the test images."""
    if target not in ("search", "early_exit"):
        return
    from bsnn.tables import early_exit
    from bsnn.tables.columns import compact

    stage = "find_switches" if target == "search" else "find_exit"
    for place in pipeline.places(stage, name):
        try:
            table = early_exit.of_network(pipeline, stage, place)
        except ArtifactError as error:  # the run made it; somebody removed it since
            yield str(error)
            continue
        if target == "search":
            row = table[table["what"] == "chosen, test"].iloc[0]
            how = f"at T = {row['T']} by {row['switches']}"
        else:
            row = table[(table["split"] == "test") & table["chosen"]].iloc[0]
            bound = "without a bound" if isnan(row["bound"]) else f"by a bound of {row['bound']:.3g} on the margin"
            how = f"in {row['mean_steps']:.1f} mean steps of {row['T']}, {bound}"
        yield (
            f"{name}, {place.weights}, seed {place.seed}: {row['accuracy']:.2f} % of the test images (ANN "
            f"{row['ann']:.2f}) {how}; {compact(row['spikes'])} spikes per image"
        )
    report = pipeline.root / name / "report.html"
    if report.exists():
        yield f"report: {report}"


def _experiment(pipeline: Pipeline, name: str) -> Iterator[str]:
    from bsnn import tables
    from bsnn.report import glance

    report = pipeline.root / name / "report.html"
    try:
        results = tables.read(pipeline.root / name / "tables")
    except ArtifactError as error:  # the run made it; somebody removed it since
        yield str(error)
        return
    images = int(results["costs_over_time"]["images"].max())
    yield f"{name}: accuracy in % of {images:,} test images, and spikes per image, after T steps"
    yield from _table(results)
    yield from glance.advice(results)
    yield f"report: {report}"


def _table(results: Results) -> Iterator[str]:
    from tabulate import tabulate

    from bsnn.report import glance

    asked = [row for row in glance.rows(results) if not row.earlier]
    rows = [
        [row.weights, row.percentile, row.ann, *(f"{cell.accuracy} {cell.spikes:>5}" for cell in row.cells)]
        for row in asked[:ROWS]
    ]
    heads = ["weights", "percentile", "ANN", *(f"T = {time}" for time in glance.times(results))]
    sides = ["left", *(["right"] * (len(heads) - 1))]
    yield from tabulate(rows, heads, tablefmt="simple", colalign=sides, disable_numparse=True).splitlines()
    if len(asked) > ROWS:
        yield f"and {len(asked) - ROWS} more rows, in the report"
