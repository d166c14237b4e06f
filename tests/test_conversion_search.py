"""The search on made-up scores: finds the best, tries nothing twice, passes over what is refused."""

import random
from itertools import product
from typing import Literal

import pytest

from bsnn.config import Latency, Method
from bsnn.conversion.search import Guide, Score, _neighbours, best, choice, starts, values
from bsnn.errors import ConversionError

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


CURVES = {0.0: 60.0, 0.25: 68.0, 0.5: 75.0, 0.75: 74.0}  # ideal curves by initial potential; the ANN reaches 76


def guided(scores: dict[tuple[float, bool], float]) -> tuple[Method, dict[str, str]]:
    """What a search among initial potentials, signed spikes and one correction finds, and why each was not tried."""
    tables = [switch for switch in SWITCHES if {"initial", "signed"} & set(switch[0])]
    guide = Guide(76.0, lambda method: CURVES[0.5 if method.shift else method.initial], 99.9, 0.5)
    tables.append([{"correction": "none"}, {"correction": "temporal"}])

    def evaluate(method: Method) -> Score:
        reached = scores.get((method.initial, method.signed), 50.0)
        return Score(reached + 0.1 * (method.correction != "none"), 0.0, 0.0)

    found, reached, tried = best(evaluate, [Method()], tables, guide)
    assert reached == next(one.score for one in tried if one.method == found)
    return found, {one.method.model_dump_json(exclude_defaults=True): one.why for one in tried if one.score is None}


def test_guide_passes_over_curves_below_what_is_reached() -> None:
    """Half a threshold reaches 74.4: curves at 60 and 68 are below it, and 0.6 points of unevenness are worth a try."""
    found, passed = guided({(0.5, False): 74.4, (0.75, False): 74.0, (0.5, True): 74.0})
    assert found == Method(initial=0.5, correction="temporal")
    assert '{"initial":0.5,"signed":true}' not in passed
    assert passed['{"correction":"temporal"}'] == "its ideal curve, 60.00 %, is below what is reached, 74.50 %"
    found, passed = guided({(0.25, False): 69.0})
    assert passed['{"initial":0.25,"signed":true}'] == "unevenness costs -1.00 points"


def test_guide_tries_curves_above_that_of_what_is_reached() -> None:
    """A correction reaches 70, ten points more than its own curve: from curves at 68 it may reach more than 70."""
    guide = Guide(76.0, lambda method: CURVES[method.initial], 99.9, 0.5)
    chosen, reached = Method(correction="temporal"), Score(70.0, 0.0, 0.0)
    quarter, later = (chosen.model_copy(update={"initial": part}) for part in (0.25, 0.5))
    assert guide.why(quarter, chosen, reached)[0]
    worth, why = guide.why(chosen, quarter, reached)
    assert not worth
    assert why == "its ideal curve, 60.00 %, is below that of what is reached, 68.00 %"
    even, good = Score(75.0, 0.0, 0.0), Guide(75.4, lambda method: CURVES[method.initial] + 1, 99.9, 0.5)
    assert good.why(later, chosen.model_copy(update={"initial": 0.75}), even)[0], "its curve is above what is reached"


def test_guide_leaves_unevenness_alone_where_it_costs_nothing() -> None:
    found, passed = guided({(0.0, False): 59.8, (0.5, False): 74.8, (0.75, False): 73.9})
    assert found == Method(initial=0.5, correction="temporal")
    assert passed['{"initial":0.5,"signed":true}'] == "unevenness costs 0.20 points"


def test_guide_stops_where_nothing_is_lost() -> None:
    found, passed = guided({(0.0, False): 59.8, (0.25, False): 67.9, (0.5, False): 75.9, (0.75, False): 74.0})
    assert found == Method(initial=0.5)
    assert "0.10 points are lost" in passed['{"initial":0.5,"correction":"temporal"}']


