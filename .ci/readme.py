"""Make the tables of the pages from the reference results: `python .ci/readme.py`, from the repository's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bsnn.config import format_percentile
from bsnn.tables.columns import compact, escaped

FOLDER = Path("results/reference")
PAGES = (
    Path("README.md"),
    *(Path("docs") / f"{name}.md" for name in ("low-latency", "literature", "own-networks", "paper")),
)


def fill(text: str, folder: Path = FOLDER) -> str:
    """A page with its tables made again from the reference results.

    Between `<!-- table: NAME -->` and `<!-- end -->` stands what the function of that name in PAGE_TABLES gives.
    """

    def made(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- table: {name} -->\n{PAGE_TABLES[name](folder)}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", made, text, flags=re.DOTALL)


def _markdown(frame: pd.DataFrame, **how: Any) -> str:
    """The table; names of networks and processors may hold anything."""

    def plain(value: object) -> object:
        return escaped(value) if isinstance(value, str) else value

    return str(frame.map(plain).rename(columns=plain).to_markdown(index=False, **how))


def _of_numbers(frame: pd.DataFrame) -> str:
    """The same of numbers as they are written, under each other; the first column names the rows."""
    return _markdown(frame, disable_numparse=True, colalign=("left", *["right"] * (len(frame.columns) - 1)))


def _accuracy(names: tuple[str, ...], folder: Path) -> str:
    """SNN accuracy and spikes per image at each time, for each network and percentile, and where it was measured."""
    frame = pd.concat([pd.read_csv(folder / name / "accuracy.csv") for name in names])
    shown = frame[["weights", "percentile"]].assign(
        ANN=frame["ann_mean"].map("{:.2f}".format),
        T="T = " + frame["time"].astype(str),
        SNN=frame["snn_mean"].map("{:.2f}".format) + " " + frame["spikes_per_image"].map(compact),
    )
    wide = shown.pivot(index=["weights", "percentile", "ANN"], columns="T", values="SNN")
    wide = wide[[f"T = {time}" for time in sorted(frame["time"].unique())]].reset_index()
    wide = wide.sort_values(["weights", "percentile"], ascending=[False, True])
    wide["percentile"] = wide["percentile"].map(format_percentile)
    origins = {name: json.loads((folder / name / "origin.json").read_text()) for name in names}
    [seeds], [images] = {len(origin["seeds"]) for origin in origins.values()}, frame["images"].unique()
    made = "; ".join(f"`{origin['command']}`: [{folder}/{name}]({folder}/{name})" for name, origin in origins.items())
    note = f"Accuracy in %, and spikes per image, of {images:,} test images and {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{_of_numbers(wide)}\n\n{note}; {made}."


def _percent(frame: pd.DataFrame, mean: str, deviation: str) -> pd.Series:
    """Accuracies, with their deviation over seeds where there are several; older tables of one have no such column."""
    spread = frame.get(deviation, pd.Series(float("nan"), frame.index))
    pairs = zip(frame[mean], spread, strict=True)
    texts = [f"{value:.2f}" if pd.isna(by) else f"{value:.2f} ± {by:.2f}" for value, by in pairs]
    return pd.Series(texts, frame.index)


def _by_method(name: str, folder: Path, weights: str = "binary") -> pd.DataFrame:
    """Accuracy of one kind of network: one row for each method, with that of its ANN, and one column for each time."""
    frame = pd.read_csv(folder / name / "latency.csv")
    frame = frame[frame["weights"] == weights].assign(
        ANN=lambda own: _percent(own, "ann", "ann_std"), SNN=lambda own: _percent(own, "accuracy", "accuracy_std")
    )
    wide = frame.pivot(index=["method", "ANN"], columns="T", values="SNN")
    return wide.rename(columns="T = {}".format).rename_axis(columns=None).reset_index()


def _methods(name: str, folder: Path, weights: str = "binary") -> str:
    """The best method at 16 steps first."""
    shown = _by_method(name, folder, weights).sort_values("T = 16", key=pd.to_numeric, ascending=False, kind="stable")
    [ann] = shown.pop("ANN").unique()
    origin = json.loads((folder / name / "origin.json").read_text())
    images = int(pd.read_csv(folder / name / "accuracy.csv")["images"].iloc[0])
    note = f"ANN {ann} %; `{origin['command']}`, {images:,} test images"
    return f"{_markdown(shown, disable_numparse=True)}\n\n{note}: [{name}](../{folder}/{name})."


def _ours(name: str, folder: Path, weights: str = "binary") -> str:
    """A network as the tables of the literature have it, the ANN beside the methods."""
    return f"{_markdown(_by_method(name, folder, weights), disable_numparse=True)}\n\n[{name}](../{folder}/{name})."


def _trainings(names: tuple[str, ...], folder: Path) -> str:
    """Accuracy over time at each percentile, means and deviations over seeds."""
    frame = pd.concat([pd.read_csv(folder / name / "accuracy.csv") for name in names], ignore_index=True)
    return f"{_of_numbers(_over_time(frame, ['weights', 'percentile', 'images']))}\n\n{_made(names, folder)}."


def _over_time(frame: pd.DataFrame, rows: list[str]) -> pd.DataFrame:
    """Accuracy at each time, beside that of the ANN: a row for each combination of some columns."""
    shown = frame[rows].assign(
        ANN=_percent(frame, "ann_mean", "ann_std"), SNN=_percent(frame, "snn_mean", "snn_std"), T=frame["time"]
    )
    wide = shown.pivot(index=[*rows, "ANN"], columns="T", values="SNN")
    return wide.rename(columns="T = {}".format).rename_axis(columns=None).reset_index()


def _made(names: tuple[str, ...], folder: Path) -> str:
    """The commands behind kept experiments, and where their tables lie, seen from a page in docs/."""
    commands = [json.loads((folder / name / "origin.json").read_text())["command"] for name in names]
    return "; ".join(f"`{how}`: [{name}](../{folder}/{name})" for name, how in zip(names, commands, strict=True))


def _simulation(folder: Path) -> str:
    """Speed of the engines and their peers, with columns of its own for each machine."""
    path, setting = folder / "simulation.csv", ["network", "batch", "steps"]
    frame = pd.read_csv(path)
    frame = frame[frame[setting].eq(frame[setting].iloc[0]).all(axis=1)]
    shown, notes = [], []
    for (features, cpu, cores, version), one in frame.groupby(["features", "cpu", "cores", "torch"], sort=False):
        by_engine = one.set_index("engine")
        shown += [
            by_engine["image_steps_per_second"].map("{:,.0f}".format).rename(f"{features}: images x steps / s"),
            by_engine["ratio_to_bindsnet"].map("{:.1f}".format).rename("times BindsNET"),
        ]
        notes.append(f"{features}: {cpu}, {cores} cores, torch {version}")
    wide = pd.concat(shown, axis=1).fillna("not measured").rename_axis("").reset_index()
    row = frame.iloc[0]
    done = f"{row['network']}, binary weights, {row['batch']} images, {row['steps']} steps"
    return f"{_of_numbers(wide)}\n\n{done}; {'; '.join(notes)}; `make benchmark`: [{path}]({path})."


def _resnet20(name: str, folder: Path) -> str:
    """ResNet-20 by this project and by SpikingJelly: accuracy by T, and what all steps cost."""
    path = folder / f"resnet20/{name}.csv"
    frame = pd.read_csv(path)
    wide = frame.pivot(index="side", columns="T", values="accuracy").loc[frame["side"].unique()]
    wide = wide[[steps for steps in wide.columns if steps >= 4]].map("{:.1f}".format).rename(columns="T = {}".format)
    last = frame.groupby("side", sort=False).last()
    costs = {
        "spikes per image": last["spikes_per_image"].map("{:,.0f}".format),
        "convert, s": last["conversion_seconds"].map("{:.0f}".format),
        "simulate, s": last["simulation_seconds"].map("{:.0f}".format),
        "convert, MiB": last["conversion_mib"].map("{:,.0f}".format),
        "simulate, MiB": last["simulation_mib"].map("{:,.0f}".format),
    }
    shown = wide.assign(**costs).rename_axis("", axis=0).rename_axis(None, axis=1).reset_index()
    row = frame.iloc[0]
    note = (
        f"ANN {row['ann']:.1f} % of these {row['images']:,} test images; T = {row['simulated_steps']} simulated; "
        f"{row['cpu']} ({row['features']}), {row['threads']} thread{'s' if row['threads'] > 1 else ''}, "
        f"torch {row['torch']}, SpikingJelly {row['spikingjelly']}"
    )
    return f"{_of_numbers(shown)}\n\n{note}: [{path}](../{path})."


def _of_paper(names: tuple[str, ...], table: str, folder: Path) -> tuple[pd.DataFrame, str]:
    """A table of the paper's results, of several kept experiments one below the other, and where they are from."""
    frames = []
    for name in names:
        frame = pd.read_csv(folder / name / "paper" / f"{table}.csv")
        if "percentile" in frame:
            frame["percentile"] = frame["percentile"].map(format_percentile, na_action="ignore")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True), _made(names, folder)


