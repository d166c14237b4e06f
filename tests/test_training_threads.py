"""As many threads as there are free cores: by the seconds that cores worked, for this process and for others."""

import logging
import time
from collections.abc import Iterator

import psutil
import pytest
import torch

from bsnn.training import threads
from bsnn.training.threads import Dynamic, Work, wanted


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("most", "usable", "own", "others", "expected"),
    [
        pytest.param(2, 2, 2.0, 0.0, 2, id="alone"),
        pytest.param(2, 2, 1.9, 0.3, 2, id="beside little"),
        pytest.param(2, 2, 1.0, 1.0, 1, id="two trainings, one thread each"),
        pytest.param(2, 2, 1.1, 0.9, 1, id="two trainings, two threads each"),
        pytest.param(2, 2, 0.5, 1.9, 1, id="never none"),
        pytest.param(2, 64, 2.0, 30.0, 2, id="never more than wanted"),
        pytest.param(8, 16, 8.0, 12.0, 4, id="a shared node"),
        pytest.param(2, 2, 1.2, -0.4, 2, id="clocks that differ"),
    ],
)
def test_as_many_as_there_are_free_cores(most: int, usable: int, own: float, others: float, expected: int) -> None:
    before, after = Work(10.0, 5.0, 100.0), Work(14.0, 5.0 + 4 * own, 100.0 + 4 * (own + others))
    assert wanted(most, usable, before, after) == expected


def test_threads_go_and_come_back(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    others = iter([0.0, 0.0, 4.0, 8.0, 8.0])  # seconds of other processes until each look; the third has a core
    moments = (Work(4.0 * look, 4.0 * look, 4.0 * look + seconds) for look, seconds in enumerate(others))
    monkeypatch.setattr(Work, "now", lambda: next(moments))
    monkeypatch.setattr(threads, "EVERY", 0.0)
    monkeypatch.setattr(threads, "cores", lambda: [0, 1])
    dynamic, found = Dynamic(), []
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            dynamic.look()
            found.append(torch.get_num_threads())
    assert found == [2, 1, 1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "threads: 1, as many as there are free cores (were 2)",
        "threads: 2, as many as there are free cores (were 1)",
    ]


def test_one_thread_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(threads, "EVERY", 0.0)
    monkeypatch.setattr(Work, "now", lambda: pytest.fail("it looked"))
    Dynamic().look()
    assert torch.get_num_threads() == 1


def test_own_work_is_seen() -> None:
    before = Work.now()
    while Work.now().own < before.own + 0.2:
        sum(range(10_000))
    after = Work.now()
    assert after.own == pytest.approx(time.process_time(), abs=0.1)
    assert after.all - before.all > 0.1  # the system counts in hundredths of a second
    assert after.at > before.at


def test_cores_that_the_system_numbers_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may show its cores as the first ones: then all that are shown are its own."""
    monkeypatch.setattr(threads, "cores", lambda: [6, 7])
    shown = psutil.cpu_times(percpu=True)[:2]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: shown)
    assert Work.now().all == sum(map(threads._busy, shown))
