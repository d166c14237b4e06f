"""Stages that choose by held-out training images, and see the test set once: search for switches, and early exit."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import torch

from bsnn.config import Method
from bsnn.conversion import search
from bsnn.conversion.search import Score
from bsnn.errors import ConversionError
from bsnn.pipeline.identity import canonical
from bsnn.pipeline.job import Job
from bsnn.simulation import accounting
from bsnn.simulation.energy import energy, totals
from bsnn.stages.evaluation import Evaluation
from bsnn.tables.costs_over_time import SLACK

logger = logging.getLogger("bsnn")
COSTS = ("spikes", "effective_macs", "effective_acs", "effective_binary_acs", "nanojoules_45nm")


def find_switches(job: Job) -> None:
    """Search for the best switches; the one that is chosen sees the test set, once."""
    settings, wanted = job.experiment.latency, job.experiment.latency.search
    bench = Evaluation(job, wanted.images)
    switches = search.values(wanted.percentiles, job.place.weights)
    rows: list[dict[str, object]] = []
    # From few steps to many: the first number that reaches the wanted drop is the one; without one, the last counts.
    for steps in settings.searched:
        starts = search.starts(settings, steps, job.place.weights)
        curve = Curves(bench, steps)
        slack, percentile = wanted.slack, settings.percentile
        guide = None if slack is None else search.Guide(bench.ann, curve, percentile, slack)
        chosen, reached, tried = search.best(partial(_score, bench, steps), starts, switches, guide)
        drop = float("inf") if wanted.drop is None else wanted.drop + SLACK
        enough = [one for one in tried if one.score and bench.ann - one.score.accuracy <= drop]
        if enough:
            chosen, reached = search.chosen(enough)
        logger.info("T = %d, chosen: %.2f %% by %s", steps, reached.accuracy, _switches(chosen))
        for method, score, why in tried:
            what, ideal = "passed over" if score is None else "tried", None if guide is None else curve(method)
            rows.append(_row(what, steps, method, score, bench.ann) | {"ideal": ideal, "why": why})
        if enough:
            break
    else:
        logger.warning(
            "nothing comes within latency.search.drop, %g points, in any of latency.time: T = %d is taken",
            wanted.drop,
            steps,
        )
    rows.append(_row("chosen, held-out", steps, chosen, reached, bench.ann))
    test = Evaluation(job)
    rows.append(_row("chosen, test", steps, chosen, _score(test, steps, chosen), test.ann))
    job.pipeline.write("find_switches", job.place, pd.DataFrame(rows))


@dataclass
class Curves:
    """Accuracy of the ideal curves of methods at the wanted steps, each found once.

    Of two passes it is that of the second; None where that has no step, or where the network has no such thresholds.
    """

    bench: Evaluation
    steps: int
    found: dict[str, float | None] = field(default_factory=dict)

    def __call__(self, method: Method) -> float | None:
        """Accuracy in percent of even input with the method's thresholds and rounding."""
        time = self.steps - (method.first_pass if method.second_pass != "none" else 0)  # steps of the second pass
        one = method.model_copy(update={"second_pass": "none"}).even(self.bench.job.experiment.latency.percentile)
        if one is None or time < 1:
            return None
        name = f"{time} {one.model_dump_json()}"
        if name not in self.found:
            try:
                self.found[name] = self.bench.correct(self.bench.even(one, [time], clipped=False)[:, 0])
            except ConversionError:
                self.found[name] = None
        return self.found[name]


def _score(bench: Evaluation, steps: int, method: Method) -> Score:
    """What a method reaches in some steps."""
    result = bench.run(bench.converted(method, steps))
    final = result.predicted[:, -1]
    agreement = 100 * float((final == bench.predicted).double().mean())
    logger.info("T = %d: %.2f %% by %s", steps, bench.correct(final), _switches(method))
    right = tuple((final == bench.labels).tolist())
    return Score(bench.correct(final), agreement, float(result.counts.sum()) / len(bench.order), right)


def _row(what: str, steps: int, method: Method, score: Score | None, ann: float) -> dict[str, object]:
    reached: dict[str, object] = {}
    if score is not None:
        reached = {name: getattr(score, name) for name in ("accuracy", "agreement", "spikes")}
        reached["drop"] = ann - score.accuracy
    columns = dict.fromkeys(("what", "T", "accuracy", "ann", "drop", "agreement", "spikes", "switches"))
    return columns | reached | {"what": what, "T": steps, "ann": ann, "switches": _switches(method)}


def _switches(method: Method) -> str:
    return json.dumps(canonical(method))


def find_exit(job: Job) -> None:
    """Accuracy against mean steps and operations, for bounds on the margin; one is chosen on held-out images.

    The bounds are quantiles of the margins of held-out images at the last step. Of those that cost at most
    `early_exit.loss` points there, the one with the fewest mean steps is chosen. Beside them stands what all images
    reach after each of `latency.time` steps, without a bound.
    """
    settings = job.experiment.latency
    name, times = settings.exit_method, sorted(settings.time)
    method = settings.method(name)
    held, test = Evaluation(job, settings.early_exit.images), Evaluation(job)
    bounds = _bounds(held, method, times[-1])
    found, shown = (_exits(bench, method, times, bounds).assign(method=name) for bench in (held, test))
    allowed = found["bound"].notna() | (found["T"] == times[-1])  # not fewer steps for all images
    lost = found["accuracy"].iloc[0] - found["accuracy"]
    enough = found[allowed & (lost <= settings.early_exit.loss + SLACK)]
    place = enough.sort_values("mean_steps", kind="stable").index[0]  # the same bounds stand in the same places of both
    table = pd.concat([part.assign(chosen=part.index == place) for part in (found, shown)], ignore_index=True)
    job.pipeline.write("find_exit", job.place, table, extra={"method": name})


def _bounds(bench: Evaluation, method: Method, steps: int) -> list[float]:
    """Bounds that images reach at the end, from few to nearly all."""
    result = bench.run(bench.converted(method, steps))
    parts = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9], dtype=torch.float64)
    return sorted({bound for bound in result.margin[:, -1].double().quantile(parts).tolist() if bound > 0})


def _exits(bench: Evaluation, method: Method, times: list[int], bounds: list[float]) -> pd.DataFrame:
    """What is reached, and what it costs an image: all steps, fewer steps for all images, and each bound."""
    converted, parts = bench.converted(method, times[-1]), []
    for bound in (None, *bounds):
        result = bench.run(converted, early_exit=bound)
        summed = totals(accounting.table(converted.network, result.counts, result.images)).set_index("step")
        # The longest time first: its row is what `find_exit` compares bounds with.
        steps = times[::-1] if bound is None else times[-1:]
        costs = summed.assign(nanojoules_45nm=energy(summed)).loc[steps, list(COSTS)].reset_index(drop=True)
        reached = {
            "split": "held-out" if bench.held_out else "test",
            "bound": float("nan") if bound is None else bound,
            "T": steps,
            "accuracy": [bench.correct(result.predicted[:, step - 1]) for step in steps],
            "ann": bench.ann,
            "mean_steps": [float(result.steps.clamp(max=step).double().mean()) for step in steps],
        }
        parts.append(pd.DataFrame(reached).join(costs))
        row = parts[-1].iloc[0]
        logger.info("%s, bound %g: %.2f %% in %.1f mean steps", *row[["split", "bound", "accuracy", "mean_steps"]])
    return pd.concat(parts, ignore_index=True)
