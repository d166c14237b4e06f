"""A trained network of one's own, converted by bsnn and by SpikingJelly's ann2snn: accuracy, spikes, time, memory.

    python benchmarks/own_networks.py FOLDER CHECKPOINT [--images 2000] [--threads 2] [--add] [--out FILE]

CHECKPOINT is what examples/resnet20.py wrote, its card beside it; FOLDER holds CIFAR-100 as that script reads it. Both
sides get the same module, calibration images (evenly spaced training images, without augmentation) and test images
(evenly spaced). SpikingJelly's are those of its own examples: RateCodingRecipe with batch norm fused and mode "Max" or
"99.9%", one time step after the other (resnet18_cifar10.py); "robust", the same with thresholds of channels and half a
threshold to begin with (imagenet_resnet18_ltb.py). Its multi-step mode simulates several steps of a layer at once, as
bsnn does. Every side runs in a process of its own; peak memory is above what it held before. A conversion's time and
memory are those of a fresh process, the loading of the package's parts with it; a simulation's time has the counting of
spikes in it. Writes a row per side and number of steps, as each side ends, and prints one table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(Path(__file__).parent)]
import resnet20
from simulation import features, forget_peak, peak_mib

from bsnn import artifacts, config, provenance

Simulate = Callable[[list[Tensor]], tuple[Tensor, Tensor]]  # images -> predicted [N, T], spikes at each step [T]


def ours(percentile: float, **switches: Any) -> Callable[..., Simulate]:
    """bsnn at a percentile; `switches` of the method of conversion."""

    def convert(module: nn.Module, calibration: list[Tensor], args: argparse.Namespace) -> Simulate:
        import bsnn

        method = config.Method(**switches)
        network = bsnn.to_spiking(
            bsnn.from_module(module, calibration[0][:4]), calibration, percentile=percentile, method=method
        )

        def simulate(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
            found = bsnn.simulate(network, batches, args.steps, method=method, memory_mib=args.memory_mib).simulation
            return found.predicted, found.counts.sum(0)

        return simulate

    return convert


def spikingjelly(mode: str, *, together: int = 1, **recipe: bool) -> Callable[..., Simulate]:
    """ann2snn in a mode; `together`: time steps at once, more than one in the multi-step mode."""

    def convert(module: nn.Module, calibration: list[Tensor], args: argparse.Namespace) -> Simulate:
        from spikingjelly.activation_based import ann2snn, functional, neuron

        made = ann2snn.RateCodingRecipe(dataloader=calibration, mode=mode, **recipe)
        network = ann2snn.Converter(recipe=made, device="cpu").convert(module).eval()
        functional.set_step_mode(network, "m" if together > 1 else "s")
        sent: list[Tensor] = []  # by each layer, at each step, [steps]
        for part in network.modules():
            if isinstance(part, neuron.BaseNode):
                part.register_forward_hook(lambda _, given, spikes: sent.append(_spikes(spikes, together)))

        def simulate(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
            predicted, spikes = [], torch.zeros(args.steps, dtype=torch.float64)
            for batch in batches:
                functional.reset_net(network)
                total, classes = torch.zeros(()), []
                for step in range(0, args.steps, together):
                    found = network(batch if together == 1 else batch.expand(together, *batch.shape))
                    for logits in found[None] if together == 1 else found:
                        total = total + logits
                        classes.append(total.argmax(1))
                    spikes[step : step + together] += torch.stack(sent).sum(0)
                    sent.clear()
                predicted.append(torch.stack(classes, 1))
            return torch.cat(predicted), spikes

        return simulate

    return convert


def _spikes(spikes: Tensor, steps: int) -> Tensor:
    return spikes.reshape(steps, -1).sum(1, dtype=torch.float64)


ROBUST = {"channel_wise": True, "half_threshold": True}
SIDES: dict[str, Callable[..., Simulate]] = {
    "bsnn, 99": ours(99.0),
    "bsnn, 99.9": ours(99.9),
    "bsnn, 100": ours(100.0),
    "bsnn, 99.9, half threshold": ours(99.9, initial=0.5),
    "bsnn, 99.9, half threshold, signed": ours(99.9, initial=0.5, signed=True),
    "bsnn, 99.9, half threshold, settled": ours(99.9, initial=0.5, signed=True, negative_threshold=0.0),
    "bsnn, 99.9, half threshold, channels": ours(99.9, initial=0.5, channels=True),
    "bsnn, 99.9, half threshold, channels, signed": ours(99.9, initial=0.5, channels=True, signed=True),
    "bsnn, 99.9, half threshold, channels, settled": ours(
        99.9, initial=0.5, channels=True, signed=True, negative_threshold=0.0
    ),
    "spikingjelly, Max": spikingjelly("Max"),
    "spikingjelly, 99.9%": spikingjelly("99.9%"),
    "spikingjelly, 99.9%, robust": spikingjelly("99.9%", **ROBUST),
    "spikingjelly, 99.9%, multi-step": spikingjelly("99.9%", together=8),
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="test images")
    parser.add_argument("--calibration", type=int, default=2000, help="training images that thresholds come from")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=128, help="time steps T; a multiple of 8")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-mib", type=int, default=1024, help="memory budget of bsnn's engine")
    parser.add_argument("--only", nargs="*", choices=SIDES, help="these sides only")
    parser.add_argument("--add", action="store_true", help="keep what the file has of other sides")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/own_networks.csv")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def images(args: argparse.Namespace, part: str, count: int) -> tuple[list[Tensor], Tensor]:
    """Batches of normalised images, evenly spaced, and their labels."""
    found, labels = resnet20.cifar100(args.folder, part)
    chosen = torch.linspace(0, len(found) - 1, min(count, len(found))).round().long()
    return list(resnet20.normalised(found[chosen]).contiguous().split(args.batch)), labels[chosen]


@torch.no_grad()
def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    """One side, in this process: a row for each number of steps."""
    torch.set_num_threads(args.threads)
    card = json.loads(args.checkpoint.with_suffix(".json").read_text())
    module = resnet20.build(card["settings"]["width"]).eval()
    module.load_state_dict(load_file(args.checkpoint))
    calibration, _ = images(args, "train", args.calibration)
    tests, labels = images(args, "test", args.images)
    ann = float((torch.cat([module(batch).argmax(1) for batch in tests]) == labels).double().mean())
    forget_peak("cpu")
    held, begin = peak_mib("cpu"), time.perf_counter()
    simulate = SIDES[args.side](module, calibration, args)
    converted, conversion = time.perf_counter() - begin, peak_mib("cpu") - held
    forget_peak("cpu")
    held, begin = peak_mib("cpu"), time.perf_counter()
    predicted, spikes = simulate(tests)
    simulated, simulation = time.perf_counter() - begin, peak_mib("cpu") - held
    times = [1 << power for power in range(args.steps.bit_length()) if 1 << power <= args.steps]
    return [
        {
            "side": args.side,
            "T": steps,
            "accuracy": 100 * float((predicted[:, steps - 1] == labels).double().mean()),
            "ann": 100 * ann,
            "spikes_per_image": float(spikes[:steps].double().sum()) / len(labels),
            "conversion_seconds": converted,
            "conversion_mib": conversion,
            "simulated_steps": args.steps,
            "simulation_seconds": simulated,
            "simulation_mib": simulation,
        }
        for steps in times
    ]


def run(args: argparse.Namespace, side: str) -> list[dict[str, object]]:
    """One side in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--side", side], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{side}: failed with {done.returncode}; its messages stand above")
    rows = json.loads(done.stdout.splitlines()[-1])
    print(f"{side}: {rows[-1]['accuracy']:.2f} % in {rows[-1]['simulation_seconds']:.0f} s", file=sys.stderr)
    return rows


