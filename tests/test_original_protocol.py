"""Protocols: which quirk of the original is on where, what it does, and which keys it reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from networks_for_tests import images, trained
from PIL import Image
from torchvision import transforms

from bsnn import config, stages, tables
from bsnn.config.experiment import QUIRKS
from bsnn.conversion import activations
from bsnn.datasets import load, prepare, protocol
from bsnn.datasets.transforms import FixedAugment
from bsnn.errors import ArtifactError, ConfigError
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.stages import convert as stages_convert
from bsnn.stages import train as stages_train
from bsnn.tables import latency
from bsnn.tables.propagation import delayed
from bsnn.tables.shards import Outcome

FILE = Path(__file__).parent.parent / "config.yaml"
ARRAYS = {"delayed", "calibration_dropout", "first_images", "augmented_test", "augmented_calibration"}
FOLDERS = {"delayed", "calibration_dropout", "first_images", "stretched_test"}


def experiment(name: str = "digits", **sections: object) -> config.Experiment:
    return config.load(FILE, {"experiments": {name: sections}}).experiments[name]


def test_clean_is_the_default_and_has_no_quirks() -> None:
    for one in config.load(FILE).experiments.values():
        if one.protocol.preset == "clean":
            assert one.quirks == frozenset()
            assert one.protocol_name == "clean"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", ARRAYS),
        ("cifar10", ARRAYS),
        ("cifar100", ARRAYS | {"original_normalisation"}),
        ("imagenet", FOLDERS | {"original_normalisation"}),
    ],
)
def test_original_has_what_the_script_does_on_this_data(name: str, expected: set[str]) -> None:
    found = experiment(name, protocol="original")
    assert found.quirks == expected
    assert found.protocol_name == "original"


SHORT = {"extends": "digits", "protocol": "original"}


def test_each_quirk_is_a_switch_of_its_own() -> None:
    for name in ARRAYS:
        assert experiment(protocol={name: True}).quirks == {name}
        rest = experiment(protocol={"preset": "original", name: False})
        assert rest.quirks == ARRAYS - {name}
        assert rest.protocol_name == f"original without {name}"
    assert experiment(protocol={"delayed": True}).protocol_name == "clean with delayed"
    for name, experiments in (
        ("digits-original", {"digits-original": {"protocol": {"delayed": False}}}),
        ("mine", {"mine": {"extends": "digits-original", "protocol": {"delayed": False}}}),
        ("mine", {"mine": {"extends": "short", "protocol": {"delayed": False}}, "short": SHORT}),
    ):
        one = config.load(FILE, {"experiments": experiments}).experiments[name]
        assert one.protocol_name == "original without delayed"
    off = dict.fromkeys(ARRAYS, False)
    assert experiment(protocol={"preset": "original", **off}).protocol_name == "clean"


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("orginal", "protocol.preset"),
        ({"delay": True}, "unknown key"),
        ({"stretched_test": True}, "needs a folder of images"),
        ({"original_normalisation": True}, "none for 'digits'"),
    ],
)
def test_faulty_protocols_are_refused(protocol: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        experiment(protocol=protocol)


CALIBRATION = ["activations", "thresholds", "simulate", "results"]
REACH = {
    "delayed": ["results"],
    "augmented_test": ["simulate", "results"],
    "stretched_test": ["simulate", "results"],
    "augmented_calibration": CALIBRATION,
    "calibration_dropout": CALIBRATION,
    "first_images": CALIBRATION,
    "original_normalisation": CALIBRATION,
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_quirk_reaches_exactly_these_stages(quirk: str) -> None:
    name = "imagenet" if quirk == "stretched_test" else "cifar100-short"

    def keys(protocol: object) -> dict[str, str]:
        loaded = config.load(FILE, {"run": [name], "experiments": {name: {"protocol": protocol}}})
        pipeline, place = Pipeline(loaded), Place(name, "binary", 0, 99.9)
        stages = {stage: stage for stage in ("train", "activations", "thresholds", "simulate")}
        return {shown: pipeline.key(stage, place) for shown, stage in {**stages, "results": "tables"}.items()}

    before, after = keys("clean"), keys({quirk: True})
    assert [stage for stage in before if before[stage] != after[stage]] == REACH[quirk]
    assert keys({quirk: False}) == before


def test_dropout_reaches_thresholds_of_channels() -> None:
    """Beyond the activations that all methods read: they are measured again. Others keep the keys that they had."""
    loaded = config.load(FILE)
    with_dropout = {"digits": experiment(protocol={"calibration_dropout": True})}
    dropout = Pipeline(loaded.model_copy(update={"experiments": with_dropout}))
    clean = Pipeline(loaded.model_copy(update={"experiments": {"digits": experiment()}}))
    places = {
        name: Place("digits", "full", 0, method=name, steps=128) for name in ("channel-thresholds", "burst", "baseline")
    }
    found = {name: dropout.identity("method", place) for name, place in places.items()}
    assert [name for name, value in found.items() if "channels" in value] == ["channel-thresholds"]
    assert "channels" in dropout.identity("find_switches", Place("digits", "full"))
    assert "channels" not in dropout.identity("find_switches", Place("digits", "binary"))
    assert "channels" not in clean.identity("method", places["channel-thresholds"])
    assert "channels" not in clean.identity("find_switches", Place("digits", "full"))


def test_clean_identities_do_not_speak_of_quirks() -> None:
    loaded = config.load(FILE)
    pipeline = Pipeline(loaded)
    for name, one in loaded.experiments.items():
        if not one.quirks:
            assert "quirks" not in str(pipeline.identity("simulate", Place(name, "full", 0, 99.9)))
            assert "quirks" not in pipeline.identity("tables", Place(name))


def cut(image: np.ndarray, top: int, left: int, flip: bool) -> np.ndarray:
    """Crop of the image's own size out of the zero-padded image, then flip; by plain indexing."""
    padded = np.zeros((3, image.shape[1] + 8, image.shape[2] + 8), np.uint8)
    padded[:, 4:-4, 4:-4] = image
    window = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return window[:, :, ::-1] if flip else window