def _paper_accuracy(names: tuple[str, ...], folder: Path) -> str:
    """Networks as trained and spiking, by protocol."""
    frame, note = _of_paper(names, "accuracy", folder)
    measured = frame["measured_mean"].astype(float).map("{:.2f}".format)
    wide = frame.assign(measured=measured, T=frame["time"].map("{:.0f}".format, na_action="ignore"))
    wide = wide[["network", "protocol", "percentile", "T", "measured", "published", "images"]].fillna("")
    return f"{_of_numbers(wide)}\n\n{note}."


def _paper_time(names: tuple[str, ...], folder: Path) -> str:
    """Accuracy over time for each percentile, and from when on it stays within one point of the ANN."""
    frame, note = _of_paper(names, "time", folder)
    wide = _over_time(frame, ["weights", "percentile"])
    near, _ = _of_paper(names, "latency", folder)
    near = near[near["within"] == 1].set_index(["weights", "percentile"])["time_mean"]
    reached = pd.to_numeric(near, errors="coerce").map("{:.0f}".format, na_action="ignore").fillna("not reached")
    operations, _ = _of_paper(names, "operations", folder)
    steps = operations["time"].max()
    last = operations[operations["time"] == steps].set_index(["weights", "percentile"])["ratio"].map("{:.1f}".format)
    for title, column in (("within 1 point from T =", reached), (f"operations / ANN, T = {steps}", last)):
        wide = wide.join(column.rename(title), on=["weights", "percentile"])
    wide = wide.sort_values("percentile", key=pd.to_numeric).sort_values("weights", kind="stable")
    return f"{_of_numbers(wide)}\n\n{note}."