@pytest.mark.parametrize("second_pass", ["none", "srp"])
def test_guide_judges_thresholds_by_their_curve(second_pass: Literal["none", "srp"]) -> None:
    """With a second pass, too: its ideal curve is that of the second."""
    curves = {98.0: 40.0, 99.0: 80.0, 99.9: 90.0}
    guide = Guide(90.0, lambda method: curves[method.percentile or 99.9], 99.9, 0.5)
    chosen = Method(percentile=99.0, second_pass=second_pass)
    better, hopeless = (chosen.model_copy(update={"percentile": percentile}) for percentile in (99.9, 98.0))
    assert guide.why(better, chosen, Score(80.0, 0.0, 0.0))[0]
    worth, why = guide.why(hopeless, chosen, Score(79.0, 0.0, 0.0))
    assert not worth
    assert why == "its ideal curve, 40.00 %, is below what is reached, 79.00 %"


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
    assert choice(scores) is scores[2]


def test_agreement_decides_within_a_standard_error() -> None:
    """Of 100 images one method has 60, another 57, but other ones: the difference, 3, has an error of 3.6."""

    def of(right: list[int], agreement: float) -> Score:
        return Score(float(len(right)), agreement, 1.0, tuple(image in right for image in range(100)))

    most, near, far = of([*range(60)], 85.0), of([*range(8, 65)], 91.0), of([*range(57)], 99.0)
    assert near.near(most)
    assert not far.near(most), "it lost 3 images and won none: the error is 1.7"
    assert choice([most, near, far]) is near
    assert choice([most, far]) is most


def test_just_one_standard_error_is_chance() -> None:
    """Of 500 images one lost and none won, or three lost and one won: whatever number is right beside them."""
    for right in range(1, 497):
        for lost, won in ((1, 0), (3, 1)):
            images = [True] * right + [False] * (500 - right)
            other = [False] * min(lost, right) + images[lost : 500 - won] + [True] * won
            if right < lost:
                continue
            most, less = (Score(100 * sum(one) / 500, 0.0, 0.0, tuple(one)) for one in (images, other))
            assert less.near(most), (right, lost, won)


def test_every_value_of_a_switch_is_tried_beside_a_longer_first_pass() -> None:
    method = Method(second_pass="srp", first_pass=8, initial=0.5)
    for switch in values([99.0], "full")[-2:]:
        assert len(list(_neighbours(method, switch))) == len(switch)


def test_a_round_over_all_switches_changes_nothing_at_the_end() -> None:
    """Where the choice comes back to what it was, other switches have been tried beside another."""
    for seed in range(300):
        draw = random.Random(seed)
        scores: dict[str, Score] = {}

        def evaluate(method: Method, draw: random.Random = draw, scores: dict[str, Score] = scores) -> Score:
            right = tuple(draw.random() < 0.6 for _ in range(100))
            return scores.setdefault(
                method.model_dump_json(), Score(float(sum(right)), 100 * draw.random(), 1.0, right)
            )

        switches = [
            [{"initial": part} for part in (0.0, 0.25, 0.5)],
            [{"delay": steps} for steps in (0, 2)],
            [{"percentile": one} for one in (98.0, 99.0, 99.9)],
        ]
        found, _, _ = best(evaluate, [Method(percentile=98.0)], switches)
        assert all(one.model_dump_json() in scores for switch in switches for one in _neighbours(found, switch)), seed


def test_what_the_network_cannot_have_is_passed_over() -> None:
    def evaluate(method: Method) -> Score:
        if method.percentile == 98.0 or method == Method():
            raise ConversionError("the 98.0th percentile is 0")
        return separable(method)

    found, _, tried = best(evaluate, [Method(), Method(percentile=99.0)], SWITCHES)
    assert (found.percentile, found.initial, found.signed, found.correction) == (99.0, 0.25, True, "channel")
    [first, *_] = tried
    assert first == (Method(), None, "the 98.0th percentile is 0")
    with pytest.raises(ConversionError, match=r"begins with: the 98\.0th percentile"):
        best(evaluate, [Method()], SWITCHES)


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


def test_negative_thresholds_are_tried() -> None:
    [signed] = [switch for switch in SWITCHES if "signed" in switch[0] and len(switch[0]) == 2]
    assert [value["negative_threshold"] for value in signed] == [1.0, 1.0, 0.25, 0.0]
    assert best(lambda method: Score(100 * method.signed - method.negative_threshold, 0.0, 0.0), [Method()], SWITCHES)[
        0
    ] == Method(signed=True, negative_threshold=0.0)
