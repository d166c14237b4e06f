"""Delayed propagation: one step of delay per connection, as the original simulates without `--one-step`.

Layers see what a same-step simulation sees, only later: a layer by the connections before it, nodes that merely hold
what they are given counted. So a simulation under delayed propagation is the other one, shifted layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bsnn import artifacts
from bsnn.errors import ArtifactError
from bsnn.tables.shards import Outcome


def delayed(run: Outcome, path: Path) -> Outcome:
    """What a simulation would have given under delayed propagation.

    Before the first output arrives, all potentials are 0 and the lowest class is predicted; ties go there.

    Args:
        run: with same-step propagation.
        path: of its predictions, for messages.

    Raises:
        ArtifactError: its artifacts do not note the delays of its layers.
    """
    steps = delays(run.documents[0], len(run.layers), path)
    spikes = np.stack([later(row, delay, 0) for row, delay in zip(run.spikes, steps[:-1], strict=True)])
    return replace(run, correct=later(run.correct, steps[-1], int((run.labels == 0).sum())), spikes=spikes)


def delays(document: Mapping[str, Any], layers: int, path: Path) -> list[int]:
    """Steps of delay of each layer with neurons and, last, of the read-out, as an artifact notes them.

    Raises:
        ArtifactError: it does not.
    """
    found = document.get("extra", {}).get("delays")
    if not isinstance(found, list) or len(found) != layers + 1:
        raise ArtifactError(f"{path}: does not note the delays of its layers; {artifacts.again(path)}")
    return found


def later(values: np.ndarray, delay: int, before: float) -> np.ndarray:
    """The same number of steps along the last axis, each value `delay` steps later."""
    steps = values.shape[-1]
    # A delay may be longer than the simulation: then nothing has arrived.
    kept = values[..., : max(0, steps - delay)]
    waiting = np.full((*values.shape[:-1], steps - kept.shape[-1]), before, values.dtype)
    return np.concatenate([waiting, kept], axis=-1)
