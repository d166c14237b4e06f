"""What is still to do, and its cost: jobs by rule, hours and memory from benchmark files, disk from artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bsnn.config import Config
from bsnn.errors import ConfigError
from bsnn.paper import plan as paper
from bsnn.pipeline import identity

BENCHMARKS = Path("logs/benchmarks")  # <rule>/<experiment>/...tsv, of data sets <rule>/<data set>-...tsv
FOLDERS = {"find_switches": "search", "find_exit": "exit"}  # where it is not the rule's name
TARGETS = ("all", "paper", "latency", "search", "early_exit")


@dataclass(frozen=True)
class Stage:
    """The jobs of one rule for one experiment."""

    experiment: str
    rule: str
    done: int
    to_do: int
    hours_each: float | None  # mean of the measured jobs; None where none was measured
    memory_mb: float | None  # of the largest measured job; None where none was, or all were too short to be looked at
    size_each: float | None  # bytes, mean of the main artifacts that are there; None where there is none

    @property
    def hours(self) -> float | None:
        """Hours of the jobs to do; None where that is not known."""
        return _times(self.to_do, self.hours_each)

    @property
    def size(self) -> float | None:
        """Bytes that the jobs to do will write; None where that is not known."""
        return _times(self.to_do, self.size_each)


def _times(count: int, each: float | None) -> float | None:
    """Nothing costs nothing, whatever one would cost."""
    return count * each if each is not None else None if count else 0.0


def stages(
    config: Config, root: Path = identity.RESULTS, benchmarks: Path = BENCHMARKS, target: str = "all"
) -> list[Stage]:
    """Jobs that a target needs, with costs where jobs of the same rule and experiment were measured.

    At most: an artifact that is missing, but that nothing missing needs, is not made again. What several experiments
    share counts for the first.

    Raises:
        ConfigError: there is no such target.
    """
    if target not in TARGETS:
        raise ConfigError(f"there is no target '{target}' to plan; targets: {', '.join(TARGETS)}")
    paths, seen, found = identity.Paths(config, root), set[Path](), []
    for name, percentiles in _simulated(config, target).items():
        for rule, jobs in _jobs(config, paths, name, percentiles, target):
            own = [job for job in jobs if job[0] not in seen]
            seen |= {job[0] for job in own}
            found += [_stage(config, name, rule, own, benchmarks)] if own else []
    return found


def _simulated(config: Config, target: str) -> dict[str, list[float]]:
    """Experiments behind a target, and the percentiles at which each is simulated for it."""
    if target != "paper":
        return {name: config.percentile if target == "all" else [] for name in config.run}
    found: dict[str, set[float]] = {name: set() for name in config.run}
    for name in config.run:
        for result in paper.results_of(config, name):
            for other, percentiles in paper.simulated(config, name, result).items():
                found.setdefault(other, set()).update(percentiles)
    return {name: sorted(percentiles) for name, percentiles in found.items()}


def _jobs(
    config: Config, paths: identity.Paths, name: str, percentiles: list[float], target: str
) -> Iterator[tuple[str, list[list[Path]]]]:
    """For each rule, the artifacts of each of its jobs."""
    places = list(product([name], config.weights, config.seeds))
    shards = range(1, config.experiments[name].simulation.shards + 1)
    swept = list(product(places, percentiles))
    yield "data", [[paths.data(name)]]
    yield "train", [[paths.network(name, "full", seed)] for seed in config.seeds]
    if "binary" in config.weights:
        yield "binarize", [[paths.network(name, "binary", seed)] for seed in config.seeds]
    yield "activations", [[paths.activations(*place)] for place in places]
    yield "thresholds", [[paths.thresholds(*place, p)] for place, p in swept]
    simulations = [(*place, p, shard) for (place, p), shard in product(swept, shards)]
    yield "simulate", [[paths.predictions(*one), paths.spikes(*one)] for one in simulations]
    if target == "latency":
        settings = config.experiments[name].latency
        every = [
            (*place, method, steps, shard)
            for place in places
            for method in settings.names_for(place[1])
            for steps, shard in product(settings.runs(method), shards)
        ]
        yield "method", [[paths.method(what, *one) for what in identity.METHOD_FILES] for one in every]
    if target == "search":
        yield "find_switches", [[paths.search(*place)] for place in places]
    if target == "early_exit":
        yield "find_exit", [[paths.early_exit(*place)] for place in places]


def _stage(config: Config, name: str, rule: str, jobs: list[list[Path]], benchmarks: Path) -> Stage:
    done = [job for job in jobs if all(path.exists() for path in job)]
    sizes = [sum(path.stat().st_size for path in job) for job in done]
    pattern = f"{config.experiments[name].data.name}-*.tsv" if rule == "data" else f"{name}/*.tsv"
    measured = [_benchmark(path) for path in sorted((benchmarks / FOLDERS.get(rule, rule)).glob(pattern))]
    return Stage(
        name,
        rule,
        len(done),
        len(jobs) - len(done),
        sum(seconds for seconds, _ in measured) / len(measured) / 3600 if measured else None,
        max((memory for _, memory in measured if memory is not None), default=None),
        sum(sizes) / len(sizes) if sizes else None,
    )


def _benchmark(path: Path) -> tuple[float, float | None]:
    """Seconds, and most memory in MB (None where the job was too short to be looked at), from a benchmark file."""
    names, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
    found = dict(zip(names, values, strict=True))
    return float(found["s"]), None if found["max_rss"] in ("NA", "-") else float(found["max_rss"])


def to_text(found: list[Stage]) -> str:
    """A table for people; a dash where nothing was measured. Sums are those of what was measured."""
    from tabulate import tabulate

    heads = ["experiment", "rule", "done", "to do", "hours each", "MB", "hours to do", "MiB to do"]
    rows: list[list[object]] = [
        [s.experiment, s.rule, s.done, s.to_do, s.hours_each, s.memory_mb, s.hours, s.size and s.size / 2**20]
        for s in found
    ]
    ahead = [s for s in found if s.to_do]
    hours, size = _sum([s.hours for s in ahead]), _sum([s.size for s in ahead])
    done, to_do = sum(s.done for s in found), sum(s.to_do for s in found)
    rows.append(["sum", "", done, to_do, None, None, hours, size and size / 2**20])
    text = tabulate(
        rows, heads, tablefmt="github", missingval="-", floatfmt=("", "", "", "", ".3f", ".0f", ".2f", ".1f")
    )
    unknown = [f"{s.rule} of {s.experiment}" for s in ahead if s.hours is None]
    return text + (f"\nnot measured yet, and in no sum: {', '.join(unknown)}" if unknown else "")


def _sum(costs: list[float | None]) -> float | None:
    """Of those that are known; None where there are some, and none is known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known or not costs else None
