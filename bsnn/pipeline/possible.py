"""Which stages an experiment cannot have, for its protocol or its network."""

from __future__ import annotations

from bsnn.config import Experiment
from bsnn.config.conversion import EXIT_EVERY
from bsnn.errors import ConfigError
from bsnn.pipeline.stage import Place, Stage


def check(stage: Stage, experiment: Experiment, place: Place) -> None:
    """Refuse a stage that an experiment cannot have.

    Raises:
        ConfigError: it chooses by time steps, and the experiment's are shifted; it is early exit, and there are too few
            steps for one; or it is one of the paper's results, and the experiment's network is a module of one's own.
    """
    if stage.same_step and "delayed" in experiment.quirks:
        raise ConfigError(
            f"experiments.{place.experiment}.protocol: search and early exit choose by time steps of same-step "
            "propagation, and delayed propagation shifts them layer by layer: run the experiment without the "
            "original's protocol, or with protocol: {preset: original, delayed: false}"
        )
    if stage.name in ("exit", "exits") and max(experiment.latency.time) <= EXIT_EVERY:
        raise ConfigError(
            f"experiments.{place.experiment}.latency.time: images leave after steps {EXIT_EVERY}, {2 * EXIT_EVERY} and "
            f"so on, and no more than {max(experiment.latency.time)} are simulated: give a longer time for early exit"
        )
    if stage.family and experiment.own is not None:
        raise ConfigError(
            f"experiments.{place.experiment}.network: the paper's results compare pools, recipes and layers of the VGG "
            "family, and this is a module of one's own. It has all other targets: accuracy, spikes and energy over "
            "time (all), methods (latency), search, early_exit"
        )
