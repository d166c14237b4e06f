"""Tables of methods: which of an artifact's times they take."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from workflow_for_tests import TINY

from bsnn import config
from bsnn.config import merge
from bsnn.conversion.errors_by_layer import ERRORS
from bsnn.figures.latency import pareto
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import latency

VALUES = dict.fromkeys((*ERRORS, "activation"), 0.5)


def of_times(times: list[int], root: Path) -> latency.Run:
    changes = {"experiments": {"tiny": {"latency": {"time": times, "methods": {}}}}}
    settings = config.validate(merge(TINY, changes))
    return latency.Run(Pipeline(settings, root), Place("tiny", "binary", 0, steps=8))


def test_errors_are_of_the_times_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The key has the longest time alone: errors made for 2 and 8 are read again for 4 and 8."""
    made = of_times([2, 8], tmp_path)
    frame = pd.DataFrame([{"layer": "conv1", "time": time, **VALUES} for time in made.times])
    made.pipeline.write("method", made.place, frame, "errors", {"shard": 1, "shards": 1})
    with caplog.at_level(logging.WARNING):
        assert list(made.errors()["time"]) == [2, 8]
        assert not caplog.records
        assert list(of_times([4, 8], tmp_path).errors()["time"]) == [8]
    assert f"{made.pipeline.path('method', made.place, 'errors')}: made before T = 4 was asked for" in caplog.text


def test_standard_error_of_the_mean_drop_over_seeds() -> None:
    """Of four images, one loses under both seeds and one under the second: 1, 0.5, 0 and 0 in the mean."""
    lost = [np.array([1, 0, 0, 0], np.int8), np.array([1, 1, 0, 0], np.int8)]
    same = {"weights": "full", "method": "baseline", "T": 2, "ann": 100.0, "agreement": 50.0, "spikes": 1.0}
    rows = [{**same, "accuracy": 100 - 25.0 * n, "drop": 25.0 * n, "lost": image} for n, image in enumerate(lost, 1)]
    keys = ["weights", "method", "T"]
    table = latency._latency(pd.DataFrame(rows), keys, "spikes")
    assert list(table.columns) == [
        *("weights", "method", "T", "accuracy", "ann", "drop", "drop_se", "agreement", "spikes"),
        *("accuracy_std", "ann_std", "drop_std"),
    ]
    assert table["drop"].tolist() == [37.5]
    assert table[["accuracy_std", "ann_std", "drop_std"]].to_numpy().tolist() == [
        [pytest.approx(12.5 * 2**0.5), 0.0, pytest.approx(12.5 * 2**0.5)]
    ]
    assert latency._latency(pd.DataFrame(rows[:1]), keys, "spikes")["drop_std"].isna().all()
    variance = (0.625**2 + 0.125**2 + 2 * 0.375**2) / 3
    assert table["drop_se"].tolist() == [pytest.approx(100 * (variance / 4) ** 0.5)]


def test_ideal_curves_of_three_seeds_have_their_percentile() -> None:
    percentiles = {"baseline": 99.9, "fitted": float("nan")}
    one = {"weights": "full", "T": 2, "accuracy": 50.0, "ann": 60.0, "drop": 10.0, "agreement": 50.0}
    one |= {"clipping": 4.0, "quantisation": 6.0, "lost": np.array([1, 0], np.int8)}
    rows = [{**one, "method": method, "percentile": at} for _ in range(3) for method, at in percentiles.items()]
    table = latency._curves(pd.DataFrame(rows), ["weights", "method", "T"])
    assert table["method"].tolist() == list(percentiles)
    assert np.array_equal(table["percentile"], list(percentiles.values()), equal_nan=True)


def test_pareto_front_has_what_nothing_beats() -> None:
    frame = pd.DataFrame({"cost": [3, 1, 2, 2, 5, 4], "accuracy": [50.0, 10.0, 40.0, 30.0, 60.0, 50.0]})
    assert list(pareto(frame, "cost").index) == [1, 2, 0, 4]  # 3: less accurate at its cost; 5: no better than 0
    assert list(pareto(frame.assign(accuracy=0.0), "cost").index) == [1]