def test_augmentation_belongs_to_the_image_not_to_the_batch() -> None:
    pixels = torch.randint(256, (30, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    change = FixedAugment(30, 4, seed=5)
    whole = change(pixels, torch.arange(30))
    for image in range(30):
        top, left = change.places[:, image].tolist()
        expected = cut(pixels[image].numpy(), top, left, bool(change.flips[image]))
        assert np.array_equal(whole[image].numpy(), expected)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    assert torch.equal(FixedAugment(30, 4, seed=5)(pixels[order[:7]], order[:7]), whole[order[:7]])
    assert not torch.equal(FixedAugment(30, 4, seed=6)(pixels, torch.arange(30)), whole)
    many = FixedAugment(9000, 4, seed=0)
    assert torch.bincount(many.places.flatten(), minlength=9).min() > 1800  # 2000 each expected, deviation 42
    assert 0.47 < many.flips.double().mean() < 0.53


def test_first_images_calibrate() -> None:
    few = {"activations": {"images": 4}}
    assert protocol.calibration(experiment(**few, protocol={"first_images": True}), 10).tolist() == [0, 1, 2, 3]
    assert protocol.calibration(experiment(**few), 10).tolist() == [0, 2, 5, 7]
    assert len(protocol.calibration(experiment(**few, protocol="original"), 3)) == 3


def test_constants_of_the_original() -> None:
    network = trained(1)
    one = experiment("cifar100", protocol="original")
    assert protocol.normalisation(one, network) == ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))
    assert protocol.normalisation(experiment("cifar100"), network) == ((0.5,) * 3, (0.25,) * 3)


def test_dropout_is_active_seeded_and_leaves_no_trace() -> None:
    network, batch = trained(2, dropout=0.5), images(3, 40)
    state = torch.random.get_rng_state()

    def values(seed: int | None) -> np.ndarray:
        table = activations.collect(network, lambda: batch.split(16), dropout_seed=seed)
        return table["value"].to_numpy()

    off = values(None)
    assert np.array_equal(values(7), values(7))
    assert not np.array_equal(values(7), values(8))
    assert not np.array_equal(values(7), off)
    assert np.array_equal(values(None), off)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.module.training


def test_dropout_comes_after_the_first_layer_is_observed() -> None:
    """As in the original: a layer's own activations are whole, those behind it are not."""
    network, batch = trained(2, dropout=0.5), images(3, 40)
    with_, without = (activations.collect(network, lambda: [batch], dropout_seed=seed) for seed in (1, None))
    first = with_["layer"] == "conv1"
    assert with_[first].equals(without[first])
    assert not with_[~first].equals(without[~first])


