"""docs/own-networks.md: its examples run as printed, one after the other."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parent.parent / "docs/own-networks.md"


def test_examples_run_as_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks[:2]:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["result"].accuracy[-1] > 0.85
    assert float(names["result"].accuracy[-1]) > float(names["result"].accuracy[0])
    for block in blocks[2:]:
        exec(compile(block, str(PAGE), "exec"), names)
    assert "binary: blocks.0.conv1, blocks.0.conv2, blocks.0.shortcut, blocks.1.conv1" in capsys.readouterr().out
