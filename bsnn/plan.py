"""What is still to do, and its cost: jobs by rule, hours and memory from benchmark files, disk from artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bsnn import identity
from bsnn.config import Config

BENCHMARKS = Path("logs/benchmarks")  # <rule>/<experiment>/...tsv, of data sets <rule>/<data set>-...tsv


@dataclass(frozen=True)
class Stage:
    """The jobs of one rule for one experiment."""

    experiment: str
    rule: str
    done: int
    to_do: int
    hours_each: float | None  # mean of the measured jobs; None where none was measured
    memory_mb: float | None  # of the largest measured job
    size_each: float | None  # bytes, mean of the main artifacts that are there; None where there is none

    @property
    def hours(self) -> float | None:
        """Hours of the jobs to do."""
        return None if self.hours_each is None else self.to_do * self.hours_each

    @property
    def size(self) -> float | None:
        """Bytes that the jobs to do will write."""
        return None if self.size_each is None else self.to_do * self.size_each


def stages(config: Config, root: Path = identity.RESULTS, benchmarks: Path = BENCHMARKS) -> list[Stage]:
    """Jobs that the experiments that run need, with costs where jobs of the same rule and experiment were measured.

    At most: an artifact that is missing, but that nothing missing needs, is not made again.
    """
    return [
        _stage(config, name, rule, paths, benchmarks)
        for name in config.run
        for rule, paths in _jobs(config, name, root)
    ]


def _jobs(config: Config, name: str, root: Path) -> Iterator[tuple[str, list[list[Path]]]]:
    """For each rule, the artifacts of each of its jobs."""
    paths, places = identity.Paths(config, root), list(product([name], config.weights, config.seeds))
    shards = range(1, config.experiments[name].simulation.shards + 1)
    simulations = [
        (*place, percentile, shard) for place in places for percentile in config.percentile for shard in shards
    ]
    yield "data", [[paths.data(name)]]
    yield "train", [[paths.network(name, "full", seed)] for seed in config.seeds]
    if "binary" in config.weights:
        yield "binarize", [[paths.network(name, "binary", seed)] for seed in config.seeds]
    yield "activations", [[paths.activations(*place)] for place in places]
    yield "thresholds", [[paths.thresholds(*place, p)] for place in places for p in config.percentile]
    yield "simulate", [[paths.predictions(*one), paths.spikes(*one)] for one in simulations]


def _stage(config: Config, name: str, rule: str, jobs: list[list[Path]], benchmarks: Path) -> Stage:
    done = [job for job in jobs if all(path.exists() for path in job)]
    sizes = [sum(path.stat().st_size for path in job) for job in done]
    pattern = f"{config.experiments[name].data.name}-*.tsv" if rule == "data" else f"{name}/*.tsv"
    measured = [_benchmark(path) for path in sorted((benchmarks / rule).glob(pattern))]
    return Stage(
        name,
        rule,
        len(done),
        len(jobs) - len(done),
        sum(seconds for seconds, _ in measured) / len(measured) / 3600 if measured else None,
        max(memory for _, memory in measured) if measured else None,
        sum(sizes) / len(sizes) if sizes else None,
    )


def _benchmark(path: Path) -> tuple[float, float]:
    """Seconds, and most memory in MB (0 where the job was too short to be looked at), from a benchmark file."""
    names, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
    found = dict(zip(names, values, strict=True))
    return float(found["s"]), 0.0 if found["max_rss"] in ("NA", "-") else float(found["max_rss"])


def to_text(found: list[Stage]) -> str:
    """A table for people; a dash where nothing was measured. Sums are those of what was measured."""
    from tabulate import tabulate

    heads = ["experiment", "rule", "done", "to do", "hours each", "MB", "hours to do", "MiB to do"]
    rows: list[list[object]] = [
        [s.experiment, s.rule, s.done, s.to_do, s.hours_each, s.memory_mb, s.hours, s.size and s.size / 2**20]
        for s in found
    ]
    hours, size = sum(s.hours or 0 for s in found), sum(s.size or 0 for s in found) / 2**20
    rows.append(["sum", "", sum(s.done for s in found), sum(s.to_do for s in found), None, None, hours, size])
    text = tabulate(
        rows, heads, tablefmt="github", missingval="-", floatfmt=("", "", "", "", ".3f", ".0f", ".2f", ".1f")
    )
    unknown = [f"{s.rule} of {s.experiment}" for s in found if s.to_do and s.hours is None]
    return text + (f"\nnot measured yet, and in no sum: {', '.join(unknown)}" if unknown else "")
