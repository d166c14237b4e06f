"""Networks of one's own in the workflow: known by what they are, run like any other, refused where they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from own_for_tests import MODELS, built, content, settings, with_methods, written
from safetensors.torch import save_file
from typer.testing import CliRunner
from workflow_for_tests import checkout, configure, planned, run, snakemake

import bsnn
from bsnn import cli, nir_graph, stages
from bsnn.config import Config, merge, validate
from bsnn.engines import create
from bsnn.errors import ArtifactError, BsnnError, ConfigError
from bsnn.graphs import plain
from bsnn.graphs.reading import from_module
from bsnn.networks import binary, own
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.simulation.run import run as simulated
from bsnn.stages.evaluation import Evaluation


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("models"))


def job_of(config: dict[str, Any], root: Path, weights: str) -> Job:
    return Job.of(validate(config), "mine", weights, 0, 99.0, root=root)


def made(job: Job, *rules: str) -> Job:
    for rule in rules:
        stages.run(rule, job)
    return job


def test_spikes_are_those_of_python(models: Path, tmp_path: Path) -> None:
    job = job_of(settings(models), tmp_path / "results", "binary")
    made(job, "data", "binarize", "activations", "thresholds", "simulate")
    table, _ = job.pipeline.read("simulate", job.place, "spikes")
    predictions, document = job.pipeline.read("simulate", job.place)
    assert document["extra"]["engine"] == "packed"

    source, images = job.source(), job.data_set()
    assert isinstance(source, own.OwnNetwork)
    normalise = bsnn.datasets.Normalise(source.mean, source.std)

    def batches(split: Any, order: torch.Tensor, size: int) -> list[torch.Tensor]:
        return [normalise(some) for some, _ in split.batches(order, size, "cpu")]

    chosen = bsnn.datasets.evenly(len(images.train), 100)
    network = bsnn.to_spiking(source.graph, batches(images.train, chosen, 50), percentile=99.0)
    result = bsnn.simulate(network, batches(images.test, torch.arange(len(images.test)), 256), steps=10)
    assert table["spikes"].to_pylist() == result.simulation.counts.flatten().tolist()
    assert predictions["predicted"].to_pylist() == result.simulation.predicted.tolist()
    assert sum(table["spikes"].to_pylist()) > 0

    nir_graph.write(
        tmp_path / "network.nir", Evaluation(job).converted(bsnn.config.Method(percentile=99.0), 10).network
    )
    again = bsnn.simulate(nir_graph.read(tmp_path / "network.nir"), batches(images.test, torch.arange(9), 9), steps=10)
    assert torch.equal(again.simulation.predicted, result.simulation.predicted[:9])


def test_the_network_is_known_by_what_it_is(models: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(models, elsewhere)
    (elsewhere / "models.py").rename(elsewhere / "other.py")
    (elsewhere / "other.py").write_text(MODELS.replace("self.conv(x)", "(self.conv(x))") + "\n# a remark\n")
    moved = settings(models, module=f"{elsewhere / 'other.py'}:build", weights=str(elsewhere / "binary.safetensors"))
    one, other = (Pipeline(validate(given)) for given in (settings(models), moved))
    place = Place("mine", "binary", 0, 99.0)
    assert one.path("simulate", place) == other.path("simulate", place)
    made(job_of(moved, tmp_path / "results", "binary"), "data", "binarize")

    (elsewhere / "other.py").write_text(MODELS.replace("+ x)", "+ 2 * x)"))
    (tmp_path / "results" / "mine").rename(tmp_path / "results" / "before")
    with pytest.raises(ArtifactError, match=r"have SHA-256 .* experiments\.mine\.network\.content asks for"):
        made(job_of(moved, tmp_path / "results", "binary"), "binarize")


def test_the_users_file_is_run_only_where_the_network_is_read(models: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(models, mine)
    job = made(job_of(settings(mine, "full"), tmp_path / "results", "full"), "data", "train")
    shutil.rmtree(mine)
    made(job, "activations", "thresholds", "simulate")


def test_the_other_kind_of_weights_is_told(models: Path, tmp_path: Path) -> None:
    config = {**settings(models, "full"), "weights": ["binary"]}
    with pytest.raises(ArtifactError, match="its weights are full"):
        made(job_of(config, tmp_path / "results", "binary"), "data", "binarize")


def test_the_summary_counts_bits_and_operations(models: Path) -> None:
    graph = from_module(built(models, "binary"), torch.randn(2, 3, 8, 8))
    assert own.kind(graph) == "binary"
    table = binary.summary(graph).set_index("layer")
    assert table["binary"].to_dict() == {"stem": False, "conv": True, "hidden": True, "last": False}
    assert int(table["weights_1bit"]["conv"]) == 6 * 6 * 9
    assert int(table["macs"]["conv"]) == 6 * 6 * 9 * 16
    assert int(table["macs"]["stem"]) == 6 * 3 * 9 * 16


@pytest.mark.parametrize("target", ["paper", "paper_time", "paper_pooling"])
def test_the_papers_results_are_of_the_family(models: Path, target: str) -> None:
    with pytest.raises(
        ConfigError, match=r"experiments\.mine\.network: the paper's results .* \(latency\), search, early_"
    ):
        Pipeline(validate(settings(models))).target(target)


def test_latency_search_and_early_exit(models: Path, tmp_path: Path) -> None:
    """The binary network, each rule by its jobs; a method's spikes are those of BindsNET; Snakemake finds all done."""
    fitted = {"threshold": "squared-error", "initial": 0.5, "correction": "temporal", "signed": True}
    config = with_methods(models, "binary", fitted=fitted, balanced={"threshold": "balanced", "initial": 0.5})
    folder = checkout(tmp_path / "checkout", config)
    pipeline = Pipeline(validate(config), folder / "results")
    job = made(Job(pipeline, Place("mine", "binary", 0)), "data", "binarize", "activations")
    for rule in ("method", "ideal", "find_switches", "find_exit", "latency_tables", "latency_figures", "exit_results"):
        for place in pipeline.places(rule, "mine"):
            made(Job(pipeline, place), rule)
    assert planned(folder, "latency", "search", "early_exit") == {}
    tables = folder / "results/mine/tables"
    latency = pd.read_csv(tables / "latency.csv")
    assert list(zip(latency["method"], latency["T"], strict=True)) == [
        (name, time) for name in ("baseline", "fitted", "balanced") for time in (2, 6)
    ]
    ideal = pd.read_csv(tables / "latency_ideal.csv")
    assert (ideal["clipping"] + ideal["quantisation"] + ideal["unevenness"]).tolist() == pytest.approx(
        latency["drop"].tolist()
    )
    layers = set(pd.read_csv(tables / "latency_errors.csv")["layer"])
    assert layers == set(job.source().graph.observed)
    search = pd.read_csv(next((folder / "results/mine/binary/seed0").glob("search-*.csv")))
    assert search["what"].tolist()[-2:] == ["chosen, held-out", "chosen, test"]
    assert any("temporal" in switches for switches in search["switches"])
    assert {"held-out", "test"} == set(pd.read_csv(tables / "early_exit.csv")["split"])

    bench = Evaluation(job)
    for name in ("fitted", "balanced"):
        network = bench.converted(pipeline.config.experiments["mine"].latency.method(name), 6).network
        spikes, _ = pipeline.read("method", Place("mine", "binary", 0, method=name, steps=6), "spikes")
        counts = simulated(create("bindsnet", network), bench.batches(), 6).counts
        assert spikes["spikes"].to_pylist() == counts.flatten().tolist()
        assert sum(spikes["spikes"].to_pylist()) > 0


