"""The form of training that folds: what it computes, by hand; its gradients; and the plain network that it comes to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from training_for_tests import COMPUTE, data_set, experiment

from bsnn import config
from bsnn.datasets import Normalise
from bsnn.networks import binary
from bsnn.networks.files import assemble
from bsnn.networks.vgg import VGG
from bsnn.training import folding, loop, processes, stopping, train
from bsnn.training.folding import EPS, MOMENTUM, FoldableVGG
from bsnn.training.position import Running

TWO = config.Compute(accelerator="cpu", devices=2, precision="32-true")
FORMS = [("average", "before"), ("average", "after"), ("max", "before"), ("max", "after")]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def network(pool: str = "average", place: str = "before") -> config.Network:
    settings = {"features": [6, 5, "P", 7, "P"], "hidden": [9], "pool": pool, "place": place, "dropout": 0.0}
    return config.Network.model_validate(settings)


def images() -> Tensor:
    return torch.randn(20, 3, 8, 8)


def disturbed(module: FoldableVGG) -> FoldableVGG:
    """With gains of both signs and running means that are not 1."""
    for gain in module.gains.values():
        gain.data.normal_()
    for square in module.buffers():
        square.copy_(torch.rand_like(square) + 0.5)
    return module


def test_outputs_have_the_gain_as_root_mean_square() -> None:
    module = FoldableVGG(network(), (3, 8, 8), 4).train()
    module.gains["conv2"].data.copy_(torch.tensor([1.0, -2.0, 3.0, 0.5, 1.5]))
    first, second = module.plan[:2]
    current = module.current(second, module.activate(first, module.current(first, images())))
    assert current.shape == (20, 5, 4, 4), "after the pool"
    found = current.double().square().mean(dim=(0, 2, 3)).sqrt()
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, 3.0, 0.5, 1.5]).double(), rtol=1e-3, atol=0)


def test_running_means_follow_the_batch() -> None:
    module = FoldableVGG(network(), (3, 8, 8), 4).train()
    x, first = images(), module.plan[0]
    weight = module.get_parameter("conv1.weight").detach()
    shifted = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
    square = torch.nn.functional.conv2d(x, shifted, padding=1).square().mean(dim=(0, 2, 3))
    module.current(first, x)
    torch.testing.assert_close(module.get_buffer("conv1_square"), 1 + MOMENTUM * (square - 1))


def test_gradients_are_those_of_the_formula() -> None:
    """Of the function written out, against autograd of the formula and against finite differences."""
    rows, gain = torch.randn(30, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
    rows.requires_grad_(), gain.requires_grad_()
    divided, square = folding._DividedByRMS.apply(rows, gain)
    expected = rows * gain / (rows.square().mean(0) + EPS).sqrt()
    torch.testing.assert_close(divided, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(square, rows.detach().square().mean(0), rtol=1e-10, atol=0)
    given = torch.randn_like(rows)
    found = torch.autograd.grad(divided, (rows, gain), given)
    wanted = torch.autograd.grad(expected, (rows, gain), given)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *x: folding._DividedByRMS.apply(*x)[0], (rows, gain))


@pytest.mark.parametrize(("pool", "place"), FORMS)
@pytest.mark.parametrize("is_binary", [False, True])
def test_folds_into_the_plain_network(pool: str, place: str, is_binary: bool) -> None:
    """The same logits, within rounding, from a member of the family without gains and running means."""
    settings = network(pool, place)
    module = disturbed(FoldableVGG(settings, (3, 8, 8), 4)).double()
    if is_binary:
        recipe = {"epochs": 1, "optimiser": {"lr": 1.0}}
        binary.prepare(module, config.Binarize.model_validate(recipe))
        binary.project_(module)
    x = images().double()
    wanted = module.eval()(x)
    full, signs, alphas = folding.parts(module)
    assert sorted(signs) == (["conv2", "conv3", "fc1"] if is_binary else [])
    assert all(bool((alpha > 0).all()) for alpha in alphas.values())
    trained = assemble(settings, (3, 8, 8), ("a", "b", "c", "d"), (0.0,) * 3, (1.0,) * 3, full, signs, alphas)
    assert type(trained.module) is VGG
    torch.testing.assert_close(trained.module.double()(x), wanted, rtol=1e-4, atol=1e-5)
    for name, sign in signs.items():
        latent = binary.latents(module)[name]
        assert torch.equal(sign, torch.where(latent >= 0, 1, -1).to(torch.int8))


def test_batch_and_running_means_agree_on_one_batch() -> None:
    """A network whose running means are those of the batch computes in evaluation what it computes in training."""
    module = FoldableVGG(network(), (3, 8, 8), 4)
    x = images()
    for _ in range(700):  # (1 - 0.02)^700 = 7e-7
        module.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), module.train()(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [100, folding.CHUNK, 3 * folding.CHUNK + 5])
def test_sums_of_many_rows_are_those_of_all(count: int) -> None:
    rows = torch.randn(count, 7).square().bfloat16()
    summed = folding._summed(rows, torch.float32)
    assert summed.dtype == torch.float32
    torch.testing.assert_close(summed, rows.float().sum(0), rtol=2**-8, atol=0)  # each chunk is rounded to bfloat16
    torch.testing.assert_close(folding._summed(rows.double(), torch.float64), rows.double().sum(0))


def test_gradient_of_centred_weights() -> None:
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(folding._Centred.apply, (weight,))


@pytest.mark.parametrize(("pool", "place"), FORMS)
def test_begins_as_the_trained_network(pool: str, place: str) -> None:
    """Filters of a folded network are centred: on the images that it looks at, its new form gives the same logits."""
    settings, x = network(pool, place), torch.randn(64, 3, 8, 8)
    weights = {name: folding.centred(weight) for name, weight in plain_weights(settings).items()}
    trained = assemble(settings, (3, 8, 8), ("a", "b", "c", "d"), (0.0,) * 3, (1.0,) * 3, weights, {}, {})
    module = FoldableVGG(settings, (3, 8, 8), 4)
    folding.begin_from_(module, trained, x)
    assert folding.share_of_means(trained) < 1e-6
    trained.module.get_parameter("conv2.weight").data[1] += 3  # far beyond what the weights are
    assert 0.9 < folding.share_of_means(trained) <= 1 + 1e-6
    trained.module.get_parameter("conv2.weight").data[1] -= 3
    torch.testing.assert_close(module.eval()(x), trained.module(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(module.train()(x), trained.module(x), rtol=1e-3, atol=1e-4)
    inner = module.get_parameter("conv2.weight")
    spread = inner.square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(spread, torch.full_like(spread, 2 / inner[0].numel()), rtol=1e-3, atol=0)


def plain_weights(settings: config.Network) -> dict[str, Tensor]:
    module = VGG(settings, (3, 8, 8), 4)
    return {layer.name: module.get_parameter(f"{layer.name}.weight").detach() for layer in module.plan}


@pytest.mark.parametrize("kind", ["full", "binary"])
def test_trains_and_stores_a_plain_network(tmp_path, kind: config.Weights) -> None:
    """The history's accuracy is of the network as stored."""
    recipe = {"form": "foldable", "label_smoothing": 0.1, "clip_norm": 5.0, "averaging": 0.5}
    changed = experiment(
        **{f"{section}__{name}": value for section in ("train", "binarize") for name, value in recipe.items()},
        train__rounding="bfloat16",
        binarize__teacher={"weight": 0.5},
    )
    data = data_set()
    start = train.fit(changed, "full", 0, data, COMPUTE, tmp_path / "full", None).trained
    trained, history, precision = train.fit(changed, kind, 0, data, COMPUTE, tmp_path / kind, start)
    assert precision == COMPUTE.precision
    with torch.no_grad():
        x = Normalise(data.mean, data.std)(data.test.images)  # type: ignore[attr-defined]
        accuracy = (trained.module(x).argmax(1) == data.test.labels).double().mean()
    assert history["test_accuracy"].iloc[-1] == float(accuracy)
    assert accuracy > 0.7
    if kind == "full":
        assert all(torch.equal(w, w.bfloat16().float()) for w in trained.module.state_dict().values())


