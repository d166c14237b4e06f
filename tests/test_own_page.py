"""docs/own-networks.md: its examples run as printed, in the notebook that is made of it."""

import re
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/own-networks.md").read_text()
NOTEBOOK = runpy.run_path(str(ROOT / ".ci/notebook.py"))


def test_kept_notebook_is_the_page() -> None:
    """With outputs of each code cell that prints."""
    kept = nbformat.read(ROOT / "examples/own-networks.ipynb", nbformat.NO_CONVERT)
    nbformat.validate(kept)
    wanted = [(cell.cell_type, cell.source) for cell in NOTEBOOK["cells"](PAGE)]
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == wanted, "run: make notebook"
    assert all(cell.outputs for cell in kept.cells if cell.cell_type == "code" and "print(" in cell.source)


def test_links_lead_to_the_docs() -> None:
    found = re.findall(r"\]\(([^)#:]+)\)", "".join(cell.source for cell in NOTEBOOK["cells"](PAGE)))
    assert found
    assert all((ROOT / "examples" / link).is_file() for link in found)


def test_examples_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = NOTEBOOK["executed"](PAGE, tmp_path)
    outputs = ["".join(out.text for out in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert len(outputs) == 5
    accuracy = [float(value) for value in re.findall(r"T = \d+: ([\d.]+)%", outputs[1])]
    assert len(accuracy) == 5
    assert accuracy[0] < accuracy[-1]
    assert accuracy[-1] > 85
    assert "binary: blocks.0.conv1, blocks.0.conv2, blocks.0.shortcut, blocks.1.conv1" in outputs[2]
