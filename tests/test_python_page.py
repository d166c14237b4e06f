"""docs/python.md: its examples run as printed, one after the other, on what a small run made."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from workflow_for_tests import TINY, configure

from bsnn import config
from bsnn.pipeline.job import Job
from bsnn.stages import convert as stages_convert
from bsnn.stages import train as stages_train

PAGE = Path(__file__).parent.parent / "docs/python.md"


def test_examples_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = TINY["experiments"]["tiny"]
    configure(tmp_path, {**TINY, "run": ["digits"], "experiments": {"digits": tiny}})
    settings = config.load("config.yaml")
    stages_train.data(Job.of(settings, "digits"))
    stages_train.network(Job.of(settings, "digits"))
    job = Job.of(settings, "digits", "binary", percentile=99.9)
    for stage in (stages_train.network, stages_convert.activations, stages_convert.thresholds):
        stage(job)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    result, again, network = names["result"], names["again"], names["network"]
    assert result.predicted.shape == again.predicted.shape == (50, 16)
    assert set(names["rates"]) == {layer.name for layer in network.layers}
    assert names["rates"]["fc1"].sum() * 16 == names["block"].spikes.sum()
    logits = names["own"].module(next(names["batches"](names["data"].test)))
    assert torch.equal(logits, names["trained"].module(next(names["batches"](names["data"].test))))