def evaluated(fabric: Fabric, checkpoints: Path) -> dict[str, Any]:
    """Running means before and after an evaluation, one row per process."""
    settings = experiment(train__form="foldable")
    job = loop.Job(settings, "full", 0, data_set(), TWO, checkpoints, None)
    state = train._state(fabric, job)
    square = state.module.get_buffer("conv1_square")
    square.fill_(1 + fabric.global_rank)
    before = fabric.all_gather(square)
    pauses = stopping.Pauses(fabric, lambda _: checkpoints)
    loop.Loop(fabric, job, state, pauses)._evaluate(0, Running(fabric, 0, 0, None))
    found = {"before": before, "after": fabric.all_gather(square)}
    if fabric.is_global_zero:
        torch.save(found, checkpoints / "means.pt")
    fabric.barrier()
    return {}


def test_all_processes_evaluate_the_network_of_the_first(tmp_path: Path) -> None:
    """Each of two has running means of its own part of a batch; the first one's are stored."""
    processes.run(partial(evaluated, checkpoints=tmp_path), experiment().train, TWO, [])
    found = torch.load(tmp_path / "means.pt")
    assert found["before"].tolist() == [[1.0] * 8, [2.0] * 8]
    assert found["after"].tolist() == [[1.0] * 8, [1.0] * 8]
