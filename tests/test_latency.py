"""Tables of methods: which of an artifact's times they take."""

import logging
from pathlib import Path

import pandas as pd
import pytest
from workflow_for_tests import TINY

from bsnn import artifacts, config, identity
from bsnn.config import merge
from bsnn.figures.latency import pareto
from bsnn.tables import latency

ERRORS = dict.fromkeys((*latency.ERRORS, "activation"), 0.5)


def of_times(times: list[int], root: Path) -> latency.Run:
    changes = {"experiments": {"tiny": {"latency": {"time": times, "methods": {}}}}}
    settings = config.validate(merge(TINY, changes))
    return latency.Run(settings, "tiny", identity.Paths(settings, root), "binary", 0, "baseline", 8)


def test_errors_are_of_the_times_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The key has the longest time alone: errors made for 2 and 8 are read again for 4 and 8."""
    made = of_times([2, 8], tmp_path)
    frame = pd.DataFrame([{"layer": "conv1", "time": time, **ERRORS} for time in made.times])
    stands_for = identity.method(made.config, made.config.experiments["tiny"], "binary", 0, "baseline", 8)
    artifacts.write_table(made.path("errors", 1), frame, "errors", stands_for, {})
    with caplog.at_level(logging.WARNING):
        assert list(made.errors()["time"]) == [2, 8]
        assert not caplog.records
        assert list(of_times([4, 8], tmp_path).errors()["time"]) == [8]
    assert f"{made.path('errors', 1)}: made before T = 4 was asked for" in caplog.text


def test_pareto_front_has_what_nothing_beats() -> None:
    frame = pd.DataFrame({"cost": [3, 1, 2, 2, 5, 4], "accuracy": [50.0, 10.0, 40.0, 30.0, 60.0, 50.0]})
    assert list(pareto(frame, "cost").index) == [1, 2, 0, 4]  # 3: less accurate at its cost; 5: no better than 0
    assert list(pareto(frame.assign(accuracy=0.0), "cost").index) == [1]
