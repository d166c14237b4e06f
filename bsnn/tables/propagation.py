"""Delayed propagation: one step of delay a connection, as the original simulates without `--one-step`.

Layers see what a same-step simulation sees, only later: a layer by the connections before it, nodes that merely hold
what they are given counted. So a simulation under delayed propagation is the other one, shifted layer by layer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bsnn.errors import ArtifactError
from bsnn.tables.shards import Simulation


def delayed(run: Simulation, path: Path) -> Simulation:
    """What a simulation would have given under delayed propagation.

    Before the first output arrives, all potentials are 0 and the lowest class is predicted; ties go there.

    Args:
        run: with same-step propagation.
        path: of its predictions, for messages.

    Raises:
        ArtifactError: its artifacts do not note the delays of its layers.
    """
    delays = run.documents[0].get("extra", {}).get("delays")
    if not isinstance(delays, list) or len(delays) != len(run.layers) + 1:
        raise ArtifactError(
            f"{path}: does not note the delays of its layers; delete it and make it again: snakemake {path}"
        )
    spikes = np.stack([_later(row, delay, 0) for row, delay in zip(run.spikes, delays[:-1], strict=True)])
    before = int((run.labels == 0).sum())
    return replace(run, correct=_later(run.correct, delays[-1], before), spikes=spikes)


def _later(values: np.ndarray, delay: int, before: int) -> np.ndarray:
    """The same number of steps, each value `delay` steps later."""
    kept = values[: max(0, len(values) - delay)]
    return np.concatenate([np.full(len(values) - len(kept), before, values.dtype), kept])
