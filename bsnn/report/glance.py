"""The answer at a glance: accuracy and spikes by percentile and time, what to choose, and when a curve arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from bsnn.config import format_percentile
from bsnn.figures.axes import NAMES
from bsnn.tables import Results
from bsnn.tables.columns import compact
from bsnn.tables.costs_over_time import KEYS, LOSS, NEAR, SLACK, chosen, first_lasting


@dataclass(frozen=True)
class Cell:
    """One percentile at one time."""

    accuracy: str
    interval: str
    spikes: str
    chosen: bool


@dataclass(frozen=True)
class Row:
    """One percentile of one kind of weights."""

    weights: str
    percentile: str
    ann: str
    cells: list[Cell]
    steps: str  # to within NEAR points of the ANN
    earlier: bool  # asked for by an earlier question


def times(results: Results) -> list[int]:
    """Reported numbers of steps."""
    return sorted(results.config.time)


def rows(results: Results) -> list[Row]:
    """Every percentile simulated so far, kind by kind."""
    frame, shown = results["costs_over_time"], times(results)
    best = {(row["weights"], row["percentile"], row["time"]) for row in _chosen(results)}
    found = []
    for key, part in frame.groupby(KEYS, sort=False):
        weights, percentile = cast("tuple[str, float]", key)
        at, first = part.set_index("time"), part.iloc[0]
        arrived = first_lasting(part.sort_values("time")["drop"].to_numpy() <= NEAR + SLACK)
        cells = [_cell(cast("pd.Series[Any]", at.loc[time]), (weights, percentile, time) in best) for time in shown]
        found.append(
            Row(
                weights,
                format_percentile(percentile),
                f"{first['ann']:.2f}",
                cells,
                f"{arrived:.0f}" if pd.notna(arrived) else f"> {part['time'].max()}",
                not first["asked"],
            )
        )
    return found


def _cell(row: pd.Series, is_chosen: bool) -> Cell:
    interval = f"{row['low']:.1f} to {row['high']:.1f}"
    return Cell(f"{row['accuracy']:.2f}", interval, compact(row["spikes_per_image"]), is_chosen)


def _chosen(results: Results) -> list[dict[Any, Any]]:
    return chosen(results["costs_over_time"], times(results)).to_dict("records")


def advice(results: Results) -> list[str]:
    """What to choose, for each kind of weights: one sentence."""
    return [_sentence(row) for row in _chosen(results)]


def _sentence(row: dict[Any, Any]) -> str:
    where = f"percentile {format_percentile(row['percentile'])} and T = {row['time']}"
    reached = (
        f"{row['accuracy']:.2f} % (95 % interval {row['low']:.1f} to {row['high']:.1f}) with "
        f"{row['spikes_per_image']:,.0f} spikes and {row['nanojoules']:,.0f} nJ per image "
        f"(ANN: {row['ann']:.2f} %)"
    )
    why = (
        f"of the rows asked for, the fewest spikes where at most {LOSS:g} points are lost"
        if row["near"]
        else f"every row asked for loses more than {LOSS:g} points"
    )
    return f"{NAMES[row['weights']].capitalize()} weights: {where} ({why}): {reached}."


def caption(results: Results) -> str:
    """What the table shows."""
    seeds = len(results.config.seeds)
    mean = f" Means over {seeds} seeds." if seeds > 1 else ""
    return (
        "Test accuracy in percent after T steps, its 95 % interval over the test images (Wilson), and spikes per image."
        f" Last column: first step from which accuracy stays within {NEAR:g} point of the network as trained (ANN)."
        f"{mean} Marked: the row to choose. Percentiles of earlier questions to the same networks are shown in grey."
    )
