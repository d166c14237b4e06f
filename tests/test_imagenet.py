"""ImageNet's layout through the real stages: broken files, both places of validation images, two processes."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from images_for_tests import TRAINING, VALIDATION, WNIDS, imagenet, spoil, validation_name, write_list

from bsnn import artifacts, config, datasets
from bsnn.errors import DataError
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.stages import convert as stages_convert
from bsnn.stages import train as stages_train
from bsnn.tables import gather
from bsnn.tables.origins import origins
from bsnn.training import train

RECIPE = {"epochs": 1, "batch_size": 8, "optimiser": {"lr": 0.05}, "augment": {"resized_crop": True, "flip": True}}
SHARDS = 2


def settings(root: Path, *, compute: Mapping[str, Any] | None = None, **data: Any) -> config.Config:
    """One tiny experiment on images below `root`."""
    experiment = {
        "data": {"name": "imagenet", "path": root, "image_size": 16, **data},
        "network": {"features": [4, "P", 8, "P"], "hidden": [16]},
        "train": RECIPE,
        "binarize": RECIPE,
        "activations": {"images": 20, "batch_size": 7},
        "simulation": {"time": 8, "shards": SHARDS},
    }
    run = {"run": ["images"], "percentile": [99.0], "time": [8], "weights": ["full"]}
    chosen = {"accelerator": "cpu", "threads": 1, "workers": 1, **(compute or {})}
    return config.validate({**run, "compute": chosen, "experiments": {"images": experiment}})


@dataclass
class Run:
    """What the stages made of one tree."""

    config: config.Config
    root: Path
    broken: dict[str, list[str]]
    log: str

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline(self.config, self.root)

    def predictions(self) -> pd.DataFrame:
        parts = [
            self.pipeline.path("simulate", Place("images", "full", 0, 99.0, shard)) for shard in range(1, SHARDS + 1)
        ]
        return pd.concat([artifacts.read_table(part, "predictions", {})[0].to_pandas() for part in parts])


def through_the_stages(chosen: config.Config, root: Path) -> None:
    for shard in range(1, SHARDS + 1):
        job = Job.of(chosen, "images", percentile=99.0, shard=shard, root=root)
        if shard == 1:
            for stage in (
                stages_train.data,
                stages_train.network,
                stages_convert.activations,
                stages_convert.thresholds,
            ):
                stage(job)
        stages_convert.simulate(job)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Everything for both layouts, with the same broken files among the images."""
    return {layout: made(layout, tmp_path_factory.mktemp(layout)) for layout in ("folders", "flat")}


