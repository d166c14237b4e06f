"""What a run was for: a small table and where the rest is, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from bsnn.config import format_percentile
from bsnn.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd

    from bsnn.pipeline.model import Pipeline

READABLE = (".csv", ".json", ".safetensors")  # files without a table of their own that are named
ROWS = 12  # of the small table; more are in the report


def text(pipeline: Pipeline, targets: Iterable[str]) -> str:
    """The answer of some targets, whose files are there."""
    lines: list[str] = []
    for target in targets:
        for name in pipeline.config.run:
            lines += _experiment(pipeline, name) if target == "all" else _files(pipeline, target, name)
    return "\n".join(dict.fromkeys(lines))


def _files(pipeline: Pipeline, target: str, name: str) -> Iterator[str]:
    """Paths of what a target made for people to read; of several experiments with the same files, each once."""
    for stage, place in pipeline.target(target):
        if place.experiment == name:
            shown = [pipeline.root / pipeline.filled(path, stage, place) for path in pipeline.stage(stage, place).shown]
            paths = shown or [path for path in pipeline.files(stage, place) if path.suffix in READABLE]
            yield from (f"{target}: {path}" for path in paths if path.suffix != ".parquet")


def _experiment(pipeline: Pipeline, name: str) -> Iterator[str]:
    from bsnn import tables
    from bsnn.tables.costs_over_time import chosen

    report = pipeline.root / name / "report.html"
    try:
        results = tables.read(pipeline.root / name / "tables")
    except ArtifactError as error:  # the run made it; somebody removed it since
        yield str(error)
        return
    times, frame = sorted(pipeline.config.time), results["costs_over_time"]
    asked = frame[frame["asked"] & frame["time"].isin(times)]
    images = int(asked["images"].max())
    yield f"{name}: accuracy in % of {images:,} test images, and spikes per image, after T steps"
    yield from _table(asked, times)
    for row in chosen(frame, times).to_dict("records"):
        where = f"percentile {format_percentile(row['percentile'])}, T = {row['time']}"
        spikes = f"{row['spikes_per_image']:,.0f} spikes per image"
        why = (
            "the fewest of these rows that lose at most half a point"
            if row["near"]
            else "every row loses more than half a point"
        )
        accuracy = f"{row['accuracy']:.2f} % (95 % interval {row['low']:.1f} to {row['high']:.1f})"
        yield f"{row['weights']} weights: {where}: {accuracy} with {spikes} ({why})"
    yield f"report: {report}"


def _table(asked: pd.DataFrame, times: list[int]) -> Iterator[str]:
    from tabulate import tabulate

    from bsnn.tables.columns import compact

    groups = list(asked.groupby(["weights", "percentile"], sort=False))
    rows: list[list[str]] = []
    for key, part in groups[:ROWS]:
        weights, percentile = cast("tuple[str, float]", key)
        at = part.set_index("time")
        cells = [f"{at['accuracy'][time]:.2f} {compact(at['spikes_per_image'][time]):>5}" for time in times]
        rows.append([weights, format_percentile(percentile), f"{part['ann'].iloc[0]:.2f}", *cells])
    heads = ["weights", "percentile", "ANN", *(f"T = {time}" for time in times)]
    sides = ["left", *(["right"] * (len(heads) - 1))]
    yield from tabulate(rows, heads, tablefmt="simple", colalign=sides, disable_numparse=True).splitlines()
    if len(groups) > ROWS:
        yield f"and {len(groups) - ROWS} more rows, in the report"
