"""Where curves of accuracy differ: limits of an axis that leave out how they get there."""

from __future__ import annotations

from collections.abc import Iterable

ROOM = 12.0  # points shown below the lowest end of a curve


def limits(accuracies: Iterable[float], ann: Iterable[float], ends: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis of accuracy, in percent.

    Args:
        accuracies: all points of the curves.
        ann: accuracies of the networks themselves.
        ends: the last point of each curve; all of them are shown, with ROOM below.
    """
    shown, arrived, goals = list(accuracies), list(ends), list(ann)
    low = max(min(shown), min(*arrived, *goals) - ROOM, 0.0)
    high = max(*shown, *goals)
    room = max(high - low, 1.0) / 20
    return max(low - room, 0.0), high + room
