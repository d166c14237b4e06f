"""How people see a table: headings with units, rounding, alignment. One entry a column, whichever table it is in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from tabulate import tabulate

from bsnn.config import format_percentile

MARKS = re.compile(r"[\\`*\[\]<&|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # of Markdown; not the _ within a word


@dataclass(frozen=True)
class Column:
    """Heading with unit, and how a value is written."""

    heading: str
    write: Callable[[Any], str] = str
    number: bool = True


def _numbers(heading: str, pattern: str) -> Column:
    return Column(heading, lambda value: format(value, pattern))


def _text(heading: str) -> Column:
    return Column(heading, number=False)


COLUMNS: dict[str, Column] = {
    "percentile": Column("percentile", format_percentile),
    "seed": _numbers("seed", "d"),
    "time": _numbers("T (steps)", "d"),
    "step": _numbers("step", "d"),
    "accuracy": _numbers("accuracy (%)", ".2f"),
    "asked": Column("asked for", lambda value: "now" if value else "earlier", number=False),
    "low": _numbers("from (%)", ".2f"),
    "high": _numbers("to (%)", ".2f"),
    "ann": _numbers("ANN (%)", ".2f"),
    "ann_mean": _numbers("ANN (%)", ".2f"),
    "ann_std": _numbers("ANN std", ".2f"),
    "snn_mean": _numbers("SNN (%)", ".2f"),
    "snn_std": _numbers("SNN std", ".2f"),
    "drop": _numbers("drop (points)", ".2f"),
    "published": _numbers("published (%)", ".2f"),
    "measured_mean": _numbers("measured (%)", ".2f"),
    "measured_std": _numbers("std", ".2f"),
    "difference": _numbers("difference (points)", "+.2f"),
    "tolerance": _numbers("tolerance (points)", "g"),
    "verdict": _text("within"),
    "epochs": _numbers("epochs", "d"),
    "within": _numbers("to within (points)", "g"),
    "time_mean": _numbers("T (steps)", ".1f"),
    "time_std": _numbers("T std", ".1f"),
    "reached": _numbers("seeds that get there", "d"),
    "simulated": _numbers("simulated steps", "d"),
    "ann_operations": _numbers("ANN operations", ",.0f"),
    "snn_macs": _numbers("SNN MACs", ",.0f"),
    "snn_acs": _numbers("SNN ACs", ",.0f"),
    "snn_binary_acs": _numbers("SNN binary ACs", ",.0f"),
    "ratio_every_step": _numbers("ratio, first layer at every step", ".3f"),
    "published_full": _text("full, published"),
    "used_full": _text("full, as run"),
    "published_binary": _text("binary, published"),
    "used_binary": _text("binary, as run"),
    "spikes_per_image": _numbers("spikes / image", ",.0f"),
    "spikes_per_neuron": _numbers("spikes / neuron", ".3f"),
    "firing_rate": _numbers("spikes / neuron / step", ".4f"),
    "nanojoules": _numbers("energy (nJ)", ",.0f"),
    "neurons": _numbers("neurons", ",d"),
    "seeds": _numbers("seeds", "d"),
    "images": _numbers("images", ",d"),
    "left_out": _numbers("broken files left out", ",d"),
    "threshold": _numbers("threshold", "#.4g"),
    "estimate": _numbers("threshold × rate", "#.4g"),
    "activation": _numbers("ANN activation", "#.4g"),
    "ratio": _numbers("ratio", ".3f"),
    "weights_1bit": _numbers("1-bit weights", ",d"),
    "weights_32bit": _numbers("32-bit weights", ",d"),
    "memory_bytes": _numbers("weights (bytes)", ",d"),
    "scale_bytes": _numbers("scaling factors (bytes)", ",d"),
    "compression": _numbers("times smaller", ".2f"),
    "macs": _numbers("MACs / image", ",d"),
    "binary": Column("binary", lambda value: "yes" if value else "no", number=False),
    "epoch": _numbers("epoch", "d"),
    "lr": _numbers("learning rate", ".3g"),
    "train_loss": _numbers("training loss", ".4f"),
    "train_accuracy": _numbers("training (%)", ".2f"),
    "test_accuracy": _numbers("test (%)", ".2f"),
    "T": _numbers("T (steps)", "d"),
    "spikes": _numbers("spikes / image", ",.0f"),
    "bound": _numbers("bound", ".3g"),
    "chosen": Column("chosen", lambda value: "yes" if value else "", number=False),
    "mean_steps": _numbers("mean steps", ".1f"),
    "seconds": _numbers("seconds", ",.1f"),
    "images_per_second": _numbers("images / s", ",.0f"),
    "settings": _text("stands for"),
    "shards": _numbers("shards", "d"),
    "cpu": _text("processor"),
    "cores": _numbers("cores", "d"),
    "gpus": _text("GPUs"),
}


def compact(number: float) -> str:
    """For example 950, 4.3k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{number:.0f}"


def column(name: str) -> Column:
    """The column of a name; one without an entry is headed by its name and written as it is.

    `snn_mean|original` is column `snn_mean` of one of several, here of protocol `original`.
    """
    own, _, which = name.partition("|")
    found = COLUMNS.get(own, Column(own, number=False))
    return replace(found, heading=f"{which}: {found.heading}") if which else found


def cells(frame: pd.DataFrame) -> list[list[str]]:
    """The table as people read it: one list of texts a row, empty where there is no value."""
    texts = [
        ["" if pd.isna(value) else column(str(name)).write(value) for value in frame[name]] for name in frame.columns
    ]
    return [list(row) for row in zip(*texts, strict=True)]


def markdown(frame: pd.DataFrame) -> str:
    """The table in Markdown, numbers to the right."""
    return pipes([str(name) for name in frame.columns], cells(frame))


def escaped(text: str) -> str:
    """A text as Markdown shows it as it is, in one line: marks, HTML and the bars of a table have no meaning in it."""
    return re.sub(r"\s*[\r\n]\s*", " ", MARKS.sub(r"\\\g<0>", text))


def pipes(names: list[str], texts: list[list[str]]) -> str:
    """Markdown of rows of texts under the headings of columns."""
    seen = [column(name) for name in names]
    headings = [escaped(item.heading) for item in seen]
    sides = ["right" if item.number else "left" for item in seen]
    # Nothing is left to tabulate's guesses: "100" beside "99.9" stays "100".
    rows = [[escaped(text) for text in row] for row in texts]
    return tabulate(rows, headings, tablefmt="pipe", colalign=sides, disable_numparse=True)
