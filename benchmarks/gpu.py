"""Engine triton on a GPU: equality, speed against other engines, share of the int8 product rate, time by layer.

    python benchmarks/gpu.py [--sweep] [--out results/benchmarks]

Needs torch, Triton, NumPy, PyYAML and pydantic, nothing else; bindsnet is measured too if it can be imported. Writes
gpu.csv (one row per measurement), gpu_layers.csv, with --sweep gpu_tiles.csv (milliseconds for each tile tried), and
gpu.json (all of it with what describes the machine). Without a GPU, `--small` with TRITON_INTERPRET=1 in the
environment goes through the same code with a small network; its times mean nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from engine_checks import MEMBERS, assert_equal, biased, member, reference, run, signed
from networks_for_tests import VGG15, images, spiking

from bsnn.conversion.layers import SpikingNetwork
from bsnn.engines import engine_class
from bsnn.engines.base import Block, Engine
from bsnn.engines.torch_engine import TorchEngine
from bsnn.engines.triton_engine import TritonEngine
from bsnn.engines.triton_lowering import Lowered
from bsnn.engines.triton_tiles import Tile
from bsnn.errors import EngineError


@dataclass
class Run:
    """What is measured, and what was found."""

    device: torch.device
    small: bool
    memory_mib: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    tiles: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return 8 if self.small else 32

    def network(self, seed: int) -> SpikingNetwork:
        """VGG-15 of the CIFAR-100 shape with random binary weights; with --small a small member of its family."""
        if self.small:
            return spiking(seed)
        return spiking(seed, size=32, classes=100, features=VGG15, hidden=[4096])

    def batch(self, count: int, seed: int = 1) -> torch.Tensor:
        return images(seed, count, self.size).to(self.device)

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Timed(TritonEngine):
    """Measures each launch by itself, or takes a tile that it is given."""

    given: Tile | None = None
    report: Callable[[Lowered, Callable[[], None]], None] | None = None

    def tile(self, item: Lowered, images: int) -> Tile:
        return self.given if self.given and item.weight is not None else super().tile(item, images)

    def _launch(self, item: Lowered, tensors: tuple[torch.Tensor, ...], size: tuple[int, int, int, int]) -> None:
        launch = super()._launch
        launch(item, tensors, size)
        if self.report:
            self.report(item, lambda: launch(item, tensors, size))


def seconds(run_: Run, work: Callable[[], object], repeats: int = 7) -> float:
    """Median time of some work, after warming up, with the device idle before and after."""
    work()
    found = []
    for _ in range(1 if run_.small else repeats):
        run_.synchronise()
        begin = time.perf_counter()
        work()
        run_.synchronise()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def products(item: Lowered) -> int:
    """Multiply-accumulates that the kernel does for one image and step."""
    if item.weight is None:
        return 0
    return item.weight.numel() * item.target.positions * (4 if item.layer.pool == "max" else 1)


def nominal(network: SpikingNetwork) -> int:
    """Multiply-accumulates of the layers after the first as plain 3x3 convolutions and linear layers."""
    total = 0
    for layer in network.layers[1:]:
        places = layer.neurons // layer.shape[0] * (4 if layer.pool else 1) if layer.op == "conv" else 1
        total += 0 if layer.weight is None else layer.weight.numel() * places
    return total


def ceiling(run_: Run) -> None:
    """Rate of the library's int8 matrix product, and of a copy in device memory."""
    n = 256 if run_.small else 8192
    a = torch.randint(-1, 2, (n, n), dtype=torch.int8, device=run_.device)
    b = torch.randint(-1, 2, (n, n), dtype=torch.int8, device=run_.device).t()
    run_.notes["int8_tops"] = 2 * n**3 / seconds(run_, lambda: torch._int_mm(a, b), 20) / 1e12
    buffer = torch.ones(2**20 if run_.small else 2**31, dtype=torch.int8, device=run_.device)
    target = torch.empty_like(buffer)
    run_.notes["copy_gb_per_s"] = 2 * len(buffer) / seconds(run_, lambda: target.copy_(buffer), 20) / 1e9


def equality_of_members(run_: Run) -> None:
    """Every kind of pool, place and neuron, against the definition followed on the CPU."""
    names = list(MEMBERS)[:2] if run_.small else list(MEMBERS)
    for seed, name in enumerate(names):
        for network in (member(name, seed), biased(signed(member(name, seed + 50)), seed)):
            batch = images(7, 3, network.input_shape[1])
            found = run(TritonEngine(network, run_.device), batch, [5, 1, 4])
            assert_equal(found, reference(network, batch, 10))
    run_.notes["equal_members"] = 2 * len(names)


def equality(run_: Run) -> None:
    """Equal spikes of triton and torch: five seeds, T=32, batches of 1 to 64, several ways to cut time into blocks."""
    plan = [([32], 64), ([5, 27], 33), ([32], 7), ([16, 15, 1], 64), ([32], 1)]
    checked = 0
    for seed, (blocks, count) in enumerate(plan[:1] if run_.small else plan):
        network = run_.network(seed)
        batch = run_.batch(64)
        whole = run(TorchEngine(network, run_.device, run_.memory_mib), batch, [8] * 4)
        found = run(TritonEngine(network, run_.device, run_.memory_mib), batch[:count], blocks)
        assert_equal(found, Block(whole.spikes[:, :count], whole.counts[..., :count]))
        checked += int(whole.counts[..., :count].sum())
    run_.notes["equal_spikes"] = checked


