"""The search on made-up scores: finds the best, tries nothing twice, passes over what is refused."""

from itertools import product

import pytest

from bsnn.config import Latency, Method
from bsnn.conversion.search import Score, best, starts, values

SWITCHES = values([98.0, 99.0])


def separable(method: Method) -> Score:
    """Each switch adds its own part; most for percentile 99, 0.25, signed spikes, and the channel correction."""
    gained = 3.0 * (method.percentile == 99.0) + 2.0 * (method.initial == 0.25) + method.signed
    return Score(50 + gained + 0.5 * (method.correction == "channel") - 0.1 * method.delay, 0.0, 0.0)


def test_finds_the_best_of_what_adds_up() -> None:
    found, _, tried = best(separable, [Method()], SWITCHES)
    assert (found.percentile, found.initial, found.signed, found.correction) == (99.0, 0.25, True, "channel")
    assert (found.delay, found.second_pass) == (0, "none")
    assert len(tried) == len({one.method.model_dump_json() for one in tried})
    assert tried[0].method == Method()
    assert max(one.score.accuracy for one in tried) == pytest.approx(56.5)


def test_goes_round_until_nothing_improves() -> None:
    """The percentile that is best alone is not the best with half a threshold at the start."""

    def joint(method: Method) -> Score:
        table = {(98.0, 0.0): 2, (99.0, 0.0): 3, (98.0, 0.5): 9, (99.0, 0.5): 5}
        return Score(table.get((method.percentile or 0.0, method.initial), 1), 0.0, 0.0)

    found, _, _ = best(joint, [Method()], SWITCHES)
    assert (found.percentile, found.initial) == (98.0, 0.5)


def test_begins_with_the_best_start() -> None:
    """Switches that serve only together: from the baseline, each alone is worse, and the search would stay there."""

    def together(method: Method) -> Score:
        used = [method.initial == 0.5, method.signed, method.correction == "potential"]
        return Score(50.0 + 9 * all(used) - 2 * any(used) - method.delay, 0.0, 0.0)

    combined = Method(initial=0.5, signed=True, correction="potential", delay=4)
    assert best(together, [Method()], SWITCHES)[0] == Method()
    found, _, tried = best(together, [Method(), combined], SWITCHES)
    assert found == combined.model_copy(update={"delay": 0})
    assert [one.method for one in tried[:2]] == [Method(), combined]


def test_starts_are_the_methods_of_the_experiment_at_that_time() -> None:
    methods = {
        "timed": Method(percentiles={4: 98.0}),
        "fitted": Method(threshold="squared-error"),
        "b": Method(burst=3),
    }
    settings = Latency(percentile=99.5, methods=methods)
    baseline, timed, fitted, bursts = starts(settings, 4, "full")
    assert (baseline, timed) == (Method(percentile=99.5), Method(percentile=98.0))
    assert (fitted, bursts) == (Method(threshold="squared-error"), Method(percentile=99.5, burst=3))
    assert starts(settings, 8, "binary") == [baseline, baseline, fitted]


def test_agreement_then_spikes_decide_between_equals() -> None:
    scores = [Score(90.0, 80.0, 5.0), Score(90.0, 81.0, 9.0), Score(90.0, 81.0, 8.0), Score(89.9, 99.0, 0.0)]
    assert max(scores, key=lambda score: score.order) is scores[2]


def test_every_tried_combination_is_allowed() -> None:
    seen: list[Method] = []

    def greedy(method: Method) -> Score:
        seen.append(method)
        return Score(float(len(seen)), 0.0, 0.0)  # every new one is better: the search wanders through all it can

    best(greedy, [Method()], SWITCHES)
    assert any(method.second_pass != "none" for method in seen)
    for method in seen:
        assert Method.model_validate(method.model_dump()) == method
    whole = sum(1 for _ in product(*SWITCHES))
    assert 10 < len(seen) < whole
