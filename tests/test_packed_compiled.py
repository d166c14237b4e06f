"""Compiled code of the engine `packed`: the trial before its use, folders of compiled code, other CPUs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_checks import biased, member, run, signed
from networks_for_tests import images
from random_graphs import random_graph

from bsnn.engines import compiled, packed, packed_first, packed_kernels, packed_pools, packed_trial
from bsnn.engines.base import Block
from bsnn.engines.packed import PackedEngine
from bsnn.errors import EngineError

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def test_trial_notices_wrong_spikes_and_failing_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [(network, batch, _nothing(block)) for network, batch, block in packed_trial.trials()]
    monkeypatch.setattr(packed, "trials", lambda: wrong)
    packed.missing.cache_clear()
    assert "wrong spikes" in str(packed.missing())

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packed.packed_first, "first_current", fails)
    packed.missing.cache_clear()
    reason = PackedEngine.refuses(member("no-pool", 1), CPU)
    packed.missing.cache_clear()
    folder = compiled.cache_folder()
    assert reason == (
        f"its code cannot be compiled, or loaded from {folder} (OSError: [Errno 28] No space left on device)"
    )


def _nothing(block: Block) -> Block:
    return Block(torch.zeros_like(block.spikes), block.counts)


def test_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    compiled.cache_folder.cache_clear()
    with pytest.raises(EngineError, match="set NUMBA_CACHE_DIR to a folder that can be written"):
        compiled.cache_folder()
    compiled.cache_folder.cache_clear()


CHOOSE = """
import sys
sys.path.insert(0, "tests")
{before}
from engine_checks import member
from bsnn import engines
print(engines.choose(member("no-pool", 1), "cpu"))
"""


@pytest.mark.parametrize(
    ("before", "variables", "reason"),
    [
        ("sys.modules['numba'] = None", {}, "numba"),
        ("", {"NUMBA_CACHE_DIR": "/proc/no-folder"}, "/proc/no-folder"),
    ],
)
def test_without_numba_or_a_cache_auto_takes_torch(before: str, variables: dict[str, str], reason: str) -> None:
    code = CHOOSE.format(before=before)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("('torch', \"'packed' cannot run this network on cpu")
    assert reason in done.stdout


def test_damaged_files_of_compiled_code_are_a_reason_for_auto(tmp_path: Path) -> None:
    folder = compiled.cache_folder()
    assert packed.missing() is None, "compiles"
    shutil.copytree(folder, tmp_path / folder.name)
    indices = list(tmp_path.rglob("*.nbi"))
    assert indices
    for index in indices:
        index.write_bytes(b"")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE.format(before="")], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"or loaded from {tmp_path / folder.name} (EOFError" in done.stdout


_NAMED = {"NUMBA_CPU_NAME": "x86-64"}
_OTHERS = [
    ({**_NAMED, "NUMBA_CPU_FEATURES": "+sse2"}, 128),
    ({**_NAMED, "NUMBA_CPU_FEATURES": "+sse2,+ssse3,+avx,+avx2"}, 256),
    ({"NUMBA_ENABLE_AVX": "0"}, 128),
]


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "width"), _OTHERS)
def test_vectors_of_other_cpus(variables: dict[str, str], width: int, tmp_path: Path) -> None:
    """Compiled for lesser CPUs of the same family, which this one can run."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from engine_checks import assert_equal, reference, run\n"
        "import torch\n"
        "from random_graphs import random_graph\n"
        "from random_networks import random_images, random_network\n"
        "from bsnn.engines.torch_engine import TorchEngine\n"
        "from bsnn.engines import packed, packed_vectors\n"
        f"assert packed_vectors.width() == {width}, packed_vectors.width()\n"
        "assert packed.missing() is None, packed.missing()\n"
        "for seed in range(1000, 1050):\n"
        "    network, batch = random_network(seed), random_images(seed)\n"
        "    assert_equal(run(packed.PackedEngine(network), batch, (3, 4)), reference(network, batch, 7))\n"
        "for seed in range(50):\n"
        "    network = random_graph(seed)\n"
        "    batch = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(seed))\n"
        "    assert_equal(run(packed.PackedEngine(network), batch, (3, 4)), run(TorchEngine(network), batch, (7,)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path), **variables}
    if platform.machine() != "x86_64":
        pytest.skip("compiles for x86")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_everything_is_compiled_by_the_trial() -> None:
    """No network brings arguments of other types: nothing is compiled where a failure would end a run."""
    assert packed.missing() is None
    for name in ("max-after", "average-after", "odd-channels", "ends-in-pool-of-spikes"):
        network = biased(signed(member(name, 17)), 17)
        engine = PackedEngine(network)
        state, _ = engine.advance(engine.start(images(17, 3, network.input_shape[1])), 2)
        engine.advance(engine.keep(state, torch.tensor([0, 2])), 3)
    for seed in range(20):
        graph = random_graph(seed)
        run(PackedEngine(graph), torch.ones(2, *graph.input_shape), [3])
    for function in (packed_kernels.advance, packed_pools.passed, packed_first.constant, packed_first.first_current):
        assert len(function.signatures) == 1, function.py_func.__name__
