"""The processes that train on one machine find each other whatever its ports and its environment are."""

from __future__ import annotations

import os
import socket

import pytest
import torch
from lightning_fabric import Fabric
from training_for_tests import experiment

from bsnn import config
from bsnn.training import processes

TWO = config.Compute(accelerator="cpu", devices=2, precision="32-true")


def ranks(fabric: Fabric) -> dict[str, list[int]]:
    return {"ranks": fabric.all_gather(fabric.to_device(torch.tensor(fabric.global_rank))).tolist()}


def test_port_of_the_environment_is_another_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the port that another training of two processes was given a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        before = dict(os.environ)
        assert processes.run(ranks, experiment().train, TWO, []) == {"ranks": [0, 1]}
    assert dict(os.environ) == before
