"""Write examples/own-networks.ipynb, the page docs/own-networks.md as a notebook, with its outputs: `make notebook`.

The page's Python blocks become code cells, its prose Markdown cells; links lead to where the files lie from there.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PAGE = Path("docs/own-networks.md")
TARGET = Path("examples/own-networks.ipynb")
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def cells(page: str) -> list[NotebookNode]:
    """Code and Markdown cells of a page, in its order, without outputs."""
    found = []
    for number, part in enumerate(re.split(r"```python\n(.*?)```\n", page, flags=re.DOTALL)):
        text = part.strip()
        if text:
            found.append(new_code_cell(text) if number % 2 else new_markdown_cell(linked(text)))
    for number, cell in enumerate(found):
        cell["id"] = f"cell-{number}"  # by default random: another file each time
    return found


def linked(text: str) -> str:
    """Links to pages beside the page, as seen from the notebook's folder."""
    return re.sub(r"\]\((?!\w+:|#)", "](../docs/", text)


def executed(page: str, folder: Path) -> NotebookNode:
    """The page as a notebook, executed in a folder.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = new_notebook(cells=cells(page), metadata=KERNEL)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this machine
    return notebook


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(PAGE.read_text(), Path(folder)), TARGET)
    print(TARGET)
