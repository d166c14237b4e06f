"""Reference results: measured tables, kept in the repository with where they come from; pages quote them alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from bsnn import artifacts, identity, provenance
from bsnn.tables import Results

KEPT = ("accuracy", "accuracy_over_time", "spikes_by_layer", "rates", "binary_summary", "training")
FOLDER = Path("results/reference")


def keep(results: Results, command: str, folder: Path = FOLDER) -> Path:
    """Copy an experiment's tables to the reference folder, with `origin.json` beside them; returns their folder.

    Args:
        results: tables, as bsnn.tables.read gives them.
        command: what was run, to be run again by whoever doubts the numbers.
        folder: the reference folder.
    """
    place = folder / results.name
    for name in KEPT:
        if name in results.frames:
            artifacts.write_text(place / f"{name}.csv", results[name].to_csv(index=False, lineterminator="\n"))
    origin = {
        "command": command,
        "seeds": list(results.config.seeds),
        "settings": identity.results(results.config, results.name),
        "made": results["origins"].to_dict(orient="records"),
        "kept": provenance.collect(),
    }
    artifacts.write_text(place / "origin.json", json.dumps(origin, indent=2, default=str) + "\n")
    return place


def fill(text: str, folder: Path = FOLDER) -> str:
    """A page with its tables made anew from the reference results.

    Between `<!-- table: NAME -->` and `<!-- end -->` stands what the function of that name in PAGE_TABLES gives.
    """

    def made(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- table: {name} -->\n{PAGE_TABLES[name](folder)}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", made, text, flags=re.DOTALL)


def _accuracy(name: str, folder: Path) -> str:
    """SNN accuracy at each reported time, a row for each network and percentile, and where it was measured."""
    frame = pd.read_csv(folder / name / "accuracy.csv")
    value = {column: frame[column] for column in ("weights", "percentile")}
    shown = pd.DataFrame(value).assign(
        ANN=frame["ann_mean"].map("{:.2f} %".format),
        T="T = " + frame["time"].astype(str),
        SNN=frame["snn_mean"].map("{:.2f} %".format),
    )
    wide = shown.pivot(index=["weights", "percentile", "ANN"], columns="T", values="SNN")
    wide = wide[[f"T = {time}" for time in sorted(frame["time"].unique())]].reset_index()
    wide = wide.sort_values(["weights", "percentile"], ascending=[False, True])
    origin = json.loads((folder / name / "origin.json").read_text())
    seeds, images = len(origin["seeds"]), int(frame["images"].iloc[0])
    note = f"`{origin['command']}`, {images:,} test images, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{wide.to_markdown(index=False)}\n\n{note}: [{folder}/{name}]({folder}/{name})."


def _simulation(folder: Path) -> str:
    """Speed of the engines and their peers on one machine."""
    path = folder / "simulation.csv"
    frame = pd.read_csv(path)
    first = frame[["network", "batch", "steps"]].eq(frame[["network", "batch", "steps"]].iloc[0]).all(axis=1)
    one = frame[first]
    shown = pd.DataFrame(
        {
            "": one["engine"],
            "images x steps / s": one["image_steps_per_second"].map("{:,.0f}".format),
            "times BindsNET": one["ratio_to_bindsnet"].map("{:.1f}".format),
            "peak memory (MiB)": one["peak_memory_mib"].map(lambda mib: "" if pd.isna(mib) else f"{mib:,.0f}"),
        }
    )
    row = one.iloc[0]
    setting = f"{row['network']}, binary weights, {row['batch']} images, {row['steps']} steps"
    machine = f"{row['cpu']}, {row['cores']} cores, torch {row['torch']}"
    aligned = ("left", "right", "right", "right")
    table = shown.to_markdown(index=False, disable_numparse=True, colalign=aligned)
    return f"{table}\n\n{setting}; {machine}; `make benchmark`: [{path}]({path})."


PAGE_TABLES: dict[str, Callable[[Path], str]] = {"digits": partial(_accuracy, "digits"), "simulation": _simulation}
