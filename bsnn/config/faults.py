"""What is wrong with a configuration, as users write it: key, value, what is allowed, which experiments have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from bsnn.config.experiment import SORTS
from bsnn.config.reading import shortened, shown
from bsnn.config.run import Config
from bsnn.config.values import Section
from bsnn.errors import meant

MOST = 20  # that are reported at once


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
        # What follows a field of a dict is a name that the user chose, even where it reads like a key.
        if named or part not in section.model_fields:  # a name, or the index of a list
            named = False
            continue
        annotation = section.model_fields[str(part)].annotation
        named = get_origin(annotation) is dict
        section = next(iter(_sections(annotation)), section)
    return section.model_fields


def truths(value: object, annotation: Any, place: tuple[str, ...] = ()) -> Iterator[ErrorDetails]:
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
                yield from truths(one, sections[0], (*place, str(key)))
            elif key in sections[0].model_fields:
                yield from truths(one, sections[0].model_fields[key].annotation, (*place, key))


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(part, kind) for part in get_args(annotation))


def _inner(value: object) -> Iterator[object]:
    """The value, and what stands in it: items of a list, keys and values of a mapping, at any depth."""
    yield value
    parts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    if isinstance(parts, list | tuple):
        for one in parts:
            yield from _inner(one)


def message(faults: Iterable[ErrorDetails], whole: Mapping[str, Any], experiments: Mapping[str, Any]) -> str:
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
        # Experiments that extend one another have the same faults: they are told together, below the key within the
        # experiment.
        place = tuple(str(part) for part in plain(_written(fault["loc"], whole)))
        if fault["type"] == "missing" and place[0] == "experiments":
            what += meant(place[1], [name for name in experiments if name != place[1]])
        experiment = place[1] if place[0:1] == ("experiments",) and len(place) > 1 else ""
        key = ".".join(place[2:] if experiment else place)
        places.setdefault((key, shortened(what) + ending), []).append(experiment)
    lines = [_line(key, what, _told(names, experiments)) for (key, what), names in islice(places.items(), MOST)]
    more = [f"and {len(places) - MOST:,} more"] if len(places) > MOST else []
    return "\n  ".join(["the configuration is not valid:", *lines, *more])


def _written(location: tuple[int | str, ...], whole: Mapping[str, Any]) -> tuple[int | str, ...]:
    """A fault's place without the index of a value that was written by itself where a list is expected."""
    value: Any = whole
    for depth, part in enumerate(location):
        if isinstance(part, int):
            # Several may be written as one value: pydantic names item 0 of it, and there is no list.
            if not isinstance(value, list | tuple):
                return location[:depth] + location[depth + 1 :]
            value = value[part] if part < len(value) else None
        elif part not in SORTS or (isinstance(value, Mapping) and part in value):
            value = value.get(part) if isinstance(value, Mapping) else None
    return location


def plain(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
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
