"""Stopping within an epoch, and going on to an undisturbed run's weights, bit for bit."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from test_train import _one_thread, same, train_until, trainer, undisturbed  # noqa: F401 - fixtures
from torch import Tensor
from training_for_tests import COMPUTE, data_set, experiment

from bsnn import config
from bsnn.errors import Interrupted
from bsnn.networks.vgg import VGG, Trained
from bsnn.training import checkpoint, loop, position, recipe, stopping, train
from bsnn.training.position import Position

STEPS = 5  # of an epoch's training; then as many batches of evaluation as follows
TEST_BATCHES = 4


def fit(folder: Path, kind: config.Weights = "full", start: Trained | None = None) -> tuple[Trained, list[float]]:
    trained, history, _ = train.fit(experiment(), kind, 0, data_set(), COMPUTE, folder, start)
    return trained, history["train_loss"].tolist()


def within(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("epoch-*.step-*"))


@pytest.fixture
def at_batch(monkeypatch):
    """Do something as the n-th batch, of training or evaluation, is handed to the network."""
    monkeypatch.setattr(loop, "TEST_BATCH", 8)
    given = loop.Loop._input

    def arrange(number: int, act) -> None:
        seen = 0

        def _input(self: loop.Loop, batch: Tensor, epoch: int) -> Tensor:
            nonlocal seen
            seen += 1
            if seen == number:
                act()
            return given(self, batch, epoch)

        monkeypatch.setattr(loop.Loop, "_input", _input)

    return arrange


def ask() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_ctrl_c_keeps_the_step_as_well(tmp_path: Path, at_batch, undisturbed: Trained) -> None:  # noqa: F811
    at_batch(3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match=r"stopped by SIGINT after 3 steps.*the same command goes on"):
        fit(tmp_path)
    assert within(tmp_path) == ["epoch-000000.step-000000003.safetensors"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert same(fit(tmp_path)[0], undisturbed)


@pytest.mark.parametrize(
    ("batch", "epochs", "steps"),
    [(1, 0, 1), (STEPS, 0, 5), (STEPS + 2, 0, 5), (12, 1, 3), (18, 1, 5), (6 * (STEPS + TEST_BATCHES), 5, 5)],
)
def test_signal_finishes_the_step_and_keeps_it(
    tmp_path: Path,
    at_batch,
    undisturbed: Trained,  # noqa: F811
    batch: int,
    epochs: int,
    steps: int,
) -> None:
    """Batches 1 to 5 train, 6 to 9 evaluate, and so on for six epochs."""
    _, losses = fit(tmp_path / "losses")
    before = signal.getsignal(signal.SIGTERM)
    at_batch(batch, ask)
    with pytest.raises(Interrupted, match=rf"stopped by SIGTERM after {steps} steps.*the same command goes on"):
        fit(tmp_path / "run")
    assert within(tmp_path / "run")[-1] == f"epoch-{epochs:06d}.step-{steps:09d}.safetensors"
    assert signal.getsignal(signal.SIGTERM) is before
    trained, losses_after = fit(tmp_path / "run")
    assert same(trained, undisturbed)
    assert losses_after == losses


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each training batch, 100 for each batch of evaluation, and none otherwise."""
    now = 0.0
    given = loop.Loop._input

    def _input(self: loop.Loop, batch: Tensor, epoch: int) -> Tensor:
        nonlocal now
        now += 1 if torch.is_grad_enabled() else 100
        return given(self, batch, epoch)

    monkeypatch.setattr(loop.Loop, "_input", _input)
    monkeypatch.setattr(position, "time", SimpleNamespace(perf_counter=lambda: now))


@pytest.mark.parametrize("batches", [[3], [STEPS + 2], [3, STEPS, STEPS + 1]])
def test_seconds_are_those_of_the_steps(tmp_path: Path, clock: None, at_batch, batches: list[int]) -> None:
    """Five steps of a second each, wherever in the first epoch the run was stopped: also by its evaluation."""
    done = 0
    for batch in batches:
        at_batch(batch - done, ask)
        with pytest.raises(Interrupted):
            fit(tmp_path)
        done = min(batch, STEPS)
    _, history, _ = train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path, None)
    assert history["seconds"].tolist() == [STEPS] * len(history)
    assert history["images_per_second"].tolist() == [len(data_set().train) / STEPS] * len(history)


