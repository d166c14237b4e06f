"""YAML as settings are written in it: a tree of moderate size, each key of a section once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from reprlib import Repr
from typing import Any

import yaml

from bsnn.errors import ConfigError

BYTES = 2**20  # of a file
DEPTH = 50  # of sections and lists within each other
NODES = 100_000  # sections, lists and values, aliases written out
SHOWN = 1000  # characters of a message's part
WORD = 40  # of these, that may be left out for the sake of a whole word


def read(path: str | Path) -> Mapping[str, Any]:
    """Settings of a YAML file, unchecked.

    Raises:
        ConfigError: it cannot be read, is no YAML in UTF-8, is too large or too deep, refers to itself, holds no
            section, or one in which a key stands twice.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise ConfigError(f"{path}: more than {BYTES // 2**20} MiB; no configuration is as large")
        raw = value(content.decode("utf-8-sig"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; give one with --config-file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    return raw


def value(text: str, where: str) -> object:
    """What a text means as YAML; `where` it stands is for messages.

    Raises:
        ConfigError: it is no YAML, too large or too deep, refers to itself, or holds a key twice.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        size, height = _written_out(where, root, {})
        if height > DEPTH:
            raise _too_deep(where)
        if size > NODES:
            raise ConfigError(f"{where}: more than {NODES:,} values, aliases (*name) written out; write fewer of them")
        return loader.construct_document(root)
    except RecursionError:
        raise _too_deep(where) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date or number
        raise ConfigError(f"{where}: not valid YAML: {shortened(str(error))}") from None


def shortened(text: str, most: int = SHOWN) -> str:
    """The text, or its beginning, to the end of a word that is near, and a mark that there is more."""
    if len(text) <= most:
        return text
    end = text.rfind(" ", most - WORD, most) + 1
    return f"{text[: end or most]}... ({len(text):,} characters)"


def shown(value: object) -> str:
    """A value as it may stand in a message: whole where it is short."""
    short = Repr()
    short.maxlevel, short.maxlist, short.maxtuple, short.maxdict = 3, 12, 12, 12
    short.maxstring = short.maxother = short.maxlong = 120
    return short.repr(value)


def _written_out(path: str, node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node has and how deep they lie, its aliases written out; before it is constructed.

    Args:
        path: for messages.
        node: of the composed tree, in which an alias is its anchor's own node.
        known: results by the nodes' `id`; None of a node that is being measured.
    """
    if id(node) not in known:
        known[id(node)] = None
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(path, node)
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        found = [_written_out(path, part, known) for part in inner]
        known[id(node)] = 1 + sum(size for size, _ in found), 1 + max((height for _, height in found), default=0)
    result = known[id(node)]
    if result is None:
        raise ConfigError(f"{_at(path, node)}: refers to itself by an alias (*name); write it out")
    return result


def _refuse_twice(path: str, section: yaml.MappingNode) -> None:
    """YAML forbids it, and its readers take the last one."""
    lines: dict[str, int] = {}
    for key, _ in section.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            continue  # which no setting has; refused later
        if key.value in lines:
            raise ConfigError(
                f"{_at(path, key)}: the key '{shortened(key.value, 60)}' stands twice, first in line "
                f"{lines[key.value]}; remove one of them"
            )
        lines[key.value] = line


def _at(path: str, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"


def _too_deep(path: str) -> ConfigError:
    return ConfigError(f"{path}: sections or lists within each other, more than {DEPTH} levels; no setting needs them")
