"""Keys and paths of config.yaml's experiments as they must stay, and how the recorded ones are written.

    python tests/golden_for_tests.py

writes tests/data/golden_keys.json and tests/data/defaults.json from the current source. Do so when a key is meant to
change (a stage's version was raised, a recipe in config.yaml was changed), and read the difference before committing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from bsnn import config
from bsnn.config import conversion, experiment, run, training
from bsnn.config.values import Section
from bsnn.pipeline.declarations import STAGES
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

FOLDER = Path(__file__).parent / "data"
KEYS, DEFAULTS = FOLDER / "golden_keys.json", FOLDER / "defaults.json"
CHANGES: dict[str, Any] = {"seeds": [0, 1], "percentile": [99.0, 99.5, 99.9, 100.0]}


KINDS = {"images": "data", "exit": "early_exit"}  # recorded under these names
RULES = {"search": "find_switches", "exit": "find_exit"}
NOTED = {"tables": "results", "latency_tables": "latency", "exit_results": "exits"}


def listed() -> Iterator[tuple[str, str, str, str]]:
    """Every artifact and keyed identity: experiment, kind, coordinates, path (or key, where the path has none)."""
    loaded = config.load(Path(__file__).parent.parent / "config.yaml", CHANGES)
    pipeline = Pipeline(loaded)
    for name in loaded.experiments:
        yield from ((name, kind, "key", pipeline.key(stage, Place(name))) for stage, kind in NOTED.items())
        for place in pipeline.places("paper_result", name):
            yield name, "paper", place.result, pipeline.key("paper_result", place)
        yield name, "paper", "report", pipeline.key("paper_report", Place(name))
        for stage, declared in STAGES.items():
            kinds = [kind for kind in declared.files if kind not in ("note", "text")]
            if not kinds:
                continue
            for place in pipeline.places(stage, name):
                at = _at(declared.over, place)
                for kind in kinds:
                    recorded = f"method_{kind}" if stage == "method" else KINDS.get(kind, kind)
                    yield name, recorded, at, str(pipeline.path(stage, place, kind))
                if declared.scratch and place.shard == 1:
                    kind, shard = ("kept_shards", " 1") if stage == "simulate" else ("checkpoints", "")
                    yield name, kind, at.removesuffix(shard), str(pipeline.scratch(stage, place))


def _at(over: tuple[str, ...], place: Place) -> str:
    """Coordinates in words, as they were recorded."""
    if not over:
        return ""
    words = {"weights": place.weights, "seed": f"seed={place.seed}", "percentile": f"p={place.percentile}"}
    words |= {"method": place.method, "steps": f"T={place.steps}", "shard": str(place.shard)}
    return " ".join(words[axis] for axis in dict.fromkeys(("weights", *over)))


def golden() -> dict[str, dict[str, list[Any]]]:
    """By experiment and kind: how many paths, a digest over all of them, the first and the last as samples."""
    lines: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for name, kind, at, path in listed():
        lines[name, kind].append((at, path))
    found: dict[str, dict[str, list[Any]]] = {}
    for (name, kind), own in sorted(lines.items()):
        digest = hashlib.sha256(json.dumps(sorted(own)).encode()).hexdigest()[:16]
        found.setdefault(name, {})[kind] = [len(own), digest, *dict.fromkeys((own[0][1], own[-1][1]))]
    return found


# Sections whose settings are left out of identities at their defaults, and the stages whose versions must rise when
# such a default changes. What lies downstream has these stages in its own identity.
LEFT_OUT: dict[type[Section], tuple[str, ...]] = {
    training.Data: ("data",),
    training.Network: ("train", "binarize"),
    training.Optimiser: ("train", "binarize"),
    training.Schedule: ("train", "binarize"),
    training.Augment: ("train", "binarize"),
    training.SmallImages: ("train", "binarize"),
    training.Teacher: ("binarize",),
    training.Train: ("train", "binarize"),
    training.Full: ("train",),
    training.Binarize: ("binarize",),
    conversion.Activations: ("activations",),
    conversion.Thresholds: ("thresholds", "method", "ideal", "search"),
    conversion.Simulation: ("simulate", "method", "search"),
    conversion.Method: ("method", "ideal", "search"),
    conversion.Latency: ("search",),
    conversion.Search: ("search",),
    conversion.EarlyExit: ("exit",),
}
# Fields of these sections that identities name by their value, or that are no part of any.
BY_VALUE = {
    (conversion.Simulation, "shards"),
    *((conversion.Latency, field) for field in ("time", "images", "methods", "ideal")),
    (conversion.EarlyExit, "method"),
}
# Sections that identities name by their values throughout, or that are no part of any.
OTHERS = {experiment.Protocol, experiment.Checkpoint, experiment.Imported, experiment.Experiment}
OTHERS |= {training.Own, run.Paper, run.Compute, run.Config}


def defaults() -> dict[str, dict[str, Any]]:
    """By section: the versions of its stages, and the defaults that identities leave out."""
    found: dict[str, dict[str, Any]] = {}
    for section, stages in LEFT_OUT.items():
        fields = {
            name: _default(field.get_default(call_default_factory=True))
            for name, field in section.model_fields.items()
            if not field.is_required() and (section, name) not in BY_VALUE
        }
        versions = {stage: STAGES[RULES.get(stage, stage)].version for stage in stages}
        found[section.__name__] = {"versions": versions, "defaults": fields}
    return found


def _default(value: object) -> object:
    """A section within a section stands for itself: only what differs from its own defaults."""
    return (
        value.model_dump(mode="json", exclude_defaults=True)
        if isinstance(value, Section)
        else to_jsonable_python(value)
    )


def unversioned(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
    """Changes of defaults that old artifacts would not notice."""
    found = []
    for section, old in before.items():
        new = now.get(section, {"versions": {}, "defaults": {}})
        stages = [stage for stage, version in old["versions"].items() if new["versions"].get(stage, 0) <= version]
        for name, value in old["defaults"].items():
            if stages and new["defaults"].get(name, "(no default)") != value:
                change = f"{value!r} -> {new['defaults'].get(name, '(no default)')!r}"
                found.append(f"{section}.{name}: {change}; raise the version of {', '.join(stages)}")
    return found


def write() -> None:
    """Record the current state, unless it would hide a changed default."""
    FOLDER.mkdir(exist_ok=True)
    if DEFAULTS.exists() and (wrong := unversioned(json.loads(DEFAULTS.read_text()), defaults())):
        sys.exit("\n".join(wrong))
    DEFAULTS.write_text(json.dumps(defaults(), indent=1) + "\n")
    kinds = [
        f" {json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(kind)}: {json.dumps(own[kind])}" for kind in own)
        + "\n }"
        for name, own in golden().items()
    ]
    KEYS.write_text("{\n" + ",\n".join(kinds) + "\n}\n")  # one line per kind, so that differences can be read


if __name__ == "__main__":
    write()
