"""Simulation speed and memory: this project's engines against their peers, on this machine, in one run.

    python benchmarks/simulation.py [--batch 16] [--steps 32] [--size 32] [--weights binary] [--repeats 2] [--scaling]
        [--add] [--out FILE]

The network is VGG-15 with random binary weights, thresholds at the 99th percentile of its own activations; or, with
`--weights full`, the trained full-precision VGG-15 that comes with the repository, at the 99.9th percentile. Every side
runs in a process of its own (peak memory is that process's, above what it held before the first run); its time is the
best of the repeats. The last row is the time that the machine would need to count the ones of `spikes AND weights` for
the same products (benchmarks/popcount.py), or on a GPU for an int8 matrix product of as many: a ceiling for engines
that leave no product out. Writes results/benchmarks/simulation.csv; with --add, other rows of the file stay.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]
import popcount
from networks_for_tests import VGG15, images, spiking, thresholds
from peers import sides

from bsnn import artifacts, provenance
from bsnn.conversion.spiking import convert
from bsnn.networks import shipped

CEILING = {"cpu": "popcount alone", "cuda": "int8 product alone"}
SAME = ["cpu", "features", "gpu", "network", "batch", "steps", "engine"]  # what a row is of
FEATURES = {"AVX2": "avx2", "AVX-512": "avx512f", "VNNI": "avx512_vnni", "VPOPCNT": "avx512_vpopcntdq", "NEON": "asimd"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="images at once")
    parser.add_argument("--steps", type=int, default=32, help="time steps")
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument("--weights", choices=["binary", "full"], default="binary", help="of the network; full: size 32")
    parser.add_argument("--repeats", type=int, default=2, help="runs a side; the best counts")
    parser.add_argument("--memory-mib", type=int, default=2048, help="memory budget of the project's engines")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", help="these sides only")
    parser.add_argument("--scaling", action="store_true", help="also other batches, steps and sizes")
    parser.add_argument("--add", action="store_true", help="keep what the file has of other settings and machines")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/simulation.csv")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


def peak_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak(device: str) -> None:
    """Begin the peak again from what is held now (Linux and CUDA; elsewhere it is that of the whole process)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system, where it would hide what comes
        Path("/proc/self/clear_refs").write_text("5")


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def network(size: int, weights: str = "binary"):
    if weights == "full":
        trained = shipped.load("cifar100-cpu", "full")
        return convert(trained, thresholds(trained, smooth(1000, 8), 99.9))
    hidden = {"features": VGG15, "hidden": [4096], "size": size, "classes": 100 if size == 32 else 1000}
    return spiking(0, **hidden)


def smooth(seed: int, count: int) -> torch.Tensor:
    """Random images that are smooth as photographs are, on which trained networks spike as on these."""
    return F.interpolate(images(seed, count, 8), (32, 32), mode="bicubic").clamp(-2, 2)


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One side, in this process."""
    if args.side == CEILING[args.device]:
        return {"seconds": ceiling(args), "peak_memory_mib": float("nan"), "checksum": float("nan")}
    full = args.weights == "full"
    batch = (smooth(1, args.batch) if full else images(1, args.batch, args.size)).to(args.device)
    simulate = sides(args.device, args.memory_mib)[args.side](network(args.size, args.weights), batch, args.steps)
    forget_peak(args.device)
    before, seconds = peak_mib(args.device), []
    for _ in range(args.repeats):
        synchronise(args.device)
        begin = time.perf_counter()
        result = simulate()
        synchronise(args.device)
        seconds.append(time.perf_counter() - begin)
    return {
        "seconds": min(seconds),
        "peak_memory_mib": peak_mib(args.device) - before,
        "checksum": float(result.double().sum()),
    }


def ceiling(args: argparse.Namespace) -> float:
    """Seconds that the device would need for the network's products and nothing else."""
    products = args.batch * args.steps * macs(args.size)
    if args.device == "cpu":
        return products / popcount.rate(torch.get_num_threads())
    size = 8192
    a = torch.randint(0, 2, (size, size), dtype=torch.int8, device=args.device)
    b = torch.randint(-1, 2, (size, size), dtype=torch.int8, device=args.device)
    best = float("inf")
    for _ in range(10):
        synchronise(args.device)
        begin = time.perf_counter()
        torch._int_mm(a, b)
        synchronise(args.device)
        best = min(best, time.perf_counter() - begin)
    rate = size**3 / best
    return products / rate