def plain(network: SpikingNetwork, device: torch.device) -> Callable[[torch.Tensor, int], object]:
    """Step by step in float32, as a reader of the paper would write it: one pass of all layers for each step."""
    from bsnn.conversion.layers import per_output
    from bsnn.conversion.spiking import input_current
    from bsnn.graphs.forward import weighted

    moved = network.to(device)
    paths = [replace(path, weight=path.weight.float()) for [path] in moved.sums]

    def simulate(batch: torch.Tensor, steps: int) -> object:
        current = input_current(moved, batch)
        v = [0.0] * len(paths)
        total = 0.0
        for _ in range(steps):
            x = current
            for index, (layer, path) in enumerate(zip(moved.layers, paths, strict=True)):
                if index:
                    x = weighted(path, x)
                threshold = per_output(layer.threshold, layer.shape)
                v[index] = v[index] + x
                x = (v[index] >= threshold).float()
                v[index] = v[index] - x * threshold
            total = total + x
        return total

    return simulate


def peers(run_: Run, network: SpikingNetwork) -> Iterator[tuple[str, int, Callable[[torch.Tensor, int], object]]]:
    """Engines and the batch sizes at which they are measured."""

    def whole(engine: Engine) -> Callable[[torch.Tensor, int], object]:
        def simulate(batch: torch.Tensor, steps: int) -> object:
            state, done = engine.start(batch), 0
            while done < steps:
                state, block = engine.advance(state, min(engine.block(len(batch)), steps - done))
                done = state.steps
            return block

        return simulate

    for count in (2,) if run_.small else (1, 16, 64, 256, 1024, 2048):
        yield "triton", count, whole(TritonEngine(network, run_.device, run_.memory_mib))
    for count in (2,) if run_.small else (16, 64, 256):
        yield "torch", count, whole(TorchEngine(network, run_.device, run_.memory_mib))
    for count in (2,) if run_.small else (16, 64, 256):
        yield "plain torch", count, plain(network, run_.device)
    try:
        bindsnet = engine_class("bindsnet")(network, run_.device, run_.memory_mib)
    except EngineError as error:
        run_.notes["bindsnet"] = f"not measured: {error}"
        return
    for count in (2,) if run_.small else (16, 64):
        yield "bindsnet", count, whole(bindsnet)


def speed(run_: Run) -> None:
    """Images x steps per second, with the first current and all results; peak memory; share of the int8 ceiling."""
    network = run_.network(0)
    operations = {"triton": 2 * sum(products(item) for item in TritonEngine(network, run_.device).layers)}
    for name, count, simulate in peers(run_, network):
        steps = 32
        batch = run_.batch(count)
        if run_.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        spent = seconds(run_, lambda work=simulate, batch=batch, steps=steps: work(batch, steps), 5)
        peak = torch.cuda.max_memory_allocated() / 2**20 if run_.device.type == "cuda" else float("nan")
        rate = count * steps / spent
        tops = rate * operations.get(name, 2 * nominal(network)) / 1e12
        found = {"engine": name, "batch": count, "steps": steps, "seconds": spent, "images_steps_per_second": rate}
        share = tops / run_.notes.get("int8_tops", float("nan"))
        run_.rows.append({**found, "peak_memory_mib": peak, "tops": tops, "share_of_int8_product": share})


def by_layer(run_: Run, sweep: bool) -> None:
    """Time of each launch at a large batch; with `sweep` also for other tiles."""
    count, steps = (2, 4) if run_.small else (1024, 32)
    engine = Timed(run_.network(0), run_.device, run_.memory_mib)
    steps = min(steps, engine.block(count))
    state, _ = engine.advance(engine.start(run_.batch(count)), steps)

    def report(item: Lowered, launch: Callable[[], None]) -> None:
        spent = seconds(run_, launch)
        tops = 2 * products(item) * count * steps / spent / 1e12
        stored = steps * count * ((item.source.values if item is not engine.layers[0] else 0) + item.result.values)
        tile = engine.tile(item, count)
        found = {"layer": item.layer.name, "kernel": item.kernel, "milliseconds": 1e3 * spent, "tops": tops}
        run_.layers.append({**found, "gb_per_s_at_least": stored / spent / 1e9, "tile": tuple(tile)})
        if sweep and item.weight is not None:
            for tried in candidates(item):
                engine.given = tried
                try:
                    spent = seconds(run_, launch, 3)
                except Exception as error:  # a tile that does not fit the chip is a finding, not a failure
                    run_.tiles.append({"layer": item.layer.name, "tile": tuple(tried), "error": str(error)[:80]})
                else:
                    run_.tiles.append({"layer": item.layer.name, "tile": tuple(tried), "milliseconds": 1e3 * spent})
            engine.given = None

    engine.report = report
    engine.advance(state, steps)