def table(frame: pd.DataFrame) -> str:
    """A row for each side: accuracies by T, then spikes, seconds and memory of all steps."""
    wide = frame.pivot(index="side", columns="T", values="accuracy").loc[frame["side"].unique()]
    wide.columns = [f"T = {steps}" for steps in wide.columns]
    last = frame.groupby("side", sort=False).last()
    costs = {
        "spikes per image": last["spikes_per_image"].map("{:,.0f}".format),
        "conversion s": last["conversion_seconds"].round(1),
        "simulation s": last["simulation_seconds"].round(1),
        "conversion MiB": last["conversion_mib"].round(),
        "simulation MiB": last["simulation_mib"].round(),
    }
    wide.insert(0, "ANN", last["ann"])
    return wide.round(2).assign(**costs).to_markdown()


def main() -> None:
    args = options()
    if args.steps % 8:
        raise SystemExit(f"--steps {args.steps}: give a multiple of 8, the steps of SpikingJelly's multi-step mode")
    if args.side:
        print(json.dumps(measure(args)))
        return
    about = {
        "checkpoint": args.checkpoint.name,
        "images": args.images,
        "calibration": args.calibration,
        "batch": args.batch,
        "threads": args.threads,
        "cpu": provenance.cpu_model(),
        "features": features(),
        "torch": torch.__version__,
        "spikingjelly": version("spikingjelly"),
        "revision": provenance.revision(),
    }
    sides = args.only or list(SIDES)
    found = pd.read_csv(args.out) if args.add and args.out.exists() else None
    for side in sides:
        measured = pd.DataFrame(run(args, side)).assign(**about)
        found = measured if found is None else pd.concat([found[found["side"] != side], measured])
        artifacts.write_text(args.out, found.to_csv(index=False))
    frame = pd.concat([found[found["side"] == side] for side in SIDES])
    artifacts.write_text(args.out, frame.to_csv(index=False))
    print(table(frame))
    print(f"\n{args.out}: {args.images} test images, {args.calibration} for calibration, {about['cpu']}")


if __name__ == "__main__":
    main()
