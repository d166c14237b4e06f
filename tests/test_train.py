"""Training: recipes, determinism, checkpoints that survive anything, several devices."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from lightning_fabric import Fabric
from torch.nn import functional as F
from training_for_tests import CLASSES, COMPUTE, data_set, experiment

from bsnn import config
from bsnn.datasets import DataSet, Normalise
from bsnn.errors import BsnnError, ConfigError, Interrupted
from bsnn.networks import binary, files
from bsnn.networks.vgg import VGG, Trained
from bsnn.seeds import derived_seed
from bsnn.training import checkpoint, recipe, train


@pytest.fixture(autouse=True)
def _one_thread():
    """The number of threads decides the order of sums; a killed process in these tests uses one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Trained:
    """The full-precision network of seed 0."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    return train.fit(experiment(), "full", 0, data_set(), COMPUTE, folder, None)[0]


def state(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.module.state_dict())


def same(first: Trained, second: Trained) -> bool:
    one, two = state(first), state(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def accuracy(trained: Trained, data: DataSet) -> float:
    """Share of the test images that the network classifies as they are."""
    with torch.no_grad():
        images = Normalise(data.mean, data.std)(data.test.images)  # type: ignore[attr-defined]
        return float((trained.module(images).argmax(1) == data.test.labels).double().mean())


def settings(**changes: object) -> config.Train:
    return config.Train.model_validate({"epochs": 200, "optimiser": {"lr": 0.05, "weight_decay": 1e-4}, **changes})


# ---- recipes


def test_milestones_are_epochs_after_which_the_rate_falls() -> None:
    found = settings(schedule={"milestones": [81, 122]})
    assert [recipe.learning_rate(found, epoch) for epoch in (0, 80)] == [0.05, 0.05]
    assert recipe.learning_rate(found, 81) == pytest.approx(0.005)
    assert recipe.learning_rate(found, 121) == pytest.approx(0.005)
    assert recipe.learning_rate(found, 122) == pytest.approx(0.0005)


def test_the_rate_falls_every_so_many_epochs() -> None:
    found = settings(optimiser={"lr": 8.0}, schedule={"every": 30, "factor": 0.5})
    assert [recipe.learning_rate(found, epoch) for epoch in (0, 29, 30, 59, 60, 199)] == [8, 8, 4, 4, 2, 0.125]


def test_weight_decay_is_switched_off_and_never_reaches_binary_latents() -> None:
    module = VGG(experiment().network, (3, 8, 8), 4)
    names = binary.prepare(module, experiment().binarize)
    adam = {"name": "adam", "lr": 1e-3, "eps": 1e-3, "weight_decay": 0.1, "weight_decay_epochs": 30}
    found = settings(optimiser=adam)
    optimiser = recipe.optimiser(found, module)
    groups = {group["binary"]: group for group in optimiser.param_groups}
    assert [id(p) for p in groups[True]["params"]] == [id(p) for p in binary.latents(module).values()]
    assert len(groups[False]["params"]) == len(module.plan) - len(names)
    for epoch, decay in ((0, 0.1), (29, 0.1), (30, 0.0)):
        recipe.set_rates(optimiser, found, epoch)
        assert (groups[False]["weight_decay"], groups[True]["weight_decay"]) == (decay, 0)
    assert (groups[False]["eps"], groups[True]["eps"]) == (1e-3, 1e-8)


def test_seeds_differ_by_seed_epoch_and_purpose() -> None:
    seeds = {
        derived_seed(seed, kind, epoch, purpose, rank)
        for seed in (0, 1)
        for kind in ("full", "binary")
        for epoch in (0, 1, 11)
        for purpose in ("order", "dropout")
        for rank in (0, 1)
    }
    assert len(seeds) == 48
    assert all(0 <= seed < 2**63 for seed in seeds)


# ---- the loop


def plain(experiment_: config.Experiment, seed: int) -> dict[str, torch.Tensor]:
    """The same training in a few lines of plain torch: SGD with momentum and L2, no augmentation, no dropout."""
    data, found = data_set(), experiment_.train
    torch.manual_seed(derived_seed(seed, "full", "initial weights"))
    module = VGG(experiment_.network, (3, 8, 8), 4)
    velocity = [torch.zeros_like(p) for p in module.parameters()]
    normalise = Normalise(data.mean, data.std)
    for epoch in range(found.epochs):
        rate = 0.02 if epoch < 2 else 0.002
        generator = torch.Generator().manual_seed(derived_seed(seed, "full", epoch, "order"))
        order = torch.randperm(len(data.train), generator=generator)
        for batch, labels in data.train.batches(order, found.batch_size, "cpu"):
            loss = F.cross_entropy(module(normalise(batch)), labels)
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for parameter, gradient, moving in zip(module.parameters(), gradients, velocity, strict=True):
                    moving.mul_(0.9).add_(gradient + 1e-3 * parameter)
                    parameter.sub_(rate * moving)
    return dict(module.state_dict())


def plain_experiment(**changes: object) -> config.Experiment:
    sgd = {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}
    return experiment(
        network__dropout=0.0,
        train__optimiser=sgd,
        train__schedule={"milestones": [2]},
        train__augment={},
        train__epochs=3,
        **changes,
    )


def test_equals_plain_torch(tmp_path) -> None:
    trained, *_ = train.fit(plain_experiment(), "full", 7, data_set(), COMPUTE, tmp_path, None)
    expected = plain(plain_experiment(), 7)
    for name, weight in state(trained).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)


def test_two_devices_share_the_global_batch(tmp_path) -> None:
    """Batches of 20 as 10 and 10: the same network except for the order of sums. (96 images: the last batch is 16.)

    The weights are larger than a pipe's buffer (64 KiB), which processes once waited on for ever.
    """
    wide = plain_experiment(network__hidden=[600])
    one, history, _ = train.fit(wide, "full", 7, data_set(), COMPUTE, tmp_path / "1", None)
    two = COMPUTE.model_copy(update={"devices": 2})
    both, history_both, _ = train.fit(wide, "full", 7, data_set(), two, tmp_path / "2", None)
    for name, weight in state(both).items():
        torch.testing.assert_close(weight, state(one)[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history_both["train_loss"], history["train_loss"], rtol=1e-4)
    assert history_both["test_accuracy"].tolist() == history["test_accuracy"].tolist()


def test_learns_and_reports_each_epoch(tmp_path) -> None:
    data = data_set()
    trained, history, _ = train.fit(experiment(), "full", 0, data, COMPUTE, tmp_path, None)
    assert history.columns.tolist() == [
        "epoch",
        "lr",
        "train_loss",
        "train_accuracy",
        "test_accuracy",
        "seconds",
        "images_per_second",
    ]
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history["lr"].tolist() == [2e-3] * 4 + [pytest.approx(2e-4)] * 2
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["test_accuracy"].iloc[-1] == accuracy(trained, data) > 0.8
    assert (trained.classes, trained.mean, trained.signs) == (CLASSES, data.mean, {})


def test_configured_normalisation_comes_before_the_data_sets_own(tmp_path) -> None:
    changed = experiment(data__mean=(0.1, 0.2, 0.3), train__epochs=1)
    trained, *_ = train.fit(changed, "full", 0, data_set(), COMPUTE, tmp_path, None)
    assert (trained.mean, trained.std) == ((0.1, 0.2, 0.3), (0.2,) * 3)


def test_a_seed_decides_everything(tmp_path, undisturbed: Trained) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again, *_ = train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path / "again", None)
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator was used"
    assert not torch.are_deterministic_algorithms_enabled()
    assert same(again, undisturbed)
    other, *_ = train.fit(experiment(), "full", 1, data_set(), COMPUTE, tmp_path / "other", None)
    assert not same(other, undisturbed)


def test_bf16_trains(tmp_path) -> None:
    half = config.Compute(accelerator="cpu", precision="bf16-mixed")
    trained, history, precision = train.fit(experiment(), "full", 0, data_set(), half, tmp_path, None)
    assert precision == "bf16-mixed"
    # in float32, whatever it was trained in
    assert history["test_accuracy"].iloc[-1] == accuracy(trained, data_set()) > 0.8
    assert all(weight.dtype == torch.float32 for weight in state(trained).values())


def still(form: str) -> config.Experiment:
    """One step at a rate of next to nothing."""
    changes = {"train__epochs": 1, "train__schedule": {}, "train__optimiser": {"lr": 1e-9}, "train__form": form}
    return experiment(network__dropout=0.0, train__batch_size=96, **changes)


@pytest.mark.parametrize("form", ["plain", "foldable"])
def test_full_precision_goes_on_from_a_trained_network(tmp_path, form: str) -> None:
    """At once it is as good as that network; in the plain form it has the same weights."""
    start, *_ = train.fit(experiment(train__form=form), "full", 0, data_set(), COMPUTE, tmp_path / "start", None)
    before = {name: weight.clone() for name, weight in state(start).items()}
    trained, history, _ = train.fit(still(form), "full", 1, data_set(), COMPUTE, tmp_path / "on", start)
    _, afresh, _ = train.fit(still(form), "full", 1, data_set(), COMPUTE, tmp_path / "afresh", None)
    for column in ("train_accuracy", "test_accuracy"):
        assert history[column].item() > 0.7 > 0.5 > afresh[column].item()
    assert all(torch.equal(weight, before[name]) for name, weight in state(start).items())
    if form == "plain":
        for name, weight in state(trained).items():
            torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-6)


# ---- binary networks


def test_binary_starts_from_the_full_network(tmp_path, undisturbed: Trained) -> None:
    before = {name: weight.clone() for name, weight in state(undisturbed).items()}
    trained, history, _ = train.fit(experiment(), "binary", 0, data_set(), COMPUTE, tmp_path, undisturbed)
    assert all(torch.equal(weight, before[name]) for name, weight in state(undisturbed).items())
    assert history["test_accuracy"].iloc[-1] > 0.6
    assert list(trained.signs) == list(trained.alphas) == ["conv2", "conv3", "fc1"]
    for name, sign in trained.signs.items():
        alpha = trained.alphas[name]
        weight = trained.module.get_parameter(f"{name}.weight")
        assert torch.equal(weight, alpha.reshape(-1, *[1] * (sign.dim() - 1)) * sign)
        kept = (sign == torch.where(before[f"{name}.weight"] >= 0, 1, -1)).float().mean()
        assert kept > 0.6, "signs have nothing to do with the network that training started from"


def test_binary_network_is_stored_as_it_was_trained(tmp_path, undisturbed: Trained) -> None:
    """The parametrised network of the last checkpoint, and the artifact read back, hold the same weights."""
    trained, *_ = train.fit(experiment(), "binary", 0, data_set(), COMPUTE, tmp_path, undisturbed)
    files.save(tmp_path / "ann.safetensors", trained, {"version": 1}, {})
    loaded = files.load(tmp_path / "ann.safetensors", experiment().network)

    module = VGG(experiment().network, (3, 8, 8), 4).to(memory_format=torch.channels_last)
    binary.prepare(module, experiment().binarize)
    optimiser = recipe.optimiser(experiment().binarize, module)
    checkpoint.restore(tmp_path, {}, {"model": module}, optimiser, Fabric(accelerator="cpu", devices=1))
    for layer in module.plan:
        expected = module.get_submodule(layer.name).weight.detach()
        assert torch.equal(loaded.module.get_parameter(f"{layer.name}.weight"), expected)


def test_binary_from_scratch_needs_no_start(tmp_path, undisturbed: Trained) -> None:
    with pytest.raises(BsnnError, match="from_scratch"):
        train.fit(experiment(), "binary", 0, data_set(), COMPUTE, tmp_path, None)
    scratch = experiment(binarize__from_scratch=True)
    alone, *_ = train.fit(scratch, "binary", 0, data_set(), COMPUTE, tmp_path / "a", None)
    given, *_ = train.fit(scratch, "binary", 0, data_set(), COMPUTE, tmp_path / "b", undisturbed)
    assert same(alone, given)


# ---- checkpoints


@pytest.fixture(scope="module")
def trainer() -> Iterator[subprocess.Popen[str]]:
    """A process that trains in folders told to it (see training_for_tests.main)."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "training_for_tests"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.communicate()


