"""Table of early exit: every network of an experiment, from its checked artifacts."""

from __future__ import annotations

import pandas as pd

from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

KIND = "early-exit-table"


def collect(pipeline: Pipeline, name: str) -> pd.DataFrame:
    """Rows of every network.

    Returns:
        split (held-out or test), bound on the margin (logit units; NaN: none), T (most steps of an image), accuracy and
        ann (percent), mean_steps, spikes, operations and nanojoules of an image, method, chosen (by held-out images),
        weights, seed.

    Raises:
        ArtifactError: when an artifact is missing, damaged or of other settings.
    """
    parts = [of_network(pipeline, "find_exit", place) for place in pipeline.places("find_exit", name)]
    return pd.concat(parts, ignore_index=True)


def of_network(pipeline: Pipeline, stage: str, place: Place) -> pd.DataFrame:
    """Table of one network's early exit or search, and which network it is."""
    table, _ = pipeline.read(stage, place)
    frame: pd.DataFrame = table.to_pandas()
    return frame.assign(weights=place.weights, seed=place.seed)