def test_stretched_images_are_the_original_transform(tmp_path: Path) -> None:
    """Resize((256, 256)) and CenterCrop(224), at another size; clean keeps the aspect ratio."""
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (20, 44, 3), np.uint8))
    for part in ("train", "val"):
        (tmp_path / part / "thing").mkdir(parents=True)
        picture.save(tmp_path / part / "thing" / "a.png")
    settings = config.Data.model_validate({"name": "imagenet", "path": tmp_path, "image_size": 14})
    prepare(settings, tmp_path / "index.parquet", {"stage": "data", "version": 1}, cache=tmp_path)
    split = load(tmp_path / "index.parquet").test
    for chosen, size in ((split.stretched(), (16, 16)), (split, 16)):
        expected = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(14), transforms.PILToTensor()])
        found, _ = next(iter(chosen.batches(torch.tensor([0]), 1, "cpu")))
        assert torch.equal(found[0], expected(picture))


def run(delays: object, labels: list[int], correct: list[int], spikes: list[list[int]]) -> Outcome:
    layers = tuple(f"conv{number}" for number in range(1, len(spikes) + 1))
    document = {"extra": {} if delays is None else {"delays": delays}}
    counts = np.array(spikes)
    neurons = np.ones(len(spikes), np.int64)
    return Outcome(np.array(labels), 0, np.array(correct), layers, neurons, counts, (document,))


def test_delayed_is_a_shift_of_the_time_axis() -> None:
    """Two layers that lag 1 and 3 steps, the read-out 4; before, class 0 is predicted: two labels are 0."""
    same = run([1, 3, 4], [0, 5, 0, 1], [2, 3, 4, 3, 1, 0], [[9, 8, 7, 6, 5, 4], [3, 2, 1, 0, 1, 2]])
    found = delayed(same, Path("x"))
    assert found.correct.tolist() == [2, 2, 2, 2, 2, 3]
    assert found.spikes.tolist() == [[0, 9, 8, 7, 6, 5], [0, 0, 0, 3, 2, 1]]
    longer = run([9, 9, 9], [0, 5], [1, 1], [[4, 4], [4, 4]])
    assert delayed(longer, Path("x")).correct.tolist() == [1, 1]
    assert delayed(longer, Path("x")).spikes.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("delays", [None, [1, 2], "1"])
def test_unknown_delays_are_refused(delays: object) -> None:
    with pytest.raises(ArtifactError, match="does not note the delays"):
        delayed(run(delays, [0], [1], [[1], [1]]), Path("x"))


TINY: dict[str, Any] = {
    "run": ["tiny"],
    "percentile": [99.0],
    "time": [20],
    "weights": ["full"],
    "compute": {"threads": 1, "accelerator": "cpu", "workers": 0, "engine": "torch"},
    "experiments": {
        "tiny": {
            "data": {"name": "digits", "image_size": 8, "train_images": 200, "test_images": 40},
            "network": {"features": [8, "P", 16, "P"], "hidden": [16]},
            "train": {"epochs": 2, "batch_size": 25, "optimiser": {"lr": 0.05}},
            "binarize": {"epochs": 1, "batch_size": 50, "optimiser": {"name": "adam", "lr": 0.001}},
            "activations": {"images": 60, "batch_size": 25},
            "simulation": {"time": 20},
        },
        "copy": {"extends": "tiny", "networks_of": "tiny", "protocol": "original"},
    },
}


def whole(settings: config.Config, name: str) -> tables.Results:
    """All stages that are missing, then the tables."""
    job = Job.of(settings, name, percentile=99.0)
    shards = settings.experiments[name].simulation.shards
    for path, stage in [
        (job.pipeline.path("data", Place(name)), stages_train.data),
        (job.pipeline.path("network", Place(name, "full", 0)), stages_train.network),
        (job.pipeline.path("activations", Place(name, "full", 0)), stages_convert.activations),
        (job.pipeline.path("thresholds", Place(name, "full", 0, 99.0)), stages_convert.thresholds),
    ]:
        if not path.exists():
            stage(job)
    for shard in range(1, shards + 1):
        stages_convert.simulate(Job.of(settings, name, percentile=99.0, shard=shard))
    return tables.collect(job.pipeline, name)