def train_until(trainer: subprocess.Popen[str], folder: Path, sign: str, number: signal.Signals) -> str:
    """Train in another process, send it a signal as soon as a file of this pattern is there; how it ended."""
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    trainer.stdin.write(f"{folder}\n")
    trainer.stdin.flush()
    child = int(trainer.stdout.readline())
    deadline = time.monotonic() + 60
    while not any(folder.glob(sign)) and time.monotonic() < deadline:
        time.sleep(0.0002)
    os.kill(child, number)
    return trainer.stdout.readline()


@pytest.mark.parametrize("moment", ["lock", "epoch-000001.*", "epoch-000004.*", ".epoch-000001*", ".epoch-000003*"])
def test_killed_run_goes_on_to_the_same_weights(
    tmp_path, trainer: subprocess.Popen[str], undisturbed: Trained, moment: str
) -> None:
    """Killed before and after an epoch's end, and while a checkpoint is being written (hidden files)."""
    assert train_until(trainer, tmp_path, moment, signal.SIGKILL) == "ended with -9\n"
    assert any(tmp_path.iterdir()), "killed too early"
    assert not (tmp_path / "epoch-000006.safetensors").exists(), "killed too late"

    trained, history, _ = train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path, None)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert same(trained, undisturbed)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["epoch-000005.safetensors", "epoch-000006.safetensors", "lock"]


