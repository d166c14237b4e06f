"""The configuration: what it accepts, what it refuses and how it says so."""

import difflib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bsnn import config
from bsnn.config import merge
from bsnn.errors import ConfigError

ROOT = Path(__file__).parent.parent
FILE = ROOT / "config.yaml"
DIGITS = "experiments.digits"


def changed(dotted: str, value: object) -> dict[str, object]:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value  # type: ignore[return-value]


def test_schema_is_current() -> None:
    path = ROOT / "workflow/schemas/config.schema.json"
    difference = difflib.unified_diff(path.read_text().splitlines(), config.schema().splitlines(), "file", "model")
    assert not "\n".join(difference), "run `make schema`"


def test_every_committed_experiment_is_valid() -> None:
    loaded = config.load(FILE)
    assert {"digits", "cifar10", "cifar100", "imagenet"} <= set(loaded.experiments)


def test_published_recipes() -> None:
    """Lu & Sengupta 2020, as their README and training code state them."""
    cifar, imagenet = (config.load(FILE).experiments[name] for name in ("cifar100", "imagenet"))
    assert (cifar.train.batch_size, cifar.train.epochs, cifar.train.optimiser.lr) == (256, 200, 5e-2)
    assert (cifar.train.schedule.milestones, cifar.train.optimiser.weight_decay) == ([81, 122], 1e-4)
    assert (cifar.binarize.optimiser.name, cifar.binarize.optimiser.lr) == ("adam", 5e-4)
    assert (cifar.binarize.schedule.every, cifar.binarize.schedule.factor) == (30, 0.5)
    assert (cifar.binarize.optimiser.weight_decay, cifar.binarize.optimiser.weight_decay_epochs) == (5e-4, 30)
    assert (imagenet.train.batch_size, imagenet.train.epochs, imagenet.train.optimiser.lr) == (128, 100, 1e-2)
    assert imagenet.binarize.optimiser.betas == (0.0, 0.999)
    assert cifar.network == imagenet.network


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("percentile", 0, ["percentile: ", "greater than 0", "0"]),
        ("percentile", 101, ["percentile: ", "less than or equal to 100", "101"]),
        ("percentile", "99,9", ["percentile: ", "valid number", "99,9"]),
        ("percentile", 99.9999, ["percentile: ", "off the grid", "three decimals"]),
        ("percentile", 50.05, ["percentile: ", "off the grid"]),
        ("percentile", [99.9, 101], ["percentile.1: ", "101"]),
        ("percentile", [99.9, 99.9], ["percentile", "twice"]),
        ("percentile", float("nan"), ["percentile: "]),
        ("percentile", [], ["percentile", "at least 1"]),
        ("time", 0, ["time: ", "greater than 0"]),
        ("time", 129, ["129", "simulates 128", "experiments.digits.simulation.time"]),
        ("time", 1.5, ["time: ", "integer"]),
        ("seeds", -1, ["seeds: ", "-1"]),
        ("run", "mnist", ["mnist", "digits"]),
        ("weights", "ternary", ["weights: ", "'full' or 'binary'"]),
        ("percentil", 99, ["percentil: unknown key; is 'percentile' meant?; known here: run, percentile"]),
        (f"{DIGITS}.train.epoch", 1, [f"{DIGITS}.train.epoch: unknown key; is 'epochs' meant?; known here: "]),
        (f"{DIGITS}.simulations", {"time": 9}, [f"{DIGITS}.simulations: unknown key; is 'simulation' meant?"]),
        ("run", "digts", ["run: there is no experiment 'digts'; is 'digits' meant?; experiments: "]),
        (f"{DIGITS}.extends", "cifar-100", ["no experiment 'cifar-100'; is 'cifar100' meant?"]),
        ("compute.engine", "fast", ["compute.engine", "'auto'", "fast"]),
        (f"{DIGITS}.data.name", "mnist", [f"{DIGITS}.data.name", "'cifar100'", "mnist"]),
        (f"{DIGITS}.data.image_size", 20, ["image_size 20", "multiple of 8"]),
        (f"{DIGITS}.data.name", "imagenet", ["path"]),
        (f"{DIGITS}.train.epochs", 0, [f"{DIGITS}.train.epochs", "greater than 0"]),
        (f"{DIGITS}.train.optimiser.learning_rate", 1, ["learning_rate: unknown key; known here", "lr"]),
        (f"{DIGITS}.train.schedule", {"every": 3, "milestones": [1]}, ["milestones", "every"]),
        (f"{DIGITS}.train.augment.resized_crop", True, ["resized_crop", "folder of images"]),
        (f"{DIGITS}.network.features", ["P", 8], ["must follow a convolution"]),
        (f"{DIGITS}.network.dropout", 1, [f"{DIGITS}.network.dropout", "less than 1"]),
        (f"{DIGITS}", {"network": {"init": "unit_variance"}, "binarize": {"from_scratch": True}}, ["from_scratch"]),
        (f"{DIGITS}.extends", "nothing", ["extends", "nothing"]),
        (f"{DIGITS}.extends", "digits", ["extends itself"]),
    ],
)
def test_refuses(key: str, value: object, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(FILE, changed(key, value))
    for words in expected:
        assert words in str(caught.value)


def test_a_start_suits_what_is_trained() -> None:
    start = {"path": "network.safetensors", "sha256": "0" * 64}
    with pytest.raises(ConfigError, match=r"ablation compares networks of other pools, and train\.start"):
        config.load(FILE, changed("experiments.cifar100.train.start", start))
    own = {"network": {"module": "mine.py:build", "content": "0" * 64}, "train": {"start": start}, "ablation": False}
    with pytest.raises(ConfigError, match=r"train\.start is where training begins, and a module is not trained here"):
        config.load(FILE, {"experiments": {"mine": {"extends": "cifar100", **own}}})


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(FILE, {"percentile": 0, "time": 0, "typo": 1})
    assert all(name in str(caught.value) for name in ("percentile: ", "time: ", "typo"))


@pytest.mark.parametrize(("text", "words"), [("a: [", "not valid YAML"), ("- 1", "mapping"), ("{}", "experiments")])
def test_refuses_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        config.load(path)
    with pytest.raises(ConfigError, match="no such configuration"):
        config.load(tmp_path / "missing.yaml")


def test_one_value_stands_for_a_list() -> None:
    loaded = config.load(FILE, {"percentile": 99.5, "time": 50, "seeds": 3, "weights": "binary", "run": "digits"})
    assert (loaded.percentile, loaded.time, loaded.seeds, loaded.weights) == ([99.5], [50], [3], ["binary"])


def test_hints() -> None:
    with pytest.raises(ConfigError, match=r"digitz.data: Field required; is 'digits' meant\?"):
        config.load(FILE, changed("experiments.digitz.simulation.time", 20))
    with pytest.raises(ConfigError, match=r"'99.5,99.9'\); several are written \[a,b\]"):
        config.load(FILE, changed("percentile", "99.5,99.9"))


@pytest.mark.parametrize(
    ("key", "value", "also"),
    [
        ("imagenet.train.epochs", -1, "imagenet-original"),
        ("imagenet.data.image_size", 223, "imagenet-original"),  # a fault of the experiment as a whole
        ("digits.train.epochs", -1, "a-child, digits-original"),
    ],
)
def test_a_fault_of_several_experiments_is_told_once(key: str, value: int, also: str) -> None:
    """Where it stands, and which experiments inherit it, whichever comes first in the file; variants are not listed."""
    raw = yaml.safe_load(FILE.read_text())
    raw["experiments"] = {"a-child": {"extends": "digits"}, **raw["experiments"]}
    with pytest.raises(ConfigError) as caught:
        config.validate(merge(raw, changed(f"experiments.{key}", value)))
    (fault,) = str(caught.value).splitlines()[1:]
    assert fault.strip().startswith(f"experiments.{key.partition('.')[0]}")
    assert fault.endswith(f"; the same in {also}")


def test_extends_lays_changes_over_the_parent() -> None:
    loaded = config.load(FILE)
    short, whole = loaded.experiments["cifar100-short"], loaded.experiments["cifar100"]
    assert short.network == whole.network
    assert short.train.optimiser == whole.train.optimiser
    assert (short.train.epochs, whole.train.epochs) == (1, 200)


@given(st.integers(90_000, 100_000))
def test_percentiles_with_three_decimals_are_on_the_grid(thousandths: int) -> None:
    value = float(f"{thousandths / 1000:.3f}")
    loaded = config.load(FILE, {"percentile": value})
    assert float(config.format_percentile(loaded.percentile[0])) == value


def test_merge_leaves_its_arguments_alone() -> None:
    base = {"a": {"b": [1]}}
    merged = config.merge(base, {"a": {"c": 2}})
    merged["a"]["b"].append(3)
    assert base == {"a": {"b": [1]}}
    assert merged == {"a": {"b": [1, 3], "c": 2}}
