"""Binarisation: XNOR-Net's gradient, latents, policy, summary, and the packed artifact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from modules_for_tests import enlarging
from networks_for_tests import VGG15, images, network_settings, trained
from safetensors.torch import save_file
from torch.nn import functional as F

from bsnn import artifacts, config
from bsnn.errors import ArtifactError, BsnnError, ConfigError
from bsnn.graphs.reading import from_module
from bsnn.networks import binary, files
from bsnn.networks.files import pack, unpack
from bsnn.networks.vgg import VGG, Trained

IDENTITY = {"stage": "binarize", "version": 1}


def recipe(**changes: object) -> config.Binarize:
    return config.Binarize.model_validate({"epochs": 1, "optimiser": {"lr": 1e-3}, **changes})


def binarised(seed: int = 0, **changes: object) -> tuple[VGG, list[str]]:
    torch.manual_seed(seed)
    module = VGG(network_settings(), (3, 8, 8), 10)
    return module, binary.prepare(module, recipe(**changes))


def xnor_gradient(latent: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """XNOR-Net's gradient without its constant factor, written out: alpha * 1(|W| <= 1) * g + sign(W) * sum / n."""
    axes = tuple(range(1, latent.dim()))
    count = latent[0].numel()
    signs = torch.where(latent >= 0, 1.0, -1.0).double()
    alpha = latent.abs().sum(axes, keepdim=True) / count
    inside = (latent.abs() <= 1).double()
    return alpha * inside * gradient + signs * ((signs * gradient).sum(axes, keepdim=True) / count)


@pytest.mark.parametrize("shape", [(64, 64, 3, 3), (16, 8, 3, 3), (5, 3, 3, 3), (128, 512), (7, 11)])
@pytest.mark.parametrize("spread", [0.02, 0.6])
def test_gradient_equals_xnor_nets_to_the_last_bit(shape: tuple[int, ...], spread: float) -> None:
    generator = torch.Generator().manual_seed(len(shape) * shape[0])
    latent = torch.randn(shape, dtype=torch.float64, generator=generator) * spread
    latent = (latent - latent.mean(1, keepdim=True)).clamp(-1, 1).requires_grad_()
    size = (6, shape[1], 5, 5) if len(shape) == 4 else (6, shape[1])
    inputs = torch.randn(size, dtype=torch.float64, generator=generator)
    operation = F.conv2d if len(shape) == 4 else F.linear

    operation(inputs, binary.BinaryWeight()(latent)).square().sum().backward()

    with torch.no_grad():
        axes = tuple(range(1, latent.dim()))
        alpha = latent.abs().mean(axes, keepdim=True)
        weight = (alpha * torch.where(latent >= 0, 1.0, -1.0)).double()
    weight.requires_grad_()
    operation(inputs, weight).square().sum().backward()
    assert weight.grad is not None
    assert latent.grad is not None
    assert torch.equal(latent.grad, xnor_gradient(latent.detach(), weight.grad))