def test_binary_network_stopped_in_every_epoch(tmp_path: Path, at_batch, undisturbed: Trained) -> None:  # noqa: F811
    expected, losses = fit(tmp_path / "undisturbed", "binary", undisturbed)
    for _ in range(6):
        at_batch(8, ask)
        with pytest.raises(Interrupted):
            fit(tmp_path / "run", "binary", undisturbed)
    trained, losses_after = fit(tmp_path / "run", "binary", undisturbed)
    assert same(trained, expected)
    assert losses_after == losses


def test_checkpoints_by_the_clock_need_no_signal(
    tmp_path: Path,
    at_batch,
    undisturbed: Trained,  # noqa: F811
    monkeypatch,
) -> None:
    """One after each step; a crash, as of a machine, loses nothing but the step at hand."""
    monkeypatch.setattr(stopping, "SECONDS", 0)

    def crash() -> None:
        raise RuntimeError

    at_batch(13, crash)
    with pytest.raises(RuntimeError):
        fit(tmp_path)
    assert within(tmp_path) == [f"epoch-000001.step-00000000{step}.safetensors" for step in (2, 3)]
    trained, _ = fit(tmp_path)
    assert same(trained, undisturbed)
    assert len(list(tmp_path.glob("epoch-*"))) == checkpoint.KEEP


def test_terminated_process_says_so_and_goes_on(
    tmp_path: Path,
    trainer: subprocess.Popen[str],  # noqa: F811
    undisturbed: Trained,  # noqa: F811
    caplog,
) -> None:
    assert train_until(trainer, tmp_path, "epoch-000002*", signal.SIGTERM) == "ended with 1\n"
    [newest] = within(tmp_path)[-1:]
    with caplog.at_level(logging.INFO):
        trained, _ = fit(tmp_path)
    assert f"going on from {tmp_path / newest}" in caplog.text
    assert re.search(r"going on after epoch \d of 6 and \d+ steps of the next", caplog.text)
    assert same(trained, undisturbed)


def test_position_of_other_devices_is_passed_over(tmp_path: Path, caplog) -> None:
    """Two processes' position is of no use to one: on from the epoch's end before it."""
    module = VGG(experiment().network, (3, 8, 8), 4)
    optimiser = recipe.optimiser(experiment().train, module)
    two = Position(3, 1.0, "cpu", {"total": torch.zeros(2, 2)})
    first = {"epoch": 1.0}
    checkpoint.save(tmp_path, {}, {"model": module}, optimiser, [first])
    checkpoint.save(tmp_path, {}, {"model": module}, optimiser, [first], replace(two, steps=2))
    path = checkpoint.save(tmp_path, {}, {"model": module}, optimiser, [first], two)  # however many were written since
    assert checkpoint.restore(tmp_path, {}, {"model": module}, optimiser, Fabric(accelerator="cpu", devices=1)) == (
        [first],
        None,
    )
    assert f"{path} is within an epoch of other" in caplog.text
    other = Position(3, 1.0, "cuda", {"total": torch.zeros(1, 2)})
    assert not other.suits(Fabric(accelerator="cpu", devices=1))


TWO = """
import sys
from pathlib import Path
from training_for_tests import data_set, experiment
from bsnn import config, log
from bsnn.training import train
if __name__ == "__main__":
    with log.job():
        two = config.Compute(accelerator="cpu", devices=2, precision="32-true")
        changed = experiment(train__epochs=60)
        trained, *_ = train.fit(changed, "full", 0, data_set(), two, Path(sys.argv[1]), None)
    import torch
    torch.save(trained.module.state_dict(), sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step(tmp_path: Path) -> None:
    """The signal reaches their parent alone, as `kill` does."""
    (tmp_path / "two.py").write_text(TWO)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment["OMP_NUM_THREADS"] = "1"

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "two.py", name, f"{name}.pt"]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    stopped = start("stopped")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "stopped").glob("epoch-*")):
        assert stopped.poll() is None, "ended too early"
        assert time.monotonic() < deadline, "trained no epoch"
        time.sleep(0.005)
    stopped.terminate()
    assert "error: stopped by SIGTERM" in stopped.communicate(timeout=300)[1]
    assert stopped.returncode == 1
    assert len(within(tmp_path / "stopped")) == 1
    for again in (start("stopped"), start("whole")):
        errors = again.communicate(timeout=900)[1]
        assert again.returncode == 0, errors
    one, other = (torch.load(tmp_path / f"{name}.pt") for name in ("stopped", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in other)
