"""What is still to do, and its cost: jobs by rule, time and memory from benchmark files, disk from artifacts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bsnn.pipeline import estimates
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

BENCHMARKS = Path("logs/benchmarks")  # <rule>/<experiment>/...tsv, of data sets <rule>/<data set>-...tsv
One = tuple[str, Place]  # a job: its rule, and the place of what it makes


@dataclass(frozen=True)
class Cost:
    """The jobs of one rule for one experiment."""

    experiment: str
    rule: str
    done: int
    to_do: int
    hours_each: float | None  # of whole processes: mean of the measured jobs, or estimated; None where nothing is known
    memory_mb: float | None  # of the largest measured job; None where none was, or all were too short to be looked at
    estimated: bool  # whether the hours are, of jobs that were never measured
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
    """Cost of `count` jobs: 0 for none, unknown where one job was never measured."""
    return count * each if each is not None else None if count else 0.0


def costs(pipeline: Pipeline, benchmarks: Path = BENCHMARKS, target: str = "all") -> list[Cost]:
    """Jobs that a target needs, with costs where jobs of the same rule and experiment were measured.

    Jobs to do are those that `snakemake -n TARGET` plans; what several experiments share counts for its owner.

    Raises:
        ConfigError: there is no such target to plan.
    """
    needs = closure(pipeline, target)
    ahead = _to_do(pipeline, target, needs)
    groups: dict[tuple[str, str], list[One]] = defaultdict(list)
    for one in needs:
        groups[one[1].experiment, one[0]].append(one)
    expected = Expected(pipeline, benchmarks)
    return [_cost(expected, *group, jobs, ahead) for group, jobs in groups.items()]


def reused(pipeline: Pipeline, targets: Iterable[str], ahead: Collection[One]) -> list[One]:
    """Jobs behind some targets whose files are all there, beside those that a run makes again."""
    behind = dict.fromkeys(one for target in targets for one in closure(pipeline, target))
    return [one for one in behind if one not in ahead and all(path.exists() for path in pipeline.files(*one))]


class Expected:
    """Seconds that jobs will take here."""

    def __init__(self, pipeline: Pipeline, benchmarks: Path = BENCHMARKS) -> None:
        self.pipeline, self.benchmarks = pipeline, benchmarks
        self._measured = cache(self._mean)
        self._rate = cache(self._fastness)

    def seconds(self, rule: str, place: Place) -> float | None:
        """Mean of the measured jobs of the same rule and experiment, or else estimated; None where nothing is known."""
        found = self._measured(rule, place.experiment)
        return self.estimated(rule, place) if found is None else found

    def whole(self, rule: str, place: Place) -> float | None:
        """As `seconds`, of the whole process: one that computes next to nothing takes some, too."""
        found = self.seconds(rule, place)
        if found is not None:
            return max(found, estimates.START)
        return estimates.START if estimates.brief(self.pipeline, rule, place) else None

    def estimated(self, rule: str, place: Place) -> float | None:
        """Seconds from a job's operations (bsnn.pipeline.estimates)."""
        kind, count = estimates.kind(rule, place), estimates.operations(self.pipeline, rule, place)
        return None if kind is None or count is None else count / self._rate(rule, kind)

    def _mean(self, rule: str, name: str) -> float | None:
        found = [seconds for seconds, _ in _measured(self.pipeline, rule, name, self.benchmarks)]
        return sum(found) / len(found) if found else None

    def _fastness(self, rule: str, kind: str) -> float:
        """Operations per second of long measured jobs of other experiments; of another machine where there are none."""
        done = spent = 0.0
        for name in self.pipeline.config.experiments:
            for place in self.pipeline.places(rule, name):
                count = estimates.operations(self.pipeline, rule, place)
                seconds = self._measured(rule, place.experiment) or 0.0
                if estimates.kind(rule, place) == kind and count is not None and seconds >= estimates.LONG:
                    done, spent = done + count, spent + seconds  # sums: long jobs weigh more
        return done / spent if spent else estimates.RATES[kind]


def closure(pipeline: Pipeline, target: str) -> dict[One, dict[One, set[Path]]]:
    """Every job behind a target, with the jobs that it needs and their files that it reads; upstream first."""
    needs: dict[One, dict[One, set[Path]]] = {}

    def visit(one: One) -> None:
        if one in needs:
            return
        above: dict[One, set[Path]] = defaultdict(set)
        for need in pipeline.reads(*one):
            above[need.stage, need.place].add(pipeline.path(*need))
        for other in above:
            visit(other)
        # After those that it needs: upstream comes first.
        needs[one] = above

    for stage, place in pipeline.target(target):
        visit((pipeline.rule(stage, place), place))
    return needs


