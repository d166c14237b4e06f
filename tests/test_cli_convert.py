"""`bsnn convert`: the authors' command line on small files in the official layout, and their algorithm written out."""

from __future__ import annotations

import inspect
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from original_for_tests import SMALL, enter, expected, lines, network, run
from PIL import Image
from typer.testing import CliRunner

from bsnn import artifacts, cli, config, tables
from bsnn.cli import convert
from bsnn.errors import ConfigError
from bsnn.networks import original_checkpoint
from bsnn.pipeline.job import Job
from bsnn.stages import convert as stages_convert
from bsnn.stages import train as stages_train

# As it stands in the authors' README, which gives no --time.
SAMPLE = (
    "python conversion.py --job-dir cifar100_test --gpu --dataset cifar100 --data . --percentile 99.9 --norm 3500 "
    "--arch vgg15ab --model bin_cifar100.pth.tar"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter(tmp_path, monkeypatch)


def given(line: str) -> str:
    return line.removeprefix("python conversion.py ")


def test_sample_command_line_of_the_authors() -> None:
    """Word for word except for the program's name, on any machine; against their algorithm written out."""
    output = run(given(SAMPLE))
    found = np.load("cifar100_test/voltage_accuracy_vgg15ab_99.9.npy")
    assert found.dtype == np.float32
    truth = expected(network(True), 99.9, 80)
    assert len(set(truth)) > 10, "says little if accuracy hardly changes"
    assert np.array_equal(np.rint(found * 200), truth)
    ((seed, time, batch, seconds, accuracy),) = lines("cifar100_test/results/sim_result.txt")
    assert (seed, time, batch) == ("0", "80", "100")
    assert float(seconds) > 0
    assert float(accuracy) == pytest.approx(100 * found[-1])
    assert f"SNN accuracy: {100 * found[-1]:.2f}" in output
    assert f"Clock time used: {float(seconds):.4f} s." in output
    with Image.open("cifar100_test/vgg15ab_99.9.png") as picture:
        assert picture.size[0] > 300
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 2


def test_plot_is_the_same_whatever_the_users_style_is(tmp_path: Path) -> None:
    accuracy = np.linspace(0, 1, 30)
    for folder, colour in (("plain", "white"), ("own", "red")):
        with matplotlib.rc_context({"axes.facecolor": colour, "savefig.dpi": 50 if colour == "red" else "figure"}):
            convert._plot(accuracy, "title", tmp_path / folder, "vgg15ab_99.9")
    one, other = (tmp_path / folder / "vgg15ab_99.9.png" for folder in ("plain", "own"))
    assert one.read_bytes() == other.read_bytes()
    with Image.open(one) as picture:
        assert picture.size == (800, 600)
        assert not picture.text, "names a version"


def test_output_comes_late_but_for_one_step() -> None:
    """Nodes after the input: 1 + 2 + 2 + 2 for convolutions and pools, 2 linear: the output sums from step 10 on."""
    run("--job-dir out --model bin_cifar100.pth.tar --data . --time 30 --norm 50")
    late = np.load("out/voltage_accuracy_vgg15ab_99.7.npy")
    made = {path: path.stat().st_mtime_ns for path in Path("out/artifacts").rglob("*.parquet")}
    run("--job-dir out --model bin_cifar100.pth.tar --data . --time 30 --norm 50 --one-step")
    early = np.load("out/voltage_accuracy_vgg15ab_99.7.npy")
    assert np.array_equal(late[9:], early[:-9])
    assert np.all(late[:9] == np.float32(2 / 200))  # class 0, as before any output: two images have it
    assert {path: path.stat().st_mtime_ns for path in Path("out/artifacts").rglob("*.parquet")} == made
    first, second = lines("out/results/sim_result.txt")
    assert float(first[3]) > 0
    assert second[3] == "not run"


@pytest.mark.parametrize("model", ["bin_cifar100.pth.tar", "full.pth.tar"])
def test_same_accuracy_as_the_pipeline_under_protocol_original(model: str) -> None:
    run(f"--job-dir out --model {model} --data . --time 25 --norm 120 --percentile 99.5 --seed 3")
    weights: config.Weights = "binary" if model.startswith("bin") else "full"
    recipe = {"epochs": 3, "optimiser": {"lr": 0.1}}
    experiment = {
        "data": {"name": "cifar100", "path": "."},
        "network": SMALL,
        "train": recipe,
        "binarize": recipe,
        "imported": {weights: {"path": model, "sha256": original_checkpoint.sha256(model)}},
        "activations": {"images": 120},
        "simulation": {"time": 25, "shards": 2},
        "protocol": "original",
    }
    chosen = {"run": "mine", "percentile": 99.5, "time": [10, 25], "seeds": 3, "weights": weights}
    settings = config.validate(
        {**chosen, "compute": {"threads": 1, "batch_size": 33}, "experiments": {"mine": experiment}}
    )
    job = Job.of(settings, "mine", weights, 3, 99.5)
    for stage in (
        stages_train.data,
        stages_train.network,
        stages_convert.activations,
        stages_convert.thresholds,
        stages_convert.simulate,
    ):
        stage(job)
    stages_convert.simulate(Job.of(settings, "mine", weights, 3, 99.5, 2))
    table = tables.collect(job.pipeline, "mine")["accuracy_over_time"]
    found = np.load("out/voltage_accuracy_vgg15ab_99.5.npy")
    assert np.array_equal(found, (table["accuracy"] / 100).to_numpy(np.float32))
    assert float(lines("out/results/sim_result.txt")[0][-1]) == pytest.approx(table["accuracy"].iloc[-1])


def test_partial_last_batch_counts() -> None:
    """200 images in batches of 64: the original left 8 out, and divided by 200 all the same."""
    line = "--job-dir {} --model bin_cifar100.pth.tar --data . --time 20 --norm 50 --batch-size {} --results-file a.csv"
    run(line.format("one", 64))
    run(line.format("two", 100))
    first, second = (np.load(f"{folder}/voltage_accuracy_vgg15ab_99.7.npy") for folder in ("one", "two"))
    assert np.array_equal(first, second)
    assert lines("one/results/a.csv")[0][2] == "64"


def predictions(folder: str) -> pd.DataFrame:
    """What is known of each test image, by its number in the test set."""
    path = next(Path(folder, "artifacts").rglob("predictions-*"))
    return artifacts.read_table(path, "predictions", {})[0].to_pandas().set_index("image")


def test_eval_size_chooses_among_the_images_of_the_whole_test_set() -> None:
    """An image is shown with the crop that it has in the whole test set: the smaller run is a part of the larger."""
    line = "--job-dir {} --model bin_cifar100.pth.tar --data . --time 15 --norm 50 --batch-size 7"
    run(line.format("out") + " --eval_size 30")
    run(line.format("all"))
    found = np.load("out/voltage_accuracy_vgg15ab_99.7.npy")
    assert np.allclose(found * 30, np.rint(found * 30), atol=1e-4)
    some, everything = predictions("out"), predictions("all")
    assert len(some) == 30
    pd.testing.assert_frame_equal(some, everything.loc[some.index], check_index_type=False)


def test_no_line_is_lost_where_two_write_at_once() -> None:
    """Locks of two threads exclude each other as those of two processes do."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: convert._note(Path("out/a.csv"), [number] * 5), range(100)))
    assert sorted(int(line[0]) for line in lines("out/a.csv")) == list(range(100))


DEFAULTS = {
    "results_file": "sim_result.txt",
    "seed": 0,
    "time": 80,
    "batch_size": 100,
    "n_workers": 4,
    "norm": 128,
    "gpu": False,
    "one_step": False,
    "data": Path("./data/"),
    "arch": "vgg15ab",
    "percentile": 99.7,
    "eval_size": -1,
    "dataset": "cifar100",
}


def test_flags_and_defaults_are_those_of_the_original() -> None:
    parameters = inspect.signature(convert.convert).parameters
    assert {name: one.default for name, one in parameters.items() if one.default is not one.empty} == DEFAULTS
    assert [name for name, one in parameters.items() if one.default is one.empty] == ["job_dir", "model"]
    assert [field.name for field in fields(convert.Flags)] == list(parameters)
    shown = CliRunner().invoke(cli.app, ["convert", "-h"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for name in parameters:
        flag = "--eval_size" if name == "eval_size" else f"--{name.replace('_', '-')}"
        assert flag in shown


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"arch": "vgg16"}, "--arch vgg16: unknown architecture"),
        ({"dataset": "mnist"}, "--dataset mnist: unsupported"),
        ({"time": 0}, "--time 0"),
        ({"norm": 0}, "--norm 0"),
        ({"batch_size": -3}, "--batch-size -3"),
        ({"eval_size": 0}, "--eval_size 0"),
        ({"n_workers": -2}, "--n-workers -2"),
    ],
)
def test_faulty_flags_are_refused(flags: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        convert.Flags(Path("out"), Path("full.pth.tar"), **flags)  # type: ignore[arg-type]


def test_data_that_is_not_there_is_named() -> None:
    line = "--job-dir out --model full.pth.tar --dataset imagenet --data nowhere --time 5"
    done = CliRunner().invoke(cli.app, ["convert", *shlex.split(line)])
    assert done.exit_code == 1
    assert "nowhere" in done.output
    assert not Path("out/results").exists()
