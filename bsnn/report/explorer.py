"""The explorer at the top of a report: one chart and one table, of what the mouse chooses.

The chart is Vega-Lite; vl-convert brings its libraries and writes them into the page, so that nothing is fetched. It
also draws the picture that is shown where scripts do not run.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from bsnn.config import format_percentile
from bsnn.figures.axes import NAMES
from bsnn.figures.near import limits
from bsnn.tables import Results
from bsnn.tables.costs_over_time import PRESET, chosen

POINTS = 48  # steps of each curve; where there are more, they are spread evenly on a logarithmic axis
AXES = {"T": "time steps T", "spikes": "spikes per image", "energy": "energy per image (nJ, arithmetic at 45 nm)"}


def rows(results: Results, methods: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """Everything that can be chosen.

    Args:
        results: of the experiment.
        methods: tables latency and latency_costs of `snakemake latency`, where they were made.

    Returns:
        weights, series (a percentile or a method), T, accuracy, low, high, ann (percent; low and high NaN for methods),
        spikes and energy (nanojoules) per image, earlier (whether asked for by an earlier question).
    """
    frame = results["costs_over_time"]
    kept = frame[frame["time"].isin(_steps(int(frame["time"].max())) | set(results.config.time))]
    renamed = kept.rename(columns={"time": "T", "spikes_per_image": "spikes", "nanojoules": "energy"})
    series = [f"percentile {format_percentile(value)}" for value in kept["percentile"]]
    columns = ["weights", "series", "T", "accuracy", "low", "high", "ann", "spikes", "energy", "earlier"]
    parts = [renamed.assign(series=series, earlier=~kept["asked"])[columns]]
    if methods is not None:
        costs = methods["latency_costs"].rename(columns={f"nanojoules_{PRESET}": "energy"})
        merged = methods["latency"].merge(costs[["weights", "method", "T", "energy"]], on=["weights", "method", "T"])
        own = merged.assign(series="method " + merged["method"], low=np.nan, high=np.nan, earlier=False)
        parts.append(own[columns])
    return pd.concat(parts, ignore_index=True)


def _steps(last: int) -> set[int]:
    if last <= POINTS:
        return set(range(1, last + 1))
    return set(np.geomspace(1, last, POINTS).round().astype(int).tolist())


def chart(shown: pd.DataFrame) -> dict[str, Any]:
    """Vega-Lite specification of accuracy against T, one line for each series and kind of weights.

    The page's script puts other columns of AXES in place of T.
    """
    low, high = limits(shown["accuracy"], shown["ann"], shown.groupby(["weights", "series"])["accuracy"].last())
    names = list(dict.fromkeys(shown["series"]))
    x = {"field": "T", "type": "quantitative", "title": AXES["T"], "scale": {"type": "log", "nice": False}}
    spread = {"domain": [low, high], "zero": False}
    y = {"field": "accuracy", "type": "quantitative", "title": "test accuracy (%)", "scale": spread}
    colours = {"scheme": "viridis" if len(names) <= 8 else "category20"}
    scale = {"domain": names, **colours}
    by_name = {
        "field": "series",
        "type": "nominal",
        "title": None,
        "scale": scale,
        "legend": {"orient": "bottom", "columns": 4},
    }
    by_kind = {"field": "weights", "type": "nominal", "title": "weights", "legend": {"orient": "top"}}
    texts = [
        ("series", "series", None),
        ("weights", "weights", None),
        ("T", "T", "d"),
        ("accuracy", "accuracy (%)", ".2f"),
    ]
    texts += [("low", "95 % from", ".2f"), ("high", "to", ".2f"), ("ann", "ANN (%)", ".2f")]
    texts += [("spikes", "spikes per image", ",.0f"), ("energy", "energy (nJ)", ",.0f")]
    tooltip = [{"field": name, "title": title, **({"format": text} if text else {})} for name, title, text in texts]
    both = {"color": by_name, "x": x, "y": y}
    ann = {"aggregate": "mean", "field": "ann", "type": "quantitative"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 340,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"name": "rows", "values": json.loads(shown.to_json(orient="records"))},
        "layer": [
            {
                "mark": {"type": "rule", "strokeDash": [5, 4], "clip": True, "color": "#888888"},
                "encoding": {"y": ann, "detail": {"field": "weights"}},
            },
            {
                "mark": {"type": "line", "clip": True, "strokeWidth": 1.6},
                "encoding": {**both, "strokeDash": {**by_kind, "legend": None}},
            },
            {
                "name": "points",
                "mark": {"type": "point", "filled": True, "clip": True, "size": 55, "opacity": 0.95},
                "encoding": {**both, "shape": by_kind, "tooltip": tooltip},
            },
        ],
        "config": {"view": {"stroke": None}, "background": "transparent", "font": "system-ui, sans-serif"},
    }


def view(results: Results, methods: Mapping[str, pd.DataFrame] | None = None) -> dict[str, Any]:
    """What the page needs: data and charts as JSON, libraries and script, a picture, and names to choose from."""
    import vl_convert

    shown = rows(results, methods)
    whole = chart(shown)
    data = {"rows": whole["data"]["values"], "titles": AXES, "chart": {**whole, "data": {"name": "rows"}}}
    still = {**whole, "width": 760, "autosize": {"type": "pad"}, "background": "white"}
    picture = _renumbered(vl_convert.vegalite_to_svg(still, allowed_base_urls=[]))
    script = (files("bsnn") / "templates" / "explorer.js").read_text()
    return {
        "data": json.dumps(data).replace("<", "\\u003c"),
        "script": _inline(vl_convert.javascript_bundle(script)),
        "picture": f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}",
        "axes": AXES,
        "weights": [(kind, NAMES[kind]) for kind in dict.fromkeys(shown["weights"])],
        "series": [(name, bool(part["earlier"].all())) for name, part in shown.groupby("series", sort=False)],
        "time": int(chosen(results["costs_over_time"], results.config.time)["time"].iloc[-1]),
    }


def _renumbered(picture: str) -> str:
    """The drawing with clip paths counted from 0: Vega counts on from one drawing of a process to the next."""
    names = dict.fromkeys(re.findall(r"\bclip\d+\b", picture))
    numbers = {name: f"clip{number}" for number, name in enumerate(names)}
    return re.sub(r"\bclip\d+\b", lambda found: numbers[found[0]], picture)


def _inline(script: str) -> str:
    """The script, if it can stand in a page as it is.

    Raises:
        ValueError: it would end its own element.
    """
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("the libraries of the explorer cannot stand within a page; take another release of vl-convert")
    return script
