"""What the paper's authors published, with the source of each value; what could not be found stays unavailable."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveInt

from bsnn.config import Experiment, Percentile, Section, Weights


class Accuracy(Section):
    """One published accuracy, in percent; None where it could not be found."""

    network: Literal["ANN", "SNN"]
    weights: Weights
    value: float | None
    tolerance: float | None = None  # points; this project's
    percentile: Percentile | None = None  # of the run that gave the value
    time: PositiveInt | None = None
    status: Literal["certain", "third party", "not found", "not published"]
    source: str


class Conversion(Section):
    """The authors' sample command."""

    percentile: Percentile
    time: PositiveInt


class Published(Section):
    """Everything about one data set."""

    network: dict[str, Any] = Field(default_factory=dict)
    conversion: Conversion | None = None
    accuracy: list[Accuracy]
    recipes: dict[Weights, dict[str, str]] = Field(default_factory=dict)


_NOTHING = "nothing found for this data set and network"
NOTHING = Published(
    accuracy=[
        Accuracy(network=network, weights=weights, value=None, status="not published", source=_NOTHING)
        for network in ("ANN", "SNN")
        for weights in ("full", "binary")
    ]
)


@cache
def _all() -> dict[str, Published]:
    text = (resources.files("bsnn.paper") / "published.yaml").read_text()
    return {name: Published.model_validate(entry) for name, entry in yaml.safe_load(text).items()}


def of(experiment: Experiment) -> Published:
    """What was published about an experiment's data set with its network; nothing about other networks."""
    if experiment.own is not None:
        return NOTHING
    found = _all().get(experiment.data.name, NOTHING)
    own = experiment.family.model_dump()
    return found if all(own[key] == value for key, value in found.network.items()) else NOTHING
