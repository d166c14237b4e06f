"""Search for the switches that serve best in T steps: one after the other, on held-out training images alone.

Coordinate descent from the best of several methods: each switch in turn takes the value that serves best with all
others kept, until a round over all switches changes nothing. One start is not enough, since what serves best alone is
not what serves best together: on CIFAR-100 at T = 16 a descent from the baseline ended 1.8 points lower.
Combinations that count twice are skipped, and so is what the network cannot have. What was tried is remembered, so
nothing is tried twice. Of all that was tried, `choice` takes the one that serves best.

The ideal quantised curve (bsnn.conversion.ideal) says beforehand which error is worth attacking, and which thresholds
cannot reach what is reached already: one pass of the network instead of T steps of its simulation (`Guide`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from bsnn.config import Latency, Method, Weights
from bsnn.errors import ConversionError


@dataclass(frozen=True)
class Score:
    """What a method reaches on the held-out images in T steps."""

    accuracy: float  # percent
    agreement: float  # percent of images that are classified as by the ANN, rightly or not
    spikes: float  # an image
    right: tuple[bool, ...] = field(default=(), repr=False)  # of each image, whether its class was found

    def near(self, most: Score) -> bool:
        """Whether chance may be why it is less accurate: by at most one standard error of the difference."""
        lost = np.subtract(most.right, self.right, dtype=np.float64)
        error = 100 * lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else 0.0
        return bool(
            most.accuracy - self.accuracy <= error + 1e-9
        )  # just one error is often met: one image lost, none won


def choice(scores: Iterable[Score]) -> Score:
    """The one-standard-error rule (Breiman et al. 1984), with the ANN as what is known of the network beforehand.

    Of those that are as accurate as the most accurate one but for chance, the one that agrees most with the ANN's own
    predictions: a conversion is to change nothing, and on a few hundred images agreement is surer than accuracy. Of
    equals, the more accurate; of these, the one with fewer spikes.
    """
    found = list(scores)
    most = max(found, key=lambda score: (score.accuracy, score.agreement, -score.spikes))
    return max(
        (score for score in found if score.near(most)), key=lambda one: (one.agreement, one.accuracy, -one.spikes)
    )


def values(percentiles: list[float], weights: Weights = "binary") -> list[list[dict[str, Any]]]:
    """Values of each switch, in the order in which switches take their turn; one excludes what it cannot go with."""
    # What a value turns off, since config.Method refuses it beside: signed spikes; what no burst goes with (`single`);
    # what no second pass goes with (`alone`); and the second pass itself (`once`).
    unsigned: dict[str, Any] = {"signed": False, "negative_threshold": 1.0}
    once: dict[str, Any] = {"second_pass": "none", "first_pass": 4}
    single: dict[str, Any] = {**unsigned, **once, "threshold": "percentile"}
    full: list[list[dict[str, Any]]] = [
        [{"channels": False}, {"channels": True, "threshold": "percentile"}],
        [{"burst": 1}, *({"burst": most, **single} for most in (2, 5))],
    ]
    by_percentile = [{"threshold": "percentile", "percentile": percentile} for percentile in percentiles]
    alone: dict[str, Any] = {**unsigned, "correction": "none", "delay": 0, "threshold": "percentile"}
    return [
        [
            *by_percentile,
            {"threshold": "squared-error", "percentile": None, **once},
            {"threshold": "balanced", "percentile": None},
        ],
        [
            *({"initial": part, "shift": False} for part in (0.0, 0.25, 0.5, 0.75)),
            {"initial": 0.0, "shift": True, **once},
        ],
        [unsigned, *({"signed": True, "negative_threshold": part, **once} for part in (1.0, 0.25, 0.0))],
        [
            {"correction": "none"},
            *({"correction": kind, **once} for kind in ("potential", "channel", "bias", "temporal")),
        ],
        [once, *({"second_pass": kind, **alone} for kind in ("srp", "cos"))],
        [{"delay": 0}, *({"delay": steps, **once} for steps in (2, 4, 8))],
        *(full if weights == "full" else []),
    ]


def _neighbours(method: Method, switch: list[dict[str, Any]]) -> Iterator[Method]:
    """The method with each value of a switch that is allowed with the others."""
    for value in switch:
        try:
            yield Method.model_validate({**method.model_dump(), **value})
        except ValidationError:
            continue


def starts(settings: Latency, steps: int, weights: Weights) -> list[Method]:
    """Methods that the search begins with: those of the experiment that this kind of network can have, for T steps."""
    methods = [settings.method(name) for name in settings.names_for(weights)]
    return [method.for_time(steps, settings.percentile) for method in methods]


@dataclass(frozen=True)
class Guide:
    """The ideal curve at the wanted number of steps, by which switches are tried or passed over."""

    ann: float  # accuracy of the network before conversion, in percent
    ideal: Callable[[Method], float | None]  # that of a method's thresholds and rounding; None where there is none
    percentile: float  # of methods that name none
    slack: float  # points that are not worth a simulation

    def why(self, method: Method, chosen: Method, reached: Score) -> tuple[bool, str]:
        """Whether a neighbour of the chosen method is worth a simulation, and why.

        - Another threshold or rounding changes the curve itself. It is tried unless its own curve lies below what is
          reached and below that of the chosen method (a correction, which it would have, too, may reach more than its
          curve), or nothing is left to win: a smaller spike and an earlier one help against unevenness too.
        - A correction adds what is missing in the mean, whichever error took it: it is tried while anything is lost.
        - Signed spikes, a delay and a second pass are against unevenness alone, the gap between curve and network.
        """
        curve, lost = self.ideal(chosen), self.ann - reached.accuracy
        if curve is None:
            return True, "too few steps for an ideal curve"
        uneven = curve - reached.accuracy
        if self._even(method) != self._even(chosen):
            own = self.ideal(method)
            costs = f"clipping and quantisation cost {self.ann - curve:.2f} points, unevenness {uneven:.2f}"
            if own is None:
                return max(self.ann - curve, uneven) > self.slack, costs
            if own < min(reached.accuracy, curve) - self.slack:
                compared = "what is reached" if reached.accuracy <= curve else "that of what is reached"
                return False, f"its ideal curve, {own:.2f} %, is below {compared}, {min(reached.accuracy, curve):.2f} %"
            worth = max(self.ann - curve, uneven, own - reached.accuracy) > self.slack
            return worth, f"{costs}; its ideal curve is at {own:.2f} %"
        if method.correction != chosen.correction:
            return lost > self.slack, f"{lost:.2f} points are lost, and a correction adds what is missing in the mean"
        return uneven > self.slack, f"unevenness costs {uneven:.2f} points"

    def _even(self, method: Method) -> Method | None:
        """Thresholds and rounding; of two passes those of the second."""
        return method.model_copy(update={"second_pass": "none"}).even(self.percentile)


class Tried(NamedTuple):
    """A method that the search came to; one that was passed over, or that the network cannot have, has no score."""

    method: Method
    score: Score | None
    why: str


def chosen(tried: Iterable[Tried]) -> tuple[Method, Score]:
    """The `choice` among what was tried, and what it reaches.

    Raises:
        ConversionError: nothing has a score: the network can have none of these.
    """
    every = list(tried)
    found = [(one.method, one.score) for one in every if one.score is not None]
    if not found:
        raise ConversionError(f"the network can have none of the methods that a search begins with: {every[-1].why}")
    most = choice(score for _, score in found)
    return next(pair for pair in found if pair[1] is most)


def best(
    evaluate: Callable[[Method], Score],
    starts: list[Method],
    switches: list[list[dict[str, Any]]],
    guide: Guide | None = None,
) -> tuple[Method, Score, list[Tried]]:
    """The best method found, what it reaches, and all that the search came to, in order.

    Args:
        evaluate: score of a method on held-out images.
        starts: methods that are tried first; the descent begins at the best of them.
        switches: values of each switch, as `values` gives them.
        guide: passes over what cannot help; without it everything is tried.

    Raises:
        ConversionError: the network can have none of the starts.
    """
    tried: dict[str, Tried] = {}
    passed: dict[str, Tried] = {}

    def attempt(method: Method, why: str) -> None:
        try:
            score = evaluate(method)
        except ConversionError as error:
            score, why = None, str(error)
        tried[method.model_dump_json()] = Tried(method, score, why)

    for method in starts:
        if method.model_dump_json() not in tried:
            attempt(method, "a method of the experiment")
    base, changed = chosen(tried.values()), True
    while changed:
        changed = False
        for switch in switches:
            for method in _neighbours(base[0], switch):
                name = method.model_dump_json()
                if name in tried:
                    continue
                worth, why = (True, "no guide") if guide is None else guide.why(method, *base)
                if worth:
                    attempt(method, why)
                else:
                    passed[name] = Tried(method, None, why)
            before, base = base, chosen(tried.values())
            changed |= base != before
    left = [one for name, one in passed.items() if name not in tried]  # passed over, and not tried later
    return *base, [*tried.values(), *left]
