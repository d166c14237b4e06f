"""Engine triton: equal spikes in Triton's interpreter, kernels that compile without a device, refusals, memory."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from engine_checks import member, signed
from networks_for_tests import VGG15, spiking
from triton_interpreted import CASES

from bsnn.engines.triton_engine import TritonEngine, constants, steps_within
from bsnn.engines.triton_lowering import Lowered, lower
from bsnn.engines.triton_tiles import Chip, tile_for
from bsnn.errors import EngineError

HOPPER = Chip(processors=132, shared=227 * 1024, hopper=True)
AMPERE = Chip(processors=108, shared=163 * 1024, hopper=False)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What the interpreter found, case by case."""
    script = Path(__file__).with_name("triton_interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_spikes_are_equal_in_the_interpreter(outcomes: dict[str, str], case: str) -> None:
    assert outcomes[case] == "equal", outcomes[case]


@cache
def _lowered(network: str) -> list[Lowered]:
    if network == "plain":
        return lower(spiking(0, size=32, features=VGG15, hidden=[64]))
    changes = {"max": {"pool": "max"}, "spikes": {"place": "after"}}[network]
    return lower(spiking(0, size=8, features=[32, 64, "P", 64], **changes))


def _layer(lowered: list[Lowered], name: str) -> Lowered:
    return next(item for item in lowered if item.layer.name == name)


def _compiled(item: Lowered, capability: int, chip: Chip) -> object:
    """The layer's kernel for 64 images, as the engine would launch it on such a chip, compiled without a device."""
    # imported here: in the interpreter's process these modules are others
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module("bsnn.engines.triton_kernels"), item.kernel)
    tile = tile_for(item, 64, chip)
    values = constants(item, tile)
    kinds = dict.fromkeys(("steps", "images", "layer", "layers"), "i32")
    kinds |= {"spikes": "*i8", "weight": "*i8", "out": "*i8", "counts": "*i32", "sent": "*i32"}
    signature = {name: "constexpr" if name in values else kinds.get(name, "*fp32") for name in kernel.arg_names}
    aligned = {
        (index,): [["tt.divisibility", 16]] for index, kind in enumerate(signature.values()) if kind.startswith("*")
    }
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return compile(ASTSource(kernel, signature, values, aligned), GPUTarget("cuda", capability, 32), options)


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        ("plain", "conv2"),
        ("plain", "conv9"),
        ("plain", "fc1"),
        ("plain", "conv1"),
        ("max", "conv2"),
        ("spikes", "pool"),
    ],
)
@pytest.mark.parametrize(("capability", "chip"), [(90, HOPPER), (80, AMPERE)])
def test_kernels_compile_without_a_device(
    network: str, layer: str, capability: int, chip: Chip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    item = _layer(_lowered(network), "conv2.pool" if layer == "pool" else layer)
    found = _compiled(item, capability, chip)
    assembly = found.asm["ptx"]  # type: ignore[attr-defined]
    assert found.metadata.shared <= chip.shared  # type: ignore[attr-defined]
    assert len(found.asm["cubin"]) > 0  # type: ignore[attr-defined]
    assert "ftz" not in assembly, "denormal numbers must not be flushed"
    if item.kernel == "product_scan":
        instruction = "wgmma.mma_async" if capability == 90 else "mma.sync"
        assert any(instruction in line and ".s32.s8.s8" in line for line in assembly.splitlines())


def test_refuses_what_it_cannot_simulate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    device = torch.device("cpu")
    network = member("average-before", 1)
    assert TritonEngine.refuses(network, device) is None
    assert TritonEngine.refuses(signed(network), device) is None
    assert "no integers" in str(TritonEngine.refuses(spiking(1, binary=False), device))

    def with_second(**changes: object) -> str:
        layers = (network.layers[0], replace(network.layers[1], **changes), *network.layers[2:])  # type: ignore[arg-type]
        return str(TritonEngine.refuses(replace(network, layers=layers), device))

    assert "not 3 x 3" in with_second(weight=torch.ones(8, 8, 5, 5, dtype=torch.int8))
    assert "no neurons" in with_second(threshold=None)
    assert "threshold a neuron" in with_second(threshold=torch.ones(network.layers[1].shape))


def test_refuses_a_cpu_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(EngineError, match="engine 'triton' cannot run this network on cpu: it needs a CUDA device"):
        TritonEngine(member("average-before", 1))


def test_refuses_an_old_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    network = member("average-before", 1)
    assert "7.5 is older than 8.0" in str(TritonEngine.refuses(network, torch.device("cuda")))


def test_block_fits_the_budget() -> None:
    # two convolutions on 6 x 6 and 32 units, channels stored as 32: 1152, 1152 and 32 bytes per image and step
    layers = lower(member("no-pool", 1))
    weights = 32 * 9 * 32 + 32 * 36 * 32
    state = 4 * (1152 + 1152 + 1152 + 32)  # the first current, and three layers' potentials
    step = 2 * 1152 + 3 * 12  # two layers' spikes, and three counts
    assert steps_within(weights + 10 * (state + 7 * step), layers, 10) == 7
    assert steps_within(weights + 10 * (state + 7 * step) - 1, layers, 10) == 6
    assert steps_within(1000, layers, 10) == 1
