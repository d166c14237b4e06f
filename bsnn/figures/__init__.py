"""Figures of an experiment's results: each one function from the tables to a figure, and one entry in FIGURES.

Percentiles run along a colour scale that stays in order for colour-blind readers and in grey; markers tell them apart
as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn import tables
from bsnn.figures import style
from bsnn.figures.axes import (
    COLOURS,
    NAMES,
    by_percentile,
    by_weights,
    dashed,
    layer_axis,
    legend,
    marked,
    panels,
    row,
    time_axis,
)
from bsnn.figures.near import limits
from bsnn.tables import Results

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_over_time(results: Results) -> Figure:
    """Mean accuracy at every step for each percentile, the range over seeds, and the ANN's accuracy."""
    frame = results["accuracy_over_time"]
    last = int(frame["step"].max())
    figure, parts = by_weights(frame)
    for axis, weights, part in parts:
        for look, group in by_percentile(part, frame):
            seeds = group.pivot(index="step", columns="seed", values="accuracy")
            steps = seeds.index.to_numpy()
            axis.plot(steps, seeds.mean(axis=1), markevery=marked(last), **look)
            if seeds.shape[1] > 1:
                axis.fill_between(steps, seeds.min(axis=1), seeds.max(axis=1), color=look["color"], alpha=0.15, lw=0)
        _ann_line(axis, results, weights)
        time_axis(axis, last)
    axis = figure.axes[0]
    axis.set_ylabel("test accuracy (%)")
    ends = frame[frame["step"] == last].groupby(["weights", "percentile"])["accuracy"].mean()
    axis.set_ylim(*limits(frame["accuracy"], results["accuracy"]["ann_mean"], ends))
    legend(figure, axis, "percentile")
    return figure


def accuracy_over_cost(results: Results) -> Figure:
    """Mean accuracy against spikes and energy per image, for each percentile, as time goes on."""
    from matplotlib.ticker import NullFormatter

    frame = results["costs_over_time"]
    kinds = list(frame["weights"].unique())
    low, high = limits(frame["accuracy"], frame["ann"], frame.groupby(["weights", "percentile"])["accuracy"].last())
    figure, axes = panels(2, len(kinds))
    for line, (name, title) in enumerate((("spikes_per_image", "spikes per image"), ("nanojoules", "energy (nJ)"))):
        seen = frame.loc[(frame["accuracy"] >= low) & (frame[name] > 0), name]
        for axis, weights in zip(axes[line], kinds, strict=True):
            part = frame[frame["weights"] == weights]
            for look, group in by_percentile(part, frame):
                axis.plot(group[name], group["accuracy"], markevery=marked(len(group)), **look)
            _ann_line(axis, results, weights)
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel(title)
            if line == 0:
                axis.set_title(f"{NAMES[weights]} weights", loc="left")
        if len(seen):
            axes[line][0].set_xlim(0.8 * seen.min(), 1.25 * seen.max())
        axes[line][0].set_ylabel("test accuracy (%)")
    axes[0][0].set_ylim(low, high)
    legend(figure, axes[0][0], "percentile")
    return figure


def _ann_line(axis: Axes, results: Results, weights: str) -> None:
    frame = results["accuracy"]
    ann = frame.loc[frame["weights"] == weights, "ann_mean"].iloc[0]
    dashed(axis, ann)
    axis.annotate(
        f"ANN {ann:.2f} %", (0, ann), (3, -3), axis.get_yaxis_transform(), "offset points", va="top", fontsize=8
    )


def spikes_by_layer(results: Results) -> Figure:
    """Spikes of a neuron until the last reported time, layer by layer."""
    last = max(results.config.time)
    return _by_layer(results["spikes_by_layer"], "spikes_per_neuron", f"spikes per neuron in {last} steps")


def rates(results: Results) -> Figure:
    """Threshold x firing rate over the ANN's mean activation, layer by layer; at 1 they agree."""
    return _by_layer(results["rates"], "ratio", "threshold × firing rate / activation", 1)


def _by_layer(frame: pd.DataFrame, column: str, label: str, goal: float | None = None) -> Figure:
    """A column of each percentile, layer by layer, and what it should be."""
    figure, parts = by_weights(frame)
    for axis, _, part in parts:
        layers = list(part["layer"].unique())
        if goal is not None:
            dashed(axis, goal)
        for look, group in by_percentile(part, frame):
            axis.plot([layers.index(layer) for layer in group["layer"]], group[column], **look)
        layer_axis(axis, layers)
    figure.axes[0].set_ylim(bottom=0)  # shared, and fixed from here on: after all panels
    figure.axes[0].set_ylabel(label)
    legend(figure, figure.axes[0], "percentile")
    return figure


def training(results: Results) -> Figure:
    """Training loss, and training and test accuracy, at every epoch; one line per seed."""
    from matplotlib.ticker import MaxNLocator

    frame = results["training_history"]
    figure, (loss, accuracy) = row(2)
    for weights, part in frame.groupby("weights", sort=False):
        colour = COLOURS[str(weights)]
        for number, (_, seed) in enumerate(part.groupby("seed")):
            name = NAMES[str(weights)] if number == 0 else "_"
            options: dict[str, Any] = {"color": colour, "marker": "o" if len(seed) == 1 else None}
            loss.plot(seed["epoch"], seed["train_loss"], label=name, **options)
            accuracy.plot(seed["epoch"], seed["test_accuracy"], label=f"{name}, test", **options)
            accuracy.plot(seed["epoch"], seed["train_accuracy"], label=f"{name}, training", linestyle=":", **options)
    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    for axis in (loss, accuracy):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, accuracy, "weights")
    return figure


@dataclass(frozen=True)
class Picture:
    """One figure: what draws it, and what is said with it."""

    draw: Callable[[Results], Figure]
    caption: str


FIGURES: dict[str, Picture] = {
    "accuracy_over_time": Picture(
        accuracy_over_time,
        "Test accuracy of the spiking networks after each time step, for each percentile; mean over seeds, shaded from "
        "the lowest to the highest seed. Dashed: the network as trained (ANN). The axis begins where curves differ.",
    ),
    "accuracy_over_cost": Picture(
        accuracy_over_cost,
        "The same against what it costs: spikes, and energy of arithmetic (45 nm), of an image until each step; of "
        "every percentile simulated so far. Further to the left at the same height is better.",
    ),
    "spikes_by_layer": Picture(
        spikes_by_layer,
        "Spikes that a neuron of each layer sends until the last reported time; mean over neurons, test images and "
        "seeds.",
    ),
    "rates": Picture(
        rates,
        "Threshold × firing rate, as a share of the ANN's mean activation, layer by layer. On the dashed line the "
        "spiking layer carries the activation that it stands for.",
    ),
    "training": Picture(
        training,
        "Training loss, and accuracy on training images (as augmented, dotted) and test images (solid), by epoch; one "
        "line for each seed.",
    ),
}


def draw(source: Results | str | Path, folder: str | Path) -> None:
    """Draw every figure as SVG and PNG.

    Args:
        source: results, or the folder of their tables.
        folder: where the figures go.

    Raises:
        ArtifactError: when the tables cannot be read or the folder not be written.
    """
    results = source if isinstance(source, Results) else tables.read(source)
    style.draw({name: picture.draw for name, picture in FIGURES.items()}, Path(folder), results)
