"""From a path, or the wildcards of one, back to the place: what Snakemake asks for, and whose an artifact is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bsnn.errors import ConfigError
from bsnn.paper import plan
from bsnn.pipeline.declarations import STAGES
from bsnn.pipeline.identity import KEY_LENGTH
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.notes import AGAIN, MADE
from bsnn.pipeline.stage import Place

CONSTRAINTS = {  # regular expressions
    "weights": "full|binary",
    "seed": r"\d+",
    "percentile": r"\d+(\.\d+)?",
    "key": f"[0-9a-f]{{{KEY_LENGTH}}}",
    "made": MADE,
    "shard": r"\d+",
    "shards": r"\d+",
    "method": "[A-Za-z0-9][A-Za-z0-9_-]*",
    "steps": r"\d+",
    "result": "|".join(plan.RESULTS),
    "suffix": "safetensors|parquet",
}
READ: dict[str, Callable[[str], Any]] = {"seed": int, "percentile": float, "shard": int, "steps": int}  # others: text


def place_of(pipeline: Pipeline, name: str, wildcards: Mapping[str, str]) -> Place:
    """The job that the wildcards of a path name.

    Args:
        name: the stage.
        wildcards: texts by name; coordinates, and `key`, `made` and `shards`, which must be the current settings'.

    Raises:
        ConfigError: no such experiment, percentile, shard, method or result; or a key of other settings.
    """
    if "experiment" in wildcards:
        found = {axis: READ.get(axis, str)(wildcards[axis]) for axis in STAGES[name].over if axis in wildcards}
        place = Place(wildcards["experiment"], **found)
    else:
        place = _of_data(pipeline, wildcards)
    pipeline.check(name, place)
    place = pipeline.at(name, place)
    key = pipeline.key(name, place)
    path = pipeline.path(name, place)
    if wildcards.get("key", wildcards.get("made", key)).removesuffix(AGAIN) != key:
        raise ConfigError(
            f"key {wildcards.get('key', wildcards.get('made'))} does not belong to the current settings, whose file "
            f"is {path}. Ask for that file, or restore the settings (`bsnn describe FILE` tells what the key of an "
            "existing file stands for)."
        )
    shards = str(pipeline.experiment(place).simulation.shards)
    if wildcards.get("shards", shards) != shards:
        raise ConfigError(f"{wildcards['shards']} shards are not the current setting, whose file is {path}")
    return place


def _of_data(pipeline: Pipeline, wildcards: Mapping[str, str]) -> Place:
    """The experiment that stands for a data set."""
    wanted = "{data}-{key}.{suffix}".format(**wildcards)
    for name in dict.fromkeys(pipeline.data_owners.values()):
        if pipeline.path("data", Place(name)).name == wanted:
            return Place(name)
    raise ConfigError(
        f"no experiment of the current settings uses data set {wildcards['data']} with key {wildcards['key']}"
    )


def in_use(pipeline: Pipeline, path: Path) -> bool:
    """Whether a path below the results folder is that of an artifact which the current settings can ask for."""
    below = path.relative_to(pipeline.root).as_posix()
    for name, kind, regex in _patterns():
        if match := regex.fullmatch(below):
            try:
                place = place_of(pipeline, name, match.groupdict())
            except ConfigError:
                return False
            return place in _grid(pipeline, name, place.experiment) and pipeline.path(name, place, kind) == path
    return False


@cache
def _grid(pipeline: Pipeline, name: str, experiment: str) -> frozenset[Place]:
    """Every job of a stage for an experiment, the paper's percentiles included."""
    return frozenset(pipeline.places(name, experiment, plan.sweep(pipeline.config)))


def _regex(pattern: str) -> re.Pattern[str]:
    """Regular expression of a path with wildcards, each of which stands there once."""
    parts = re.split(r"\{(\w+)\}", pattern)
    texts = [
        f"(?P<{part}>{CONSTRAINTS.get(part, '[^/]+')})" if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    ]
    return re.compile("".join(texts))


@cache
def _patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    """Stage, kind and pattern of every keyed artifact."""
    return [
        (name, kind, _regex(file.path))
        for name, stage in STAGES.items()
        for kind, file in stage.files.items()
        if kind != "note"
    ]
