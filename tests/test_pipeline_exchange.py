"""A common folder: another checkout trains nothing, and takes nothing that is damaged or mislabelled."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import artifacts_for_tests as small
import pandas as pd
import pyarrow.parquet as pq
import pytest
from images_for_tests import imagenet
from test_imagenet import settings as of_folder
from test_workflow_faults import contents
from workflow_for_tests import RESULTS, TINY, checkout, environment, planned, run

from bsnn import artifacts, config
from bsnn.config import merge
from bsnn.errors import ArtifactError
from bsnn.pipeline import exchange
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.stages import train as stages_train

CONFIG = merge(TINY, {"percentile": [99.0]})
SETTINGS = config.validate(CONFIG)
PIPELINE = Pipeline(SETTINGS, Path())
ARTIFACTS = 14  # data, summary; of each kind of network: weights, history, activations, thresholds, predictions, spikes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = checkout(tmp_path_factory.mktemp("finished"), CONFIG)
    run(folder, "simulations")
    return folder


@pytest.fixture(scope="module")
def common(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("common")
    assert len(exchange.share(SETTINGS, folder, finished / "results")) == ARTIFACTS
    return folder


def bsnn(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "from bsnn.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(folder), check=True)
    return done.stdout + done.stderr


def test_second_checkout_trains_nothing(finished: Path, common: Path, tmp_path: Path) -> None:
    clone = checkout(tmp_path / "clone", merge(TINY, {"percentile": [99.0, 99.5]}))
    assert f"{ARTIFACTS} artifacts fetched" in bsnn(clone, "fetch", str(common))
    assert planned(clone) == {"thresholds": 2, "simulate": 2, **RESULTS}
    assert contents(clone) == contents(finished)


def test_nothing_is_copied_twice(finished: Path, common: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in common.rglob("*-*.*")}
    assert exchange.share(SETTINGS, common, finished / "results") == []
    assert exchange.fetch(SETTINGS, common, finished / "results") == []
    assert {path: path.stat().st_mtime_ns for path in common.rglob("*-*.*")} == before


def flip_a_byte(path: Path) -> None:
    """In the numbers themselves."""
    content, place = bytearray(path.read_bytes()), -1
    if path.suffix == ".parquet":
        column = pq.read_metadata(path).row_group(0).column(0)
        place = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
    content[place] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [flip_a_byte, cut])
@pytest.mark.parametrize(
    "which",
    [PIPELINE.path("network", Place("tiny", "full", 0)), PIPELINE.path("activations", Place("tiny", "full", 0))],
    ids=str,
)
def test_damaged_artifacts_are_passed_over_and_mended(
    finished: Path,
    common: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    which: Path,
    damage: Callable[[Path], None],
) -> None:
    folder = tmp_path / "common"
    shutil.copytree(common, folder)
    damage(folder / which)
    fetched = exchange.fetch(SETTINGS, folder, tmp_path / "results")
    assert len(fetched) == ARTIFACTS - 1
    assert which not in fetched
    assert not (tmp_path / "results" / which).exists()
    assert str(folder / which) in caplog.text
    assert exchange.share(SETTINGS, folder, finished / "results") == [which]
    assert exchange.fetch(SETTINGS, folder, tmp_path / "results") == [which]


@pytest.mark.parametrize("other", [("predictions", 2), ("spikes", 1)])
def test_shard_under_another_ones_name_is_refused(tmp_path: Path, other: tuple[str, int]) -> None:
    """Shards, predictions and spikes of one simulation have the same key."""
    chosen, folder, here = small.settings(shards=2, weights=["full"]), tmp_path / "common", tmp_path / "here"
    pipeline = small.write_all(chosen, tmp_path / "results", small.random_truth())
    shared = exchange.share(chosen, folder, pipeline.root)
    wrong, right = (
        pipeline.path("simulate", Place(small.NAME, "full", 0, 99.0, shard), kind).relative_to(pipeline.root)
        for kind, shard in (("predictions", 1), other)
    )
    shutil.copyfile(folder / right, folder / wrong)
    assert set(shared) - set(exchange.fetch(chosen, folder, here)) == {wrong}


def test_artifact_under_another_ones_name_is_refused(common: Path, tmp_path: Path) -> None:
    folder = tmp_path / "common"
    shutil.copytree(common, folder)
    one, other = (PIPELINE.path("thresholds", Place("tiny", kind, 0, 99.0)) for kind in ("full", "binary"))
    shutil.copyfile(folder / other, folder / one)
    assert one not in exchange.fetch(SETTINGS, folder, tmp_path / "results")
    assert not (tmp_path / "results" / one).exists()


def test_damaged_artifact_is_not_shared(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(finished / "results", root)
    flip_a_byte(root / PIPELINE.path("network", Place("tiny", "full", 0)))
    with pytest.raises(ArtifactError, match="does not match its digest"):
        exchange.share(SETTINGS, tmp_path / "common", root)
    assert not (tmp_path / "common" / PIPELINE.path("network", Place("tiny", "full", 0))).exists()
    assert not list((tmp_path / "common").rglob("*.tmp"))


def test_searches_come_with_their_readable_tables(tmp_path: Path) -> None:
    path = PIPELINE.path("find_switches", Place("tiny", "full", 0))
    table = pd.DataFrame({"method": ["a", "b"], "accuracy": [12.5, 0.1]})
    artifacts.write_table(
        tmp_path / "common" / path, table, "search", PIPELINE.identity("find_switches", Place("tiny"))
    )
    assert exchange.fetch(SETTINGS, tmp_path / "common", tmp_path / "results") == [path]
    text = (tmp_path / "results" / path).with_suffix(".csv").read_text()
    assert text == "method,accuracy\na,12.5\nb,0.1\n"


def test_other_pools_of_an_ablation_are_shared(tmp_path: Path) -> None:
    settings = config.validate(merge(CONFIG, {"experiments": {"tiny": {"ablation": True}}}))
    pipeline, table = Pipeline(settings, Path()), pd.DataFrame({"epoch": [1]})
    name = config.variant_name("tiny", "max", "after")
    for owner in ("tiny", name):
        stands_for = pipeline.identity("train", Place(owner))
        artifacts.write_table(
            tmp_path / "results" / pipeline.path("network", Place(owner, "full", 0), "history"),
            table,
            "history",
            stands_for,
        )
    expected = sorted(pipeline.path("network", Place(owner, "full", 0), "history") for owner in ("tiny", name))
    assert exchange.share(settings, tmp_path / "common", tmp_path / "results") == expected


def test_the_index_stands_for_images_that_are_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images, root, common = imagenet(tmp_path / "images"), tmp_path / "results", tmp_path / "common"
    settings = of_folder(images)
    job = Job.of(settings, "images", root=root)
    stages_train.data(job)
    index = job.pipeline.path("data", job.place).relative_to(root)
    images.rename(tmp_path / "unmounted")
    assert exchange.share(settings, common, root) == [index]
    assert exchange.fetch(settings, common, tmp_path / "clone") == [index]


def test_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        exchange.fetch(SETTINGS, tmp_path / "nowhere", tmp_path / "results")