def macs(size: int) -> int:
    """Multiply-accumulates of the layers after the first, for one image and step."""
    total, height = 0, size
    for layer in network(size).layers[1:]:
        places = height * height if layer.op == "conv" else 1
        total += layer.weight.numel() * places
        height //= 2 if layer.pool else 1
    return total


def features() -> str:
    """What the CPU has of instructions that matter here."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    return ", ".join(name for name, flag in FEATURES.items() if flag in flags)


def added(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows of a file, with these instead of those of the same engine, setting and machine."""
    if not path.exists():
        return frame
    both = pd.concat([pd.read_csv(path), frame])
    text = both.columns[both.dtypes.map(pd.api.types.is_string_dtype)]
    both[text] = both[text].fillna("")  # a cell without text is read as a number
    return both[~both[SAME].duplicated(keep="last")]


def run(args: argparse.Namespace, side: str, **changes: int) -> dict[str, object]:
    """One side in a process of its own."""
    setting = {"batch": args.batch, "steps": args.steps, "size": args.size, **changes}
    command = [sys.executable, __file__, "--side", side, "--device", args.device, "--repeats", str(args.repeats)]
    command += ["--memory-mib", str(args.memory_mib), "--weights", args.weights]
    command += [word for name, value in setting.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{side}: not measured ({reason})", file=sys.stderr)
        found: dict[str, float] = {}
    else:
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{side}, {setting}: {found['seconds']:.3g} s", file=sys.stderr)
    name = f"vgg15-{setting['size']}" + ("-full" if args.weights == "full" else "")
    return {"engine": side, "device": args.device, "network": name, **setting, **found}


def completed(rows: list[dict[str, object]], device: str) -> pd.DataFrame:
    """Rates, and what describes the machine."""
    frame = pd.DataFrame(rows)
    frame["image_steps_per_second"] = frame["batch"] * frame["steps"] / frame["seconds"]
    machine = {
        "cpu": provenance.cpu_model(),
        "features": features(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        "cores": provenance.cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "revision": provenance.revision(),
    }
    return frame.assign(**machine)


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """With each row's ratio to BindsNET at the same setting on the same machine."""
    same = SAME[:-1]
    keys = frame[same].astype(str).agg("|".join, axis=1)
    reference = frame[frame["engine"] == "bindsnet"].set_index(keys[frame["engine"] == "bindsnet"])["seconds"]
    return frame.assign(ratio_to_bindsnet=keys.map(reference) / frame["seconds"])


def main() -> None:
    args = options()
    if args.side:
        print(json.dumps(measure(args)))
        return
    names = [name for name in sides(args.device, args.memory_mib) if not args.only or name in args.only]
    ceiling = [] if args.weights == "full" else [CEILING[args.device]]
    rows = [run(args, name) for name in [*names, *ceiling]]
    if args.scaling:
        settings = [{"batch": 1}, {"batch": 256}, {"steps": 8}, {"steps": 128}, {"size": 224, "batch": 4}]
        rows += [run(args, name, **setting) for setting in settings for name in names]
    frame = compared(completed(rows, args.device))
    kept = compared(added(frame, args.out)) if args.add else frame
    artifacts.write_text(args.out, kept.to_csv(index=False))
    shown = ["engine", "network", "batch", "steps", "seconds", "image_steps_per_second", "ratio_to_bindsnet"]
    print(frame[[*shown, "peak_memory_mib"]].round(2).to_markdown(index=False))
    print(
        f"\n{args.out}: {provenance.cpu_model()} ({features()}), {provenance.cores()} cores, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
