"""Exact percentiles of values that arrive in batches, in constant memory, by two histogram passes over bit patterns.

Bit patterns of non-negative float32 values, read as integers, sort like the numbers. The first pass counts values by
the upper bits of their pattern (2^22 bins); the second sees the same values again and counts, by the lower 9 bits, only
those whose bin holds a wanted order statistic. Each order statistic is then known to the last bit, and NumPy's own
arithmetic turns two of them into a percentile: the result equals
`np.percentile(values.astype(np.float64), p, method="linear")` for every p, on the CPU and on a GPU.

Patterns are shifted by 511 so that zero has the first bin for itself: one pair of passes answers for all values and for
the positive ones alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bsnn.errors import BsnnError

Population = Literal["all", "positive"]
POPULATIONS: tuple[Population, ...] = ("all", "positive")

LOW_BITS = 9
LOW = 2**LOW_BITS - 1
INFINITY = 0x7F800000  # bit pattern of the smallest value that is not finite
BINS = ((INFINITY + LOW) >> LOW_BITS) + 1  # of all finite patterns, shifted by LOW
CHUNK = {"cpu": 2**16, "cuda": 2**24}  # values worked on at once: fits the processor's cache; keeps a GPU busy


def grid(also: Sequence[float] = ()) -> np.ndarray:
    """All percentiles of a table, increasing: 0.0, 0.1, ..., 89.9, then 90.000, 90.001, ..., 100.000, and others.

    Each is the double nearest to its decimal text, so that `99.9` in a setting equals the grid's.
    """
    return np.union1d(np.concatenate([np.arange(900) / 10, np.arange(90_000, 100_001) / 1000]), also)


def order_statistics(percentiles: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where percentiles lie among sorted values, as NumPy's method `linear` has it.

    Returns:
        Index (int64) of the value before and of the one after each percentile, and how far (float64, 0 to 1) the
        percentile lies between them.
    """
    position = (count - 1) * (percentiles / 100)
    before = np.floor(position)
    after = np.minimum(before + 1, count - 1)
    return before.astype(np.int64), after.astype(np.int64), position - before