def test_methods_of_full_precision(models: Path, tmp_path: Path) -> None:
    config = with_methods(models, "full", channels={"channels": True}, burst={"burst": 3}, bias={"correction": "bias"})
    job = made(job_of(config, tmp_path / "results", "full"), "data", "train", "activations")
    place = Place("mine", "full", 0)
    spikes = {}
    for name in ("baseline", "channels", "burst", "bias"):
        own_place = place._replace(method=name, steps=6)
        made(Job(job.pipeline, own_place), "method")
        table, _ = job.pipeline.read("method", own_place, "spikes")
        spikes[name] = table["spikes"].to_pylist()
    assert len(set(map(tuple, spikes.values()))) == 4
    made(Job(job.pipeline, place._replace(method="channels")), "ideal")
    made(Job(job.pipeline, place), "find_switches", "find_exit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": ["full", "binary"]}, "is a module, of one kind of weights"),
        ({"seeds": [0, 1]}, "without a seed"),
        ({"compute": {"engine": "triton", "accelerator": "auto"}}, "takes the VGG family only"),
        ({"experiments": {"mine": {"ablation": True}}}, "ablation varies the pools"),
        ({"experiments": {"mine": {"protocol": {"delayed": True}}}}, "a module cannot have delayed"),
        (
            {"experiments": {"mine": {"network": {"module": "models.py"}}}},
            r"mine\.network\.module: expected FILE\.py:FUNCTION",
        ),
        ({"experiments": {"mine": {"network": {"depth": 3}}}}, "unknown key; known here: module, weights, content"),
        ({"experiments": {"tiny": {"network": {"depth": 3}}}}, "unknown key; known here: features, hidden"),
    ],
)
def test_settings_are_checked(models: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(merge(settings(models), changes))


def test_content_that_is_missing_is_said_where_to_be_found(models: Path) -> None:
    config = settings(models)
    del config["experiments"]["mine"]["network"]["content"]
    with pytest.raises(ConfigError, match=r"mine\.network: content is missing; `bsnn read-network"):
        validate(config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "its settings, to be added to experiments.mine"),
        ("tiny", "experiments.tiny.network: names no module"),
        ("other", "there is no experiment 'other'"),
    ],
)
def test_modules_are_read_without_a_content_and_nothing_else(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    config = settings(models)
    del config["experiments"]["mine"]["network"]["content"]
    configure(tmp_path, config)
    monkeypatch.chdir(tmp_path)
    assert message in CliRunner().invoke(cli.app, ["read-network", name]).output


def test_the_description_is_not_that_of_the_network_it_replaces(models: Path) -> None:
    config = merge(settings(models), {"experiments": {"tiny": {"description": "A VGG."}}})
    assert validate(config).experiments["mine"].description == "A network of one's own."
    config = merge(config, {"experiments": {"mine": {"description": "My own."}}})
    assert validate(config).experiments["mine"].description == "My own."
    back = {"experiments": {"again": {"extends": "mine", "network": {"features": [4, "P"], "hidden": []}}}}
    assert validate(merge(config, back)).experiments["again"].description == ""


def test_weights_of_a_wrapped_module_are_told_by_their_prefix(models: Path, tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in built(models, "full").state_dict().items()}
    save_file(state, tmp_path / "wrapped.safetensors")
    with pytest.raises(ArtifactError, match=r"it lacks stem\.weight, .* and \d+ more; .* all its names begin with"):
        own._load(built(models), tmp_path / "wrapped.safetensors")
    save_file({**built(models).state_dict(), "last.bias": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match=r"last\.bias is \[3\] in place of \[10\]"):
        own._load(built(models), tmp_path / "other.safetensors")


def test_weights_load_as_torch_loads_them(models: Path, tmp_path: Path) -> None:
    """Files from before batch norm counted its batches have no such count."""
    state = built(models, "full").state_dict()
    state.pop("norm.num_batches_tracked")
    save_file(state, tmp_path / "older.safetensors")
    module = built(models)
    own._load(module, tmp_path / "older.safetensors")
    assert torch.equal(module.last.weight, state["last.weight"])


@pytest.mark.parametrize("weights", ["full", "binary"])
def test_nir_is_of_the_kind_of_weights_that_was_read(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    config = settings(models, weights)
    configure(folder, config)
    kept = {"full": "train", "binary": "binarize"}[weights]
    made(job_of(config, folder / "results", weights), "data", kept, "activations")
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(cli.app, ["export-nir", "mine", "network.nir"])
    assert done.exit_code == 0, done.output
    assert f"mine, {weights} weights" in done.output


def test_a_module_takes_the_place_of_the_family_and_the_other_way_round(models: Path) -> None:
    back = {"experiments": {"again": {"extends": "mine", "network": {"features": [4, "P"], "hidden": []}}}}
    found: Config = validate(merge(settings(models), back))
    assert found.experiments["mine"].own is not None
    assert found.experiments["again"].family.features == [4, "P"]
    with pytest.raises(ConfigError, match="not of the VGG family"):
        _ = found.experiments["mine"].family


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"module": "{}/models.py:broken"}, r"broken\(\) failed \(RuntimeError: no such cell\)"),
        ({"module": "{}/models.py:nothing"}, "gives a int, expected"),
        ({"module": "{}/models.py:absent"}, "has no function 'absent'"),
        ({"module": "{}/absent.py:build"}, "no such file"),
        ({"weights": "{}/absent.safetensors"}, "no such file"),
        ({"weights": "{}/models.py"}, "not the weights of this network"),
    ],
)
def test_files_that_cannot_be_used_are_told(models: Path, network: dict[str, str], message: str) -> None:
    given = {name: value.format(models) for name, value in network.items()}
    chosen = validate(settings(models, **given)).experiments["mine"].own
    assert chosen is not None
    with pytest.raises(BsnnError, match=message):
        own.read(chosen, torch.randn(8, 3, 8, 8), 10)


