"""What a user of `snakemake` sees outside a terminal: few lines, the answer at their end, complete errors, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from workflow_for_tests import TINY, checkout, snakemake, start

from bsnn.config import merge


def said(folder: Path, *arguments: str) -> list[str]:
    """Lines of both streams of a run that ends well; what it was for stands at the end of standard output."""
    done = snakemake(folder, "--cores", "2", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [*done.stderr.splitlines(), *done.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("console") / "checkout", TINY)


def test_lines_of_a_first_run_a_percentile_and_a_time(folder: Path) -> None:
    first = said(folder)
    assert len(first) <= 40
    assert any(line.startswith("runs: 1 data set, 2 networks, 2 activation tables") for line in first)
    assert not any(line.startswith("reused") for line in first)
    assert first[-1] == "report: results/tiny/report.html"
    assert [line.split()[:2] for line in first if line.startswith(("full  ", "binary  "))] == [
        ["full", "99"],
        ["full", "100"],
        ["binary", "99"],
        ["binary", "100"],
    ]
    log = next((folder / "logs/train/tiny").glob("*.log")).read_text()
    assert "epoch 3/3" in log  # not on the console, but kept
    assert not list((folder / "logs").rglob("*.progress"))

    percentile = said(folder, "--config", "percentile=99.5")
    assert len(percentile) <= 20
    assert any(line.startswith("runs: 2 threshold tables, 2 simulations, 1 set of tables") for line in percentile)
    assert "reused: 1 data set, 2 networks, 2 activation tables" in percentile
    [choice] = [line for line in percentile if line.startswith("Binary weights: percentile 99.5 and T = ")]
    accuracy, low, high = map(
        float, re.search(r"([\d.]+) % \(95 % interval ([\d.]+) to ([\d.]+)\) with", choice).groups()
    )
    assert low <= accuracy <= high

    time_alone = said(folder, "--config", "time=4")
    assert len(time_alone) <= 15
    assert any(line.startswith("runs: 1 set of tables, 1 set of figures, 1 report") for line in time_alone)
    reused = next(line for line in time_alone if line.startswith("reused"))
    assert reused == "reused: 1 data set, 2 networks, 2 activation tables, 4 threshold tables, 4 simulations"

    again = said(folder, "--config", "time=4")
    assert "nothing to run: all files are there" in again
    assert again[-1] == "report: results/tiny/report.html"

    dry = snakemake(folder, "-n", "--config", "percentile=98.5").stdout
    assert "would run: 2 threshold tables, 2 simulations" in dry
    assert "report:" not in dry

    one = ("simulations", "--config", "percentile=98.5", "weights=binary")
    loud = snakemake(folder, "--cores", "2", "--verbose", *one).stderr
    assert "localrule simulate:" in loud
    assert "engine packed" in loud  # a job's own messages

    [table] = folder.glob("results/tiny/full/*/activations-*")
    table.write_bytes(table.read_bytes()[:1000])
    failed = snakemake(folder, "--cores", "2", "--config", "percentile=98.7")
    assert failed.returncode == 1
    assert "Error in rule thresholds" in failed.stderr
    assert (
        f"{table.relative_to(folder)}: damaged, of an earlier revision, or not written by bsnn: it has no"
        in failed.stderr
    )
    assert "all of Snakemake's messages: /" in failed.stderr
    assert "report:" not in failed.stdout


def test_a_key_of_the_settings_that_stands_twice_is_refused(folder: Path) -> None:
    twice = folder / "twice.yaml"
    twice.write_text("time: [4]\ntime: [2]\n")
    done = snakemake(folder, "-n", "--configfile", str(twice))
    assert done.returncode == 1
    assert f"{twice}, line 2: the key 'time' stands twice, first in line 1; remove one of them" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_a_training_the_next_run_goes_on_and_sigterm_keeps_it_too(tmp_path: Path) -> None:
    longer = {"experiments": {"tiny": {"train": {"epochs": 5000}}}}
    folder = checkout(tmp_path / "checkout", merge(TINY, longer))
    process = start(folder, "networks", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("results/checkpoints/tiny/full/*/*/*.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline, "training never began"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert text.splitlines()[-1].startswith("stopping: finished files and checkpoints of trainings are kept")
    assert list(folder.glob("results/checkpoints/tiny/full/*/*/*.step-*.safetensors"))
    assert "Error" not in text
    assert "going on" not in text

    again = start(folder, "networks", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    limit = threading.Timer(120, os.killpg, (again.pid, signal.SIGKILL))
    limit.start()
    assert again.stdout is not None
    told = next((line for line in again.stdout if "going on" in line), "")
    again.send_signal(signal.SIGTERM)  # to Snakemake alone, which hands it on
    rest = again.stdout.read()
    assert again.wait() == 1
    limit.cancel()
    epoch = r"going on after epoch \d+ of 5000 and \d+ steps of the next"
    assert re.fullmatch(rf"train tiny, full precision, seed 0: {epoch}\n", told)
    stopping, complete = rest.splitlines()
    assert stopping.startswith("stopping: trainings keep a checkpoint, other jobs that run are finished")
    assert complete.startswith("all of Snakemake's messages: ")
    [job] = folder.glob("logs/train/tiny/*.log")
    assert "error: stopped by SIGTERM after" in job.read_text()
