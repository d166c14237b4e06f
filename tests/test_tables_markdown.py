"""Markdown tables show texts as they are, read back by a parser of its own (CommonMark with tables)."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bsnn.tables import columns

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LIES = [
    "a|b",
    "`rm -rf`",
    "<script>alert(1)</script>",
    "&lt;b&gt;",
    "*x* __y__ ~~z~~ _w_",
    "[here](http://x)",
    "![](x.png)",
    "back\\slash\\|",
    "aquarium_fish",
]


def shown(text: str) -> list[list[str]]:
    """Texts of a table's cells as a reader sees them, its head first; anything but plain text is an error."""
    rows: list[list[str]] = []
    for token in PARSER.parse(text):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            parts = token.children or []
            assert {part.type for part in parts} <= {"text", "text_special"}, token.content
            rows[-1].append("".join(part.content for part in parts))
    return rows


@pytest.mark.parametrize("text", LIES)
def test_names_with_marks_are_shown_as_they_are(text: str) -> None:
    """Networks, methods and classes may be called anything."""
    frame = pd.DataFrame({"network": [text, "plain"], "layer": [text, None]})
    assert shown(columns.markdown(frame)) == [["network", "layer"], [text, text], ["plain", ""]]


@pytest.mark.parametrize("text", ["two\nlines", "two\r\nlines", "two \n\n lines"])
def test_a_name_with_line_ends_stays_in_its_row(text: str) -> None:
    assert shown(columns.pipes(["network"], [[text], ["plain"]])) == [["network"], ["two lines"], ["plain"]]


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    assert shown(columns.pipes(["network"], [[f"x {text} x"]])) == [["network"], [f"x {text} x"]]
