"""Recipes: schedules, and what a step does with smoothing, clipping, averages and a teacher, against plain formulae."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F
from training_for_tests import COMPUTE, data_set, experiment

from bsnn import config
from bsnn.training import loop, precision, recipe, stopping, train


def settings(**changes: object) -> config.Train:
    return config.Train.model_validate({"epochs": 10, "optimiser": {"lr": 0.8}, **changes})


# ---- schedules


def test_linear_rises_and_falls_to_0() -> None:
    found = settings(schedule={"kind": "linear", "warm_up": 2})
    rates = [recipe.learning_rate(found, time) for time in (0, 0.5, 1, 2, 4, 6, 9, 10)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.8, 0.6, 0.4, 0.1, 0])


def test_cosine_falls_to_0() -> None:
    found = settings(schedule={"kind": "cosine"})
    rates = [recipe.learning_rate(found, time) for time in (0, 2.5, 5, 7.5, 10)]
    assert rates == pytest.approx([0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5)), 0])


def test_warm_up_goes_with_steps() -> None:
    found = settings(schedule={"milestones": [4], "warm_up": 2})
    assert [recipe.learning_rate(found, time) for time in (0, 1, 3, 4, 9.9)] == pytest.approx([0, 0.4, 0.8, 0.08, 0.08])


def test_steps_of_an_epoch_share_the_rate() -> None:
    found = settings(schedule={"milestones": [4]})
    assert recipe.learning_rate(found, 3.999) == 0.8
    assert recipe.learning_rate(found, 4.001) == recipe.learning_rate(found, 4)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_milestones_belong_to_steps(kind: str) -> None:
    with pytest.raises(ValidationError, match="belong to kind steps"):
        settings(schedule={"kind": kind, "milestones": [3]})


@pytest.mark.parametrize(
    ("small", "pools", "message"),
    [
        ({"size": 6, "epochs": 2}, 3, "must be smaller than data.image_size 8, and divide it"),
        ({"size": 8, "epochs": 2}, 3, "must be smaller than data.image_size 8, and divide it"),
        ({"size": 4, "epochs": 2}, 2, "pools that reduce whole images to one pixel"),
        ({"size": 4, "epochs": 6}, 3, "must be less than"),
    ],
)
def test_small_images_that_do_not_fit_are_refused(small: dict[str, int], pools: int, message: str) -> None:
    features = [8, "P"] * pools
    with pytest.raises(ValidationError, match=message):
        experiment(network__features=features, train__small_images=small)


@pytest.mark.parametrize("kind", ["steps", "linear", "cosine"])
@pytest.mark.parametrize("warm_up", [10, 12.5])
def test_warm_up_that_does_not_end_is_refused(kind: str, warm_up: float) -> None:
    with pytest.raises(ValidationError, match=rf"warm_up {warm_up:g} must be less than epochs 10"):
        settings(schedule={"kind": kind, "warm_up": warm_up})
    assert recipe.learning_rate(settings(schedule={"kind": kind, "warm_up": 9.5}), 9.5) == 0.8


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValidationError, match="`nesterov` is a form of momentum"):
        settings(optimiser={"lr": 0.1, "momentum": 0.0, "nesterov": True})


def test_unit_variance_and_the_form_that_folds_are_refused_together() -> None:
    assert experiment(network__init="unit_variance").train.form == "plain"
    with pytest.raises(ValidationError, match="use init fan_in"):
        experiment(network__init="unit_variance", train__form="foldable")


# ---- steps


def one_step(tmp_path: Path, kind: config.Weights, monkeypatch, **changes: object) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and logits of the first step, and the loss that it was given."""
    seen: list[Tensor] = []
    given = loop.Loop._step

    def step(self: loop.Loop, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self.state.module(images)
        result = given(self, images, labels)
        if not seen:
            seen.extend([images, labels, logits, result[0] / len(labels)])
        return result

    monkeypatch.setattr(loop.Loop, "_step", step)
    changed = experiment(network__dropout=0.0, **changes)
    start = train.fit(experiment(), "full", 0, data_set(), COMPUTE, tmp_path / "start", None).trained
    seen.clear()
    train.fit(changed, kind, 0, data_set(), COMPUTE, tmp_path / "run", start)
    images, labels, logits, loss = seen
    with torch.no_grad():
        taught = start.module(images)
    return torch.stack([F.one_hot(labels, 4).float(), logits, taught]), labels, loss


def test_label_smoothing(tmp_path, monkeypatch) -> None:
    (hot, logits, _), _, loss = one_step(tmp_path, "full", monkeypatch, train__label_smoothing=0.2)
    wanted = -((0.8 * hot + 0.2 / 4) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss.float(), wanted)


def test_teacher(tmp_path, monkeypatch) -> None:
    """0.7 of the labels' cross-entropy, and 0.3 * 3^2 of the divergence between outputs softened by 3."""
    teacher = {"weight": 0.3, "temperature": 3.0}
    (hot, logits, taught), _, loss = one_step(tmp_path, "binary", monkeypatch, binarize__teacher=teacher)
    student, target = (logits / 3).softmax(1), (taught / 3).softmax(1)
    divergence = (target * (target / student).log()).sum(1).mean()
    wanted = 0.7 * -(hot * logits.log_softmax(1)).sum(1).mean() + 0.3 * 9 * divergence
    torch.testing.assert_close(loss.float(), wanted, rtol=1e-4, atol=1e-6)


def test_a_network_from_scratch_has_no_teacher() -> None:
    with pytest.raises(ValidationError, match="from_scratch"):
        experiment(binarize__from_scratch=True, binarize__teacher={})


def sgd(**changes: object) -> config.Experiment:
    """One epoch of plain SGD at rate 1: a step is the gradient."""
    plain = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
    return experiment(
        network__dropout=0.0,
        train__epochs=1,
        train__schedule={},
        train__augment={},
        **{"train__optimiser": plain, **changes},
    )


def test_clipped_steps_have_the_norm(tmp_path, monkeypatch) -> None:
    moved: list[float] = []
    given = loop.Loop._step

    def step(self: loop.Loop, images: Tensor, labels: Tensor) -> Tensor:
        before = [p.detach().clone() for p in self.state.module.parameters()]
        result = given(self, images, labels)
        parts = [(p.detach() - b).square().sum() for p, b in zip(self.state.module.parameters(), before, strict=True)]
        moved.append(float(torch.stack(parts).sum().sqrt()))
        return result

    monkeypatch.setattr(loop.Loop, "_step", step)
    train.fit(sgd(), "full", 0, data_set(), COMPUTE, tmp_path / "free", None)
    assert moved[0] > 0.05, "nothing to clip"
    moved.clear()
    train.fit(sgd(train__clip_norm=0.05), "full", 0, data_set(), COMPUTE, tmp_path / "clipped", None)
    assert moved[0] == pytest.approx(0.05, rel=1e-3)


def test_averaged_weights_follow_the_steps(tmp_path, monkeypatch) -> None:
    """The stored network is the moving average, begun at the first step's weights, of those after each step."""
    after: list[dict[str, Tensor]] = []
    given = loop.Loop._step

    def step(self: loop.Loop, images: Tensor, labels: Tensor) -> Tensor:
        result = given(self, images, labels)
        after.append({name: p.detach().clone() for name, p in self.state.module.named_parameters()})
        return result

    monkeypatch.setattr(loop.Loop, "_step", step)
    rate = {"name": "sgd", "lr": 0.05}
    changed = sgd(train__averaging=0.75, train__optimiser=rate)
    trained = train.fit(changed, "full", 0, data_set(), COMPUTE, tmp_path, None).trained
    assert len(after) == 5
    for name, weight in trained.module.state_dict().items():
        wanted = after[0][name]
        for later in after[1:]:
            wanted = 0.75 * wanted + 0.25 * later[name]
        torch.testing.assert_close(weight, wanted, rtol=1e-5, atol=1e-6)
        assert not torch.equal(weight, after[-1][name])


@pytest.mark.parametrize("form", ["plain", "foldable"])
def test_stopped_run_goes_on_to_the_same_average(tmp_path, monkeypatch, form: str) -> None:
    changed = experiment(train__form=form, train__averaging=0.9, train__schedule={"kind": "linear", "warm_up": 1.5})
    whole = train.fit(changed, "full", 0, data_set(), COMPUTE, tmp_path / "whole", None).trained
    monkeypatch.setattr(stopping, "SECONDS", 0)  # a checkpoint after each step
    steps = 0
    given = loop.Loop._step

    def step(self: loop.Loop, images: Tensor, labels: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise RuntimeError
        return given(self, images, labels)

    monkeypatch.setattr(loop.Loop, "_step", step)
    with pytest.raises(RuntimeError):
        train.fit(changed, "full", 0, data_set(), COMPUTE, tmp_path / "run", None)
    again = train.fit(changed, "full", 0, data_set(), COMPUTE, tmp_path / "run", None).trained
    for name, weight in whole.module.state_dict().items():
        assert torch.equal(weight, again.module.state_dict()[name])


def test_small_images_in_the_first_epochs(tmp_path, monkeypatch) -> None:
    """Means of 2 x 2 pixels, in training and in evaluation; then whole images."""
    sizes: list[int] = []
    given = loop.Loop._input

    def _input(self: loop.Loop, batch: Tensor, epoch: int) -> Tensor:
        images = given(self, batch, epoch)
        sizes.append(images.shape[-1])
        if epoch < 2:
            whole = self.normalise(batch)
            mean = (whole[..., ::2, ::2] + whole[..., 1::2, ::2] + whole[..., ::2, 1::2] + whole[..., 1::2, 1::2]) / 4
            torch.testing.assert_close(images, mean, rtol=1e-5, atol=1e-6)
        return images

    monkeypatch.setattr(loop.Loop, "_input", _input)
    features = [8, "P", 8, "P", 16, "P"]
    changed = experiment(network__features=features, train__small_images={"size": 4, "epochs": 2})
    train.fit(changed, "full", 0, data_set(), COMPUTE, tmp_path, None)
    per_epoch = len(sizes) // 6
    assert sizes == [4] * 2 * per_epoch + [8] * 4 * per_epoch


# ---- precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"avx2": True, "avx512_bf16": False}, "32-true"),
        ({"avx2": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"neon": True, "bf16": True}, "bf16-mixed"),
    ],
)
def test_precision_follows_the_processor(monkeypatch, caplog, found: dict[str, bool], wanted: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    with caplog.at_level(logging.INFO):
        assert precision.choose(config.Compute(), CPU) == wanted
    assert f"precision {wanted}: this CPU {'multiplies' if wanted != '32-true' else 'does not multiply'}" in caplog.text


def test_emulated_bfloat16_is_a_loud_warning(monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    asked = config.Compute(precision="bf16-mixed")
    assert precision.choose(asked, CPU) == "bf16-mixed"
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "26 times slower" in record.getMessage()
    assert "compute.precision at auto" in record.getMessage()


def test_factor_is_of_processors_alone(monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert precision.choose(config.Compute(), torch.device("cuda")) == "32-true"
    assert precision.choose(config.Compute(precision="bf16-mixed"), torch.device("cuda")) == "bf16-mixed"
    assert "this CUDA emulates bfloat16: expect training to be slower than" in caplog.text


def test_precision_of_the_processes_is_told() -> None:
    from bsnn.training import processes

    for asked in ("32-true", "bf16-mixed"):
        assert processes.precision(Fabric(accelerator="cpu", devices=1, precision=asked)) == asked