def test_descriptions_come_back_from_their_file(models: Path, tmp_path: Path) -> None:
    graph = from_module(built(models), torch.randn(2, 3, 8, 8))
    network = own.OwnNetwork(own.Computed(graph), ("a", "b"), (0.5,) * 3, (0.25,) * 3)
    own.save(tmp_path / "ann.safetensors", network, {"stage": "train"})
    found = own.load(tmp_path / "ann.safetensors", {"stage": "train"})
    assert plain.digest(found.graph) == plain.digest(graph)
    assert (found.classes, found.mean, found.std) == (network.classes, network.mean, network.std)
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(found.module(images), network.module(images))


def test_the_workflow_runs_it_to_the_report(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkout(tmp_path / "checkout", settings(models, content="1" * 64))
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(cli.app, ["read-network", "mine"])
    assert done.exit_code == 0, done.output
    assert "binary weights: conv, hidden; run it with weights=binary" in done.output
    assert f"it is another network than its settings name ({'1' * 64})" in done.output
    found = yaml.safe_load("network:" + done.output.partition("network:")[2])["network"]["content"]
    assert found == content(models, "binary")
    configure(folder, settings(models))
    run(folder)
    assert (folder / "results/mine/report.html").exists()
    text = (folder / "results/mine/tables/accuracy.csv").read_text()
    assert text.count("\n") == 5  # percentiles 99 and 100 at 4 and 8 steps
    assert set(planned(folder, "--config", "percentile=[99,99.5]")) >= {"thresholds", "simulate", "tables"}
    refused = snakemake(folder, "-n", "paper")
    assert refused.returncode
    assert "the paper's results compare pools, recipes and layers" in refused.stdout + refused.stderr
