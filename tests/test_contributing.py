"""The walks through the code in CONTRIBUTING.md, and the tests that docs/inputs.md names, are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NUMBERS = ("thirteen", "fourteen", "fifteen", "sixteen")


@pytest.mark.parametrize(("title", "word"), [("A percentile", "percentile"), ("A spike", "")])
def test_walk(title: str, word: str) -> None:
    walk = (ROOT / "CONTRIBUTING.md").read_text().partition(f"## {title}, from ")[2].partition("\n## ")[0]
    steps = re.findall(r"(?m)^\d+\. `([^`]+)`", walk)
    assert steps
    assert len(steps) <= 16
    assert NUMBERS[len(steps) - 13] in walk.lower()
    assert len(set(steps)) == len(steps)
    for name in steps:
        assert re.search(word, (ROOT / name).read_text(), re.I), name
    for name in re.findall(r"`((?:bsnn|workflow)/[^`]+)`", walk):
        assert (ROOT / name).is_file(), name


def test_percentile_is_named_by_its_walk_alone() -> None:
    """Between settings and figures; methods of conversion have percentiles of their own."""
    walk = (ROOT / "CONTRIBUTING.md").read_text().partition("## A percentile, from ")[2].partition("\n## ")[0]
    folders = ("bsnn/pipeline", "bsnn/tables", "workflow")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".smk")]
    naming = {str(path.relative_to(ROOT)) for path in files if re.search(r"\bpercentiles?\b", path.read_text())}
    beside = ("pipeline/about", "pipeline/columns", "pipeline/inventory", "tables/columns", "tables/origins")
    methods = ("pipeline/parts", "tables/costs_over_time", "tables/ideal", "tables/latency")  # or other questions
    others = {f"bsnn/{name}.py" for name in (*beside, *methods)}
    assert naming - others <= set(re.findall(r"`([^`]+)`", walk))


def test_no_file_is_above_300_lines() -> None:
    files = [
        path for folder in ("bsnn", "workflow") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".smk")
    ]
    assert files
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_every_row_of_inputs_names_tests_that_are_there() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    rows = [line for line in (ROOT / "docs" / "inputs.md").read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row != "| input | before | now | test |"]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.rsplit("|", 2)[1])
        assert named, row
        for name in named:
            assert f"def {name}(" in tests, name
