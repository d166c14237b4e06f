"""From YAML to a checked configuration, and its JSON schema for editors."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from bsnn.config import reading
from bsnn.config.experiment import SORTS, sort_of_network
from bsnn.config.reading import shortened, shown
from bsnn.config.run import Config
from bsnn.config.training import Network
from bsnn.config.values import Section
from bsnn.errors import ConfigError, meant

FAULTS = 20  # that are reported at once


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Deep copy of `base` with `changes` laid over it; sections are merged, everything else replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _extended(name: str, experiments: Mapping[str, Any], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Definition of an experiment with its `extends` resolved."""
    if name in seen:
        raise ConfigError(f"experiments.{name}: extends itself through {' -> '.join((*seen, name))}")
    if name not in experiments:
        raise ConfigError(
            f"experiments.{seen[-1]}.extends: there is no experiment '{shortened(name)}'{meant(name, experiments)}; "
            f"have {shortened(str(sorted(experiments)))}"
        )
    definition = experiments[name]
    if not isinstance(definition, Mapping):
        raise ConfigError(
            f"experiments.{name}: is {shown(definition)}, expected a section with data, network, train, ..."
        )
    own = {key: value for key, value in definition.items() if key != "extends"}
    parent = definition.get("extends")
    if not isinstance(parent, str | None):
        raise ConfigError(f"experiments.{name}.extends: expected the name of one experiment, found {shown(parent)}")
    if parent is None:
        return own
    inherited = _extended(parent, experiments, (*seen, name))
    if _of_another_sort(inherited.get("network"), own.get("network")):
        inherited["network"] = {}
    return merge(inherited, own)


def _of_another_sort(inherited: object, network: object) -> bool:
    """Whether a network is a module where the extended experiment has one of the family, or the other way round."""
    if not isinstance(inherited, Mapping) or not isinstance(network, Mapping):
        return False
    mixed = "module" in {*inherited, *network} and "features" in {*inherited, *network}
    return mixed and sort_of_network(inherited) != sort_of_network(network)


POOLING = (("average", "before"), ("average", "after"), ("max", "before"), ("max", "after"))


def variant_name(name: str, pool: str, place: str) -> str:
    """Name of an experiment with another pool."""
    return f"{name}-{pool}-{place}"


def _variants(name: str, definition: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same experiment with each other pool and place, where it asks for that; only networks of its own can vary."""
    network = definition.get("network")
    if definition.get("ablation") is not True or definition.get("networks_of") or not isinstance(network, Mapping):
        return {}
    if sort_of_network(network) == "<own>":
        return {}
    own = tuple(network.get(key, Network.model_fields[key].default) for key in ("pool", "place"))
    variants = {}
    for pool, place in (pooling for pooling in POOLING if pooling != own):
        text = f"{definition.get('description', '')} Pooling ablation: {pool}, {place} the ReLU."
        changes = {"network": {"pool": pool, "place": place}, "ablation": False, "description": text.strip()}
        variants[variant_name(name, pool, place)] = merge(definition, changes)
    return variants


def _sections(annotation: Any) -> list[type[Section]]:
    """Section classes that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _known(location: tuple[int | str, ...]) -> Iterable[str]:
    """Keys that are allowed beside an unknown one; names of experiments and methods are no keys, whatever they are."""
    section: type[Section] = Config
    named = False
    for part in location[:-1]:
        if part in SORTS:
            section = SORTS[str(part)]
            continue
        if named or part not in section.model_fields:  # a name, or the index of a list
            named = False
            continue
        annotation = section.model_fields[str(part)].annotation
        named = get_origin(annotation) is dict
        section = next(iter(_sections(annotation)), section)
    return section.model_fields


def _truths(value: object, annotation: Any, place: tuple[str, ...] = ()) -> Iterator[ErrorDetails]:
    """Faults: truth values where something else is expected. To pydantic they are the numbers 1 and 0.

    Args:
        value: plain data.
        annotation: what it is checked against: a section's field's.
        place: where it stands.
    """
    sections = _sections(annotation)
    if not sections:
        if not _mentions(annotation, bool) and any(isinstance(one, bool) for one in _inner(value)):
            message = "expected no truth value; YAML reads yes, no, on and off as such: give a number or name"
            yield {"type": "truth", "loc": place, "msg": message, "input": value}
    elif isinstance(value, Mapping):
        named = get_origin(annotation) is dict
        for key, one in value.items():
            if named:
                yield from _truths(one, sections[0], (*place, str(key)))
            elif key in sections[0].model_fields:
                yield from _truths(one, sections[0].model_fields[key].annotation, (*place, key))


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(part, kind) for part in get_args(annotation))


def _inner(value: object) -> Iterator[object]:
    """The value, and what stands in it: items of a list, keys and values of a mapping, at any depth."""
    yield value
    parts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    if isinstance(parts, list | tuple):
        for one in parts:
            yield from _inner(one)