def interpolate(before: np.ndarray, after: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Linear interpolation with NumPy's rounding: from the nearer end."""
    difference = after - before
    found: np.ndarray = np.where(fraction >= 0.5, after - difference * (1 - fraction), before + difference * fraction)
    return found


@dataclass(frozen=True)
class Summary:
    """A population of one layer. Without any value, `count` is 0 and all numbers are NaN."""

    count: int
    mean: float
    maximum: float
    percentiles: np.ndarray  # float64, in the order of the percentiles asked for


class Tally:
    """How often each place was seen: in 32 bits, three times as fast as 64, carried over before they can overflow.

    Zeros come from NumPy, which on the CPU take memory only where they are written.
    """

    limit = 2**31 - 1

    def __init__(self, size: int, device: torch.device | str) -> None:
        self.recent = torch.from_numpy(np.zeros(size, np.int32)).to(device)
        self.carried = np.zeros(size, np.int64)
        self.added = 0  # since the last carry

    def add(self, places: Tensor) -> None:
        """Count places (int32 [values], on the device), at most `limit` at once."""
        if self.added + len(places) > self.limit:
            self.carry()
        # Indexed addition is the fastest count on the CPU, and runs on a GPU as it is.
        self.recent.index_add_(0, places, self.recent.new_ones(()).expand(len(places)))
        self.added += len(places)

    def carry(self) -> None:
        """Move the counts to 64 bits."""
        self.carried += self.recent.cpu().numpy()
        self.recent.zero_()
        self.added = 0

    def totals(self) -> np.ndarray:
        """Counts, int64."""
        found: np.ndarray = self.carried + self.recent.cpu().numpy()
        return found


class ShortTally:
    """The same as a Tally, for fewer places than it would have numbers: they are kept until they are counted."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept = [torch.zeros(0, dtype=torch.int32)]

    def add(self, places: Tensor) -> None:
        """Keep places (int32 [values]) from LOW + 1 on; the first ones stand for values that are not needed."""
        self.kept.append(places[places > LOW].cpu())

    def totals(self) -> np.ndarray:
        """Counts, int64."""
        found: np.ndarray = np.bincount(torch.cat(self.kept).numpy(), minlength=self.size)
        return found


class CoarseCounts:
    """Counts values by the upper bits of their patterns; keeps their number, sum and maximum.

    The sum is float64 within a chunk of a batch, and exact over chunks and batches: how values are batched moves the
    mean by rounding only (about 1e-15, relative).

    Args:
        name: layer that messages speak of.
        device: where the values are.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        self.name = name
        self.count = 0
        self.sum = Fraction(0)
        self.largest = 0  # bit pattern of the maximum
        self.device = device
        self.bins = Tally(BINS, device)

    def add(self, values: Tensor) -> None:
        """Count a batch: float32, any shape, finite and not negative (-0.0 counts as zero).

        Raises:
            BsnnError: NaN, infinity, a negative value, or another type; names the layer.
        """
        for chunk in _chunks(self.name, values):
            patterns, largest = _patterns(self.name, chunk)
            self.bins.add(patterns.add_(LOW).bitwise_right_shift_(LOW_BITS))
            self.largest = max(self.largest, largest)
            self.sum += Fraction(chunk.double().sum().item())
        self.count += values.numel()


class FineCounts:
    """Counts, by the lower bits, those values whose bin holds an order statistic that a percentile needs.

    Args:
        first: the first pass, complete; no longer needed afterwards.
        percentiles: float64, 0 to 100.

    Raises:
        BsnnError: when the first pass saw no value.
    """

    def __init__(self, first: CoarseCounts, percentiles: np.ndarray) -> None:
        if not first.count:
            raise BsnnError(f"layer '{first.name}': there are no activations; give at least one calibration image")
        self.name, self.first, self.percentiles = first.name, _Totals(first), percentiles
        self.count = 0
        self.largest = 0
        self.needed = self._needed()
        # From a bin of the first pass to its place among the needed ones. Bins end with the largest value's: `add`
        # refuses larger values before it looks here.
        slots = np.zeros(((self.first.largest + LOW) >> LOW_BITS) + 1, np.int32)
        slots[self.first.bins[self.needed]] = np.arange(1, len(self.needed) + 1)
        self.slots = torch.from_numpy(slots).to(first.device)  # place among the needed bins; 0: not needed
        size = (len(self.needed) + 1) << LOW_BITS
        enough = first.count > size  # else the values' places are fewer than the table
        self.tally: Tally | ShortTally = Tally(size, first.device) if enough else ShortTally(size)

    def _needed(self) -> np.ndarray:
        """Which of the first pass's bins hold a wanted order statistic; zero's bin needs no second look."""
        populations = [population for population in POPULATIONS if self.first.number(population)]
        ranks = [rank for population in populations for rank in self._ranks(population)[:2]]
        found: np.ndarray = np.unique(self.first.find(np.unique(ranks)))
        filled: np.ndarray = found[self.first.bins[found] > 0]
        return filled

    def _ranks(self, population: Population) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order statistics of a population, as places among all sorted values."""
        before, after, fraction = order_statistics(self.percentiles, self.first.number(population))
        skipped = self.first.zeros if population == "positive" else 0
        return before + skipped, after + skipped, fraction

    def add(self, values: Tensor) -> None:
        """Count the same batch as in the first pass.

        Raises:
            BsnnError: see `CoarseCounts.add`; or when a value is larger than any in the first pass.
        """
        for chunk in _chunks(self.name, values):
            patterns, largest = _patterns(self.name, chunk)
            if largest > self.first.largest:
                raise self._differs()
            patterns.add_(LOW)
            places = self.slots.index_select(0, patterns >> LOW_BITS).bitwise_left_shift_(LOW_BITS)
            self.tally.add(places.bitwise_or_(patterns.bitwise_and_(LOW)))
            self.largest = max(self.largest, largest)
        self.count += values.numel()

    def _differs(self) -> BsnnError:
        return BsnnError(
            f"layer '{self.name}': the second pass over the calibration images saw other activations than the first; "
            "both need the same images in the same batches, on one device, with deterministic algorithms"
        )

    def summaries(self) -> dict[Population, Summary]:
        """Both populations.

        Raises:
            BsnnError: when a bin, the number of values or the maximum differs between the passes.
        """
        up_to = np.cumsum(self.tally.totals()[LOW + 1 :])
        # Every needed bin must have the values of the first pass again, whatever their lower bits.
        same = self.count == self.first.count and self.largest == self.first.largest
        if not same or not np.array_equal(up_to[LOW :: LOW + 1], np.cumsum(self.first.totals[self.needed])):
            raise self._differs()
        return {population: self._summary(population, up_to) for population in POPULATIONS}

    def _summary(self, population: Population, up_to: np.ndarray) -> Summary:
        number = self.first.number(population)
        if not number:
            return Summary(0, math.nan, math.nan, np.full(len(self.percentiles), math.nan))
        before, after, fraction = self._ranks(population)
        values = interpolate(self._values(before, up_to), self._values(after, up_to), fraction)
        maximum = float(np.array(self.first.largest, np.int32).view(np.float32))
        return Summary(number, float(self.first.sum / number), maximum, values)

    def _values(self, ranks: np.ndarray, up_to: np.ndarray) -> np.ndarray:
        """Values (float64) at these places among all sorted values; `up_to`: values up to each pattern counted here."""
        found = self.first.find(ranks)
        positive = self.first.bins[found] > 0
        found, inside = found[positive], (ranks - self.first.before[found])[positive]
        totals = self.first.totals[self.needed]
        # Places among the values that were counted here, of needed bins alone; `up_to` leads from these to patterns.
        counted_before = (np.cumsum(totals) - totals)[np.searchsorted(self.needed, found)]
        place = np.searchsorted(up_to, counted_before + inside, side="right")
        patterns = np.zeros(len(ranks), np.int32)
        patterns[positive] = (self.first.bins[found] << LOW_BITS) + (place & LOW) - LOW  # not shifted any more
        return patterns.view(np.float32).astype(np.float64)


class _Totals:
    """A complete first pass without its empty bins, on the CPU."""

    def __init__(self, first: CoarseCounts) -> None:
        dense = first.bins.totals()
        self.count, self.sum, self.largest = first.count, first.sum, first.largest
        self.zeros = int(dense[0])
        self.bins = np.flatnonzero(dense)
        self.totals = dense[self.bins]
        self.up_to = np.cumsum(self.totals)
        self.before = self.up_to - self.totals

    def number(self, population: Population) -> int:
        return self.count - (self.zeros if population == "positive" else 0)

    def find(self, ranks: np.ndarray) -> np.ndarray:
        """Which of `bins` holds each place among all sorted values."""
        return np.searchsorted(self.up_to, ranks, side="right")


def _chunks(name: str, values: Tensor) -> Iterator[Tensor]:
    if values.dtype != torch.float32:
        raise BsnnError(f"layer '{name}': activations are {values.dtype}, expected torch.float32; convert the network")
    yield from values.detach().flatten().split(CHUNK.get(values.device.type, 2**22))


def _patterns(name: str, chunk: Tensor) -> tuple[Tensor, int]:
    """Bit patterns (int32, a new tensor) and the largest of them; adding +0.0 turns -0.0 into zero."""
    patterns = (chunk + 0.0).view(torch.int32)
    if not len(chunk):
        return patterns, 0
    smallest, largest = torch.stack(patterns.aminmax()).tolist()
    if smallest < 0 or largest >= INFINITY:  # a sign bit makes a pattern negative; NaN lies above infinity
        faults = {"NaN": chunk.isnan(), "infinite": chunk.isinf(), "negative": chunk < 0}
        found = ", ".join(f"{int(fault.sum())} {kind}" for kind, fault in faults.items() if fault.any())
        raise BsnnError(
            f"layer '{name}': activations must be finite and not negative, found {found} of {len(chunk)}; "
            "check the network's weights, and that thresholds are asked for after a ReLU"
        )
    return patterns, largest
