"""Stages that choose by held-out training images, and see the test set once: search for switches, and early exit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

from bsnn import artifacts
from bsnn.config import Method
from bsnn.errors import ConfigError
from bsnn.pipeline import identity, inputs
from bsnn.pipeline.job import Job
from bsnn.stages import common
from bsnn.stages.methods import calibration_images, thetas

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

    from bsnn.conversion.search import Score
    from bsnn.conversion.spiking import SpikingNetwork
    from bsnn.datasets import DataSet
    from bsnn.engines.base import Engine
    from bsnn.networks.vgg import Trained

logger = logging.getLogger("bsnn")
COSTS = ("spikes", "effective_macs", "effective_acs", "effective_binary_acs", "nanojoules_45nm")


class Bench:
    """One network, and images to try methods on: held-out training images, or the test set."""

    def __init__(self, job: Job, held_out_images: int | None) -> None:
        from bsnn import datasets

        common.settle(job)
        self.job, self.device = job, common.device(job)
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
        from bsnn.datasets import protocol

        job = self.job
        how = (self.order, job.config.compute.batch_size, self.device, job.config.compute.workers)
        use: protocol.Use = "calibration" if self.held_out else "test"
        return protocol.batches(job.experiment, self.trained, job.seed, use, self.split, *how)

    @cached_property
    def calibration(self) -> Tensor:
        """Images that corrections are measured on."""
        return calibration_images(self.job, self.trained, self.data.train, self.device)

    @cached_property
    def predicted(self) -> Tensor:
        """Classes that the ANN predicts, int64 [N]."""
        return common.predictions(self.trained.module, self.batches())

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

        from bsnn.conversion import method as conversion

        compute = self.job.config.compute
        images = self.calibration if method.calibrated else torch.empty(0)
        theta = thetas(self.job, self.trained, method, steps, images)
        network = conversion.convert(self.trained, theta, method, steps, images)
        engine, _ = conversion.engine(compute.engine, network, method, self.device, compute.memory_mib)
        return network, engine

    def score(self, steps: int, method: Method) -> Score:
        """What a method reaches in some steps."""
        from bsnn.conversion import method as conversion
        from bsnn.conversion.search import Score
        from bsnn.simulation import run as simulation

        _, engine = self.converted(method, steps)
        result = simulation.run(engine, self.batches(), steps, skipped=conversion.skipped(method))
        final = result.predicted[:, -1]
        agreement = 100 * float((final == self.predicted).double().mean())
        logger.info("T = %d: %.2f %% by %s", steps, self.correct(final), _switches(method))
        return Score(self.correct(final), agreement, float(result.counts.sum()) / len(self.order))


def held_out(job: Job, count: int, wanted: int) -> Tensor:
    """Training images that calibrate nothing, evenly spaced.

    Raises:
        ConfigError: when all training images calibrate.
    """
    import torch

    from bsnn import datasets
    from bsnn.datasets import protocol

    left: torch.Tensor = torch.ones(count, dtype=torch.bool)
    left[protocol.calibration(job.experiment, count)] = False
    others = left.nonzero()[:, 0]
    if not len(others):
        used = job.experiment.activations.images
        raise ConfigError(
            f"experiments.{job.name}.activations.images is {used}, and there are {count} training images: none is left "
            "that does not calibrate, to choose by; use fewer"
        )
    if len(others) < wanted:
        logger.warning("%d held-out images asked for, %d do not calibrate: all of them are taken", wanted, len(others))
    return others[datasets.evenly(len(others), wanted)]


def search(job: Job) -> None:
    """Search for the best switches; the one that is chosen sees the test set, once."""
    import pandas as pd

    from bsnn.conversion import search as rooms

    settings, wanted = job.experiment.latency, job.experiment.latency.search
    bench = Bench(job, wanted.images)
    switches = rooms.values(wanted.percentiles, job.weights)
    rows: list[dict[str, object]] = []
    for steps in [wanted.time or 16] if wanted.drop is None else sorted(settings.time):
        starts = rooms.starts(settings, steps, job.weights)
        chosen, tried = rooms.best(partial(bench.score, steps), starts, switches)
        reached = next(score for method, score in tried if method == chosen)
        logger.info("T = %d, chosen: %.2f %% by %s", steps, reached.accuracy, _switches(chosen))
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


def early_exit(job: Job) -> None:
    """Accuracy against mean steps and operations, for bounds on the margin; one is chosen on held-out images.

    The bounds are quantiles of the margins of held-out images at the last step. Of those that cost at most
    `early_exit.loss` points there, the one with the fewest mean steps is chosen. Beside them stands what all images
    reach after each of `latency.time` steps, without a bound.
    """
    import pandas as pd

    settings = job.experiment.latency
    name, times = identity.exit_method(settings), sorted(settings.time)
    method = settings.method(name)
    held, test = Bench(job, settings.early_exit.images), Bench(job, None)
    bounds = _bounds(held, method, times[-1])
    found, shown = (_exits(bench, method, times, bounds).assign(method=name) for bench in (held, test))
    allowed = found["bound"].notna() | (found["T"] == times[-1])  # not fewer steps for all images
    enough = found[allowed & (found["accuracy"] >= found["accuracy"].iloc[0] - settings.early_exit.loss)]
    place = enough.sort_values("mean_steps", kind="stable").index[0]  # the same bounds stand in the same places of both
    table = pd.concat([part.assign(chosen=part.index == place) for part in (found, shown)], ignore_index=True)
    path = job.paths.early_exit(job.name, job.weights, job.seed)
    artifacts.write_text(path.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
    stands_for = identity.early_exit(job.config, job.experiment, job.weights, job.seed)
    artifacts.write_table(path, table, "exit", stands_for, {"method": name})


def _bounds(bench: Bench, method: Method, steps: int) -> list[float]:
    """Bounds that images reach at the end, from few to nearly all."""
    import torch

    from bsnn.conversion import method as conversion
    from bsnn.simulation import run as simulation

    _, engine = bench.converted(method, steps)
    result = simulation.run(engine, bench.batches(), steps, skipped=conversion.skipped(method))
    parts = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9], dtype=torch.float64)
    return sorted({bound for bound in result.margin[:, -1].double().quantile(parts).tolist() if bound > 0})


def _exits(bench: Bench, method: Method, times: list[int], bounds: list[float]) -> pd.DataFrame:
    """What is reached, and what it costs an image: all steps, fewer steps for all images, and each bound."""
    import pandas as pd

    from bsnn.conversion import method as conversion
    from bsnn.simulation import accounting
    from bsnn.simulation import run as simulation

    network, engine = bench.converted(method, times[-1])
    skipped, parts = conversion.skipped(method), []
    for bound in (None, *bounds):
        result = simulation.run(engine, bench.batches(), times[-1], early_exit=bound, skipped=skipped)
        totals = accounting.totals(accounting.table(network, result.counts, result.images)).set_index("step")
        steps = times[::-1] if bound is None else times[-1:]
        costs = totals.assign(nanojoules_45nm=accounting.energy(totals)).loc[steps, list(COSTS)].reset_index(drop=True)
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


def exit_results(job: Job) -> None:
    """Early exit of all networks of the experiment, as one table and its figures."""
    from bsnn.figures import early_exit as figures
    from bsnn.tables import early_exit as tables

    table = tables.collect(job.config, job.name, job.paths)
    figures.draw(table, job.paths.figures(job.name))
    tables.write(table, job.paths.tables(job.name), identity.early_exits(job.config, job.name))
