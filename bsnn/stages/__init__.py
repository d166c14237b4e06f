"""The stages of the pipeline: read artifacts, call one module, write artifacts. What a rule does, also by hand."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING

from bsnn.pipeline.declarations import STAGES

if TYPE_CHECKING:
    from bsnn.pipeline.job import Job

# Modules of this package, and the rules whose functions they hold. They are loaded when a stage runs.
MODULES = {
    "train": ("data", "train", "binarize"),
    "convert": ("activations", "thresholds", "simulate", "method", "ideal"),
    "search": ("find_switches", "find_exit"),
    "results": (
        "tables",
        "figures",
        "report",
        "latency_tables",
        "latency_figures",
        "exit_results",
        "paper_result",
        "paper_report",
    ),
}

# Rules whose results the report shows, where they are there.
ADDED = ("latency_figures", "find_switches", "exit_results")


def run(rule: str, job: Job) -> None:
    """Make the files of a rule.

    Raises:
        ConfigError: the configuration has no such job.
        BsnnError: the stage cannot read, compute or write.
    """
    from bsnn.pipeline import notes, possible

    job.pipeline.check(rule, job.place)
    possible.check(job.pipeline.stage(rule, job.place), job.experiment, job.place)
    [name] = [name for name, rules in MODULES.items() if rule in rules]
    module = import_module(f"bsnn.stages.{name}")
    with ExitStack() as held:
        if rule == "report":
            held.enter_context(module.report_lock(job))
        if "note" in STAGES[rule].files:
            held.enter_context(notes.renewed(job.pipeline, rule, job.place))
        getattr(module, rule)(job)
    if rule in ADDED:
        import_module("bsnn.stages.results").renew_report(job)
