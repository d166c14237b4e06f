"""Kill -9 in the midst of a stage: the same command goes on, and the artifacts equal an undisturbed run's."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
from safetensors.torch import load_file
from workflow_for_tests import TINY, checkout, configure, going_on, planned, run, snakemake, start

from bsnn.config import merge, validate
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

LONGER = {"epochs": 40}
CONFIG = merge(
    TINY,
    {"percentile": [99.0], "experiments": {"tiny": {"train": LONGER, "binarize": LONGER, "simulation": {"time": 60}}}},
)


def kill_when(folder: Path, sign: str) -> None:
    """Start the pipeline and kill it, with all its jobs, as soon as a file of this pattern is there."""
    process = start(folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob(sign)):
        assert process.poll() is None, f"ended before {sign} was there"
        assert time.monotonic() < deadline, f"{sign} never came"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def contents(folder: Path, experiment: str = "tiny") -> dict[str, object]:
    """What all artifacts hold, without where and when they were made."""
    found: dict[str, object] = {}
    for path in sorted((folder / "results" / experiment).rglob("*-*.*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = {key: tensor.numpy().tobytes() for key, tensor in load_file(path).items()}
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
            measured = [column for column in ("seconds", "images_per_second") if column in table.column_names]
            found[name] = table.drop_columns(measured).replace_schema_metadata(None).to_pydict()
    return found


def test_killed_runs_go_on_to_the_same_artifacts(tmp_path: Path) -> None:
    undisturbed = checkout(tmp_path / "undisturbed", CONFIG)
    run(undisturbed)
    killed = checkout(tmp_path / "killed", CONFIG)
    kill_when(killed, "results/checkpoints/tiny/full/*/*/*")
    assert not list(killed.glob("results/tiny/full/*/ann-*"))
    kill_when(killed, "results/checkpoints/tiny/binary/*/*/*")
    assert not list(killed.glob("results/tiny/binary/*/ann-*"))
    kill_when(killed, "logs/activations/tiny/*.log")
    assert len(list(killed.glob("results/tiny/*/*/activations-*"))) < 2
    kill_when(killed, "logs/simulate/tiny/*.log")
    assert len(list(killed.glob("results/tiny/*/*/*/predictions-*"))) < 2
    run(killed)
    assert planned(killed) == {}
    assert contents(killed) == contents(undisturbed)
    assert len(contents(killed)) == 13
    assert not list((killed / "results/tiny").rglob("*.tmp"))


def test_damaged_artifact_is_named_with_its_remedy(finished_tiny: Path, tmp_path: Path) -> None:
    folder = going_on(tmp_path / "damaged", merge(TINY, {"percentile": [99.5]}), finished_tiny)
    [table] = folder.glob("results/tiny/full/*/activations-*")
    table.write_bytes(table.read_bytes()[:1000])
    done = snakemake(folder, "--cores", "2", "threshold_tables")
    assert done.returncode != 0
    assert (
        f"{table.relative_to(folder)}: damaged, of an earlier revision, or not written by bsnn: it has no"
        in done.stdout + done.stderr
    )
    assert f"snakemake {table.relative_to(folder)}" in done.stdout + done.stderr
    assert not list(folder.glob("results/tiny/full/*/*99.5/thresholds-*"))
    table.unlink()
    run(folder, "threshold_tables")


def test_data_that_are_not_there_are_told_before_anything_runs(tmp_path: Path) -> None:
    """Only where the data set is to be made: not for other experiments, and not beside finished artifacts."""
    missing = merge(TINY["experiments"]["tiny"], {"data": {"name": "folder", "path": "pictures"}})
    settings = merge(TINY, {"weights": ["full"], "experiments": {"missing": missing}})
    folder = checkout(tmp_path / "checkout", settings)
    assert planned(folder, "networks") == {"data": 1, "train": 1}
    configure(folder, settings | {"run": ["missing"]})
    done = snakemake(folder, "-n", "networks")
    assert done.returncode == 1
    assert f"experiments.missing.data.path: {folder}/pictures does not exist" in done.stdout + done.stderr
    pipeline = Pipeline(validate(settings), folder / "results")
    touch(pipeline.path("data", Place("missing")))
    assert planned(folder, "networks") == {"train": 1}
    touch(
        pipeline.path("network", Place("missing", "full", 0)),
        pipeline.path("network", Place("missing", "full", 0), "history"),
    )
    pipeline.path("data", Place("missing")).unlink()
    assert planned(folder, "networks") == {}


def touch(*pipeline: Path) -> None:
    for path in pipeline:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
