"""Figures of the paper's results: those of an experiment drawn over the whole sweep, and three of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from bsnn import figures
from bsnn.config import format_percentile
from bsnn.figures.axes import COLOURS, MARKERS, by_percentile, by_weights, dashed, legend, time_axis
from bsnn.figures.style import INK
from bsnn.tables import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # Okabe and Ito's


def time(results: Results) -> Figure:
    """Accuracy at every step for each percentile."""
    return figures.accuracy_over_time(_as(results, accuracy_over_time="curves", accuracy="time"))


def activity(results: Results) -> Figure:
    """Spikes of a neuron, layer by layer."""
    return figures.spikes_by_layer(_as(results, spikes_by_layer="activity"))


def _as(results: Results, **names: str) -> Results:
    """The same tables under the names that an experiment's own figures know."""
    return Results(results.config, results.name, {name: results[table] for name, table in names.items()})


def latency(results: Results) -> Figure:
    """Steps to within some points of the ANN against percentile; what is not reached has no point."""
    from matplotlib.ticker import StrMethodFormatter

    frame = results["latency"]
    places = {value: place for place, value in enumerate(sorted(frame["percentile"].unique()))}
    figure, panels = by_weights(frame)
    for axis, _, part in panels:
        for index, (within, group) in enumerate(part.groupby("within")):
            style: dict[str, Any] = {"color": SHADES[index % len(SHADES)], "marker": MARKERS[index % len(MARKERS)]}
            steps, spread = group["time_mean"], group["time_std"].fillna(0)
            x = group["percentile"].map(places)
            axis.errorbar(x, steps, spread, capsize=2, label=f"{within:g} points", **style)
        axis.set_xticks(range(len(places)), [format_percentile(value) for value in places], rotation=45)
        axis.set_xlim(-0.4, len(places) - 0.6)
        axis.set_xlabel("percentile")
    axis = figure.axes[0]
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_ylim(0.8, 1.3 * int(frame["simulated"].max()))
    axis.set_ylabel("time steps T")
    legend(figure, axis, "to within")
    return figure


def operations(results: Results) -> Figure:
    """SNN over ANN operations against time, one line per percentile; the first layer counted once per image."""
    frame = results["operations"]
    figure, panels = by_weights(frame)
    for axis, _, part in panels:
        for style, group in by_percentile(part, frame):
            axis.plot(group["time"], group["ratio"], **style)
        dashed(axis, 1)
        time_axis(axis, int(frame["time"].max()))
    axis = figure.axes[0]
    axis.set_ylim(bottom=0)
    axis.set_ylabel("SNN operations / ANN operations")
    legend(figure, axis, "percentile")
    return figure


def pooling(results: Results) -> Figure:
    """Accuracy of ANN (hollow) and SNN (filled) with each pool, joined by a line; bars: deviations over seeds."""
    figure, panels = by_weights(results["pooling"])
    for axis, weights, part in panels:
        _pairs(axis, part, COLOURS[weights])
    axis = figure.axes[0]
    axis.set_ylabel("test accuracy (%)")
    legend(figure, axis, "network")
    return figure


def _pairs(axis: Axes, part: pd.DataFrame, colour: str) -> None:
    labels = [f"{row.pool}\n{row.place}" for row in part.itertuples()]
    places = range(len(part))
    axis.vlines(places, part["snn_mean"], part["ann_mean"], color="#bbbbbb", linewidth=1)
    for kind, filled in (("ann", "white"), ("snn", colour)):
        mean, deviation = part[f"{kind}_mean"], part[f"{kind}_std"].fillna(0)
        style: dict[str, Any] = {"color": INK if kind == "ann" else colour, "markerfacecolor": filled}
        axis.errorbar(places, mean, deviation, label=kind.upper(), fmt="o", capsize=2, **style)
    axis.set_xticks(places, labels)
    axis.set_xlim(-0.5, len(part) - 0.5)
    axis.set_xlabel("pool, and its place by the ReLU")
