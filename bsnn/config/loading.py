"""From YAML to a checked configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bsnn.config import faults, reading
from bsnn.config.experiment import protocol_section, sort_of_network
from bsnn.config.reading import shortened, shown
from bsnn.config.run import Config
from bsnn.config.training import Network
from bsnn.errors import ConfigError, meant


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Deep copy of `base` with `changes` laid over it; sections are merged, everything else replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if key == "protocol" and isinstance(value, Mapping):
            merged[key] = protocol_section(merged.get(key))
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
        # Settings of the other sort of network would be unknown keys beside this one's.
        inherited["network"] = {}
        to_own = sort_of_network(own["network"]) == "<own>"
        inherited["description"] = "A network of one's own." if to_own else ""  # the other's is not true of this one
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
    # Variants come after what was written, and do not replace an experiment that was written under such a name.
    whole = {**raw, "experiments": {**resolved, **varied, **resolved}}
    found = list(faults.truths(whole, Config))
    try:
        checked = Config.model_validate(whole)
    except ValidationError as error:
        # One fault a place: what pydantic says of a truth value is left out where ours is told.
        places = {fault["loc"] for fault in found}
        found += [fault for fault in error.errors() if faults.plain(fault["loc"]) not in places]
    if found:
        raise ConfigError(faults.message(found, whole, experiments))
    return checked


def load(path: str | Path, changes: Mapping[str, Any] | None = None) -> Config:
    """Checked configuration from a YAML file, with `changes` laid over it.

    Raises:
        ConfigError: when the file is missing, is no YAML (see `reading.read`), or is not valid.
    """
    return validate(merge(reading.read(path), changes or {}))
