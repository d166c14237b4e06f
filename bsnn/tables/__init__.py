"""Tables of an experiment's results: gathered from artifacts, written for programs and for people, read back.

A table is one function (bsnn.tables.measures) and one entry in TABLES, whose names bsnn.pipeline.shown repeats: it
declares their files without pandas. Figures and the report are made from the written tables alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bsnn import artifacts
from bsnn.config import Config, validate
from bsnn.errors import ArtifactError, ConfigError
from bsnn.pipeline import identity
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import measures
from bsnn.tables.columns import markdown
from bsnn.tables.costs_over_time import costs_over_time
from bsnn.tables.gather import Source
from bsnn.tables.origins import origins

KIND = "results-table"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Table:
    """One table: what makes it, and what is said with it."""

    make: Callable[[Source], pd.DataFrame]
    title: str
    caption: str
    total: bool = False  # the last row sums the others


TABLES: dict[str, Table] = {
    "accuracy": Table(
        measures.accuracy,
        "Accuracy at the reported times",
        "Test accuracy of the network as trained (ANN) and of its spiking version (SNN) after T steps, the difference, "
        "and the spikes sent until then by all layers with neurons. Means and sample standard deviations over seeds.",
    ),
    "accuracy_over_time": Table(
        measures.accuracy_over_time,
        "Accuracy at every step",
        "Test accuracy of the spiking networks at every step, for each seed.",
    ),
    "spikes_by_layer": Table(
        measures.spikes_by_layer,
        "Spikes by layer",
        "Spikes of a neuron until the last reported time, and its firing rate; means over neurons, images and seeds.",
    ),
    "rates": Table(
        measures.rates,
        "Firing rates against activations",
        "Threshold times firing rate approximates the ANN's activation. Mean over a layer, zeros included; activations "
        "of the calibration images, rates of the test images until the last reported time. The ratio falls below 1 "
        "with a lower percentile, since no rate passes one spike per step, and with a short time, since what is still "
        "in the membranes has not been sent.",
    ),
    "costs_over_time": Table(
        costs_over_time,
        "Accuracy, spikes and energy at every step",
        "Of every percentile that was simulated so far: test accuracy with its 95 % interval over the test images "
        "(Wilson), the network as trained (ANN), and spikes and energy of arithmetic of an image until then (45 nm; "
        "each spike has its layer's mean fan-out). Means over seeds.",
    ),
    "binary_summary": Table(
        measures.binary_summary,
        "Binary network",
        "Weights, memory and multiply-accumulates of the binary network. A binary weight takes 1 bit; the scaling "
        "factors are stored with the network, while its converted form has them in its thresholds. The last column "
        "compares weights and scaling factors with 32 bits for every weight.",
        total=True,
    ),
    "training": Table(
        measures.training,
        "Training",
        "Each network after its last epoch; seconds are of all its epochs.",
    ),
    "training_history": Table(
        measures.training_history,
        "Training history",
        "Loss and accuracy of every epoch; training figures are of the augmented images as the network saw them.",
    ),
    "origins": Table(
        origins,
        "Artifacts",
        "Every artifact behind the tables: its key, what the key stands for (besides what lies upstream), and where it "
        "was made.",
    ),
}


@dataclass(frozen=True)
class Results:
    """All tables of one experiment, by name, and the configuration that they are of."""

    config: Config
    name: str
    frames: Mapping[str, pd.DataFrame]

    def __getitem__(self, table: str) -> pd.DataFrame:
        return self.frames[table]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the tables stand for."""
        return Pipeline(self.config).identity("tables", Place(self.name))


def collect(pipeline: Pipeline, name: str) -> Results:
    """All tables of an experiment, from its artifacts.

    Raises:
        ArtifactError: when an artifact is missing, damaged or made with other settings, or when the shards of a
            simulation do not make up one test set.
    """
    source = Source(pipeline, name)
    return Results(pipeline.config, name, {table: entry.make(source) for table, entry in TABLES.items()})


def write(results: Results, folder: str | Path) -> None:
    """Write each table as CSV, Parquet and Markdown, and the settings that made them.

    Raises:
        ArtifactError: when the folder cannot be written.
    """
    folder = Path(folder)
    for name, frame in results.frames.items():
        entry = TABLES[name]
        artifacts.write_frame(folder / f"{name}.parquet", frame, KIND, results.identity)
        artifacts.write_text(folder / f"{name}.md", f"# {entry.title}\n\n{entry.caption}\n\n{markdown(frame)}\n")
    settings = {"key": identity.key(results.identity), "experiment": results.name, "config": settings_of(results)}
    artifacts.write_note(folder / SETTINGS, settings)


def settings_of(results: Results) -> dict[str, Any]:
    """The configuration as plain data, with this experiment and the one whose networks it uses; `validate` takes it."""
    plain = results.config.model_dump(mode="json")
    name = results.name
    kept = {name, results.config.experiments[name].networks_of or name}
    experiments = {one: settings for one, settings in plain["experiments"].items() if one in kept}
    return {**plain, "run": [name], "experiments": experiments}


def read(folder: str | Path) -> Results:
    """Tables as `write` left them.

    Raises:
        ArtifactError: when a table is missing, damaged, or of other settings than the folder's.
    """
    folder = Path(folder)
    path = folder / SETTINGS
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; make the tables first, with: snakemake {path}")
    try:
        settings = artifacts.read_note(path)
        name, config = settings["experiment"], validate(settings["config"])
        stands_for = Pipeline(config).identity("tables", Place(name))
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(
            f"{path}: not settings of this version of bsnn ({error}); {artifacts.again(path)}"
        ) from error
    return Results(config, name, artifacts.read_frames(folder, TABLES, KIND, stands_for))