def candidates(item: Lowered) -> Iterator[Tile]:
    """Tiles worth trying for a layer with weights."""
    shapes = [(32, 128, 4), (32, 256, 8), (64, 64, 4), (64, 64, 8), (64, 128, 8), (128, 64, 8), (16, 256, 4)]
    for (rows, columns, warps), chunk, stages in product(shapes, (64, 128), (2, 3, 4)):
        if item.target.stored % columns == 0 and item.source.stored % chunk == 0:
            yield Tile(rows, columns, chunk, warps, stages)


def whole_test_set(run_: Run) -> None:
    """T=100 over 10,000 images, counts and class potentials of every step brought to the host."""
    total, group, steps = (6, 3, 5) if run_.small else (10_000, 1024, 100)
    network = run_.network(0)
    engine = TritonEngine(network, run_.device, run_.memory_mib)
    readout = engine.network.readout
    batch = run_.batch(group)
    engine.advance(engine.start(batch), 4)  # compiled before the clock starts
    run_.synchronise()
    begin = time.perf_counter()
    for first in range(0, total, group):
        part = batch[: min(group, total - first)]
        state, sent, done = engine.start(part), torch.zeros(len(part), readout.shape[1], device=run_.device), 0
        while done < steps:
            state, block = engine.advance(state, min(engine.block(len(part)), steps - done))
            done = state.steps
            summed = block.spikes.float().cumsum(0) + sent
            (summed.double() @ readout.T).argmax(-1).short().cpu()
            block.counts.cpu()
            sent = summed[-1]
    run_.synchronise()
    run_.notes["whole_test_set"] = {"images": total, "steps": steps, "seconds": time.perf_counter() - begin}


def machine(run_: Run) -> dict[str, Any]:
    """What describes the machine."""
    import platform

    import triton

    versions = {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}
    if run_.device.type != "cuda":
        return {**versions, "device": "Triton's interpreter"}
    found = torch.cuda.get_device_properties(run_.device)
    return {**versions, "device": found.name, "processors": found.multi_processor_count, "cuda": torch.version.cuda}


def write(run_: Run, folder: Path) -> None:
    """Tables and the whole as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    described = machine(run_)
    for name, rows in (("gpu", run_.rows), ("gpu_layers", run_.layers), ("gpu_tiles", run_.tiles)):
        if rows:
            columns = list(dict.fromkeys(key for row in rows for key in (*row, *described)))
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows({**row, **described} for row in rows)
    everything = {"machine": described, "notes": run_.notes, "failed": run_.failed}
    everything |= {"speed": run_.rows, "layers": run_.layers, "tiles": run_.tiles}
    (folder / "gpu.json").write_text(json.dumps(everything, indent=1))


def show(run_: Run) -> None:
    """Short table, last."""
    for row in sorted(run_.tiles, key=lambda row: (row["layer"], row.get("milliseconds", 1e9))):
        if "milliseconds" in row:
            print(f"tile {row['layer']:8} {row['tile']!s:26} {row['milliseconds']:9.3f} ms")
    for row in run_.layers:
        print(f"{row['layer']:12} {row['milliseconds']:9.3f} ms {row['tops']:8.1f} TOPS "
              f"{row['gb_per_s_at_least']:8.0f} GB/s  {row['kernel']} {row['tile']}")  # fmt: skip
    for row in run_.rows:
        print(f"{row['engine']:12} batch {row['batch']:5} {row['images_steps_per_second']:12.0f} images x steps/s "
              f"{row['tops']:8.1f} TOPS, {row['share_of_int8_product']:6.1%} of the int8 product, "
              f"{row['peak_memory_mib']:8.0f} MiB")  # fmt: skip
    print(machine(run_), *(f"{key}: {value}" for key, value in run_.notes.items()), sep="\n")
    print("FAILED: " + "; ".join(run_.failed) if run_.failed else "all parts ran")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--small", action="store_true", help="a small network on the CPU, in Triton's interpreter")
    parser.add_argument("--sweep", action="store_true", help="also time other tiles for each layer (minutes)")
    parser.add_argument("--memory-mib", type=int, default=16 * 1024, help="memory budget of the engines")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "results" / "benchmarks"))
    given = parser.parse_args()
    run_ = Run(torch.device("cpu" if given.small else "cuda"), given.small, given.memory_mib)
    parts: dict[str, Callable[[], None]] = {
        "ceiling": lambda: ceiling(run_),
        "equality": lambda: equality(run_),
        "speed": lambda: speed(run_),
        "time by layer": lambda: by_layer(run_, given.sweep),
        "whole test set": lambda: whole_test_set(run_),
        "equality of members": lambda: equality_of_members(run_),
    }
    for name, part in parts.items():
        begin = time.perf_counter()
        try:
            part()
        except Exception as error:
            run_.failed.append(f"{name}: {type(error).__name__}: {str(error)[:400]}")
        print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)
        write(run_, given.out)  # after each part: a run that is cut off leaves what it has
    show(run_)
    return 1 if run_.failed else 0


if __name__ == "__main__":
    sys.exit(main())
