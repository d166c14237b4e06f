"""What an artifact is, in a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bsnn.pipeline import identity

KINDS = {
    "network": "a trained network",
    "history": "the training history of a network",
    "summary": "the weights and memory of a binary network, by layer",
    "activations": "percentiles of the activations of a network",
    "thresholds": "the thresholds of a spiking network",
    "predictions": "the predictions of a spiking network at every step",
    "spikes": "the spikes of a spiking network, by layer and step",
    "operations": "the operations of a spiking network, by layer and step",
    "errors": "the errors of a spiking network, by layer",
    "search": "a search for switches",
    "exit": "early exit at several bounds",
}


def sentence(document: Mapping[str, Any]) -> str:
    """For example "the thresholds of a spiking network (data digits, seed 0, percentile 99), key ..., made on ..."."""
    kind = str(document.get("kind", ""))
    stands_for = document.get("identity") or {}
    parts = [KINDS.get(kind, f"a file of kind '{kind}'")]
    if about := _about(stands_for):
        parts[0] += f" ({', '.join(about)})"
    if stands_for:
        parts.append(f"key {identity.key(stands_for)}")
    made = document.get("provenance") or {}
    if "created" in made:
        parts.append(f"made on {str(made['created'])[:10]}")
        parts[-1] += f" by revision {str(made['revision'])[:7]}" if made.get("revision") else ""
    return ", ".join(parts)


def _about(stands_for: Mapping[str, Any]) -> list[str]:
    """Coordinates that the identities say, from the data set to the artifact."""
    chain: list[Mapping[str, Any]] = []
    one: Mapping[str, Any] | None = stands_for
    while one:
        chain.append(one)
        one = one.get("upstream")
    found: dict[str, str] = {}
    for one in reversed(chain):
        if one.get("stage") == "data":
            found["data"] = f"data {one.get('settings', {}).get('name', 'unknown')}"
        if one.get("stage") == "binarize":
            found["weights"] = "binary weights"
        if "experiment" in one:
            found["experiment"] = f"experiment {one['experiment']}"
        for name in ("seed", "percentile", "steps"):
            if name in one:
                values = one[name] if isinstance(one[name], list) else [one[name]]
                found[name] = f"{name} {', '.join(map(str, values))}"
    return list(found.values())
