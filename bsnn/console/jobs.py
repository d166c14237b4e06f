"""Jobs in words: how many of which kind, and what one of them is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bsnn.config import format_percentile
from bsnn.pipeline.declarations import STAGES

if TYPE_CHECKING:
    from bsnn.pipeline.costs import One

NOUNS = {
    "data": ("data set", "data sets"),
    "train": ("network", "networks"),
    "binarize": ("network", "networks"),
    "activations": ("activation table", "activation tables"),
    "thresholds": ("threshold table", "threshold tables"),
    "simulate": ("simulation", "simulations"),
    "method": ("simulation of a method", "simulations of methods"),
    "ideal": ("ideal curve", "ideal curves"),
    "find_switches": ("search", "searches"),
    "find_exit": ("early exit", "early exits"),
    "tables": ("set of tables", "sets of tables"),
    "latency_tables": ("set of tables", "sets of tables"),
    "figures": ("set of figures", "sets of figures"),
    "latency_figures": ("set of figures", "sets of figures"),
    "exit_results": ("set of tables", "sets of tables"),
    "paper_result": ("result of the paper", "results of the paper"),
    "paper_report": ("report of the paper", "reports of the paper"),
}
"""What a rule makes, for one and for several; by default the rule's name."""

WEIGHTS = {"full": "full precision", "binary": "binary"}


def _nouns(rule: str) -> tuple[str, str]:
    name = rule.replace("_", " ")
    return NOUNS.get(rule, (name, f"{name}s"))


def counted(jobs: Iterable[One]) -> str:
    """For example "2 networks, 6 simulations": in the order of the pipeline, shards of a simulation being one."""
    whole = {(rule, place._replace(shard=1)) for rule, place in jobs}
    found: dict[tuple[str, str], int] = {}
    for rule in STAGES:
        nouns, count = _nouns(rule), sum(other == rule for other, _ in whole)
        if count:
            # Several rules make what has one name, as networks of either kind.
            found[nouns] = found.get(nouns, 0) + count
    return ", ".join(f"{count} {nouns[count > 1]}" for nouns, count in found.items())


def label(job: One) -> str:
    """For example "train digits, full precision, seed 0" and "simulate digits, binary, seed 0, percentile 99.9"."""
    rule, place = job
    stage = STAGES[rule]
    axes = stage.over if stage.weights is None else ("weights", *stage.over)
    texts = {
        "weights": WEIGHTS[stage.weights or place.weights],
        "seed": f"seed {place.seed}",
        "percentile": f"percentile {format_percentile(place.percentile)}",
        "method": place.method,
        "steps": f"T = {place.steps}",
        "shard": f"shard {place.shard}",
        "result": place.result,
    }
    about = [place.experiment, *(texts[axis] for axis in axes)]
    return f"{rule.replace('_', ' ')} {', '.join(about)}"