def _paper_pooling(name: str, folder: Path) -> str:
    """ANN and SNN with each pool and place."""
    frame, note = _of_paper((name,), "pooling", folder)
    shown = frame[["weights", "pool", "place"]].assign(
        ANN=frame["ann_mean"].map("{:.2f}".format),
        **{f"SNN, T = {frame['time'].iloc[0]}": frame["snn_mean"].map("{:.2f}".format)},
        drop=frame["drop"].map("{:.2f}".format),
        **{"spikes per image": frame["spikes_per_image"].map("{:,.0f}".format)},
    )
    return f"{_of_numbers(shown.rename(columns={'place': 'the ReLU'}))}\n\n{note}."


CPU_PAPER = ("cifar100-cpu-paper", "cifar100-cpu-paper-2000")
HALF_PAPER = ("cifar100-half-paper", "cifar100-half-paper-2000")

PAGE_TABLES: dict[str, Callable[[Path], str]] = {
    "digits": partial(_accuracy, ("digits",)),
    "vgg": partial(_accuracy, ("cifar100-cpu-cycle2", "cifar100-cpu-pretrained")),
    "simulation": _simulation,
    "half_methods": partial(_methods, "cifar100-half-pretrained"),
    "half_full": partial(_methods, "cifar100-half-full", weights="full"),
    "cpu_methods": partial(_methods, "cifar100-cpu-pretrained"),
    "cpu_full": partial(_methods, "cifar100-cpu-full", weights="full"),
    "half_full_long": partial(_ours, "cifar100-half-full-long", weights="full"),
    "cpu_full_long": partial(_ours, "cifar100-cpu-full-long", weights="full"),
    "cpu_paper_accuracy": partial(_paper_accuracy, CPU_PAPER),
    "cpu_paper_time": partial(_paper_time, CPU_PAPER),
    "half_paper_accuracy": partial(_paper_accuracy, HALF_PAPER),
    "half_paper_time": partial(_paper_time, HALF_PAPER),
    "half_trainings": partial(_trainings, ("cifar100-half-seeds", "cifar100-half-seeds-2000")),
    "half_pooling": partial(_paper_pooling, "cifar100-half-pools"),
    "half_all": partial(_ours, "cifar100-half-all"),
    "cpu_all": partial(_ours, "cifar100-cpu-all"),
    "half_all_full": partial(_ours, "cifar100-half-all-full", weights="full"),
    "half_seeds": partial(_ours, "cifar100-half-seeds"),
    "half_seeds_full": partial(_ours, "cifar100-half-seeds-2000", weights="full"),
    "cpu_all_full": partial(_ours, "cifar100-cpu-all-full", weights="full"),
    "resnet20": partial(_resnet20, "comparison"),
    "resnet20_binary": partial(_resnet20, "comparison_binary"),
}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fill(page.read_text()))
