"""Figures of early exit: accuracy against mean steps and operations, beside fewer steps for all images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bsnn.figures import style
from bsnn.figures.axes import COLOURS, OPERATIONS, by_weights, dashed, legend
from bsnn.figures.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOSEN = {"marker": "*", "markersize": 15, "markerfacecolor": "none", "zorder": 4}


def curve(table: pd.DataFrame, column: str, label: str) -> Figure:
    """Test accuracy against a column, one line per seed: images that leave at a bound, all images after fewer steps."""
    from matplotlib.ticker import StrMethodFormatter

    test = table[table["split"] == "test"].sort_values(column)
    figure, panels = by_weights(test)
    for axis, weights, part in panels:
        without = part["bound"].isna()
        _lines(axis, part[without], column, "same steps for all", color="#999999", marker="s")
        _lines(axis, part[~without], column, "early exit", color=COLOURS[weights], marker="o")
        _lines(axis, part[part["chosen"]], column, "chosen", color=INK, linestyle="none", **CHOSEN)
        dashed(axis, part["ann"].mean())
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_xlabel(label)
    figure.axes[0].set_ylabel("test accuracy (%)")
    figure.axes[0].set_ylim(*_near(test))
    legend(figure, figure.axes[0], "")
    return figure


def _near(test: pd.DataFrame) -> tuple[float, float]:
    """Accuracies around those of early exit; what fewer steps of all images reach may lie below."""
    shown = [*test.loc[test["bound"].notna(), "accuracy"], *test.loc[test["T"] == test["T"].max(), "accuracy"]]
    low, high = min(shown), max(*shown, *test["ann"])
    room = max(high - low, 1) / 4
    return low - room, high + room


def _lines(axis: Axes, part: pd.DataFrame, column: str, label: str, **look: Any) -> None:
    for number, (_, own) in enumerate(part.groupby("seed")):
        axis.plot(own[column], own["accuracy"], label="_" if number else label, **look)


def draw(table: pd.DataFrame, folder: Path) -> None:
    """Draw both figures as SVG and PNG.

    Args:
        table: of bsnn.tables.early_exit.
        folder: of the figures.

    Raises:
        ArtifactError: when the folder cannot be written.
    """
    costs = table.assign(operations=table[list(OPERATIONS)].sum(axis=1) / 1e6)
    figures = {
        "early_exit": partial(curve, column="mean_steps", label="mean time steps per image"),
        "early_exit_operations": partial(curve, column="operations", label="operations per image (millions)"),
    }
    style.draw(figures, folder, costs)
