"""The report of an experiment: one HTML file that needs nothing beside it, made from written tables and figures.

SECTIONS is its table of contents; words about how numbers were made are in `protocol`.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from bsnn import artifacts, tables
from bsnn.config import format_percentile
from bsnn.errors import ArtifactError
from bsnn.figures import FIGURES
from bsnn.pipeline import identity
from bsnn.tables import TABLES, Results
from bsnn.tables.columns import cells, column
from bsnn.tables.origins import MACHINE

Entry = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One section: its figures, then its tables, by their names."""

    title: str
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


SECTIONS = (
    Section("Accuracy", ("accuracy_over_time",), ("accuracy",)),
    Section("Spikes", ("spikes_by_layer",), ("spikes_by_layer",)),
    Section("Rates and activations", ("rates",), ("rates",)),
    Section("Binary network", (), ("binary_summary",)),
    Section("Training", ("training",), ("training",)),
)


def write(source: Results | str | Path, figures: str | Path, path: str | Path) -> None:
    """Write the report.

    Args:
        source: results, or the folder of their tables.
        figures: folder of the figures.
        path: HTML file to write.

    Raises:
        ArtifactError: when tables or figures are missing, or the file cannot be written.
    """
    results = source if isinstance(source, Results) else tables.read(source)
    loader = jinja2.PackageLoader("bsnn")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.undefined = jinja2.StrictUndefined
    page = environment.get_template("report.html.j2").render(
        name=results.name,
        description=results.config.experiments[results.name].description,
        facts=facts(results),
        glance=glance(results),
        sections=[_section(section, results, Path(figures)) for section in SECTIONS],
        protocol=protocol(results),
        origins=_view(_artifacts(results), TABLES["origins"].caption),
        machines=_view(machines(results), "Where the artifacts were made."),
        versions=_view(versions(results), "Versions of the software that made them."),
        settings=yaml.safe_dump(tables.settings_of(results), sort_keys=False, allow_unicode=True),
        key=identity.key(results.identity),
    )
    artifacts.write_text(path, page)


def _section(section: Section, results: Results, folder: Path) -> Entry:
    shown = [_figure(folder / f"{name}.svg", FIGURES[name].caption) for name in section.figures]
    views = [
        {**_view(results[name], TABLES[name].caption, total=TABLES[name].total), "title": TABLES[name].title}
        for name in section.tables
        if len(results[name])
    ]
    return {"title": section.title, "figures": shown, "tables": views}


def _figure(path: Path, caption: str) -> Entry:
    """A figure inside the page: as an image, so that identifiers of two drawings cannot meet."""
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); make the figures first") from error
    return {"uri": f"data:image/svg+xml;base64,{data}", "caption": caption}


def _view(frame: pd.DataFrame, caption: str, *, total: bool = False) -> Entry:
    """A table for the template; columns without any value are left out."""
    shown = frame.dropna(axis=1, how="all")
    headings = [column(str(name)) for name in shown.columns]
    return {"caption": caption, "headings": headings, "rows": cells(shown), "total": total}


def facts(results: Results) -> list[tuple[str, str]]:
    """What the experiment is, in a few words each."""
    experiment, frame = results.config.experiments[results.name], results["accuracy"]
    network = experiment.network
    layers = f"VGG-{len(network.features) - network.pools + len(network.hidden) + 1}"
    return [
        ("Data set", f"{experiment.data.name}, {experiment.data.image_size} × {experiment.data.image_size}"),
        ("Network", layers),
        ("Pool", f"{network.pool}, {network.place} the ReLU" if network.pools else "none"),
        ("Protocol", experiment.protocol_name),
        ("Test images", f"{frame['images'].max():,}{_left_out(results)}"),
        ("Seeds", ", ".join(map(str, results.config.seeds))),
        ("Simulated steps", str(experiment.simulation.time)),
    ]


def _left_out(results: Results) -> str:
    """Broken files among the test images, if there were any."""
    simulated = results["origins"].query("stage == 'simulate'")
    if "left_out" not in simulated or not simulated["left_out"].any():  # tables of before have no such column
        return ""
    return f"; {simulated['left_out'].max():,} broken files left out"