def _to_do(pipeline: Pipeline, target: str, needs: dict[One, dict[One, set[Path]]]) -> set[One]:
    """Jobs of which a file is missing that the target asks for, or another job to do."""
    asked = [(pipeline.rule(stage, place), place) for stage, place in pipeline.target(target)]
    # As Snakemake plans with inputs that are `ancient`: from the files asked for upwards, only where one is missing.
    # What was lost upstream of a file that is there is not made again.
    waiting = [one for one in asked if not all(path.exists() for path in pipeline.files(*one))]
    found: set[One] = set()
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [other for other, paths in needs[one].items() if not all(path.exists() for path in paths)]
    return found


def _cost(expected: Expected, name: str, rule: str, jobs: list[One], ahead: set[One]) -> Cost:
    pipeline, benchmarks = expected.pipeline, expected.benchmarks
    files = [pipeline.files(*job) for job in jobs]
    sizes = [sum(path.stat().st_size for path in own) for own in files if all(path.exists() for path in own)]
    measured = _measured(pipeline, rule, name, benchmarks)
    known = [seconds for job in jobs if (seconds := expected.whole(*job)) is not None]
    return Cost(
        name,
        rule,
        len(sizes),
        sum(job in ahead for job in jobs),
        sum(known) / len(known) / 3600 if known else None,
        max((memory for _, memory in measured if memory is not None), default=None),
        bool(known) and not measured,
        sum(sizes) / len(sizes) if sizes else None,
    )


def _measured(pipeline: Pipeline, rule: str, name: str, benchmarks: Path) -> list[tuple[float, float | None]]:
    """What the jobs of a rule and experiment took, as `_benchmark`; without files that cannot be read."""
    pattern = f"{pipeline.config.experiments[name].data.name}-*.tsv" if rule == "data" else f"{name}/*.tsv"
    found = (_benchmark(path) for path in sorted((benchmarks / rule).glob(pattern)))
    return [one for one in found if one is not None]


def _benchmark(path: Path) -> tuple[float, float | None] | None:
    """Seconds, and most memory in MB (None where the job was too short to be looked at); None of an unreadable file."""
    try:
        names, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
        found = dict(zip(names, values, strict=True))
        return float(found["s"]), None if found["max_rss"] in ("NA", "-") else float(found["max_rss"])
    except (OSError, ValueError, KeyError):
        return None


def duration(seconds: float) -> str:
    """For example "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def to_text(found: list[Cost]) -> str:
    """A table for people; a dash where nothing is known. Sums are those of what is known; estimates are named below."""
    from tabulate import tabulate

    heads = ["experiment", "rule", "done", "to do", "time each", "MB", "time to do", "MiB to do"]
    rows: list[list[object]] = [
        [
            s.experiment,
            s.rule,
            s.done,
            s.to_do,
            _time(s.hours_each),
            s.memory_mb,
            _time(s.hours),
            s.size and s.size / 2**20,
        ]
        for s in found
    ]
    ahead = [s for s in found if s.to_do]
    hours, size = _sum([s.hours for s in ahead]), _sum([s.size for s in ahead])
    done, to_do = sum(s.done for s in found), sum(s.to_do for s in found)
    rows.append(["sum", "", done, to_do, None, None, _time(hours), size and size / 2**20])
    sides = ("left", "left", *["right"] * 6)
    text = tabulate(
        rows, heads, tablefmt="github", missingval="-", floatfmt=(*[""] * 5, ".0f", "", ".1f"), colalign=sides
    )
    unknown = [f"{s.rule} of {s.experiment}" for s in ahead if s.hours is None]
    guessed = [f"{s.rule} of {s.experiment}" for s in ahead if s.estimated]
    lines = [text]
    if guessed:
        by = f"the recipe's operations, and {estimates.START:.0f} s or more for each process"
        lines.append(f"times estimated ({by}), never measured: {', '.join(guessed)}")
    if unknown:
        lines.append(f"not measured yet, and in no sum: {', '.join(unknown)}")
    return "\n".join(lines)


def _time(hours: float | None) -> str | None:
    """As `duration`, which rounds to tens of seconds: of short jobs the seconds themselves."""
    if hours is None:
        return None
    return f"{3600 * hours:.0f} s" if 3600 * hours < 10 else duration(3600 * hours)


def _sum(costs: list[float | None]) -> float | None:
    """Of those that are known; None where there are some, and none is known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known or not costs else None