def test_finished_run_trains_no_more(tmp_path, undisturbed: Trained) -> None:
    first, history, _ = train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path, None)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("epoch-*")}
    second, history_again, _ = train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path, None)
    assert same(first, second)
    assert history.equals(history_again)
    assert times == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("epoch-*")}


@pytest.mark.parametrize("kind", ["full", "binary"])
@pytest.mark.parametrize("broken", [1, 2])
def test_damaged_checkpoint_is_named_and_passed_over(
    tmp_path, undisturbed: Trained, caplog, kind: str, broken: int
) -> None:
    """The newest one cut short: on from the one before. Both: from the start. The same network either way."""
    first, *_ = train.fit(experiment(), kind, 0, data_set(), COMPUTE, tmp_path, undisturbed)  # type: ignore[arg-type]
    newest, previous = sorted(tmp_path.glob("epoch-*"), reverse=True)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    if broken == 2:
        content = bytearray(previous.read_bytes())
        content[-5] ^= 1  # one bit of a weight
        previous.write_bytes(content)
    with caplog.at_level(logging.INFO):
        again, *_ = train.fit(experiment(), kind, 0, data_set(), COMPUTE, tmp_path, undisturbed)  # type: ignore[arg-type]
    assert same(first, again)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == broken
    assert str(newest) in warnings[0]
    epochs = [record for record in caplog.records if "epoch 6/6" in record.getMessage()]
    assert len(epochs) == 1
    assert ("epoch 5/6" in caplog.text) == (broken == 2)


