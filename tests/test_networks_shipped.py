"""Networks that come with the repository: kept with a card, listed, loaded, imported, and read by plain PyTorch."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from bsnn import config, provenance, reference
from bsnn.cli import app
from bsnn.errors import ArtifactError
from bsnn.networks import files, shipped
from bsnn.pipeline.job import Job
from bsnn.pipeline.stage import Place
from bsnn.stages import train as stages
from bsnn.training import folding

NAME = "tiny"
REPOSITORY = Path(__file__).resolve().parent.parent


def settings(**changes: Any) -> config.Config:
    recipe = {"epochs": 1, "batch_size": 64, "optimiser": {"lr": 0.01}, "form": "foldable"}
    experiment = {
        "data": {"name": "digits", "image_size": 8, "train_images": 200, "test_images": 60},
        "network": {"features": [4, 6, "P", 8, "P"], "hidden": [10], "dropout": 0.0},
        "train": {**recipe, "rounding": "bfloat16"},
        "binarize": recipe,
        "simulation": {"time": 4},
        **changes,
    }
    raw = {"run": [NAME], "percentile": 99.0, "time": 4, "compute": {"accelerator": "cpu", "threads": 1}}
    return config.validate({**raw, "experiments": {NAME: experiment}})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """The folder of results, and the kept networks by kind."""
    root = tmp_path_factory.mktemp("results")
    kept = {}
    for weights in ("full", "binary"):
        job = Job.of(settings(), NAME, weights=weights, root=root)  # type: ignore[arg-type]
        if weights == "full":
            stages.data(job)
        stages.network(job)
        kept[weights] = reference.keep_network(job, root / "reference")
    return root, kept


@pytest.mark.parametrize("weights", ["full", "binary"])
def test_card_says_what_the_network_is(made, weights: config.Weights) -> None:
    root, kept = made
    assert kept[weights] == root / "reference" / NAME / "networks" / f"{weights}.safetensors"
    [card] = [card for card in shipped.cards(root / "reference") if card.weights == weights]
    assert (card.experiment, card.seed, card.test_images, card.epochs) == (NAME, 0, 60, 1)
    assert card.precision in ("32-true", "bf16-mixed")
    assert card.bytes == kept[weights].stat().st_size
    [epoch] = pd.read_csv(kept[weights].with_name(f"{weights}_history.csv")).to_dict("records")
    assert (epoch["epoch"], epoch["test_accuracy"]) == (1, card.test_accuracy)
    assert card.network["features"] == [4, 6, "P", 8, "P"]
    assert "CC BY 4.0" in card.data["licence"]
    assert "path" not in card.data
    assert card.hardware["cpu"]


@pytest.mark.parametrize("weights", ["full", "binary"])
def test_loads_as_it_was_trained(made, weights: config.Weights) -> None:
    root, _ = made
    job = Job.of(settings(), NAME, weights=weights, root=root)
    trained = shipped.load(NAME, weights, root / "reference")
    original = files.load(job.pipeline.path("network", Place(NAME, weights, 0)), job.experiment.network)
    assert all(torch.equal(w, original.module.state_dict()[name]) for name, w in trained.module.state_dict().items())
    assert bool(trained.signs) == (weights == "binary")


def test_rounded_weights_take_two_bytes(made) -> None:
    root, kept = made
    weights = sum(layer.weights for layer in shipped.load(NAME, "full", root / "reference").plan)
    notes = 6000
    assert 2 * weights < kept["full"].stat().st_size < 2 * weights + notes


def test_file_of_another_content_is_refused(made, tmp_path: Path) -> None:
    root, kept = made
    place = shipped.path(NAME, "binary", tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(kept["full"].read_bytes())
    place.with_suffix(".json").write_text(kept["binary"].with_suffix(".json").read_text())
    with pytest.raises(ArtifactError, match=r"its SHA-256 is not that of its card; bring the file back"):
        shipped.load(NAME, "binary", tmp_path)
    with pytest.raises(
        ArtifactError, match=r"no shipped network 'other' with full weights; there are: tiny \(binary\)"
    ):
        shipped.load("other", "full", tmp_path)
    place.with_suffix(".json").write_text("{")
    with pytest.raises(ArtifactError, match=r"is no network's card.*bring it back"):
        shipped.cards(tmp_path)
    assert root.exists()


def test_file_that_is_gone_is_to_come_back(made, tmp_path: Path) -> None:
    _, kept = made
    place = shipped.path(NAME, "binary", tmp_path)
    place.parent.mkdir(parents=True)
    place.with_suffix(".json").write_text(kept["binary"].with_suffix(".json").read_text())
    with pytest.raises(ArtifactError, match=r"binary.safetensors: no such file, .*with: git checkout .*safetensors$"):
        shipped.load(NAME, "binary", tmp_path)


def test_network_that_does_not_say_its_precision_is_not_kept(tmp_path: Path) -> None:
    """Its key may be older than the note."""
    job = Job.of(settings(), NAME, root=tmp_path)
    stages.data(job)
    stages.train(job)
    path = job.pipeline.path("network", job.place)
    trained = files.load(path, job.experiment.network)
    files.save(path, trained, job.pipeline.identity("network", job.place), {"test_accuracy": 0.5})
    with pytest.raises(ArtifactError, match=r"does not say in which precision it was trained.*delete it and train"):
        reference.keep_network(job, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_network_of_another_experiment_is_kept_there_alone(made, tmp_path: Path) -> None:
    root, _ = made
    plain = settings().model_dump(mode="json", exclude_unset=True)
    plain["experiments"]["other"] = {"extends": NAME, "networks_of": NAME}
    job = Job.of(config.validate(plain), "other", root=root)
    with pytest.raises(ArtifactError, match=r"other: its networks are those of tiny; .* bsnn keep-network tiny"):
        reference.keep_network(job, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def imported(file: Path, weights: config.Weights) -> config.Config:
    digest = json.loads(file.with_suffix(".json").read_text())["sha256"]
    return settings(imported={weights: {"path": str(file), "sha256": digest}})


def test_experiment_starts_from_a_shipped_network(made, tmp_path: Path, monkeypatch) -> None:
    """No training; the same weights, under another key."""
    root, kept = made
    job = Job.of(imported(kept["binary"], "binary"), NAME, weights="binary", root=tmp_path)
    stages.data(job)
    monkeypatch.setattr("bsnn.training.train.fit", None)
    stages.network(job)
    path = job.pipeline.path("network", Place(NAME, "binary", 0))
    assert path.name != Job.of(settings(), NAME, root=root).pipeline.path("network", Place(NAME, "binary", 0)).name
    trained = files.load(path, job.experiment.network)
    before = shipped.load(NAME, "binary", root / "reference")
    assert all(torch.equal(w, before.module.state_dict()[name]) for name, w in trained.module.state_dict().items())
    with pytest.raises(ArtifactError, match="was imported; keep it under the one it is from"):
        reference.keep_network(job, tmp_path / "reference")


@pytest.mark.parametrize(
    ("weights", "changes", "message"),
    [
        ("full", {}, r"its kind is binary, but experiments\.tiny has full"),
        ("binary", {"data": {"name": "digits", "image_size": 8, "mean": [0.5] * 3}}, r"its mean is \(0\.\d+.*\(0\.5,"),
        ("binary", {"network": {"features": [4, 7, "P", 8, "P"], "hidden": [10]}}, r"conv2\.sign"),
    ],
)
def test_network_that_does_not_suit_is_refused(
    made, tmp_path: Path, weights: config.Weights, changes: dict[str, Any], message: str
) -> None:
    _, kept = made
    given = {weights: {"path": str(kept["binary"]), "sha256": shipped.sha256(kept["binary"])}}
    job = Job.of(settings(imported=given, **changes), NAME, weights=weights, root=tmp_path)
    stages.data(job)
    with pytest.raises(ArtifactError, match=rf"{message}.*; change the settings, or give experiments\.tiny\.imp"):
        stages.network(job)
    assert not job.pipeline.path("network", Place(NAME, weights, 0)).exists()


def begun(file: Path, digest: str) -> config.Config:
    recipe = settings().experiments[NAME].train.model_dump(exclude_unset=True)
    return settings(train={**recipe, "start": {"path": str(file), "sha256": digest}})


def test_training_starts_from_a_shipped_network(made, tmp_path: Path, monkeypatch, caplog) -> None:
    """Which counts by its content, not by its place."""
    _, kept = made
    digest, given = shipped.sha256(kept["full"]), {}

    def fit(*_: object, start: object, **__: object) -> None:
        given["start"] = start
        raise InterruptedError

    monkeypatch.setattr("bsnn.training.train.fit", fit)
    job = Job.of(begun(kept["full"], digest), NAME, root=tmp_path)
    stages.data(job)
    with pytest.raises(InterruptedError):
        stages.train(job)
    expected = files.load(kept["full"], job.experiment.network).module.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in given["start"].module.state_dict().items())

    assert "its filters are not centred" not in caplog.text
    monkeypatch.setattr(folding, "share_of_means", lambda network: 0.1)
    with pytest.raises(InterruptedError):
        stages.train(job)
    assert "its filters are not centred, and train.form foldable centres them: their means, up to 10 %" in caplog.text

    def key(changed: config.Config) -> str:
        return Job.of(changed, NAME, root=tmp_path).pipeline.path("network", job.place).name

    keys = [key(begun(kept["full"], digest)), key(begun(Path("elsewhere"), digest)), key(settings())]
    keys.append(key(begun(kept["full"], "0" * 64)))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3

    job = Job.of(begun(kept["full"], "0" * 64), NAME, root=tmp_path)
    with pytest.raises(ArtifactError, match=r"its SHA-256 is .*experiments\.tiny\.train\.start asks for 000"):
        stages.train(job)
    job = Job.of(begun(kept["binary"], shipped.sha256(kept["binary"])), NAME, root=tmp_path)
    with pytest.raises(ArtifactError, match=r"kind is binary.*or give experiments\.tiny\.train\.start another file"):
        stages.train(job)


def test_command_lists_them(made) -> None:
    root, _ = made
    result = CliRunner().invoke(app, ["networks", "--folder", str(root / "reference")])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[:2] for line in lines] == [[NAME, "binary"], [NAME, "full"]]
    assert all("of 60 test images" in line for line in lines)
    [line] = [line for line in lines if " full " in line]
    assert f"hours on {provenance.cpu_model()}" in line


def test_command_names_gpus(made, tmp_path: Path) -> None:
    root, _ = made
    card = shipped.cards(root / "reference")[0]
    on = {"cpu": "Some CPU", "cores": 4, "gpus": ["Some GPU", "Some GPU"]}
    place = shipped.path(NAME, card.weights, tmp_path).with_suffix(".json")
    place.parent.mkdir(parents=True)
    place.write_text(replace(card, hardware=on).text)
    result = CliRunner().invoke(app, ["networks", "--folder", str(tmp_path)])
    assert "hours on Some CPU, Some GPU  " in result.output


# ---- plain PyTorch


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """examples/evaluate_shipped.py."""
    found = importlib.util.spec_from_file_location("plain", REPOSITORY / "examples" / "evaluate_shipped.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("weights", ["full", "binary"])
def test_plain_pytorch_reads_the_format(made, plain: ModuleType, weights: config.Weights) -> None:
    root, kept = made
    trained = shipped.load(NAME, weights, root / "reference")
    module, mean, std = plain.network(kept[weights])
    images = torch.randn(5, *trained.input_shape)
    torch.testing.assert_close(module(images), trained.module(images), rtol=1e-4, atol=1e-5)
    assert (tuple(mean.tolist()), tuple(std.tolist())) == (
        pytest.approx(trained.mean),
        pytest.approx(trained.std),
    )


@pytest.mark.parametrize("card", shipped.cards(), ids=lambda card: f"{card.experiment}-{card.weights}")
def test_shipped_networks_load_and_suit_their_experiments(card: shipped.Card, plain: ModuleType) -> None:
    trained = shipped.load(card.experiment, card.weights)
    file = shipped.path(card.experiment, card.weights)
    module, *_ = plain.network(file)
    images = torch.randn(2, *trained.input_shape)
    torch.testing.assert_close(module(images), trained.module(images), rtol=1e-3, atol=1e-3)
    starts = [
        given
        for experiment in config.load(REPOSITORY / "config.yaml").experiments.values()
        for given in (experiment.imported.of(card.weights), card.weights == "full" and experiment.train.start)
        if given and (REPOSITORY / given.path).resolve() == file
    ]
    assert starts
    assert {given.sha256 for given in starts} == {card.sha256}
