"""What figures share: rows of panels, one for each kind of weights, styles of percentiles, axes and legends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bsnn.config import format_percentile
from bsnn.figures.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"
NAMES = {"full": "full-precision", "binary": "binary"}
COLOURS = {"full": "#0072B2", "binary": "#D55E00"}  # Okabe and Ito's blue and vermillion
MANY = 8  # layers; with more than this, names are drawn upright
OPERATIONS = ("effective_macs", "effective_acs", "effective_binary_acs")  # columns of costs, of one image
LONG = 32  # steps from which on time is drawn on a logarithmic axis


def row(columns: int, height: float = 3.1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure with a row of panels. Not through pyplot: no display and no state beyond the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 if columns == 1 else 3.7 * columns, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def panels(lines: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure with lines and columns of panels, with the same heights everywhere, and the same widths in a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 if columns == 1 else 3.7 * columns, 2.8 * lines), layout="constrained")
    return figure, figure.subplots(lines, columns, squeeze=False, sharey=True, sharex="row")


def by_weights(frame: pd.DataFrame, **options: Any) -> tuple[Figure, Iterator[tuple[Axes, str, pd.DataFrame]]]:
    """A figure with one panel for each kind of weights, and its part of the table."""
    kinds = list(frame["weights"].unique())
    figure, axes = row(len(kinds), sharey=True, **options)
    for axis, weights in zip(axes, kinds, strict=True):
        axis.set_title(f"{NAMES.get(weights, weights)} weights", loc="left")
    parts = ((axis, weights, frame[frame["weights"] == weights]) for axis, weights in zip(axes, kinds, strict=True))
    return figure, parts


def by_percentile(part: pd.DataFrame, whole: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Colour, marker and label of each percentile, from dark (low) to light, and its part of the table."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    values = sorted(whole["percentile"].unique())
    places = np.linspace(0.05, 0.85, len(values)) if len(values) > 1 else [0.3]
    for index, (value, place) in enumerate(zip(values, places, strict=True)):
        style = {"color": to_hex(colormaps["viridis"](place)), "marker": MARKERS[index % len(MARKERS)]}
        yield {**style, "label": format_percentile(value)}, part[part["percentile"] == value]


def legend(figure: Figure, axis: Axes, title: str) -> None:
    """Legend of an axis, beside all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, title=title, loc="outside right upper")


def dashed(axis: Axes, height: float) -> None:
    """A line across the axis, to compare with."""
    axis.axhline(height, color=INK, linestyle="--", linewidth=1, zorder=1.5)


def marked(last: int) -> list[int]:
    """Steps, from 0, that carry a marker: evenly spread on the axis."""
    steps = np.geomspace(1, last, 9) if last > LONG else np.linspace(1, last, min(last, 9))
    return [int(step) - 1 for step in np.unique(steps.round())]


def time_axis(axis: Axes, last: int) -> None:
    """Time steps up to the last one; on a logarithmic axis where there are many."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    axis.set_xlabel("time steps T")
    if last > LONG:
        ticks = [2**power for power in range(last.bit_length())]
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def layer_axis(axis: Axes, layers: list[str]) -> None:
    """Layers from input to output at 0, 1, ..."""
    upright = len(layers) > MANY
    axis.set_xticks(
        range(len(layers)),
        layers,
        rotation=90 if upright else 45,
        ha="right",
        va="center" if upright else "top",
        rotation_mode="anchor",
    )
    axis.set_xlabel("layer")
