"""What reruns after which change: asserted exactly, on a pipeline that really ran."""

import base64
import copy
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images_for_tests import tree
from workflow_for_tests import RESULTS, TINY, checkout, configure, planned, run, snakemake

from bsnn.config import merge, validate
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.notes import MADE
from bsnn.pipeline.stage import Place
from bsnn.pipeline.workflow import SHOWN

BOTH = {"thresholds": 4, "simulate": 4}
ONE_KIND = {"thresholds": 2, "simulate": 2}
EVERYTHING = {"train": 1, "binarize": 1, "activations": 2, **BOTH, **RESULTS}


@pytest.fixture
def scratch(finished_tiny: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    shutil.copytree(finished_tiny, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def tiny(**sections: object) -> dict[str, Any]:
    return {"experiments": {"tiny": sections}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"percentile": 99.5}, {**ONE_KIND, **RESULTS}, id="percentile changed"),
        pytest.param({"percentile": [99.0, 99.5, 100.0]}, {**ONE_KIND, **RESULTS}, id="percentile added"),
        pytest.param({"percentile": 99.0}, RESULTS, id="percentile dropped"),
        pytest.param({"time": 5}, RESULTS, id="reported time"),
        pytest.param(tiny(simulation={"time": 12}), {"simulate": 4, **RESULTS}, id="simulated time"),
        pytest.param(
            tiny(binarize={"epochs": 4}),
            {"binarize": 1, "activations": 1, **ONE_KIND, **RESULTS},
            id="binary recipe",
        ),
        pytest.param(tiny(train={"epochs": 4}), EVERYTHING, id="full-precision recipe"),
        pytest.param(tiny(network={"hidden": [20]}), EVERYTHING, id="network"),
        pytest.param({"seeds": [0, 1]}, EVERYTHING, id="seed added"),
        pytest.param({"seeds": [1]}, EVERYTHING, id="seed changed"),
        pytest.param({"weights": ["full"]}, RESULTS, id="kind dropped"),
        pytest.param(tiny(data={"test_images": 40}), {"data": 1, **EVERYTHING}, id="data"),
        pytest.param(tiny(data={"path": "elsewhere"}), {}, id="path of verified data"),
        pytest.param({"compute": {"batch_size": 7, "memory_mib": 100, "threads": 2}}, {}, id="resources"),
    ],
)
def test_changed_settings(scratch: Path, changes: dict[str, Any], expected: dict[str, int]) -> None:
    configure(scratch, merge(TINY, changes))
    assert planned(scratch) == expected


def test_changes_on_the_command_line(finished_tiny: Path) -> None:
    assert planned(finished_tiny, "--config", "percentile=99.5") == {**ONE_KIND, **RESULTS}
    assert planned(finished_tiny, "--config", "time=5") == RESULTS
    assert planned(finished_tiny) == {}


def test_reordered_and_respelled_settings(scratch: Path) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: turned(value[name]) for name in reversed(value)}
        return value

    configure(scratch, turned(TINY))
    text = (scratch / "config.yaml").read_text()
    (scratch / "config.yaml").write_text("# a comment\n" + text.replace("0.05", "5.0e-2"))
    assert planned(scratch) == {}


def test_touched_and_edited_sources(scratch: Path) -> None:
    for name in (
        "bsnn/training/train.py",
        "bsnn/simulation/run.py",
        "workflow/scripts/stage.py",
        "workflow/rules/convert.smk",
    ):
        path = scratch / name
        path.write_text(path.read_text() + "\n# a comment\n")
    for path in [*(scratch / "workflow/scripts").iterdir(), *(scratch / "results").rglob("data/*")]:
        os.utime(path)
    assert planned(scratch) == {}


def test_back_to_an_old_setting(scratch: Path) -> None:
    run(scratch, "--config", "percentile=99.5", "time=8")
    assert planned(scratch, "--config", "percentile=99.5", "time=8") == {}
    assert planned(scratch) == RESULTS


def test_lost_intermediate_files_are_not_missed(scratch: Path) -> None:
    for path in (scratch / "results").rglob("activations-*.parquet"):
        path.unlink()
    assert planned(scratch) == {}
    assert planned(scratch, "--config", "percentile=99.5") == {"activations": 2, **ONE_KIND, **RESULTS}


def command(*words: str) -> Callable[[Path, Path], None]:
    def copy_results(source: Path, target: Path) -> None:
        subprocess.run([*words, f"{source}/results", str(target)], check=True)

    return copy_results


