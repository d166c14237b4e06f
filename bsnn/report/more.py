"""What was made of the same networks beside the tables and figures of an experiment: methods, search, early exit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import early_exit, latency


@dataclass(frozen=True)
class Part:
    """One section of the report: a table, and figures by name with their captions."""

    title: str
    caption: str
    table: pd.DataFrame
    figures: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, pd.DataFrame] | None = None  # tables of methods, for the explorer


def found(pipeline: Pipeline, name: str) -> list[Part]:
    """Everything that is there under the current settings.

    Raises:
        ArtifactError: a table is damaged.
    """
    return [*_latency(pipeline, name), *_search(pipeline, name), *_early_exit(pipeline, name)]


def _there(pipeline: Pipeline, stage: str, place: Place) -> bool:
    """Whether all files of a job are there: at plain names, a note vouches for them."""
    return all(path.exists() for path in pipeline.files(stage, place))


def _latency(pipeline: Pipeline, name: str) -> Iterator[Part]:
    place = Place(name)
    if not (_there(pipeline, "latency_tables", place) and _there(pipeline, "latency_figures", place)):
        return
    methods = latency.load(pipeline.root / name / "tables", pipeline.identity("latency_tables", place))
    accuracies = methods["latency"].pivot(index=["weights", "method"], columns="T", values="accuracy")
    order = methods["latency"][["weights", "method"]].drop_duplicates()
    table = order.merge(accuracies.rename(columns=lambda steps: f"accuracy|T = {steps}").reset_index())
    yield Part(
        "Few time steps",
        "Methods of conversion side by side: test accuracy in percent after T steps (`snakemake latency`).",
        table,
        {
            "latency": "Test accuracy against time steps, by method of conversion. Dashed: the ANN.",
            "latency_energy": "The same against energy of arithmetic; the Pareto front in grey.",
            "latency_errors": "Errors by layer over its mean activation, for the baseline and the last method.",
        },
        methods,
    )


def _search(pipeline: Pipeline, name: str) -> Iterator[Part]:
    places = [one for one in pipeline.places("find_switches", name) if _there(pipeline, "find_switches", one)]
    if not places:
        return
    every = pd.concat([early_exit.of_network(pipeline, "find_switches", place) for place in places], ignore_index=True)
    chosen = every[every["what"].str.startswith("chosen")]
    columns = ["weights", "seed", "what", "T", "accuracy", "ann", "drop", "spikes", "switches"]
    yield Part(
        "Search",
        "Switches that a search chose on held-out training images, and what they reach on the test images, which it "
        "saw once (`snakemake search`).",
        chosen[columns],
    )


def _early_exit(pipeline: Pipeline, name: str) -> Iterator[Part]:
    if not _there(pipeline, "exit_results", Place(name)):
        return
    every = early_exit.collect(pipeline, name)
    test = every[(every["split"] == "test") & (every["bound"].notna() | every["chosen"])]
    columns = ["weights", "seed", "bound", "chosen", "accuracy", "ann", "mean_steps", "spikes"]
    yield Part(
        "Early exit",
        "Images leave once their margin reaches a bound; the chosen bound is that of held-out training images "
        "(`snakemake early_exit`).",
        test[columns],
        {"early_exit": "Test accuracy against mean time steps per image."},
    )
