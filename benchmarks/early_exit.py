"""Early exit: accuracy, mean steps and wall time with and without it, on an experiment that ran.

    python benchmarks/early_exit.py EXPERIMENT [--weights binary] [--percentile 99.9] [--bounds 0.5 1 2 4]

Images leave the batch once their margin (logit units) reaches a bound. All runs use the same engine, images and steps;
the ratio is the time without early exit over the time with it. Writes results/benchmarks/early_exit_EXPERIMENT.csv.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

from bsnn import artifacts, config, datasets, engines, provenance
from bsnn.conversion import spiking
from bsnn.pipeline.job import Job
from bsnn.simulation import run as simulation
from bsnn.simulation.readout import accuracy


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--weights", choices=["full", "binary"], default="binary")
    parser.add_argument("--percentile", type=float, default=99.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bounds", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    args = options()
    loaded = config.load("config.yaml")
    job = Job.of(loaded, args.experiment, args.weights, args.seed, args.percentile)
    trained = job.network()
    network = spiking.convert(trained, job.thresholds())
    name, _ = engines.choose(network, "cpu")
    engine = engines.create(name, network)
    test = job.data_set().test
    normalise = datasets.Normalise(trained.mean, trained.std)
    batches = [normalise(images) for images, _ in test.batches(torch.arange(len(test)), 256, "cpu")]
    rows = []
    for bound in [None, *args.bounds]:
        seconds = []
        for _ in range(args.repeats):
            begin = time.perf_counter()
            result = simulation.run(engine, batches, job.experiment.simulation.time, early_exit=bound)
            seconds.append(time.perf_counter() - begin)
        percent = 100 * float(accuracy(result.predicted, test.labels)[-1])
        steps = float(result.steps.double().mean())
        rows.append({"bound": bound, "accuracy": percent, "mean_steps": steps, "seconds": min(seconds)})
    frame = pd.DataFrame(rows)
    frame.insert(4, "ratio", frame["seconds"].iloc[0] / frame["seconds"])
    described = {"experiment": args.experiment, "weights": args.weights, "percentile": args.percentile, "engine": name}
    machine = {"cpu": provenance.cpu_model(), "cores": provenance.cores(), "torch": torch.__version__}
    frame = frame.assign(**described, images=len(test), **machine, revision=provenance.revision())
    out = Path("results/benchmarks") / f"early_exit_{args.experiment}.csv"
    artifacts.write_text(out, frame.to_csv(index=False))
    print(frame[["bound", "accuracy", "mean_steps", "seconds", "ratio"]].round(3).to_markdown(index=False))
    print(f"\n{out}: {args.weights}, percentile {args.percentile}, {len(test)} images, engine {name}")


if __name__ == "__main__":
    main()
