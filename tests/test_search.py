"""The search on made-up scores: finds the best, tries nothing twice, passes over what is refused."""

from itertools import product

import pytest

from bsnn.config import Method
from bsnn.search import Score, best, values

SWITCHES = values([98.0, 99.0])


def separable(method: Method) -> Score:
    """Each switch adds its own part; most for percentile 99, 0.25, signed spikes, and the channel correction."""
    gained = 3.0 * (method.percentile == 99.0) + 2.0 * (method.initial == 0.25) + method.signed
    return Score(50 + gained + 0.5 * (method.correction == "channel") - 0.1 * method.delay, 0.0, 0.0)


def test_finds_the_best_of_what_adds_up() -> None:
    found, tried = best(separable, Method(), SWITCHES)
    assert (found.percentile, found.initial, found.signed, found.correction) == (99.0, 0.25, True, "channel")
    assert (found.delay, found.second_pass) == (0, "none")
    assert len(tried) == len({method.model_dump_json() for method, _ in tried})
    assert tried[0][0] == Method()
    assert max(score.accuracy for _, score in tried) == pytest.approx(56.5)


def test_goes_round_until_nothing_improves() -> None:
    """The percentile that is best alone is not the best with half a threshold at the start."""

    def joint(method: Method) -> Score:
        table = {(98.0, 0.0): 2, (99.0, 0.0): 3, (98.0, 0.5): 9, (99.0, 0.5): 5}
        return Score(table.get((method.percentile or 0.0, method.initial), 1), 0.0, 0.0)

    found, _ = best(joint, Method(), SWITCHES)
    assert (found.percentile, found.initial) == (98.0, 0.5)


def test_agreement_then_spikes_decide_between_equals() -> None:
    scores = [Score(90.0, 80.0, 5.0), Score(90.0, 81.0, 9.0), Score(90.0, 81.0, 8.0), Score(89.9, 99.0, 0.0)]
    assert max(scores, key=lambda score: score.order) is scores[2]


def test_every_tried_combination_is_allowed() -> None:
    seen: list[Method] = []

    def greedy(method: Method) -> Score:
        seen.append(method)
        return Score(float(len(seen)), 0.0, 0.0)  # every new one is better: the search wanders through all it can

    best(greedy, Method(), SWITCHES)
    assert any(method.second_pass != "none" for method in seen)
    for method in seen:
        assert Method.model_validate(method.model_dump()) == method
    whole = sum(1 for _ in product(*SWITCHES))
    assert 10 < len(seen) < whole