@pytest.fixture(params=["folders", "flat"])
def run(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    return runs[request.param]


def made(layout: str, folder: Path) -> Run:
    tree = imagenet(folder / "images", flat=layout == "flat")
    broken = spoil(tree)
    labels = write_list(folder / "val.txt", "place") if layout == "flat" else None
    chosen = settings(tree, broken="skip", labels=labels)
    log = folder / "log"
    handler = logging.FileHandler(log)
    logger = logging.getLogger("bsnn")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        through_the_stages(chosen, folder / "results")
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
    return Run(chosen, folder / "results", broken, log.read_text())


def test_broken_files_are_named_and_counted(run: Run) -> None:
    path = run.pipeline.path("data", Place("images"))
    assert artifacts.describe(path)["extra"]["left_out"] == {"count": 5, **run.broken}
    assert "3 of 24 train images are broken and left out" in run.log
    assert "2 of 10 test images are broken and left out" in run.log
    for file, reason in (
        (run.broken["train"][0], "OSError: image file is truncated"),
        (run.broken["train"][1], "no known format"),
        (run.broken["train"][2], "empty file"),
        (run.broken["test"][0], "OSError: image file is truncated"),
        (run.broken["test"][1], "empty file"),
    ):
        assert f"{file}: not a whole image ({reason}" in run.log
    data = datasets.load(path)
    assert (len(data.train), data.train.left_out) == (len(WNIDS) * TRAINING - 3, 3)
    assert (len(data.test), data.test.left_out) == (len(VALIDATION) - 2, 2)
    whole = [label for number, label in enumerate(VALIDATION, 1) if number not in (1, 8)]
    assert data.test.labels.tolist() == sorted(whole)


def test_every_whole_image_is_simulated_once(run: Run) -> None:
    found = run.predictions()
    assert found["image"].tolist() == list(range(len(VALIDATION) - 2))
    assert found["label"].tolist() == datasets.load(run.pipeline.path("data", Place("images"))).test.labels.tolist()


def test_tables_count_what_was_left_out(run: Run) -> None:
    frame = origins(gather.Source(run.pipeline, "images")).set_index("stage")["left_out"]
    assert frame.dropna().to_dict() == {"train": 3, "activations": 3, "simulate": 2}


def test_both_layouts_give_the_same_predictions(runs: dict[str, Run]) -> None:
    """Trained, calibrated and simulated: the same classes and margins, image by image and step by step."""
    folders, flat = runs["folders"], runs["flat"]
    assert folders.pipeline.path("data", Place("images")).name != flat.pipeline.path("data", Place("images")).name
    expected = folders.predictions()
    assert len(np.unique(np.stack(expected["margin"].tolist()))) > len(expected), "the networks say nothing"
    pd.testing.assert_frame_equal(flat.predictions(), expected)


def test_a_broken_training_image_stops_the_training(tmp_path: Path) -> None:
    """Nothing is decoded while the index is made; the first batch with the file names it."""
    tree = imagenet(tmp_path / "images")
    file = tree / "train" / WNIDS[2] / f"{WNIDS[2]}_3.JPEG"
    file.write_bytes(file.read_bytes()[:-200])
    job = Job.of(settings(tree), "images", root=tmp_path / "results")
    stages_train.data(job)
    with pytest.raises(DataError, match=rf"{file.name}: not a whole image .*truncated.*data\.broken: skip"):
        stages_train.network(job)
    assert not job.pipeline.path("network", Place("images", "full", 0)).exists()


def test_an_unreadable_file_is_no_broken_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that fails for a moment must not decide which images there are."""
    job = Job.of(
        settings(imagenet(tmp_path / "images"), broken="skip", compute={"workers": 0}),
        "images",
        root=tmp_path / "results",
    )
    read_bytes = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.stem == validation_name(1):
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(DataError, match=rf"{validation_name(1)}.JPEG: cannot be read \(Input/output error\)"):
        stages_train.data(job)
    assert not job.pipeline.path("data", Place("images")).exists()


@pytest.mark.parametrize(
    ("split", "message"), [("train", f"not one whole image is left of train/{WNIDS[1]}"), ("val", "of the test images")]
)
def test_a_class_or_a_split_without_whole_images_is_refused(tmp_path: Path, split: str, message: str) -> None:
    tree = imagenet(tmp_path / "images")
    for file in (tree / split).rglob("*.JPEG"):
        if split == "val" or file.parent.name == WNIDS[1]:
            file.write_bytes(b"")
    job = Job.of(settings(tree, broken="skip"), "images", root=tmp_path / "results")
    with pytest.raises(DataError, match=message):
        stages_train.data(job)
    assert not job.pipeline.path("data", Place("images")).exists()


def test_skipping_without_broken_files_leaves_all(tmp_path: Path) -> None:
    job = Job.of(settings(imagenet(tmp_path / "images"), broken="skip"), "images", root=tmp_path / "results")
    stages_train.data(job)
    assert artifacts.describe(job.pipeline.path("data", Place("images")))["extra"]["left_out"] == {
        "count": 0,
        "train": [],
        "test": [],
    }
    data = datasets.load(job.pipeline.path("data", Place("images")))
    assert (len(data.train), len(data.test)) == (len(WNIDS) * TRAINING, len(VALIDATION))


def test_broken_files_among_chosen_ones_only(tmp_path: Path) -> None:
    """Half of the images, evenly spaced, then the broken ones among them left out."""
    tree = imagenet(tmp_path / "images")
    spoil(tree)
    job = Job.of(settings(tree, broken="skip", train_images=12), "images", root=tmp_path / "results")
    stages_train.data(job)
    chosen = [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in WNIDS for number in range(0, TRAINING, 2)]
    [broken] = artifacts.describe(job.pipeline.path("data", Place("images")))["extra"]["left_out"]["train"]
    assert broken == chosen[0]
    assert datasets.load(job.pipeline.path("data", Place("images"))).train.paths.to_pylist() == chosen[1:]  # type: ignore[attr-defined]


def test_defaults_leave_keys_alone(tmp_path: Path) -> None:
    plain = Pipeline(settings(tmp_path)).identity("data", Place("images"))
    assert plain["settings"] == {"name": "imagenet", "path": str(tmp_path), "image_size": 16}, "no images: by the path"
    stop = Pipeline(settings(tmp_path, broken="stop", labels=None))
    assert stop.identity("data", Place("images")) == plain
    skip = Pipeline(settings(tmp_path, broken="skip"))
    assert skip.identity("data", Place("images"))["settings"] == {**plain["settings"], "broken": "skip"}


def test_two_processes_train_on_the_same_random_parts(tmp_path: Path) -> None:
    """Without dropout and flips, which each process draws for itself: one network except for the order of sums."""
    tree = imagenet(tmp_path / "images")
    job = Job.of(settings(tree), "images", root=tmp_path / "results")
    stages_train.data(job)
    data = datasets.load(job.pipeline.path("data", Place("images")))
    plain = job.experiment.model_dump(mode="json")
    plain["network"]["dropout"] = 0.0
    plain["train"] |= {"augment": {"resized_crop": True}, "epochs": 2}
    experiment = config.Experiment.model_validate(plain)
    found = []
    for devices in (1, 2):
        compute = config.Compute(accelerator="cpu", precision="32-true", devices=devices, threads=1, workers=1)
        torch.set_num_threads(1)
        found.append(train.fit(experiment, "full", 0, data, compute, tmp_path / str(devices), None)[:2])
    (one, history), (two, history_two) = found
    for name, weight in one.module.state_dict().items():
        torch.testing.assert_close(two.module.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history_two["train_loss"], history["train_loss"], rtol=1e-5)
    assert history_two["test_accuracy"].tolist() == history["test_accuracy"].tolist()
