"""Where each number comes from: one row for each artifact behind the tables, with its key, settings and machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bsnn.pipeline import identity
from bsnn.pipeline.stage import Place
from bsnn.tables.gather import Document, Source

COLUMNS = {
    "stage": "string",
    "weights": "string",
    "seed": "Int64",
    "percentile": "Float64",
    "key": "string",
    "settings": "string",  # JSON of what the key stands for, without what lies upstream
    "engine": "string",
    "reason": "string",
    "device": "string",
    "shards": "Int64",  # files of this origin
    "images": "Int64",
    "left_out": "Int64",  # broken image files that the split does without
    "seconds": "Float64",
    "cpu": "string",
    "cores": "Int64",
    "gpus": "string",
    "revision": "string",
    "versions": "string",  # JSON
}
SUMMED = ["shards", "images", "seconds"]  # over the shards of one artifact
MACHINE = ["cpu", "cores", "gpus", "revision", "versions"]


def origins(source: Source) -> pd.DataFrame:
    """One row per artifact; shards of one simulation are one row where machine, engine and revision agree."""
    frame = pd.DataFrame(_rows(source), columns=list(COLUMNS)).astype(COLUMNS)
    return merged(frame)[list(COLUMNS)].astype(COLUMNS)


def merged(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that agree in all but their files, images and seconds as one, with the sums of these."""
    keys = [name for name in frame if name not in SUMMED]
    # Empty cells are keys as well, or their rows would go; a sum of empty cells alone stays empty.
    return frame.groupby(keys, sort=False, dropna=False)[SUMMED].sum(min_count=1).reset_index()


def _rows(source: Source) -> Iterator[dict[str, Any]]:
    yield origin(source.pipeline.identity("data", Place(source.name)), {}, {})
    for weights, seed in source.pipeline.networks:
        network = {"weights": weights, "seed": seed}
        history, document = source.history(weights, seed)
        yield {**origin(document["identity"], document, network), "seconds": history["seconds"].sum()}
        _, document = source.activations(weights, seed)
        yield origin(document["identity"], document, network)
        for percentile in source.percentiles:
            converted = {**network, "percentile": percentile}
            _, document = source.thresholds(weights, seed, percentile)
            yield origin(document["identity"], document, converted)
            for shard in source.simulation(weights, seed, percentile).documents:
                yield {**origin(shard["identity"], shard, converted), "shards": 1}


def origin(stands_for: Mapping[str, Any], document: Document, which: Mapping[str, Any]) -> dict[str, Any]:
    """Columns from an artifact's document; what it does not say stays empty."""
    provenance = document.get("provenance", {})
    hardware = provenance.get("hardware", {})
    extra = document.get("extra", {})
    own = {name: value for name, value in stands_for.items() if name not in ("stage", "upstream")}
    return {
        **{name: extra.get(name) for name in ("engine", "reason", "device", "images", "left_out", "seconds")},
        **which,
        "stage": stands_for["stage"],
        "key": identity.key(dict(stands_for)),
        "settings": json.dumps(own, sort_keys=True),
        "cpu": hardware.get("cpu"),
        "cores": hardware.get("cores"),
        "gpus": ", ".join(hardware.get("gpus", [])) or None,
        "revision": provenance.get("revision"),
        "versions": json.dumps(provenance["versions"], sort_keys=True) if "versions" in provenance else None,
    }
