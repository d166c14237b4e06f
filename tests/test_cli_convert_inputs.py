"""`bsnn convert` takes what the original takes, and says in its own flags what it cannot take."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from original_for_tests import Vgg, enter, expected, lines, network, run
from test_networks_original_checkpoint import parallel
from typer.testing import CliRunner

from bsnn import cli
from bsnn.cli import convert
from bsnn.datasets import cifar, download

LINE = "--job-dir out --model bin_cifar100.pth.tar --data . --time 20 --norm 50"
ACCURACY = "out/voltage_accuracy_vgg15ab_{}.npy"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter(tmp_path, monkeypatch)


def told(line: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["convert", *shlex.split(line)])
    return done.exit_code, f"{done.output} {done.exception}"


@pytest.mark.parametrize("change", ["--batch-size 50", "--one-step", ""])
def test_seconds_are_those_of_this_run_or_none(change: str) -> None:
    output = run(LINE)
    (first,) = lines("out/results/sim_result.txt")
    assert f"Clock time used: {float(first[3]):.4f} s." in output
    output = run(f"{LINE} {change}")
    assert "Clock time used: not run, simulated before." in output
    assert first[3] not in output
    assert lines("out/results/sim_result.txt")[1][3] == "not run"


def with_a_zero(source: Vgg) -> None:
    source.features[3].weight.data[2, :3, 1, 1] = 0  # type: ignore[index, union-attr]


def with_a_dead_filter(source: Vgg) -> None:
    source.features[6].weight.data[4] = 0  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_a_zero, "zeros among binary weights: features.3.weight (3)"),
        (with_a_dead_filter, "filters of zeros alone: features.6.weight (1)"),
    ],
)
def test_zeros_among_binary_weights_are_converted_as_by_the_original(
    change: Callable[[Vgg], None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = network(True)
    change(source)
    torch.save({"state_dict": parallel(source)}, "bin_cifar100.pth.tar")
    run("--job-dir out --model bin_cifar100.pth.tar --data . --time 60 --percentile 99.9 --norm 3500")
    assert words in caplog.text
    assert "converted with real weights" in caplog.text
    truth = expected(source, 99.9, 60)
    assert len(set(truth)) > 10, "says little if accuracy hardly changes"
    difference = np.rint(np.load(ACCURACY.format(99.9)) * 200) - truth
    assert np.abs(difference).max() <= 1, "float32 sums may move a spike, and with it one image"


@pytest.mark.parametrize("percentile", [99.98765, pytest.param(85.55, marks=pytest.mark.slow), 99.9999999])
def test_percentiles_of_any_decimals(percentile: float) -> None:
    run(f"--job-dir out --model bin_cifar100.pth.tar --data . --time 60 --norm 3500 --percentile {percentile}")
    found = np.load(ACCURACY.format(percentile))
    difference = np.rint(found * 200) - expected(network(True), percentile, 60)
    assert np.abs(difference).max() <= 1, "a threshold's last bits may move one image"


def test_a_percentile_on_the_grid_needs_no_other_pass_after_one_beside_it() -> None:
    for percentile, tables in ((99.9, 1), (99.98765, 2), (99.5, 2), (99.98765, 2)):
        run(f"{LINE} --percentile {percentile}")
        assert len(list(Path("out/artifacts").rglob("activations-*"))) == tables


def test_options_may_be_abbreviated_as_argparse_has_it() -> None:
    run("--job out --mod bin_cifar100.pth.tar --data . --ti 9 --nor 50 --perc=99.5 --one --eval 20 --results a.csv")
    assert lines("out/results/a.csv")[0][:2] == ["0", "9"]
    assert np.load(ACCURACY.format(99.5)).shape == (9,)


@pytest.mark.parametrize(
    ("given", "words"),
    [("--n 5", "--n is ambiguous: --n-workers, --norm"), ("--dat .", "--dat is ambiguous: --data, --dataset")],
)
def test_ambiguous_and_unknown_options_are_refused(given: str, words: str) -> None:
    code, output = told(f"--job-dir out --model full.pth.tar {given}")
    assert code == 2
    assert words in " ".join(output.replace("│", " ").split())
    assert told("--job-dir out --model full.pth.tar --gpus")[0] == 2


def test_what_follows_two_dashes_and_values_stay_as_they_are() -> None:
    known = ["--time", "--data", "--dataset"]
    assert convert.in_full(["--ti=--da", "-d", "--data", "--", "--ti"], known) == [
        *("--time=--da", "-d", "--data", "--", "--ti")
    ]


def test_without_a_network_the_advice_names_this_commands_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = cifar.SETS["cifar100"]
    monkeypatch.setitem(cifar.SETS, "cifar100", cifar.Cifar(**{**vars(spec), "url": "http://127.0.0.1:9/archive.tgz"}))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    code, output = told("--job-dir out --model full.pth.tar --data nowhere")
    assert code == 1
    assert "put archive.tgz into a folder and set --data to that folder" in output
    assert "data.path" not in output


def test_settings_without_a_flag_are_said_to_be_elsewhere(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "a.png").write_bytes(b"?")
    code, output = told("--job-dir out --model full.pth.tar --data images --dataset imagenet")
    assert code == 1
    assert "data.labels" in output
    assert "settings of config.yaml, under protocol `original`" in output


def test_a_damaged_artifact_is_made_again_by_this_command() -> None:
    run(LINE)
    [table] = Path("out/artifacts").rglob("thresholds-*")
    table.write_bytes(table.read_bytes()[:-1])
    next(Path("out/artifacts").rglob("predictions-*")).unlink()
    code, output = told(LINE)
    assert code == 1
    assert f"{table}: damaged" in output
    assert "; delete it and run this command again" in output
    assert "snakemake" not in output
    table.unlink()
    run(LINE)
    assert len(lines("out/results/sim_result.txt")) == 2
