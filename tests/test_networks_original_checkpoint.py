"""Checkpoints of the original: what comes in is what was written, bit for bit, and what cannot be held is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from networks_for_tests import images, network_settings, trained
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from bsnn import cli, config
from bsnn.errors import ArtifactError
from bsnn.networks import original_checkpoint
from bsnn.networks.binary import summary
from bsnn.networks.vgg import Trained
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import gather

CLASSES = tuple(map(str, range(10)))
NORMALISATION = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


class Reference(nn.Module):
    """A small network laid out as the original's vgg.py lays out its own: two Sequentials, pools before ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.AvgPool2d(2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.AvgPool2d(2),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.1), nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def binarised(reference: nn.Module) -> nn.Module:
    """As the original's training leaves a network for evaluation: alpha * sign in all but the first and last layer."""
    layers = [child for child in reference.modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    for layer in layers[1:-1]:
        weight = layer.weight.data
        weight.sub_(weight.mean(1, keepdim=True)).clamp_(-1, 1)
        alpha = weight.abs().flatten(1).mean(1).reshape(-1, *[1] * (weight.dim() - 1))
        weight.copy_(weight.sign() * alpha)
    return reference


def made(seed: int, binary: bool) -> Reference:
    torch.manual_seed(seed)
    reference = Reference()
    if binary:
        binarised(reference)
    return reference.eval()


def loaded(path: Path, weights: config.Weights, **changes: object) -> Trained:
    network = network_settings(**changes)
    return original_checkpoint.load(path, network, weights, image_size=8, classes=CLASSES, **NORMALISATION)


def parallel(reference: nn.Module) -> dict[str, Tensor]:
    """Names as after `model.features = DataParallel(model.features)`, the original's way."""
    return {name.replace("features.", "features.module."): value for name, value in reference.state_dict().items()}


def whole_parallel(reference: nn.Module) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in reference.state_dict().items()}


