"""Hooks of the documentation's site: pages made from the source, and links to files of the repository."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from bsnn import config
from bsnn.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in generated parts, and turn links that leave `docs/` into paths within the repository.

    Raises:
        FileNotFoundError: a page links to a file that the repository does not have.
    """
    if page.file.src_uri == "reference/settings.md":
        markdown += settings()
    if page.file.src_uri == "reference/commands.md":
        markdown += commands()
    return LINK.sub(partial(_outside, (DOCS / page.file.src_uri).parent), markdown)


def settings() -> str:
    """One table per section of the configuration, from the models that validate it."""
    schema = config.Config.model_json_schema()
    sections = {"Top level": schema, **{name: schema["$defs"][name] for name in sorted(schema["$defs"])}}
    return "\n\n".join(_section(name, section) for name, section in sections.items() if section.get("properties"))


def commands() -> str:
    """Help of every command, as Typer writes it."""
    context = typer.Context(typer.main.get_command(app))
    return get_docs_for_click(obj=context.command, ctx=context, name="bsnn").replace("# `bsnn`\n", "", 1)


def _section(name: str, section: dict[str, Any]) -> str:
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    for setting, found in section["properties"].items():
        default = f"`{_plain(found['default'])}`" if "default" in found else ""
        cells = (f"`{setting}`", _type(found), default, found.get("description", ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return f"## {name}\n\n{section.get('description', '').strip()}\n\n" + "\n".join(rows)


def _type(found: dict[str, Any]) -> str:
    if "$ref" in found:
        name = found["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in found:
        return " or ".join(_type(option) for option in found["anyOf"])
    if "enum" in found:
        return ", ".join(f"`{value}`" for value in found["enum"])
    if "const" in found:
        return f"`{found['const']}`"
    return str(found.get("type", "any"))


def _plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _outside(folder: Path, link: re.Match[str]) -> str:
    text, target = link.groups()
    path = (folder / target).resolve()
    if path.is_relative_to(DOCS):
        return link.group()
    if not path.exists():
        raise FileNotFoundError(f"a page of {folder} links to {target}, which the repository does not have")
    shown = f"`{path.relative_to(ROOT)}`"
    return shown if text.strip("`") == shown.strip("`") else f"{text} ({shown})"
