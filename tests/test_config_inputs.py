"""Configuration files that are damaged, or say something other than was meant: refused, in few words."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bsnn import config
from bsnn.cli.options import changes_of
from bsnn.config.reading import shortened
from bsnn.errors import ConfigError

FILE = Path(__file__).parent.parent / "config.yaml"
TEXT = FILE.read_text()


def raw() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


def loaded(folder: Path, text: str) -> config.Config:
    path = folder / "config.yaml"
    path.write_text(text)
    return config.load(path)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """The last one would win."""
    lines = len(TEXT.splitlines())
    with pytest.raises(
        ConfigError, match=rf"line {lines + 2}: the key 'seeds' stands twice, first in line \d+; remove"
    ):
        loaded(tmp_path, f"{TEXT}\nseeds: [6]\n")
    with pytest.raises(ConfigError, match="line 2: the key 'lr' stands twice, first in line 2"):
        loaded(tmp_path, "a:\n  b: {lr: 1, momentum: 2, lr: 3}\n")


def test_a_merged_section_may_be_overridden(tmp_path: Path) -> None:
    """`<<` brings in keys that a section's own override: these stand once, also where the section is used again."""
    path = tmp_path / "config.yaml"
    path.write_text("x: &x {a: 1, b: 2}\ny: &y {<<: *x, b: 3}\nz: {<<: *y, a: 4}\n")
    assert config.reading.read(path) == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 4, "b": 3}}


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{before}'] * 10)}]\n" for before, this in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{number + 1}: &a{number + 1} [*a{number}]\n" for number in range(5000))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# caf\xe9\nseeds: [1]\n", r"line 1: not UTF-8 text; save the file as UTF-8"),
        (b"a: 1\nb: \xff\xfe\n", r"line 2: not UTF-8"),
        (b"a: " + b"[" * 60 + b"]" * 60, "more than 50 levels"),
        (b"a: " + b"[" * 100_000, "more than 50 levels"),
        (b"a: &a {b: *a}\n", "line 1: refers to itself"),
        (b"a: 1\nb: &b\n  - 1\n  - <<: *b\n", r"line 2: refers to itself"),
        (BOMB.encode(), "more than 100,000 values, aliases"),
        (CHAIN.encode(), "more than 50 levels"),
        (b"a: 2001-99-99\n", "not valid YAML: month"),
        (b"#" * (2**20 + 1), "more than 1 MiB"),
        (b"", "expected a mapping"),
    ],
    ids=[
        "latin-1",
        "utf-16",
        "deep",
        "very deep",
        "itself",
        "merged itself",
        "bomb",
        "chain",
        "date",
        "large",
        "empty",
    ],
)
def test_files_that_are_no_settings_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        config.load(path)
    assert str(caught.value).startswith(str(path))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seeds": True}, "seeds"),
        ({"time": [20, True]}, "time"),
        ({"experiments": {"digits": {"train": {"epochs": True}}}}, r"digits\.train\.epochs"),
        ({"experiments": {"digits": {"data": {"mean": [0, True, 0]}}}}, r"digits\.data\.mean"),
        ({"experiments": {"digits": {"network": {"features": [True, "P"]}}}}, r"digits\.network\.features"),
        ({"experiments": {"digits": {"train": {"averaging": False}}}}, r"digits\.train\.averaging"),
    ],
)
def test_truth_values_are_no_numbers(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: expected no truth value; YAML reads yes, .*(True|False)"):
        config.load(FILE, changes)


def test_truth_values_remain_where_they_belong() -> None:
    changes = {"experiments": {"digits": {"train": {"augment": {"flip": True}}, "protocol": {"delayed": True}}}}
    found = config.load(FILE, changes).experiments["digits"]
    assert found.train.augment.flip
    assert found.protocol.delayed


@pytest.mark.parametrize("name", ["description", "network", "train", "data"])
def test_experiments_may_bear_the_names_of_settings(name: str) -> None:
    """And faults in them are reported with the keys that are known at that place."""
    settings = raw()
    settings["experiments"]["my-" + name] = settings["experiments"].pop("digits-original")
    fault = copy.deepcopy(settings["experiments"]["digits"])
    fault["data"]["nmae"] = 1
    settings["experiments"][name] = fault
    words = rf"experiments\.{name}\.data\.nmae: unknown key; is 'name' meant\?; known here: name, path"
    with pytest.raises(ConfigError, match=words):
        config.validate(settings)


@pytest.mark.parametrize("name", [1, 2.5, True, None])
def test_names_of_experiments_are_text(name: object) -> None:
    settings = raw()
    settings["experiments"][name] = {"data": {}}
    with pytest.raises(ConfigError, match=rf"experiments: the name {name!r} is no text to YAML; write it in quotes"):
        config.validate(settings)


LONG = "x" * 10**6
MANY = [f"e{number}" for number in range(10**4)]


@pytest.mark.parametrize(
    "changes",
    [
        {"time": LONG},
        {"time": [LONG, LONG]},
        {"time": MANY},
        {"seeds": [1] * 10**5},
        {"run": LONG},
        {LONG: 1},
        dict.fromkeys(MANY, 1),
        {"weights": {"a": [LONG] * 100}},
        {"experiments": {"digits": LONG}},
        {"experiments": {"digits": {"extends": LONG}}},
        {"experiments": {"digits": {"extends": [LONG]}}},
        {"experiments": {"digits": {"data": {"name": LONG}}}},
        {"experiments": {LONG: {"extends": "digits", "train": {"epochs": 0}}}},
        {"experiments": {name: {"extends": "digits", "train": {"epochs": 0}} for name in MANY[:500]}},
        {"experiments": {name: {"extends": "missing"} for name in MANY}},
        {"experiments": {name: {} for name in MANY[:500]}},
    ],
    ids=range(16),
)
def test_messages_stay_short(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(FILE, changes)
    assert len(str(caught.value)) < 20_000


def test_data_that_refer_to_themselves_are_refused() -> None:
    """As Python may hold them; files are refused before."""
    endless: list[Any] = []
    endless.append(endless)
    given = raw()
    given["experiments"]["digits"]["description"] = endless
    with pytest.raises(ConfigError, match="without end"):
        config.validate(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "compute={threads: 1, threads: 2}",
            "--set compute={threads: 1, threads: 2}, line 1: the key 'threads' stands",
        ),
        ("run=&a [*a]", "--set run=&a [*a], line 1: refers to itself"),
        ("run=" + "[" * 3000, f"--set run={'[' * 56}... (3,004 characters): sections or lists within each other"),
        ("run=[", "--set run=[: not valid YAML"),
        ("run", "--set run: expected key=value"),
    ],
)
def test_settings_of_the_command_line_are_read_as_those_of_a_file(given: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changes_of([given])
    assert words in str(caught.value)
    assert changes_of(["compute.threads=1", "compute.workers=0"]) == {"compute": {"threads": 1, "workers": 0}}


def test_long_texts_end_at_a_word_that_is_near() -> None:
    names = ", ".join(f"'name{number}'" for number in range(200))
    assert re.fullmatch(r"('name\d+', )+\.\.\. \([\d,]+ characters\)", shortened(names))
    for text in ("key: " + "x" * 2000, "/my data/" + "deep/" * 400):
        assert shortened(text).startswith(text[:1000] + "...")
    assert shortened("short one") == "short one"
