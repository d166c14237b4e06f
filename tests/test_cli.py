"""Commands for people: help in groups, what differs from the defaults, an artifact in a sentence, estimates."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import artifacts_for_tests as small
import pytest
import yaml
from typer.testing import CliRunner, Result

from bsnn import config
from bsnn.cli import GROUPS, app
from bsnn.errors import ConfigError
from bsnn.pipeline import estimates
from bsnn.pipeline.costs import Expected, closure, costs, to_text
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one experiment that runs, another one, and finished artifacts of the first."""
    monkeypatch.chdir(tmp_path)
    chosen = small.settings(weights=["binary"])
    plain = chosen.model_dump(mode="json", exclude_defaults=True)
    other = {**plain["experiments"][small.NAME], "simulation": {"time": 9}}
    plain["experiments"]["other"] = other
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    small.write_all(chosen, tmp_path / "results", small.random_truth())
    return tmp_path


def test_every_command_is_in_a_group() -> None:
    assert [command.name for command in app.registered_commands] == [
        name for group in GROUPS.values() for name in group
    ]
    text = run("--help").output
    assert [group for group in GROUPS if group in text] == list(GROUPS)


def test_check_shows_what_runs_and_differs(folder: Path) -> None:
    short, long = run("check"), run("check", "--all")
    assert short.exit_code == long.exit_code == 0
    shown = yaml.safe_load(short.output)
    assert config.validate(shown).experiments[small.NAME] == config.load("config.yaml").experiments[small.NAME]
    assert set(shown["experiments"]) == {small.NAME}
    assert "compute" not in shown
    assert "# other experiments: other" in short.output
    every = yaml.safe_load(long.output)
    assert set(every["experiments"]) == {small.NAME, "other"}
    assert every["compute"]["threads"] == 2
    changed = yaml.safe_load(run("check", "--set", "compute.threads=3").output)
    assert changed["compute"] == {"threads": 3}


def test_describe_begins_with_a_sentence(folder: Path) -> None:
    [path] = Path("results").glob("*/binary/seed0/p99/thresholds-*")
    first, empty, brace, *_ = run("describe", str(path)).output.splitlines()
    assert first.startswith(
        f"{path}: the thresholds of a spiking network (data digits, seed 0, binary weights, percentile 99)"
    )
    assert (empty, brace) == ("", "{")


