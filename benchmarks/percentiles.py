"""Time and memory of the percentile pass on VGG-15 (CIFAR shape), against what it contains and what it replaces.

Time is given as a multiple of the two plain forward passes that the pass contains, all measured in one process. NumPy's
side keeps all activations and calls `np.percentile` for one percentile per layer, as Lu & Sengupta's code does; for few
images, since its memory grows with them. Equality is checked over the whole grid, outside the timing.

    python benchmarks/percentiles.py --images 3500 --batch 100
"""

from __future__ import annotations

import argparse
import csv
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bsnn import artifacts, config, provenance
from bsnn.conversion import activations, percentiles
from bsnn.networks.vgg import VGG, Trained

FEATURES = [64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P"]
Batches = Callable[[], Iterator[Tensor]]
COLUMNS = ["method", "images", "batch", "seconds", "ratio_to_forward", "peak_memory_mib", "equal_to_numpy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3500, help="images of the percentile pass (default 3500)")
    parser.add_argument("--reference-images", type=int, default=100, help="images NumPy's side keeps (default 100)")
    parser.add_argument("--batch", type=int, default=100, help="images a forward pass (default 100)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/percentiles.csv"))
    arguments = parser.parse_args()
    rows = []
    for compare, images in ((against_numpy, arguments.reference_images), (against_forward, arguments.images)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:  # memory as of a new process
            rows += fresh.submit(compare, images, arguments.batch, torch.device(arguments.device)).result()
    print(pd.DataFrame(rows, columns=COLUMNS).to_string(index=False, float_format="%.2f", na_rep=""))
    write(arguments.out, rows, arguments.device)


def write(path: Path, rows: list[dict[str, object]], device: str) -> None:
    """Write the rows with what describes the machine."""
    origin = provenance.collect()
    hardware, versions = provenance.hardware(), provenance.versions()
    machine = {
        "device": device,
        "cpu": hardware["cpu"],
        "cores": hardware["cores"],
        "threads": torch.get_num_threads(),
        "gpus": hardware["gpus"],
        "torch": versions["torch"],
        "numpy": versions["numpy"],
        "revision": origin["revision"],
        "created": origin["created"],
    }
    with artifacts.replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *machine])
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)


def against_forward(images: int, batch: int, device: torch.device) -> list[dict[str, object]]:
    """The pass between two plain forward passes, so that a machine that slows down slows both sides."""
    trained, batches, model = prepared(images, batch, device)
    before, memory, _ = measured(lambda: forward(trained, batches), device)
    seconds, peak, _ = measured(lambda: activations.collect(trained, batches), device)
    after, _, _ = measured(lambda: forward(trained, batches), device)
    both = before + after
    return [
        row("two forward passes", images, batch, both, 1.0, memory - model, None),
        row("bsnn, whole grid", images, batch, seconds, seconds / both, peak - model, None),
    ]


def against_numpy(images: int, batch: int, device: torch.device) -> list[dict[str, object]]:
    """Both sides on the same images, and whether every percentile of every layer is equal to the last bit."""
    trained, batches, model = prepared(images, batch, device)
    both = 2 * measured(lambda: forward(trained, batches), device)[0]
    seconds, peak, table = measured(lambda: activations.collect(trained, batches), device)
    theirs, their_peak, _ = measured(lambda: kept_percentiles(trained, batches, np.array([99.9])), device)
    return [
        row("bsnn, whole grid", images, batch, seconds, seconds / both, peak - model, equal(table, trained, batches)),
        row("numpy, one percentile", images, batch, theirs, theirs / both, their_peak - model, None),
    ]


def equal(table: pd.DataFrame, trained: Trained, batches: Batches) -> bool:
    reference = kept_percentiles(trained, batches, percentiles.grid())
    everything = table[table["population"] == "all"]
    return all(np.array_equal(group["value"], reference[name]) for name, group in everything.groupby("layer"))


def row(*values: object) -> dict[str, object]:
    return dict(zip(COLUMNS, values, strict=True))


def prepared(images: int, batch: int, device: torch.device) -> tuple[Trained, Batches, float]:
    """VGG-15 with random weights, its images, and the memory in use with the model alone (MiB)."""
    torch.manual_seed(0)
    settings = config.Network.model_validate({"features": FEATURES, "hidden": [4096]})
    module = VGG(settings, (3, 32, 32), 100).eval().to(device)
    trained = Trained(module, tuple(map(str, range(100))), (0.5,) * 3, (0.25,) * 3, {}, {})
    model = memory("VmRSS") if device.type == "cpu" else torch.cuda.memory_allocated(device) / 2**20
    forward(trained, functools.partial(random_batches, batch, batch, device))  # warm-up
    return trained, functools.partial(random_batches, images, batch, device), model


def random_batches(images: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    """The same normalised images each time."""
    for start in range(0, images, batch):
        generator = torch.Generator().manual_seed(start)
        yield torch.randn(min(batch, images - start), 3, 32, 32, generator=generator).to(device)


def forward(trained: Trained, batches: Batches) -> None:
    with torch.no_grad():
        for batch in batches():
            trained.module(batch)


def kept_percentiles(trained: Trained, batches: Batches, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """np.percentile of each layer's concatenated activations as float64."""
    kept: dict[str, list[np.ndarray]] = {}

    def keep(name: str, values: Tensor) -> None:
        kept.setdefault(name, []).append(values.flatten().cpu().numpy())

    with torch.no_grad():
        for batch in batches():
            trained.module(batch, keep)
    return {name: np.percentile(np.concatenate(parts).astype(np.float64), wanted) for name, parts in kept.items()}


def measured(work: Callable[[], Any], device: torch.device) -> tuple[float, float, Any]:
    """Seconds, peak memory (MiB, the process's resident; on a GPU, the GPU's allocated), and the result."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again
    started = time.perf_counter()
    result = work()
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    return seconds, torch.cuda.max_memory_allocated(device) / 2**20 if cuda else memory("VmHWM"), result


def memory(field: str) -> float:
    """This process's resident memory, now (VmRSS) or at its peak (VmHWM), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) / 1024


if __name__ == "__main__":
    main()