def test_checkpoint_of_other_settings_is_passed_over(tmp_path, undisturbed: Trained, caplog) -> None:
    other = experiment(train__epochs=2, train__batch_size=32)
    train.fit(other, "full", 0, data_set(), COMPUTE, tmp_path, None, stands_for={"epochs": 2})
    trained, *_ = train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path, None, stands_for={"epochs": 6})
    assert "other settings" in caplog.text
    assert same(trained, undisturbed)


def test_second_process_waits_and_says_so(tmp_path, undisturbed: Trained, caplog, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "LOCK_MESSAGE_SECONDS", 0.05)
    found: list[Trained] = []

    def second() -> None:
        torch.set_num_threads(1)
        found.append(train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path, None)[0])

    thread = threading.Thread(target=second, daemon=True)
    with FileLock(tmp_path / "lock"):
        thread.start()
        deadline = time.monotonic() + 60
        while caplog.text.count("holds the lock") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not list(tmp_path.glob("epoch-*")), "trained without the lock"
    thread.join(60)
    assert caplog.text.count("holds the lock") >= 2
    assert str(tmp_path) in caplog.text
    assert same(found[0], undisturbed)


# ---- errors


def test_diverging_training_stops_with_advice(tmp_path) -> None:
    wild = experiment(train__optimiser={"name": "sgd", "lr": 1e30})
    with pytest.raises(BsnnError, match=r"epoch 1 at learning rate 1e\+30.*train\.optimiser\.lr"):
        train.fit(wild, "full", 0, data_set(), COMPUTE, tmp_path, None)
    assert not list(tmp_path.glob("epoch-*"))


@pytest.mark.parametrize(
    ("error", "ours"),
    [(BsnnError("lower\nthe rate: now"), True), (Interrupted("stopped: go on"), True), (ValueError("a bug"), False)],
)
def test_error_of_another_process_comes_back_as_what_it_was(tmp_path, monkeypatch, error, ours: bool) -> None:
    """Processes of several devices hand over a traceback as text, as torch.multiprocessing.spawn does."""

    def launch(*_: object) -> None:
        try:
            raise error
        except type(error):
            trace = f"\n\n-- Process 1 terminated with the following error:\n{traceback.format_exc()}"
        raise torch.multiprocessing.ProcessRaisedException(trace, 1, 1234)

    monkeypatch.setattr("lightning_fabric.Fabric.launch", launch)
    expected = type(error) if ours else torch.multiprocessing.ProcessRaisedException
    with pytest.raises(expected) as caught:
        train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path, None)
    assert type(caught.value) is expected
    assert (str(caught.value) == str(error)) == ours


def test_batch_that_cannot_be_shared_is_refused(tmp_path) -> None:
    three = config.Compute(accelerator="cpu", devices=3)
    with pytest.raises(ConfigError, match="batch_size 20"):
        train.fit(experiment(), "full", 0, data_set(), three, tmp_path, None)


def test_devices_that_are_not_there_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    two = config.Compute(accelerator="cuda", devices=2)
    with pytest.raises(ConfigError, match="2 CUDA devices asked for, 1 found"):
        train.fit(experiment(), "full", 0, data_set(), two, tmp_path, None)
