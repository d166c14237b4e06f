"""Percentiles from two histogram passes against NumPy's on the values themselves, to the last bit."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bsnn.conversion.percentiles import (
    CHUNK,
    CoarseCounts,
    FineCounts,
    Population,
    ShortTally,
    Summary,
    Tally,
    grid,
    interpolate,
    order_statistics,
)
from bsnn.errors import BsnnError

RNG = np.random.default_rng(7)
SETS = {
    "relu of gaussians": np.maximum(RNG.standard_normal(600_000), 0),
    "95 % zeros": RNG.exponential(size=200_000) * (RNG.random(200_000) < 0.05),
    "ties": RNG.integers(0, 5, 50_000) / 4,
    "denormals": RNG.integers(0, 2_000, 20_000) * 2.0**-149,
    "negative zeros": np.where(RNG.random(20_000) < 0.5, -0.0, RNG.random(20_000)),
    "all zero": np.zeros(1_000),
    "one value": np.array([1.7]),
    "two values": np.array([0.3, 1.1]),
    "twenty decades": 10.0 ** RNG.uniform(-10, 10, 100_000),
    "largest float": np.array([0.0, 1.0, np.finfo(np.float32).max]),
}


def two_passes(batches: list[np.ndarray], percentiles: np.ndarray | None = None) -> dict[Population, Summary]:
    first = CoarseCounts("layer")
    for batch in batches:
        first.add(torch.from_numpy(batch))
    second = FineCounts(first, grid() if percentiles is None else percentiles)
    for batch in batches:
        second.add(torch.from_numpy(batch))
    return second.summaries()


def assert_equal_to_numpy(found: dict[Population, Summary], values: np.ndarray, percentiles: np.ndarray) -> None:
    for population, members in (("all", values), ("positive", values[values > 0])):
        summary = found[population]
        assert summary.count == len(members)
        if not len(members):
            assert np.isnan([*summary.percentiles, summary.mean, summary.maximum]).all()
            continue
        wide = members.astype(np.float64) + 0.0
        expected = np.percentile(wide, percentiles, method="linear")
        np.testing.assert_array_equal(summary.percentiles.view(np.int64), expected.view(np.int64))
        assert summary.maximum == members.max()
        assert summary.mean == pytest.approx(math.fsum(wide) / len(wide), rel=1e-14, abs=0)


def test_grid_points_are_the_doubles_of_their_decimal_text() -> None:
    coarse = [float(Decimal(i) / 10) for i in range(900)]
    fine = [float(Decimal(i) / 1000) for i in range(90_000, 100_001)]
    assert grid().tolist() == coarse + fine
    assert {99.9, 99.999, 99.7, 95.0, 100.0, 50.0, 0.1} <= set(grid().tolist())
    assert (np.diff(grid()) > 0).all()


@pytest.mark.parametrize("name", SETS)
def test_whole_grid_equals_numpy(name: str) -> None:
    values = SETS[name].astype(np.float32)
    assert_equal_to_numpy(two_passes(np.array_split(values, 3)), values, grid())


def test_one_batch_of_several_chunks() -> None:
    values = RNG.random(2 * CHUNK["cpu"] + 3, dtype=np.float32)
    assert_equal_to_numpy(two_passes([values]), values, grid())


values_of_any_size = arrays.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(0, width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0]),
)


@settings(max_examples=60)
@given(
    values=values_of_any_size,
    cuts=st.lists(st.integers(0, 60), max_size=4),
    percentiles=st.lists(st.floats(0, 100), min_size=1, max_size=10).map(np.array),
)
def test_any_values_batching_and_percentiles(values: np.ndarray, cuts: list[int], percentiles: np.ndarray) -> None:
    batches = np.split(values, sorted(min(cut, len(values)) for cut in cuts))
    assert_equal_to_numpy(two_passes(batches, percentiles), values, percentiles)


def test_batching_changes_nothing_but_the_rounding_of_the_mean() -> None:
    values = SETS["relu of gaussians"].astype(np.float32)
    whole, parts = two_passes([values]), two_passes(np.array_split(values, 17))
    for population in whole:
        np.testing.assert_array_equal(whole[population].percentiles, parts[population].percentiles)
        assert whole[population].count == parts[population].count
        assert whole[population].maximum == parts[population].maximum
        assert whole[population].mean == pytest.approx(parts[population].mean, rel=1e-14)


def test_populations_by_hand() -> None:
    found = two_passes([np.array([0, 4, -0.0, 1, 2, 3], np.float32)], np.array([0.0, 25, 50, 90, 100]))
    assert found["all"].percentiles.tolist() == [0, 0.25, 1.5, 3.5, 4]
    assert found["positive"].percentiles.tolist() == pytest.approx([1, 1.75, 2.5, 3.7, 4], abs=0, rel=1e-15)
    assert (found["all"].count, found["all"].mean, found["all"].maximum) == (6, 10 / 6, 4)
    assert (found["positive"].count, found["positive"].mean, found["positive"].maximum) == (4, 2.5, 4)


def test_smallest_positive_value_is_positive() -> None:
    tiny = np.float32(2.0**-149)
    found = two_passes([np.array([0, tiny, tiny], np.float32)], np.array([0.0]))
    assert found["all"].percentiles[0] == 0
    assert found["positive"].percentiles[0] == tiny
    assert found["positive"].count == 2


def test_shape_and_layout_do_not_matter() -> None:
    values = torch.rand(4, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    for layout in (values.to(memory_format=torch.channels_last), values[:, ::2]):
        first = CoarseCounts("layer")
        first.add(layout)
        second = FineCounts(first, grid())
        second.add(layout)
        assert_equal_to_numpy(second.summaries(), layout.flatten().numpy(), grid())


def test_values_are_left_alone() -> None:
    values = torch.tensor([-0.0, 1.0, 2.0])
    first = CoarseCounts("layer")
    first.add(values)
    FineCounts(first, grid()).add(values)
    assert values.tolist() == [0, 1, 2]
    assert bool(values.signbit()[0])


def test_more_values_than_32_bits_count() -> None:
    """Three values, each 2^31 times: counters are scaled by hand, since the values would not fit."""
    times = 2**31
    first = CoarseCounts("layer")
    first.add(torch.tensor([1.0, 2.0, 5.0]))
    first.bins.carry()
    first.bins.carried *= times
    first.count *= times
    first.sum *= times
    second = FineCounts(first, np.array([10.0, 50, 60, 100]))
    second.add(torch.tensor([1.0, 2.0, 5.0]))
    second.tally.carry()
    second.tally.carried *= times
    second.count *= times
    found = second.summaries()["all"]
    assert found.percentiles.tolist() == [1, 2, 2, 5]
    assert (found.count, found.mean) == (3 * times, 8 / 3)


@pytest.mark.parametrize(("times", "kind"), [(1, ShortTally), (400, Tally)])
def test_few_values_and_many(times: int, kind: type) -> None:
    """Values are kept where they are fewer than the places to count them in."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(300, generator=generator).clamp(min=0).repeat(times)
    percentiles = np.linspace(0, 100, 101)
    first = CoarseCounts("layer")
    first.add(values)
    second = FineCounts(first, percentiles)
    assert type(second.tally) is kind
    for part in values.split(7000):
        second.add(part)
    assert_equal_to_numpy(second.summaries(), values.numpy(), percentiles)


