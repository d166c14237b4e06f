"""Every result of the paper: what makes its tables, what draws its figures, and what is said with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from bsnn.figures import Picture
from bsnn.paper import figures, measures
from bsnn.paper.measures import Gathered
from bsnn.paper.recipes import hyperparameters
from bsnn.tables import measures as common
from bsnn.tables.gather import Source


@dataclass(frozen=True)
class Table:
    """One table; a long one is for programs alone: CSV, but neither Markdown, LaTeX nor the report."""

    make: Callable[[Gathered], pd.DataFrame]
    caption: str
    long: bool = False


@dataclass(frozen=True)
class Result:
    """One result: tables and figures by their file names."""

    title: str
    tables: dict[str, Table]
    figures: dict[str, Picture] = field(default_factory=dict)


def _own(make: Callable[[Source], pd.DataFrame]) -> Callable[[Gathered], pd.DataFrame]:
    """A table of an experiment's own results, over the paper's sweep."""
    return lambda gathered: make(gathered.source)


CATALOGUE: dict[str, Result] = {
    "accuracy": Result(
        "Accuracy, published and measured",
        {
            "accuracy": Table(
                measures.accuracy,
                "Test accuracy of full-precision and binary networks as trained (ANN, B-ANN) and as spiking networks "
                "(SNN, B-SNN). Difference: measured minus published. The tolerance is this project's; higher accuracy "
                "counts as within. Not available: looked for in primary sources and not found. Epochs and test images "
                "are of this run: a shortened one is not comparable.",
            ),
            "protocols": Table(
                measures.protocols,
                "The same networks under each protocol that ran: clean, and with the quirks of the original's code.",
            ),
        },
    ),
    "time": Result(
        "Accuracy over time",
        {
            "time": Table(
                _own(common.accuracy),
                "Test accuracy of the spiking networks after T steps at each percentile; means and sample standard "
                "deviations over seeds.",
            ),
            "curves": Table(_own(common.accuracy_over_time), "Test accuracy at every step, for each seed.", long=True),
        },
        {
            "time": Picture(
                figures.time,
                "Test accuracy of the spiking networks after each time step, for each percentile of the sweep; mean "
                "over seeds, shaded from the lowest to the highest seed. Dashed: the network as trained (ANN).",
            )
        },
    ),
    "pooling": Result(
        "Pooling",
        {
            "pooling": Table(
                measures.pooling,
                "Average and maximum pools before and after the ReLU: each network trained and converted by itself, "
                "all other settings equal. The paper's own values are not available.",
            )
        },
        {
            "pooling": Picture(
                figures.pooling,
                "Test accuracy as trained (ANN, hollow) and as spiking network (SNN, filled), for each pool; mean and "
                "sample standard deviation over seeds.",
            )
        },
    ),
    "activity": Result(
        "Firing activity by depth",
        {
            "activity": Table(
                _own(common.spikes_by_layer),
                "Spikes of a neuron in all simulated steps, and its firing rate; means over neurons, test images and "
                "seeds.",
            )
        },
        {
            "activity": Picture(
                figures.activity,
                "Spikes of a neuron in all simulated steps, layer by layer; mean over neurons, test images and seeds.",
            )
        },
    ),
    "operations": Result(
        "Operations",
        {
            "operations": Table(
                measures.operations,
                "Operations of an image until T, and over those of the ANN (one multiply-accumulate for each weight "
                "and input). A spike counts with its layer's mean fan-out, so that borders of maps are averaged. First "
                "layer, which multiplies the image: once an image, or (last column) at every step. Neurons' own "
                "arithmetic is not counted. The paper's own values are not available.",
            )
        },
        {
            "operations": Picture(
                figures.operations,
                "Operations of the spiking network until T over those of its ANN, for each percentile; the first layer "
                "is computed once an image. Dashed: as many as the ANN.",
            )
        },
    ),
    "latency": Result(
        "Latency",
        {
            "latency": Table(
                measures.latency,
                "First time step from which the spiking network stays within some points of its ANN until the last "
                "simulated step; mean and sample standard deviation, where all seeds get there.",
            )
        },
        {
            "latency": Picture(
                figures.latency,
                "Time steps until the spiking network stays within some points of its ANN, against percentile; mean "
                "over seeds, bars: sample standard deviation. No point: not reached by every seed.",
            )
        },
    ),
    "hyperparameters": Result(
        "Hyperparameters as run",
        {
            "hyperparameters": Table(
                hyperparameters,
                "Published recipe and settings of this run. Not available: not among the published settings.",
            )
        },
    ),
}
