"""Figures of the methods of conversion, from their written tables: accuracy against steps and cost, errors by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bsnn.figures import style
from bsnn.figures.axes import MARKERS, NAMES, OPERATIONS, by_weights, dashed, legend, row
from bsnn.figures.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tables = Mapping[str, pd.DataFrame]
SHOWN_TIME = 16  # steps at which errors are shown by layer; the next ones there are if these are not
LAST = "#D55E00"
CROWDED = 8  # layers; with more than this, names are drawn smaller
ERROR_COLOURS = {"clipping": "#0072B2", "quantisation": "#E69F00", "unevenness": "#D55E00"}  # Okabe and Ito's


def _methods(part: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Style of each method, and its part of the table in the order of T; the first and the last one stand out."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    names = list(part["method"].unique())
    for index, name in enumerate(names):
        # tab20 has pairs of a strong and a pale shade: first all strong ones, then the pale ones.
        colour = to_hex(colormaps["tab20"](2 * (index - 1) % 20 + (index - 1) // 10))
        colour = INK if index == 0 else LAST if index == len(names) - 1 else colour
        look = {"color": colour, "marker": MARKERS[index % len(MARKERS)], "label": name, "alpha": 0.9}
        look |= {"linewidth": 2.4, "zorder": 3, "alpha": 1} if index in (0, len(names) - 1) else {}
        yield look, part[part["method"] == name].sort_values("T")


def _accuracies(frame: pd.DataFrame, x: str, ideal: pd.DataFrame | None = None) -> Figure:
    """Accuracy of each method against a column, a panel for each kind of weights, with the ANN's accuracy.

    `ideal`: table of ideal curves, of which those of the methods that stand out are drawn.
    """
    figure, panels = by_weights(frame, height=3.6)
    for axis, weights, part in panels:
        for look, group in _methods(part):
            axis.plot(group[x], group["accuracy"], **look)
            if ideal is not None and "linewidth" in look:
                curve = ideal[(ideal["weights"] == weights) & (ideal["method"] == look["label"])].sort_values(x)
                label = f"{look['label']}, ideal"
                axis.plot(curve[x], curve["accuracy"], color=look["color"], linestyle=":", linewidth=1.6, label=label)
        ann = part["ann"].iloc[0]
        dashed(axis, ann)
        axis.annotate(f"ANN {ann:.2f} %", (0, ann), (3, 3), axis.get_yaxis_transform(), "offset points", fontsize=8)
    figure.axes[0].set_ylabel("test accuracy (%)")
    legend(figure, figure.axes[0], "method")
    return figure


def accuracy(tables: Tables) -> Figure:
    """Accuracy against the number of time steps; dotted, the ideal curves of the first and the last method."""
    figure = _accuracies(tables["latency"], "T", tables["latency_ideal"])
    ticks = sorted(tables["latency"]["T"].unique())
    for axis in figure.axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xlabel("time steps T")
    return figure


def _with_costs(tables: Tables) -> pd.DataFrame:
    costs = tables["latency_costs"].drop(columns="spikes")
    merged = tables["latency"].merge(costs, on=["weights", "method", "T"])
    return merged.assign(operations=merged[list(OPERATIONS)].sum(axis=1) / 1e6)


def operations(tables: Tables) -> Figure:
    """Accuracy against effective operations of an image, points at each T; the Pareto front as broad grey steps."""
    return _against_cost(tables, "operations", "operations per image (millions)")


def energy(tables: Tables) -> Figure:
    """Accuracy against energy of arithmetic, points at each T; the Pareto front as broad grey steps."""
    return _against_cost(tables, "nanojoules_45nm", "energy per image (nJ at 45 nm)")


def _against_cost(tables: Tables, column: str, label: str) -> Figure:
    frame = _with_costs(tables)
    figure = _accuracies(frame, column)
    for axis, weights in zip(figure.axes, frame["weights"].unique(), strict=True):
        front = pareto(frame[frame["weights"] == weights], column)
        axis.step(front[column], front["accuracy"], where="post", color="#cccccc", linewidth=5, zorder=1.2)
        axis.set_xscale("log")
        axis.set_xlabel(label)
    return figure


def pareto(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows that are more accurate than every row that costs no more; by rising cost."""
    ordered = frame.sort_values([column, "accuracy"], ascending=[True, False], kind="stable")
    # `shift`: compared with rows before, not with itself. Of equal cost the most accurate comes first, the others fall.
    return ordered[ordered["accuracy"] > ordered["accuracy"].cummax().shift(fill_value=-1.0)]


def errors(tables: Tables) -> Figure:
    """Errors of each layer over its mean activation, for the baseline and the last method; a row of panels."""
    frame = tables["latency_errors"]
    chosen = []
    for weights in frame["weights"].unique():
        own = frame.loc[frame["weights"] == weights, "method"].unique()
        chosen += [(weights, name) for name in dict.fromkeys((own[0], own[-1]))]
    figure, axes = row(len(chosen), sharey=True)
    for axis, (weights, name) in zip(axes, chosen, strict=True):
        part = frame[(frame["weights"] == weights) & (frame["method"] == name)]
        times = sorted(part["T"].unique())
        time = next((time for time in times if time >= SHOWN_TIME), times[-1])
        _stacked(axis, part[part["T"] == time])
        axis.set_title(f"{NAMES[weights]}, {name}, T = {time}", loc="left", fontsize=8)
    axes[0].set_ylabel("error / mean activation")
    legend(figure, axes[0], "error")
    return figure


def _stacked(axis: Axes, part: pd.DataFrame) -> None:
    """A bar a layer."""
    places, bottom = range(len(part)), pd.Series(0.0, index=part.index)
    for name, colour in ERROR_COLOURS.items():
        share = part[name] / part["activation"].where(part["activation"] > 0)
        axis.bar(places, share, bottom=bottom, color=colour, label=name, width=0.75)
        bottom = bottom + share.fillna(0)
    total = part["total"] / part["activation"].where(part["activation"] > 0)
    axis.plot(places, total, color=INK, marker="_", linestyle="none", markersize=9, label="total")
    axis.set_xticks(places, list(part["layer"]), rotation=90, fontsize=6 if len(part) > CROWDED else 8)


FIGURES: dict[str, Callable[[Tables], Figure]] = {
    "latency": accuracy,
    "latency_operations": operations,
    "latency_energy": energy,
    "latency_errors": errors,
}


def draw(tables: Tables, folder: Path) -> None:
    """Draw every figure as SVG and PNG.

    Raises:
        ArtifactError: when the folder cannot be written.
    """
    style.draw(FIGURES, folder, tables)