SPELLINGS = {
    "bare": lambda reference: reference.state_dict(),
    "state_dict": lambda reference: {"state_dict": reference.state_dict()},
    "parallel features": lambda reference: {"state_dict": parallel(reference), "best_acc": 64.9},
    "parallel": lambda reference: {"epoch": 200, "arch": "vgg", "state_dict": whole_parallel(reference)},
    "parallel, bare": parallel,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("weights", ["full", "binary"])
def test_logits_equal_the_source_network(tmp_path: Path, spelling: str, weights: config.Weights) -> None:
    reference = made(3, weights == "binary")
    torch.save(SPELLINGS[spelling](reference), tmp_path / "model.pth.tar")
    network = loaded(tmp_path / "model.pth.tar", weights)
    batch = images(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(network.module(batch), reference(batch), rtol=1e-5, atol=1e-6)
    assert set(network.signs) == ({"conv2", "conv3", "conv4", "fc1"} if weights == "binary" else set())


def test_sign_and_alpha_are_bit_exact(tmp_path: Path) -> None:
    reference = made(5, True)
    torch.save({"state_dict": parallel(reference)}, tmp_path / "model.pth.tar")
    network = loaded(tmp_path / "model.pth.tar", "binary")
    layers = [child.weight.data for child in reference.modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    for name, weight in zip(("conv2", "conv3", "conv4", "fc1"), layers[1:-1], strict=True):
        rows = weight.flatten(1).numpy()
        assert np.array_equal(network.signs[name].flatten(1).numpy(), np.sign(rows))
        assert np.array_equal(network.alphas[name].numpy(), np.abs(rows).max(1))
        again = network.alphas[name].reshape(-1, *[1] * (weight.dim() - 1)) * network.signs[name]
        assert np.array_equal(again.numpy().view(np.int32), weight.numpy().view(np.int32))


@pytest.mark.parametrize("binary", [True, False])
def test_own_network_comes_back_from_an_exported_checkpoint(tmp_path: Path, binary: bool) -> None:
    source = trained(7, binary=binary)
    original_checkpoint.save(tmp_path / "model.pth.tar", source)
    network = loaded(tmp_path / "model.pth.tar", "binary" if binary else "full")
    batch = images(8, 5)
    assert torch.equal(network.module(batch), source.module(batch))
    assert network.signs.keys() == source.signs.keys()
    for name in source.signs:
        assert torch.equal(network.signs[name], source.signs[name])
        assert torch.equal(network.alphas[name], source.alphas[name])


def test_exported_names_are_those_of_the_original(tmp_path: Path) -> None:
    """The original wraps `features` in DataParallel and loads strictly."""
    source = trained(9, binary=True)
    original_checkpoint.save(tmp_path / "model.pth.tar", source)
    reference = Reference()
    reference.features = nn.DataParallel(reference.features)  # type: ignore[assignment]
    held = torch.load(tmp_path / "model.pth.tar", weights_only=True)["state_dict"]
    reference.load_state_dict(held, strict=True)
    batch = images(10, 4)
    reference.eval()
    with torch.no_grad():
        plain = reference.classifier(reference.features.module(batch).flatten(1))  # type: ignore[operator]
        torch.testing.assert_close(plain, source.module(batch), rtol=1e-5, atol=1e-6)


def test_a_filter_of_zeros_has_alpha_zero() -> None:
    weight = torch.tensor([[0.5, -0.5], [0.0, 0.0]])
    parts = original_checkpoint.split(weight)
    assert parts is not None
    assert parts[0].tolist() == [[1, -1], [1, 1]]
    assert parts[1].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("weight", [[[0.5, -0.5000001]], [[0.5, 0.0]], [[1.0, 1.0], [1.0, 2.0]], [[1.0], [2.0]]])
def test_other_layers_are_not_binary(weight: list[list[float]]) -> None:
    assert original_checkpoint.split(torch.tensor(weight)) is None


def holed(reference: nn.Module) -> nn.Module:
    layers = [child for child in reference.modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    layers[1].weight.data[0, :2, 0, 0] = 0
    return reference


def test_zeros_among_binary_weights_are_refused_as_binary_and_kept_as_full(tmp_path: Path) -> None:
    reference = holed(made(11, True))
    torch.save(reference.state_dict(), tmp_path / "model.pth.tar")
    with pytest.raises(ArtifactError, match=r"zeros among binary weights: conv2 \(2\).*import it as full"):
        loaded(tmp_path / "model.pth.tar", "binary")
    network = loaded(tmp_path / "model.pth.tar", "full")
    held = network.module.get_submodule("conv2").get_parameter("weight")
    assert torch.equal(held, reference.state_dict()["features.3.weight"])


def biased(state: dict[str, Tensor]) -> object:
    return {**state, "features.0.bias": torch.zeros(8)}


def batch_norm(state: dict[str, Tensor]) -> object:
    return {**state, "features.1.num_batches_tracked": torch.tensor(3)}


REFUSED = {
    "bias": (biased, "features.0.bias"),
    "batch norm": (batch_norm, "num_batches_tracked"),
    "NaN": (lambda state: {**state, "features.0.weight": torch.full((8, 3, 3, 3), torch.nan)}, "features.0.weight"),
    "order": (lambda state: dict(reversed(state.items())), "expected: conv1"),
    "fewer": (lambda state: dict(list(state.items())[:-1]), "found: features.0.weight"),
    "list": (lambda state: list(state.values()), "no weights by name"),
    "empty": (lambda state: {"state_dict": {}}, "no weights by name"),
    "code": (lambda state: {"state_dict": state, "args": Path("x")}, "could run code"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    change, words = REFUSED[case]
    path = tmp_path / "model.pth.tar"
    torch.save(change(dict(made(1, False).state_dict())), path)
    with pytest.raises(ArtifactError) as caught:
        loaded(path, "full")
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [0, 10, 3000])
def test_damaged_files_are_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save(made(1, False).state_dict(), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"model\.pth\.tar"):
        loaded(path, "full")
    with pytest.raises(ArtifactError, match="cannot be read"):
        loaded(tmp_path / "none.pth.tar", "full")


def test_real_weights_are_refused_as_binary(tmp_path: Path) -> None:
    torch.save(made(1, False).state_dict(), tmp_path / "model.pth.tar")
    with pytest.raises(ArtifactError, match="no layer is binary"):
        loaded(tmp_path / "model.pth.tar", "binary")
    assert original_checkpoint.kind(tmp_path / "model.pth.tar") == "full"


SETTINGS = {
    "run": ["tiny"],
    "percentile": [99.0],
    "time": [4],
    "compute": {"threads": 1, "accelerator": "cpu", "workers": 0},
    "experiments": {
        "tiny": {
            "data": {"name": "digits", "image_size": 8, "train_images": 100, "test_images": 30},
            "network": {"features": [8, 8, "P", 16, 16, "P"], "hidden": [32]},
            "train": {"epochs": 1, "batch_size": 50, "optimiser": {"lr": 0.05}},
            "binarize": {"epochs": 1, "batch_size": 50, "optimiser": {"name": "adam", "lr": 0.001}},
            "activations": {"images": 50, "batch_size": 25},
            "simulation": {"time": 8},
        }
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, [*arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def told(output: str) -> Mapping[str, object]:
    """Settings that the command says to add."""
    section: Mapping[str, object] = yaml.safe_load(output[output.index("imported:\n") :])
    return section


@pytest.mark.parametrize("weights", ["full", "binary"])
def test_pipeline_goes_on_from_an_imported_checkpoint(folder: Path, weights: config.Weights) -> None:
    """Without any trained network: also the binary one needs no full one."""
    torch.save(made(2, weights == "binary").state_dict(), "model.pth.tar")
    section = told(run("import-checkpoint", "tiny", "model.pth.tar", "--weights", weights))
    changed = config.merge(SETTINGS, {"weights": [weights], "experiments": {"tiny": section}})
    (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    settings = config.load("config.yaml")
    assert Pipeline(settings).path("network", Place("tiny", weights, 0)).exists()
    Path("model.pth.tar").unlink()  # read once, and never again
    run("activations", "tiny", "--weights", weights)
    for stage in ("thresholds", "simulate"):
        run(stage, "tiny", "--percentile", "99.0", "--weights", weights)
    run("tables", "tiny")
    run("figures", "tiny")
    run("report", "tiny")
    source = gather.Source(Pipeline(settings), "tiny")
    assert [outcome.images for outcome in source.simulations.values()] == [30]
    assert len(source.history(weights, 0)[0]) == 0
    run("export-checkpoint", "tiny", "again.pth.tar", "--weights", weights)
    held = torch.load("again.pth.tar", weights_only=True)["state_dict"]
    for (_, found), expected in zip(held.items(), made(2, weights == "binary").state_dict().values(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("weights", ["full", "binary"])
def test_a_network_of_this_project_is_imported_as_well(folder: Path, weights: config.Weights) -> None:
    torch.save(made(2, weights == "binary").state_dict(), "model.pth.tar")
    run("import-checkpoint", "tiny", "model.pth.tar", "--weights", weights)
    [network] = Path("results").rglob("ann-*.safetensors")
    section = told(run("import-checkpoint", "tiny", str(network), "--weights", weights))
    assert section["imported"] == {weights: {"path": str(network), "sha256": original_checkpoint.sha256(network)}}
    settings = config.load("config.yaml", {"experiments": {"tiny": section}})
    kept, again = (load_file(path) for path in (network, Pipeline(settings).path("network", Place("tiny", weights, 0))))
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_another_content_is_refused(folder: Path) -> None:
    torch.save(made(2, False).state_dict(), "model.pth.tar")
    section = told(run("import-checkpoint", "tiny", "model.pth.tar"))
    torch.save(made(3, False).state_dict(), "model.pth.tar")
    changed = config.merge(SETTINGS, {"experiments": {"tiny": section}})
    (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    done = CliRunner().invoke(cli.app, ["train", "tiny"])
    assert done.exit_code == 1
    assert "its SHA-256 is" in done.output


def test_content_counts_for_the_key_and_neither_place_nor_recipe() -> None:
    def keys(path: str, digit: str, epochs: int, weights: config.Weights) -> str:
        section = {"imported": {"full": {"path": path, "sha256": digit * 64}}, "train": {"epochs": epochs}}
        settings = config.validate(config.merge(SETTINGS, {"experiments": {"tiny": section}}))
        return Pipeline(settings).key("network", Place("tiny", weights, 0))

    for weights in ("full", "binary"):
        kind: config.Weights = weights  # type: ignore[assignment]
        assert keys("a", "0", 1, kind) == keys("b", "0", 9, kind)
        assert keys("a", "0", 1, kind) != keys("a", "1", 1, kind)


def test_summary_counts_the_binary_layers(tmp_path: Path) -> None:
    torch.save(made(2, True).state_dict(), tmp_path / "model.pth.tar")
    table = summary(loaded(tmp_path / "model.pth.tar", "binary"))
    assert table["weights_1bit"].tolist() == [0, 8 * 8 * 9, 8 * 16 * 9, 16 * 16 * 9, 64 * 32, 0]