def glance(results: Results) -> Entry:
    """The accuracy table turned to the side: one row per network and percentile, one column per reported time."""
    frame = results["accuracy"]
    times = sorted(results.config.time)
    rows = []
    for (weights, percentile), part in frame.groupby(["weights", "percentile"], sort=False):
        by_time = part.set_index("time")
        first = by_time.loc[times[0]]
        snn = [_spread(by_time.loc[time, "snn_mean"], by_time.loc[time, "snn_std"]) for time in times]
        ann = _spread(first["ann_mean"], first["ann_std"])
        rows.append([str(weights), format_percentile(float(str(percentile))), ann, *snn])
    return {"times": times, "rows": rows}


def _spread(mean: Any, std: Any) -> str:
    return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"


def _artifacts(results: Results) -> pd.DataFrame:
    """Artifacts without their machines, the long text last."""
    frame = results["origins"].drop(columns=MACHINE)
    return frame[[*frame.columns.drop("settings"), "settings"]]


def machines(results: Results) -> pd.DataFrame:
    """Each processor, GPU and revision once, with the stages that ran there."""
    frame = results["origins"].dropna(subset="revision")
    keys = ["cpu", "cores", "gpus", "revision"]
    grouped = frame.groupby(keys, sort=False, dropna=False)["stage"]
    return grouped.agg(lambda stages: ", ".join(dict.fromkeys(stages))).reset_index()[["stage", *keys]]


def versions(results: Results) -> pd.DataFrame:
    """Each set of versions once, with the stages that ran with it."""
    frame = results["origins"].dropna(subset="versions")
    grouped = frame.groupby("versions", sort=False)["stage"]
    table = grouped.agg(lambda stages: ", ".join(dict.fromkeys(stages))).reset_index()
    table["versions"] = [", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in table["versions"]]
    return table[["stage", "versions"]]


def protocol(results: Results) -> list[tuple[str, str]]:
    """How the numbers were made, where a reader could expect something else."""
    experiment = results.config.experiments[results.name]
    quirks = experiment.quirks
    population = {"all": "all post-ReLU values, zeros included", "positive": "the positive post-ReLU values"}
    calibration = experiment.activations
    initial = experiment.simulation.initial
    return [
        ("Protocol", experiment.protocol_name),
        (
            "Thresholds",
            f"One a layer: the percentile (NumPy's linear definition) of {population[experiment.thresholds.population]}"
            f", over up to {calibration.images:,} training images, {_calibration(quirks)}.",
        ),
        ("Neuron", f"Integrate and fire, soft reset, no leak; fires at v ≥ threshold; v(0) = {initial:g} × threshold."),
        ("Input", "The image itself, at every step: the first layer's current is constant and computed once."),
        ("Test images", _test_images(quirks)),
        (
            "Propagation",
            "Delayed, as the original's default: each connection takes a step, so that outputs come late."
            if "delayed" in quirks
            else "Same step: a spike passes through all layers within the step in which it was sent.",
        ),
        (
            "Read-out",
            "The class with the largest summed input of the last layer, after every step; the last layer never spikes. "
            "Ties, such as before the first spike arrives, go to the lowest class.",
        ),
        ("Spikes", "Counted at all layers with neurons: neither the analog input nor the read-out."),
        (
            "Binary weights",
            "Sign times one scaling factor a filter, sign(0) = +1; kept in full precision: "
            f"{' and '.join(experiment.binarize.keep_full) or 'no'} layer.",
        ),
        ("Time", "Accuracy at T uses the first T steps of one simulation."),
    ]


def _calibration(quirks: frozenset[str]) -> str:
    """Which calibration images, and how they were seen."""
    chosen = "the first ones" if "first_images" in quirks else "evenly spaced"
    seen = "under a random crop and flip" if "augmented_calibration" in quirks else "without augmentation"
    dropout = "with dropout on" if "calibration_dropout" in quirks else "with dropout off"
    return f"{chosen}, {seen} and {dropout}"


def _test_images(quirks: frozenset[str]) -> str:
    """How the test images were seen, by both kinds of network."""
    texts = {
        "augmented_test": "under a random crop and flip",
        "stretched_test": "resized without regard to their aspect ratio",
        "original_normalisation": "normalised with the original's constants",
    }
    found = [text for name, text in texts.items() if name in quirks]
    return f"Seen {', '.join(found) or 'as they are'}, by the ANN and the spiking network alike."
