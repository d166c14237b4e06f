"""Figures of early exit: accuracy against mean steps and operations, beside fewer steps for all images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bsnn import drawing
from bsnn.drawing import INK
from bsnn.figures import COLOURS, _by_weights, _legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPERATIONS = ["effective_macs", "effective_acs", "effective_binary_acs"]


def curve(table: pd.DataFrame, column: str, label: str) -> Figure:
    """Test accuracy against a column: images that leave at a bound, and all images after fewer steps; a line a seed."""
    test = table[table["images"] == "test"]
    figure, panels = _by_weights(test)
    for axis, weights, part in panels:
        for number, (_, own) in enumerate(part.groupby("seed")):
            named = number == 0
            fixed, leaving = (own[own["bound"].isna() == without].sort_values(column) for without in (True, False))
            chosen = own[own["chosen"]]
            axis.plot(
                fixed[column],
                fixed["accuracy"],
                color="#999999",
                marker="s",
                label="same steps for all" if named else "_",
            )
            axis.plot(
                leaving[column],
                leaving["accuracy"],
                color=COLOURS[weights],
                marker="o",
                label="early exit" if named else "_",
            )
            axis.plot(
                chosen[column],
                chosen["accuracy"],
                color=INK,
                marker="*",
                markersize=11,
                linestyle="none",
                zorder=4,
                label="chosen" if named else "_",
            )
        axis.axhline(part["ann"].mean(), color=INK, linestyle="--", linewidth=1, zorder=1.5)
        axis.set_xscale("log")
        axis.set_xlabel(label)
    figure.axes[0].set_ylabel("test accuracy (%)")
    _legend(figure, figure.axes[0], "")
    return figure


def draw(table: pd.DataFrame, folder: Path) -> None:
    """Draw both figures as SVG and PNG.

    Args:
        table: of bsnn.tables.early_exit.
        folder: of the figures.

    Raises:
        ArtifactError: when the folder cannot be written.
    """
    costs = table.assign(operations=table[OPERATIONS].sum(axis=1) / 1e6)
    with drawing.style():
        drawing.save(curve(costs, "mean_steps", "mean time steps of an image"), folder, "early_exit")
        drawing.save(curve(costs, "operations", "operations an image (millions)"), folder, "early_exit_operations")