def rsync_like(source: Path, target: Path) -> None:
    """What `rsync -r` leaves: contents in order of name, all file times new."""
    for path in sorted((source / "results").rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


COPIES = {
    "cp -r": command("cp", "-r"),
    "cp -a": command("cp", "-a"),
    "rsync -r": command("rsync", "-r") if shutil.which("rsync") else rsync_like,
}


@pytest.mark.parametrize("way", COPIES)
def test_fresh_clone_with_all_results(finished_tiny: Path, tmp_path: Path, way: str) -> None:
    clone = checkout(tmp_path / "clone", TINY)
    COPIES[way](finished_tiny, clone)
    assert planned(clone) == {}
    assert planned(clone, "--config", "percentile=99.5") == {**ONE_KIND, **RESULTS}
    configure(clone, merge(TINY, tiny(binarize={"epochs": 4})))
    assert planned(clone) == {"binarize": 1, "activations": 1, **ONE_KIND, **RESULTS}


@pytest.mark.parametrize(
    "way", [name if name == "cp -r" else pytest.param(name, marks=pytest.mark.slow) for name in COPIES]
)
def test_fresh_clone_with_some_results(finished_tiny: Path, tmp_path: Path, way: str) -> None:
    clone = checkout(tmp_path / "clone", TINY)
    COPIES[way](finished_tiny, clone)
    results = clone / "results"
    for path in [*results.rglob("predictions-*"), *results.rglob("spikes-*"), *results.rglob("thresholds-*")]:
        path.unlink()
    for folder in ("tables", "figures"):
        shutil.rmtree(results / "tiny" / folder)
    (results / "tiny" / "report.html").unlink()
    assert planned(clone) == {**BOTH, **RESULTS}
    for path in results.rglob("binary/**/ann-*"):
        path.unlink()
    for path in results.rglob("binary/**/activations-*"):
        path.unlink()
    assert planned(clone) == {"binarize": 1, "activations": 1, **BOTH, **RESULTS}


def test_a_folder_of_images_may_move_and_may_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by its files, wherever it lies. Files stand in for a run's artifacts."""
    here, elsewhere = (merge(TINY, tiny(data={"name": "folder", "path": path})) for path in ("a", "b"))
    folder = checkout(tmp_path / "clone", here)
    tree(folder / "a")
    monkeypatch.chdir(folder)
    networks = {"data": 1, "train": 1, "binarize": 1}
    assert planned(folder, "networks") == networks
    pipeline = Pipeline(validate(here))
    for stage, weights in (("data", "full"), ("train", "full"), ("binarize", "binary")):
        for path in pipeline.files(stage, Place("tiny", weights, 0)):  # type: ignore[arg-type]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert planned(folder, "networks") == {}
    (folder / "a").rename(folder / "b")
    configure(folder, elsewhere)
    assert planned(folder, "networks") == {}
    (folder / "b/train/cat/0.jpg").rename(folder / "b/train/dog/3.jpg")
    assert planned(folder, "networks") == networks


def test_results_whose_job_was_not_seen_to_end_are_whole(scratch: Path) -> None:
    """Snakemake was killed after a file was written, before it noted so: the file is kept, and the rest is made."""
    [table] = scratch.glob("results/tiny/full/seed0/activations-*")
    mark = scratch / ".snakemake/incomplete" / base64.b64encode(str(table.relative_to(scratch)).encode()).decode()
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    for path in [*scratch.glob("results/tiny/full/seed0/p*/*"), *scratch.glob("results/tiny/tables/*")]:
        path.unlink()
    for path in [*scratch.glob("results/tiny/figures/*"), scratch / "results/tiny/report.html"]:
        path.unlink()
    assert planned(scratch) == {**ONE_KIND, **RESULTS}


def test_two_experiments_at_once(finished_tiny: Path, tmp_path: Path) -> None:
    """Each sees its own staleness, however Snakemake looks through the folders."""
    clone = checkout(tmp_path / "clone", TINY)
    COPIES["cp -a"](finished_tiny, clone)
    shutil.copytree(clone / "results/tiny", clone / "results/other")
    configure(clone, merge(TINY, {"run": ["tiny", "other"], "experiments": {"other": {"extends": "tiny"}}}))
    twice = {rule: 2 * count for rule, count in {**ONE_KIND, **RESULTS}.items()}
    assert planned(clone, "--config", "percentile=99.5") == twice


def test_foreign_key_is_refused(finished_tiny: Path) -> None:
    path = "results/tiny/full/seed0/activations-000000000000.parquet"
    done = snakemake(finished_tiny, "-n", path)
    assert done.returncode != 0
    assert "does not belong to the current settings" in done.stdout + done.stderr


def test_invalid_settings_stop_before_any_job(scratch: Path) -> None:
    for changes, words in [
        ({"percentile": "99,9"}, "percentile: Input should be a valid number"),
        ({"time": 11}, "simulates 10"),
        ({"tiem": 5}, "tiem: unknown key; is 'time' meant?"),
    ]:
        configure(scratch, merge(copy.deepcopy(TINY), changes))
        done = snakemake(scratch, "--cores", "1")
        assert done.returncode != 0
        assert words in done.stdout + done.stderr


def test_lost_results_are_made_again(scratch: Path) -> None:
    """Files at plain names are vouched for by notes, which go by a second name after a loss, and by the first again."""
    for _ in range(2):
        (scratch / "results/tiny/figures/rates.svg").unlink()
        assert planned(scratch) == {"figures": 1}
        run(scratch)
        assert (scratch / "results/tiny/figures/rates.svg").is_file()
        assert len(list((scratch / "results/tiny/figures").glob("results-*.json"))) == 1
        assert planned(scratch) == {}


def test_questions_write_nothing(scratch: Path) -> None:
    def contents() -> dict[str, tuple[int, bytes]]:
        files = [path for path in (scratch / "results").rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = contents()
    for settings in (TINY, merge(TINY, {"time": 5, "percentile": 99.5, "seeds": [0, 1]})):
        configure(scratch, settings)
        for question in ("-n", "--lint", "--list-rules"):
            done = snakemake(scratch, question)
            assert done.returncode == 0, done.stdout + done.stderr
    assert contents() == before


def test_every_file_at_a_plain_name_is_declared(finished_tiny: Path) -> None:
    """One that is not could be lost without being missed, and could not be asked for."""
    folder = finished_tiny / "results/tiny"
    plain = [path for name in (".", "tables", "figures") for path in (folder / name).iterdir() if path.is_file()]
    names = {str(path.relative_to(folder)) for path in plain if not re.search(MADE + r"\.json$", path.name)}
    own = {name for name, (stage, _) in SHOWN.items() if stage in RESULTS}
    assert names == own


def test_files_that_are_there_are_made_again_by_force(scratch: Path) -> None:
    """With all that depends on them; and a job that is forced finds what it reads."""
    assert planned(scratch, "-F") == {"data": 1, **EVERYTHING}
    assert planned(scratch, "--forcerun=activations") == {"activations": 2, **BOTH, **RESULTS}
    [path] = scratch.glob("results/tiny/full/seed0/activations-*.parquet")
    before = path.stat().st_mtime_ns
    run(scratch, "--forcerun=activations")
    assert path.stat().st_mtime_ns > before
    assert planned(scratch) == {}


def test_files_are_asked_for_by_their_names(scratch: Path) -> None:
    report, table = "results/tiny/report.html", "results/tiny/tables/training.csv"
    assert planned(scratch, report, table) == {}
    assert planned(scratch, table, "--config", "time=5") == {"tables": 1, "shown": 1}
    assert planned(scratch, report, "--config", "percentile=99.5") == {**ONE_KIND, **RESULTS, "shown": 1}
    (scratch / table).unlink()
    assert planned(scratch, table) == {"tables": 1, "shown": 1}
    before = (scratch / report).read_text()
    run(scratch, table, report, "--config", "time=5")
    assert (scratch / table).is_file()
    assert (scratch / report).read_text() != before
    assert planned(scratch, report, "--config", "time=5") == {}
    assert planned(scratch, report) == {**RESULTS, "shown": 1}
    for wrong, message in (("tables/other.csv", "MissingRule"), ("paper/pooling.csv", "has no result 'pooling'")):
        done = snakemake(scratch, "-n", f"results/tiny/{wrong}")
        assert done.returncode != 0
        assert message in done.stdout + done.stderr


def test_report_of_snakemake(finished_tiny: Path, tmp_path: Path) -> None:
    """Tables, figures and report of the current settings; none of others."""
    for settings, there in (((), True), (("--config", "time=5"), False)):
        path = tmp_path / f"{there}.zip"
        done = snakemake(finished_tiny, "--report", str(path), *settings)
        assert done.returncode == 0, done.stdout + done.stderr
        with zipfile.ZipFile(path) as archive:
            text = "".join(archive.read(name).decode() for name in archive.namelist() if name.endswith("report.html"))
        assert all((name in text) == there for name in ("accuracy.csv", "accuracy_over_time.svg", "rates.png"))