def test_forward_and_gradient_by_hand() -> None:
    latent = torch.tensor([[0.5, -0.25, 0.0, -0.25], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    weight = binary.BinaryWeight()(latent)
    assert weight.tolist() == [[0.25, -0.25, 0.25, -0.25], [0.0, 0.0, 0.0, 0.0]]
    assert binary.sign(latent.detach()).tolist() == [[1, -1, 1, -1], [1, 1, 1, 1]]

    weight.backward(torch.tensor([[1.0, 2.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
    # alpha 1/4, sum of sign * g = 1 - 2 + 0 - 4 = -5, n = 4; |W| has slope 0 at 0
    assert latent.grad is not None
    assert latent.grad[0].tolist() == [0.25 - 1.25, 0.5 + 1.25, 0.0, 1.0 + 1.25]


def test_projection_centres_over_input_channels_and_clips_in_place() -> None:
    module, names = binarised()
    latents = binary.latents(module)
    assert list(latents) == names == ["conv2", "conv3", "conv4", "fc1"]
    with torch.no_grad():
        latents["fc1"].mul_(20)
    before = {name: latent.detach().numpy().copy() for name, latent in latents.items()}
    places = {name: latent.data_ptr() for name, latent in latents.items()}
    full = {name: module.get_parameter(f"{name}.weight").clone() for name in ("conv1", "fc2")}

    binary.project_(module)

    for name, latent in latents.items():
        expected = np.clip(before[name] - before[name].mean(axis=1, keepdims=True), -1, 1)
        np.testing.assert_allclose(latent.detach().numpy(), expected, rtol=0, atol=1e-6)
        assert latent.data_ptr() == places[name]
    assert latents["fc1"].detach().abs().max() == 1
    assert all(torch.equal(module.get_parameter(f"{name}.weight"), weight) for name, weight in full.items())


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (["first", "last"], ["conv2", "conv3", "conv4", "fc1"]),
        (["first"], ["conv2", "conv3", "conv4", "fc1", "fc2"]),
        (["last"], ["conv1", "conv2", "conv3", "conv4", "fc1"]),
        ([], ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]),
    ],
)
def test_policy(keep: list[str], expected: list[str]) -> None:
    module, names = binarised(keep_full=keep)
    assert names == expected
    for layer in module.plan:
        values = module.get_submodule(layer.name).weight.detach()
        magnitudes = {len(row.abs().unique()) for row in values.flatten(1)}
        assert (magnitudes == {1}) == (layer.name in expected)


def test_a_network_without_a_binary_layer_is_refused() -> None:
    module = VGG(network_settings(features=[4], hidden=[]), (3, 8, 8), 10)
    with pytest.raises(ConfigError, match="keep_full"):
        binary.prepare(module, recipe())


def test_evaluating_changes_nothing() -> None:
    module, _ = binarised()
    module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    first = module(images(1, 4))
    second = module(images(1, 4))
    assert torch.equal(first, second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_parts_are_the_forward_weights() -> None:
    module, names = binarised()
    binary.project_(module)
    signs, alphas = binary.parts(module)
    for name in names:
        forward = module.get_submodule(name).weight.detach()
        alpha = alphas[name].reshape(-1, *[1] * (forward.dim() - 1))
        assert torch.equal(alpha * signs[name], forward)
        assert set(signs[name].unique().tolist()) == {-1, 1}


def vgg15() -> Trained:
    """VGG-15 of the CIFAR-100 shape; its signs are all 1, and its real weights are not set: only shapes matter."""
    with torch.device("meta"):
        module = VGG(network_settings(features=VGG15, hidden=[4096]), (3, 32, 32), 100)
    module.to_empty(device="cpu")
    shapes = {layer.name: module.get_parameter(f"{layer.name}.weight").shape for layer in module.plan[1:-1]}
    signs = {name: torch.ones(shape, dtype=torch.int8) for name, shape in shapes.items()}
    alphas = {name: torch.empty(shape[0]) for name, shape in shapes.items()}
    return Trained(module, tuple(map(str, range(100))), (0.5,) * 3, (0.25,) * 3, signs, alphas)


def test_summary_of_vgg15_has_the_published_sizes() -> None:
    table = binary.summary(vgg15())
    assert table["layer"].tolist() == [*(f"conv{n}" for n in range(1, 14)), "fc1", "fc2"]
    weights = table["weights_1bit"].sum() + table["weights_32bit"].sum()
    assert round(weights / 1e6, 1) == 17.2
    assert round(table["macs"].sum() / 1e9, 3) == 0.316
    assert round(100 * table["weights_1bit"].sum() / weights, 1) == 97.6
    assert round(100 * table["macs"][table["binary"]].sum() / table["macs"].sum(), 1) == 99.3
    assert round(4 * weights / 1e6, 1) == 68.9
    assert round(table["memory_bytes"].sum() / 1e6, 2) == 3.75
    assert table["scale_bytes"].sum() == 4 * (64 + 2 * 128 + 3 * 256 + 6 * 512 + 4096)


def test_summary_by_hand() -> None:
    first, second, *_, last = binary.summary(trained(0)).to_dict("records")
    assert first == {
        "layer": "conv1",
        "weights_1bit": 0,
        "weights_32bit": 8 * 3 * 9,
        "memory_bytes": 4 * 8 * 3 * 9,
        "scale_bytes": 0,
        "macs": 8 * 3 * 9 * 64,
        "binary": False,
    }
    assert second == {
        "layer": "conv2",
        "weights_1bit": 8 * 8 * 9,
        "weights_32bit": 0,
        "memory_bytes": 8 * 9,
        "scale_bytes": 4 * 8,
        "macs": 8 * 8 * 9 * 64,
        "binary": True,
    }
    assert (last["weights_32bit"], last["macs"]) == (320, 320)
    assert binary.summary(trained(0, binary=False))["weights_1bit"].sum() == 0


def test_signs_that_were_added_up_take_more_than_a_bit() -> None:
    torch.manual_seed(0)
    table = binary.summary(from_module(enlarging(), torch.randn(2, 3, 8, 8))).set_index("layer")
    assert table.loc["4", ["weights_1bit", "weights_32bit", "memory_bytes", "binary"]].tolist() == [0, 24, 96, False]


@given(st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=40))
def test_packing_is_one_bit_a_weight_and_comes_back(values: list[int]) -> None:
    sign = torch.tensor(values, dtype=torch.int8)
    bits = pack(sign)
    assert len(bits) == -(-len(values) // 8)
    assert torch.equal(unpack(bits, (len(values),)), sign)


def test_packing_by_hand() -> None:
    sign = torch.tensor([[1, -1, -1, 1, 1], [-1, -1, -1, 1, -1]], dtype=torch.int8)
    assert pack(sign).tolist() == [0b10011000, 0b10000000]


@pytest.mark.parametrize(("kind", "keep_full"), [("full", True), ("binary", True), ("binary", False)])
def test_artifact_loads_back_to_the_same_bits(tmp_path, kind: str, keep_full: bool) -> None:
    source = trained(3, binary=kind == "binary", keep_full=keep_full)
    path = tmp_path / "ann.safetensors"
    files.save(path, source, IDENTITY, {"test_accuracy": 0.5})
    loaded = files.load(path, network_settings())

    batch = images(4, 16)
    with torch.no_grad():
        assert torch.equal(loaded.module(batch), source.module(batch))
    assert (loaded.classes, loaded.mean, loaded.std) == (source.classes, source.mean, source.std)
    assert (loaded.input_shape, loaded.module.training) == ((3, 8, 8), False)
    assert set(loaded.signs) == set(source.signs)
    for layer in source.plan:
        (expected, alpha), (found, found_alpha) = source.weight(layer.name), loaded.weight(layer.name)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
        assert (alpha is None) == (found_alpha is None)
        assert alpha is None or found_alpha is None or torch.equal(found_alpha, alpha)
    assert artifacts.describe(path)["extra"]["test_accuracy"] == 0.5


def test_artifact_takes_one_bit_a_binary_weight(tmp_path) -> None:
    source = trained(3)
    path = tmp_path / "ann.safetensors"
    files.save(path, source, IDENTITY, {})
    tensors, _ = artifacts.read_tensors(path, "network")
    stored = sum(tensor.nbytes for tensor in tensors.values())
    table = binary.summary(source)
    assert stored == table["memory_bytes"].sum() + table["scale_bytes"].sum()
    assert tensors["conv1.weight"].dtype == tensors["fc2.weight"].dtype == torch.float32


def test_loading_draws_no_random_numbers(tmp_path) -> None:
    files.save(tmp_path / "ann.safetensors", trained(3), IDENTITY, {})
    before = torch.get_rng_state()
    files.load(tmp_path / "ann.safetensors", network_settings())
    assert torch.equal(torch.get_rng_state(), before)


def _nan(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    tensors["conv1.weight"][0, 0, 0, 0] = float("nan")


def _infinite_alpha(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    tensors["conv2.alpha"][3] = float("inf")


def _negative_alpha(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    tensors["conv2.alpha"][3] = -0.5


def _shape(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    tensors["fc2.weight"] = tensors["fc2.weight"][:, :-1].contiguous()


def _few_bits(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    tensors["fc1.sign"] = tensors["fc1.sign"][:-1].contiguous()


def _type(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    tensors["conv1.weight"] = tensors["conv1.weight"].double()


def _missing_layer(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    del tensors["conv3.sign"], tensors["conv3.alpha"]


def _missing_alpha(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    del tensors["conv3.alpha"]


def _another_layer(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    tensors["conv9.weight"] = torch.zeros(2, 2)


def _no_classes(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    del extra["classes"]


def _two_sizes(tensors: dict[str, torch.Tensor], extra: dict[str, object]) -> None:
    extra["input_shape"] = [3, 8]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_nan, "conv1.weight holds NaN"),
        (_infinite_alpha, "conv2.alpha holds NaN or infinity"),
        (_negative_alpha, "conv2.alpha holds negative"),
        (_shape, r"fc2.weight is torch.float32 \(10, 31\), expected torch.float32 or torch.bfloat16 \(10, 32\)"),
        (_few_bits, "fc1.sign is torch.uint8"),
        (_type, "conv1.weight is torch.float64"),
        (_missing_layer, "layer conv3"),
        (_missing_alpha, "layer conv3"),
        (_another_layer, "conv9.weight"),
        (_no_classes, "classes"),
        (_two_sizes, "input_shape"),
    ],
)
def test_wrong_networks_are_refused(tmp_path, spoil, message: str) -> None:
    path = tmp_path / "ann.safetensors"
    files.save(path, trained(3), IDENTITY, {})
    tensors, found = artifacts.read_tensors(path, "network")
    spoil(tensors, found["extra"])
    artifacts.write_tensors(path, tensors, "network", IDENTITY, found["extra"])
    with pytest.raises(ArtifactError, match=message) as caught:
        files.load(path, network_settings())
    assert str(path) in str(caught.value)


def test_foreign_and_damaged_files_are_refused(tmp_path) -> None:
    path = tmp_path / "ann.safetensors"
    with pytest.raises(ArtifactError, match="no such file"):
        files.load(path, network_settings())
    save_file({"conv1.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(ArtifactError, match="not written by bsnn"):
        files.load(path, network_settings())
    artifacts.write_tensors(path, {"x": torch.zeros(1)}, "images", IDENTITY)
    with pytest.raises(ArtifactError, match="holds 'images'"):
        files.load(path, network_settings())
    files.save(path, trained(3), IDENTITY, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="damaged"):
        files.load(path, network_settings())


def test_another_members_settings_are_refused(tmp_path) -> None:
    path = tmp_path / "ann.safetensors"
    files.save(path, trained(3), IDENTITY, {})
    with pytest.raises(ArtifactError, match=r"conv1\.weight"):
        files.load(path, network_settings(features=[4, 8, "P", 16, 16, "P"]))


def test_weights_that_are_not_finite_are_not_written(tmp_path) -> None:
    source = trained(3)
    source.module.get_parameter("fc2.weight").data[0, 0] = float("inf")
    with pytest.raises(BsnnError, match=r"fc2\.weight"):
        files.save(tmp_path / "ann.safetensors", source, IDENTITY, {})
    assert list(tmp_path.iterdir()) == []