def _message(faults: Iterable[ErrorDetails], whole: Mapping[str, Any], experiments: Mapping[str, Any]) -> str:
    """One line a fault: key, what is wrong or allowed, the value found, and who else has it, by `extends` mostly."""
    places: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        found = fault.get("input")
        ending = "" if isinstance(found, Mapping | BaseModel) else f" (found {shown(found)})"
        what = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            known = _known(fault["loc"])
            what = f"unknown key{meant(str(fault['loc'][-1]), known)}; known here: {', '.join(known)}"
        if isinstance(found, str) and "," in found:
            ending += "; several are written [a,b]"
        place = tuple(str(part) for part in _plain(_written(fault["loc"], whole)))
        if fault["type"] == "missing" and place[0] == "experiments":
            what += meant(place[1], [name for name in experiments if name != place[1]])
        experiment = place[1] if place[0:1] == ("experiments",) and len(place) > 1 else ""
        key = ".".join(place[2:] if experiment else place)
        places.setdefault((key, shortened(what) + ending), []).append(experiment)
    lines = [_line(key, what, _told(names, experiments)) for (key, what), names in islice(places.items(), FAULTS)]
    more = [f"and {len(places) - FAULTS:,} more"] if len(places) > FAULTS else []
    return "\n  ".join(["the configuration is not valid:", *lines, *more])


def _written(location: tuple[int | str, ...], whole: Mapping[str, Any]) -> tuple[int | str, ...]:
    """A fault's place without the index of a value that was written by itself where a list is expected."""
    value: Any = whole
    for depth, part in enumerate(location):
        if isinstance(part, int):
            if not isinstance(value, list | tuple):
                return location[:depth] + location[depth + 1 :]
            value = value[part] if part < len(value) else None
        elif part not in SORTS or (isinstance(value, Mapping) and part in value):
            value = value.get(part) if isinstance(value, Mapping) else None
    return location


def _plain(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A fault's place as the user writes it: without the sort of network."""
    return tuple(part for part in location if part not in SORTS)


def _told(names: list[str], experiments: Mapping[str, Any]) -> list[str]:
    """Experiments with one fault, those that others extend first; variants only where no experiment has it."""

    def ancestors(name: str) -> int:
        parent = experiments[name].get("extends")
        return 0 if parent is None else 1 + ancestors(parent)

    return sorted((name for name in names if name in experiments), key=ancestors) or names


def _line(key: str, what: str, names: list[str]) -> str:
    """A fault at a key of one or more experiments ("" for none)."""
    first, *others = names
    where = shortened(".".join(part for part in ("experiments" if first else "", first, key) if part))
    also = f"; the same in {shortened(', '.join(others))}" if others else ""
    return f"{where}: {what}{also}" if where else what


def validate(raw: Mapping[str, Any]) -> Config:
    """Checked configuration from plain data.

    Raises:
        ConfigError: naming each faulty key, its value and what is allowed; or for data that refer to themselves.
    """
    try:
        return _validated(raw)
    except RecursionError:
        raise ConfigError("the configuration is not valid: values lie within each other without end") from None


def _validated(raw: Mapping[str, Any]) -> Config:
    experiments = raw.get("experiments")
    if not isinstance(experiments, Mapping):
        raise ConfigError("experiments: missing; expected a section with one entry an experiment")
    strange = [name for name in experiments if not isinstance(name, str)]
    if strange:
        raise ConfigError(
            f"experiments: the name {strange[0]!r} is no text to YAML; write it in quotes ('{strange[0]}')"
        )
    resolved = {name: _extended(name, experiments) for name in experiments}
    varied: dict[str, Any] = {}
    for name, definition in resolved.items():
        varied |= _variants(name, definition)
    whole = {**raw, "experiments": {**resolved, **varied, **resolved}}
    faults = list(_truths(whole, Config))
    try:
        checked = Config.model_validate(whole)
    except ValidationError as error:
        places = {fault["loc"] for fault in faults}
        faults += [fault for fault in error.errors() if _plain(fault["loc"]) not in places]
    if faults:
        raise ConfigError(_message(faults, whole, experiments))
    return checked


def load(path: str | Path, changes: Mapping[str, Any] | None = None) -> Config:
    """Checked configuration from a YAML file, with `changes` laid over it.

    Raises:
        ConfigError: when the file is missing, is no YAML (see `reading.read`), or is not valid.
    """
    return validate(merge(reading.read(path), changes or {}))


def schema() -> str:
    """JSON schema of config.yaml, for editors; `extends` is resolved before validation and added here by hand."""
    document = Config.model_json_schema(schema_generator=_Untitled)
    experiment = document["$defs"]["Experiment"]
    experiment["properties"]["extends"] = {
        "type": "string",
        "description": "Experiment whose settings to start from.",
    }
    experiment.pop("required")
    _loosen_sections(document["$defs"])
    for key in ("run", "percentile", "time", "seeds", "weights"):
        listed = document["properties"][key]
        document["properties"][key] = {
            "description": listed.get("description", ""),
            "anyOf": [{k: v for k, v in listed.items() if k != "description"}, listed["items"]],
        }
    return _lines(document) + "\n"


class _Untitled(GenerateJsonSchema):
    """Without titles of fields, which repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _lines(value: Any, depth: int = 4, indent: str = "") -> str:
    """JSON with one line per setting: objects this many levels down, and all lists, stand on one."""
    if not isinstance(value, dict) or not depth:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + "  "
    members = [f"{inner}{json.dumps(name)}: {_lines(one, depth - 1, inner)}" for name, one in value.items()]
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def _loosen_sections(definitions: dict[str, Any]) -> None:
    """An experiment that extends another may give a part of a section: nothing is required for an editor."""
    for name in ("Data", "Network", "Optimiser", "SmallImages", "Full", "Binarize", "Simulation"):
        definitions[name].pop("required", None)
