"""Search for the switches that serve best in T steps: one after the other, on held-out training images alone.

Coordinate descent from the best of several methods: each switch in turn takes the value that serves best with all
others kept, until a round over all switches changes nothing. One start is not enough, since what serves best alone is
not what serves best together: on CIFAR-100 at T = 16 a descent from the baseline ended 1.8 points lower.
Combinations that count twice are skipped. What was tried is remembered, so nothing is tried twice. More accuracy is
better; of equals, more agreement with the ANN's own predictions; of these, fewer spikes.

The ideal quantised curve (bsnn.conversion.ideal) says beforehand which error is worth attacking, and which thresholds
cannot reach what is reached already: one pass of the network instead of T steps of its simulation (`Guide`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from bsnn.config import Latency, Method, Weights


@dataclass(frozen=True)
class Score:
    """What a method reaches on the held-out images in T steps."""

    accuracy: float  # percent
    agreement: float  # percent of images that are classified as by the ANN, rightly or not
    spikes: float  # an image

    @property
    def order(self) -> tuple[float, float, float]:
        """Larger is better."""
        return self.accuracy, self.agreement, -self.spikes


def values(percentiles: list[float], weights: Weights = "binary") -> list[list[dict[str, Any]]]:
    """Values of each switch, in the order in which switches take their turn; one excludes what it cannot go with."""
    # What a value turns off, since config.Method refuses it beside: signed spikes; what no burst goes with (`single`);
    # what no second pass goes with (`alone`); and the second pass itself (`once`).
    unsigned: dict[str, Any] = {"signed": False, "negative_threshold": 1.0}
    single: dict[str, Any] = {**unsigned, "second_pass": "none", "threshold": "percentile"}
    full: list[list[dict[str, Any]]] = [
        [{"channels": False}, {"channels": True, "threshold": "percentile"}],
        [{"burst": 1}, *({"burst": most, **single} for most in (2, 5))],
    ]
    by_percentile = [{"threshold": "percentile", "percentile": percentile} for percentile in percentiles]
    alone: dict[str, Any] = {**unsigned, "correction": "none", "delay": 0, "threshold": "percentile"}
    once: dict[str, Any] = {"second_pass": "none"}
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
          reached already, or nothing is left to win: a smaller spike and an earlier one help against unevenness too.
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
            if own is not None and own < reached.accuracy - self.slack:
                return False, f"its ideal curve, {own:.2f} %, is below what is reached, {reached.accuracy:.2f} %"
            worth = max(self.ann - curve, uneven) > self.slack
            return worth, costs if own is None else f"{costs}; its ideal curve is at {own:.2f} %"
        if method.correction != chosen.correction:
            return lost > self.slack, f"{lost:.2f} points are lost, and a correction adds what is missing in the mean"
        return uneven > self.slack, f"unevenness costs {uneven:.2f} points"

    def _even(self, method: Method) -> Method | None:
        """Thresholds and rounding; of two passes those of the second."""
        return method.model_copy(update={"second_pass": "none"}).even(self.percentile)


class Tried(NamedTuple):
    """A method that the search came to; one that was passed over has no score."""

    method: Method
    score: Score | None
    why: str


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
    """
    tried: dict[str, tuple[Method, Score, str]] = {}
    passed: dict[str, Tried] = {}

    def score(method: Method, why: str) -> Score:
        name = method.model_dump_json()
        if name not in tried:
            tried[name] = method, evaluate(method), why
        return tried[name][1]

    chosen = max(starts, key=lambda method: score(method, "a method of the experiment").order)
    reached, improved = score(chosen, ""), True
    while improved:
        improved = False
        for switch in switches:
            for method in _neighbours(chosen, switch):
                name = method.model_dump_json()
                # What was tried costs nothing again: its score is compared, whatever the guide would say by now.
                worth, why = (
                    (True, "no guide") if name in tried or guide is None else guide.why(method, chosen, reached)
                )
                if not worth:
                    passed[name] = Tried(method, None, why)
                    continue
                found = score(method, why)
                if found.order > reached.order:
                    chosen, reached, improved = method, found, True
    left = [one for name, one in passed.items() if name not in tried]  # passed over, and not tried later
    return chosen, reached, [*(Tried(*one) for one in tried.values()), *left]