def test_original_protocol_through_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One network for both protocols; numbers do not depend on shards and batches; each quirk changes something."""
    monkeypatch.chdir(tmp_path)
    settings = config.validate(TINY)
    pipeline = Pipeline(settings)
    assert pipeline.path("network", Place("copy", "full", 0)) == pipeline.path("network", Place("tiny", "full", 0))
    assert pipeline.path("network", Place("copy", "full", 0), "history") == pipeline.path(
        "network", Place("tiny", "full", 0), "history"
    )
    assert pipeline.path("activations", Place("copy", "full", 0)).parent == Path("results/copy/full/seed0")
    clean, original = whole(settings, "tiny"), whole(settings, "copy")
    assert set(clean["accuracy"]["protocol"]) == {"clean"}
    assert set(original["accuracy"]["protocol"]) == {"original"}
    tables.write(original, tmp_path / "tables")
    assert tables.read(tmp_path / "tables").identity == original.identity
    trained_once = list(Path("results").rglob("ann-*"))
    assert len(trained_once) == 1
    spread = config.merge(TINY, {"compute": {"batch_size": 7}, "experiments": {"copy": {"simulation": {"shards": 3}}}})
    again = whole(config.validate(spread), "copy")
    assert again["accuracy_over_time"].equals(original["accuracy_over_time"])
    assert again["spikes_by_layer"].equals(original["spikes_by_layer"])


def test_delayed_alone_needs_no_other_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read-out of this network lags 2 + 2 + 1 + 1 = 6 steps: two pooled convolutions and two linear layers."""
    monkeypatch.chdir(tmp_path)
    settings = config.validate(TINY)
    same = whole(settings, "tiny")["accuracy_over_time"]["accuracy"].to_numpy()
    late = config.validate(config.merge(TINY, {"experiments": {"tiny": {"protocol": {"delayed": True}}}}))
    found = tables.collect(Pipeline(late), "tiny")["accuracy_over_time"]["accuracy"].to_numpy()
    path = Pipeline(late).path("simulate", Place("tiny", "full", 0, 99.0, 1))
    zeros = np.mean(pq.read_table(path)["label"].to_numpy() == 0) * 100
    assert np.array_equal(found[6:], same[:-6])
    assert np.allclose(found[:6], zeros)
    assert not np.array_equal(found, same)


def test_operations_on_pooled_spikes_come_as_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maximum pools of spikes have no operations, and delay by a step each: conv, pool, conv, pool, linear, logits."""
    monkeypatch.chdir(tmp_path)
    pools: dict[str, Any] = {
        "network": {"pool": "max", "place": "after"},
        "train": {"optimiser": {"lr": 0.01}},
        "latency": {"percentile": 100.0, "time": [20], "methods": {}},
    }
    found = []
    for own in (pools, config.merge(pools, {"protocol": {"delayed": True}})):
        settings = config.validate(config.merge(TINY, {"experiments": {"tiny": own}}))
        job = Job(Pipeline(settings), Place("tiny", "full", 0, method="baseline", steps=20, shard=1))
        for rule in () if found else ("data", "train", "activations"):
            stages.run(rule, job)
        stages.run("method", job)
        [run] = latency.runs(Pipeline(settings), "tiny")
        rows = run.operations().query("quantity == 'effective_acs'")
        found.append({str(layer): part["value"].to_numpy() for layer, part in rows.groupby("layer")})
    same, late = found
    for layer, delay in {"conv2": 2, "fc1": 4, "readout": 5}.items():
        assert same[layer].sum() > 0
        assert np.array_equal(late[layer][delay:], same[layer][:-delay])
        assert not late[layer][:delay].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"networks_of": "none"}, "no experiment 'none'"),
        ({"networks_of": "copy"}, "no experiment 'copy' with networks of its own"),
        ({"networks_of": "tiny", "train": {"epochs": 5}}, "train is not that of 'tiny'"),
        ({"networks_of": "tiny", "data": {"test_images": 5}}, "data is not that of 'tiny'"),
    ],
)
def test_networks_of_another_recipe_are_refused(changes: dict[str, Any], words: str) -> None:
    more = config.merge(TINY, {"experiments": {"third": {"extends": "tiny", **changes}}})
    with pytest.raises(ConfigError, match=words):
        config.validate(more)