def test_counts_are_carried_before_they_overflow() -> None:
    tally = Tally(4, "cpu")
    tally.recent[2] = tally.added = 2**31 - 1
    tally.add(torch.tensor([2, 3, 2], dtype=torch.int32))
    assert tally.totals().tolist() == [0, 0, 2**31 + 1, 1]


def test_order_statistics_by_hand() -> None:
    before, after, fraction = order_statistics(np.array([0.0, 37.5, 100]), 5)
    assert (before.tolist(), after.tolist(), fraction.tolist()) == ([0, 1, 4], [1, 2, 4], [0, 0.5, 0])


@given(
    ends=st.tuples(*[st.floats(0, 2.0**100, width=32)] * 2).map(sorted),
    percentile=st.floats(0, 100),
)
def test_interpolation_rounds_as_numpy(ends: list[float], percentile: float) -> None:
    before, after, fraction = order_statistics(np.array([percentile]), 2)
    pair = np.array(ends)
    expected = np.percentile(pair, [percentile])
    assert interpolate(pair[before], pair[after], fraction).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("value", "word"), [(math.nan, "1 NaN"), (math.inf, "1 infinite"), (-1.0, "1 negative"), (-math.inf, "infinite")]
)
def test_impossible_values_are_refused(value: float, word: str) -> None:
    values = torch.rand(1000)
    values[777] = value
    with pytest.raises(BsnnError, match=f"'conv7'.*{word}"):
        CoarseCounts("conv7").add(values)


def test_nan_with_every_bit_set_is_refused() -> None:
    for pattern in (0x7FFFFFFF, -1):
        with pytest.raises(BsnnError, match=r"'conv7'.*1 NaN"):
            CoarseCounts("conv7").add(torch.tensor([pattern], dtype=torch.int32).view(torch.float32))


def test_other_types_are_refused() -> None:
    with pytest.raises(BsnnError, match=r"'conv7'.*float64"):
        CoarseCounts("conv7").add(torch.rand(3, dtype=torch.float64))


def test_no_values_are_refused() -> None:
    with pytest.raises(BsnnError, match=r"'conv7'.*no activations"):
        FineCounts(CoarseCounts("conv7"), grid())


def changed(values: np.ndarray, index: int, value: float) -> np.ndarray:
    copy = values.copy()
    copy[index] = value
    return copy


ORIGINAL = np.array([0, 1, 2, 3, 4], np.float32)


@pytest.mark.parametrize(
    "other",
    [
        changed(ORIGINAL, 1, 1.5),  # into another bin
        changed(ORIGINAL, 1, 0.0),  # into zero
        changed(ORIGINAL, 0, 3.0),  # into a bin that is needed
        changed(ORIGINAL, 4, 5.0),  # a larger maximum, in a bin of its own
        changed(ORIGINAL, 4, np.nextafter(np.float32(4), np.float32(0))),  # a smaller maximum
        np.append(ORIGINAL, np.float32(0)),  # one more
        ORIGINAL[1:],  # one less
    ],
)
def test_another_second_pass_is_refused(other: np.ndarray) -> None:
    first = CoarseCounts("conv7")
    first.add(torch.from_numpy(ORIGINAL))
    second = FineCounts(first, grid())

    def finish() -> None:
        second.add(torch.from_numpy(other))
        second.summaries()

    with pytest.raises(BsnnError, match=r"'conv7'.*second pass.*same images"):
        finish()