def test_describe_advises_what_can_be_done(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The pipeline can make one again, but neither a file of other settings nor one that lies elsewhere."""
    [path] = Path("results").glob("*/binary/seed0/p99/thresholds-*")
    for lost, possible in (
        (path, True),
        (path.with_name("thresholds-0123456789ab.parquet"), False),
        (Path("x.parquet"), False),
    ):
        lost.write_bytes(b"PAR1 and no more")
        done = run("describe", str(lost))
        said = done.output + capfd.readouterr().err
        assert done.exit_code == 1
        assert "damaged" in said
        assert (f"snakemake {lost}" in said) == possible
        assert ("no setting of config.yaml asks for such a file" in said) != possible


def test_describe_is_of_artifacts_alone(capfd: pytest.CaptureFixture[str]) -> None:
    done = run("describe", "results/none/report.html")
    assert done.exit_code == 1
    assert "no such file, and only .parquet and .safetensors artifacts" in done.output + capfd.readouterr().err
    done = run("describe", "results/digits/tables/none.csv")
    assert "none.csv: no such file" in done.output + capfd.readouterr().err


def test_experiment_comes_first_everywhere() -> None:
    for group in GROUPS.values():
        for name, command in group.items():
            parameters = list(inspect.signature(command).parameters)
            assert "experiment" not in parameters or parameters[0] == "experiment", name
    usage = run("import-checkpoint", "--help").output.lower()
    assert usage.index("experiment") < usage.index("file")


@pytest.mark.parametrize("steps", ["0", "-3"])
def test_nir_takes_one_step_or_more(folder: Path, steps: str) -> None:
    """Also of a method that is not fitted to its steps."""
    done = run("export-nir", small.NAME, "network.nir", "--steps", steps)
    assert done.exit_code == 2
    assert "--steps" in done.output


@pytest.mark.parametrize("method", ["srp", "cos", "delayed-readout"])
def test_nir_has_no_read_out_that_leaves_steps_out(
    folder: Path, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    done = run("export-nir", small.NAME, "network.nir", "--method", method)
    assert done.exit_code == 1
    assert f"method '{method}' leaves out first steps of the read-out" in done.output + capfd.readouterr().err
    assert not Path("network.nir").exists()


def test_misspelled_target_gets_a_suggestion(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no target 'latancy'; is 'latency' meant"):
        Pipeline(config.load("config.yaml")).target("latancy")


def experiment(**changes: Any) -> config.Config:
    return config.validate(
        config.merge(small.settings(weights=["binary"]).model_dump(mode="json"), {"experiments": {small.NAME: changes}})
    )


def test_operations_by_hand() -> None:
    """3 channels of 8 x 8 to 4, pooled to 4 x 4, then 64 to 6 and 6 to 10; the network's own count of products."""
    macs = 27 * 4 * 64 + 64 * 6 + 60
    pipeline = Pipeline(experiment(data={"train_images": 100, "test_images": 50}))
    place = Place(small.NAME, "binary", 0, 99.0)
    assert estimates.operations(pipeline, "train", place) == 3 * 100 * 2 * macs
    assert estimates.operations(pipeline, "simulate", place) == 50 * 4 * macs
    assert estimates.operations(pipeline, "activations", place) == 100 * macs
    assert estimates.operations(pipeline, "tables", place) is None
    taught = Pipeline(experiment(data={"train_images": 100}, binarize={"teacher": {"weight": 0.5, "temperature": 2.0}}))
    assert estimates.operations(taught, "binarize", place) == 4 * 100 * 2 * macs
    given = Pipeline(experiment(imported={"binary": {"path": "binary.safetensors", "sha256": "0" * 64}}))
    assert estimates.operations(given, "binarize", place) is None  # read, not trained


def test_measured_jobs_come_before_estimates(tmp_path: Path) -> None:
    """Of the experiment itself; long ones of others set the speed."""
    chosen = experiment()
    double = config.merge(
        chosen.model_dump(mode="json"),
        {"experiments": {"twice": chosen.experiments[small.NAME].model_dump(mode="json")}},
    )
    double["experiments"]["twice"]["train"]["epochs"] = 4
    pipeline = Pipeline(config.validate(double))
    one, two = Place(small.NAME, "full"), Place("twice", "full")
    expected = estimates.operations(pipeline, "train", one)
    assert expected is not None
    assert Expected(pipeline, tmp_path).seconds("train", one) == pytest.approx(expected / estimates.RATES["train"])
    file = tmp_path / "train" / small.NAME / "seed0.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("s\tmax_rss\n400\t100\n")
    assert Expected(pipeline, tmp_path).seconds("train", one) == 400
    assert Expected(pipeline, tmp_path).seconds("train", two) == pytest.approx(800)
    file.write_text("s\tmax_rss\n4\t100\n")  # too short to say anything about another
    assert Expected(pipeline, tmp_path).seconds("train", two) == pytest.approx(2 * expected / estimates.RATES["train"])


def test_a_closed_pipe_ends_quietly(folder: Path) -> None:
    """As in `bsnn check --all | head -1`."""
    command = [sys.executable, "-c", "from bsnn.cli import main; main()", "check", "--all"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 141)


def test_every_process_takes_some_seconds(tmp_path: Path) -> None:
    """What computes next to nothing too; what computes, and is not known, stays unknown."""
    place = Place(small.NAME, "binary", 0, 99.0)
    given = {"imported": {"binary": {"path": "binary.safetensors", "sha256": "0" * 64}}}
    own = experiment().model_dump(mode="json")
    own["experiments"][small.NAME]["network"] = {"module": "m.py:f", "weights": "w.safetensors", "content": "0" * 64}
    for chosen, rule, expected in (
        (experiment(), "tables", estimates.START),
        (experiment(), "train", estimates.START),  # of operations for less
        (experiment(**given), "binarize", estimates.START),
        (config.validate(own), "binarize", estimates.START),
        (config.validate(own), "simulate", None),
        (experiment(), "data", estimates.START),
        (experiment(data={"name": "cifar10", "image_size": 32}), "data", None),  # fetched
        (experiment(), "find_switches", None),  # simulates as often as it takes
    ):
        assert Expected(Pipeline(chosen), tmp_path).whole(rule, place) == expected


def test_plan_names_its_estimates(tmp_path: Path) -> None:
    text = to_text(costs(Pipeline(experiment(), tmp_path / "results"), tmp_path))
    assert "times estimated (the recipe's operations, and 5 s or more for each process), never measured: " in text
    assert f"simulate of {small.NAME}" in text
    assert "not measured yet" not in text
    searched = to_text(costs(Pipeline(experiment(), tmp_path / "results"), tmp_path, "search"))
    assert f"not measured yet, and in no sum: find_switches of {small.NAME}" in searched


def test_plan_and_console_estimate_the_same(tmp_path: Path) -> None:
    """Seconds of all jobs, each of which takes a process's start at least."""
    pipeline = Pipeline(experiment(), tmp_path / "results")
    found = costs(pipeline, tmp_path)
    expected = Expected(pipeline, tmp_path)
    seconds = sum(expected.whole(*one) or 0.0 for one in closure(pipeline, "all"))
    assert sum(cost.hours or 0.0 for cost in found) * 3600 == pytest.approx(seconds)
    assert seconds >= estimates.START * sum(cost.to_do for cost in found)
