"""Stages that choose by held-out training images, and see the test set once: search for switches, and early exit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

from bsnn import artifacts, identity, inputs, stages
from bsnn.config import Method
from bsnn.errors import ConfigError
from bsnn.stages.methods import calibration_images, thetas

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bsnn.datasets import DataSet
    from bsnn.engines.base import Engine
    from bsnn.networks import Trained
    from bsnn.search import Score
    from bsnn.spiking import SpikingNetwork

logger = logging.getLogger("bsnn")


class Bench:
    """One network, and images to try methods on: held-out training images, or the test set."""

    def __init__(self, job: stages.Job, held_out_images: int | None) -> None:
        from bsnn import datasets

        stages.settle(job)
        self.job, self.device = job, stages._device(job)
        self.trained: Trained = inputs.network(job)
        self.trained.module.to(self.device)
        self.data: DataSet = inputs.data_set(job)
        self.held_out = held_out_images is not None
        self.split = self.data.train if self.held_out else self.data.test
        count = len(self.split)
        shown = job.experiment.simulation.images
        self.order = datasets.evenly(count, shown) if held_out_images is None else held_out(job, count, held_out_images)
        self.labels = self.split.labels[self.order]

    def batches(self) -> Iterator[Tensor]:
        """The images, normalised."""
        from bsnn import protocols

        job = self.job
        how = (self.order, job.config.compute.batch_size, self.device, job.config.compute.workers)
        use: protocols.Use = "calibration" if self.held_out else "test"
        return protocols.batches(job.experiment, self.trained, job.seed, use, self.split, *how)

    @cached_property
    def calibration(self) -> Tensor:
        """Images that corrections are measured on."""
        return calibration_images(self.job, self.trained, self.data.train, self.device)

    @cached_property
    def predicted(self) -> Tensor:
        """Classes that the ANN predicts, int64 [N]."""
        return stages._predictions(self.trained.module, self.batches())

    @property
    def ann(self) -> float:
        """Accuracy of the ANN, in percent."""
        return self.correct(self.predicted)

    def correct(self, predicted: Tensor) -> float:
        """Accuracy in percent."""
        return 100 * float((predicted == self.labels).double().mean())

    def converted(self, method: Method, steps: int) -> tuple[SpikingNetwork, Engine]:
        """The network as a method converts it for some steps, and its engine."""
        import torch

        from bsnn import methods

        compute = self.job.config.compute
        images = self.calibration if method.calibrated else torch.empty(0)
        theta = thetas(self.job, self.trained, method, steps, images)
        network = methods.convert(self.trained, theta, method, steps, images)
        engine, _ = methods.engine(compute.engine, network, method, self.device, compute.memory_mib)
        return network, engine

    def score(self, steps: int, method: Method) -> Score:
        """What a method reaches in some steps."""
        from bsnn import methods, simulate
        from bsnn.search import Score

        _, engine = self.converted(method, steps)
        result = simulate.run(engine, self.batches(), steps, skipped=methods.skipped(method))
        final = result.predicted[:, -1]
        agreement = 100 * float((final == self.predicted).double().mean())
        return Score(self.correct(final), agreement, float(result.counts.sum()) / len(self.order))


def held_out(job: stages.Job, count: int, wanted: int) -> Tensor:
    """Training images that calibrate nothing, evenly spaced.

    Raises:
        ConfigError: when all training images calibrate.
    """
    import torch

    from bsnn import datasets, protocols

    left: torch.Tensor = torch.ones(count, dtype=torch.bool)
    left[protocols.calibration(job.experiment, count)] = False
    others = left.nonzero()[:, 0]
    if not len(others):
        used = job.experiment.activations.images
        raise ConfigError(
            f"experiments.{job.name}.activations.images is {used}, and there are {count} training images: none is left "
            "that does not calibrate, to choose by; use fewer"
        )
    return others[datasets.evenly(len(others), wanted)]


def search(job: stages.Job) -> None:
    """Search for the best switches; the one that is chosen sees the test set, once."""
    import pandas as pd

    from bsnn import search as rooms

    settings, wanted = job.experiment.latency, job.experiment.latency.search
    bench = Bench(job, wanted.images)
    start, switches = Method(percentile=settings.percentile), rooms.values(wanted.percentiles, job.weights)
    rows: list[dict[str, object]] = []
    for steps in [wanted.time or 16] if wanted.drop is None else sorted(settings.time):
        chosen, tried = rooms.best(partial(bench.score, steps), start, switches)
        reached = next(score for method, score in tried if method == chosen)
        logger.info("T = %d: %.2f %% by %s", steps, reached.accuracy, _switches(chosen))
        rows += [_row("tried", steps, method, score, bench.ann) for method, score in tried]
        if wanted.drop is None or bench.ann - reached.accuracy <= wanted.drop:
            break
    rows.append(_row("chosen, held-out", steps, chosen, reached, bench.ann))
    test = Bench(job, None)
    rows.append(_row("chosen, test", steps, chosen, test.score(steps, chosen), test.ann))
    table, path = pd.DataFrame(rows), job.paths.search(job.name, job.weights, job.seed)
    stands_for = identity.search(job.config, job.experiment, job.weights, job.seed)
    artifacts.write_text(path.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
    artifacts.write_table(path, table, "search", stands_for)


def _row(what: str, steps: int, method: Method, score: Score, ann: float) -> dict[str, object]:
    return {
        "what": what,
        "T": steps,
        "accuracy": score.accuracy,
        "ann": ann,
        "drop": ann - score.accuracy,
        "agreement": score.agreement,
        "spikes": score.spikes,
        "switches": _switches(method),
    }


def _switches(method: Method) -> str:
    return json.dumps(identity.canonical(method))


def early_exit(job: stages.Job) -> None:
    """Accuracy against mean steps and operations, for bounds on the margin; one is chosen on held-out images.

    The bounds are quantiles of the margins of held-out images at the last step. Of those that cost at most
    `early_exit.loss` points there, the one with the fewest mean steps is chosen.
    """
    import pandas as pd

    settings = job.experiment.latency
    name, steps = identity.exit_method(settings), max(settings.time)
    held, test = Bench(job, settings.early_exit.images), Bench(job, None)
    bounds = _bounds(held, settings.method(name), steps)
    found = pd.DataFrame([_exit(held, settings.method(name), steps, bound, "held-out") for bound in (None, *bounds)])
    enough = found[found["accuracy"] >= found["accuracy"].iloc[0] - settings.early_exit.loss]
    best = enough.sort_values("mean_steps", kind="stable")["bound"].iloc[0]
    shown = pd.DataFrame([_exit(test, settings.method(name), steps, bound, "test") for bound in (None, *bounds)])
    table = pd.concat([found, shown], ignore_index=True)
    table["chosen"] = (table["bound"] == best) | (table["bound"].isna() & pd.isna(best))
    path = job.paths.early_exit(job.name, job.weights, job.seed)
    artifacts.write_text(path.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
    stands_for = identity.early_exit(job.config, job.experiment, job.weights, job.seed)
    artifacts.write_table(path, table, "exit", stands_for, {"method": name})


def _bounds(bench: Bench, method: Method, steps: int) -> list[float]:
    """Bounds that images reach at the end, from few to nearly all."""
    import torch

    from bsnn import methods, simulate

    _, engine = bench.converted(method, steps)
    result = simulate.run(engine, bench.batches(), steps, skipped=methods.skipped(method))
    parts = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9], dtype=torch.float64)
    return sorted({bound for bound in result.margin[:, -1].double().quantile(parts).tolist() if bound > 0})


def _exit(bench: Bench, method: Method, steps: int, bound: float | None, images: str) -> dict[str, object]:
    """What early exit at a bound reaches, and costs an image."""
    from bsnn import accounting, methods, simulate

    network, engine = bench.converted(method, steps)
    result = simulate.run(engine, bench.batches(), steps, early_exit=bound, skipped=methods.skipped(method))
    totals = accounting.totals(accounting.table(network, result.counts, result.images)).iloc[[-1]]
    columns = ["spikes", "effective_macs", "effective_acs", "effective_binary_acs"]
    return {
        "images": images,
        "bound": float("nan") if bound is None else bound,
        "accuracy": bench.correct(result.predicted[:, -1]),
        "ann": bench.ann,
        "mean_steps": float(result.steps.double().mean()),
        **{column: float(totals[column].iloc[0]) for column in columns},
        "nanojoules_45nm": float(accounting.energy(totals).iloc[0]),
    }
