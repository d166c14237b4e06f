"""Which simulations each of the paper's results needs. Imports nothing heavy.

One sweep of percentiles serves the curves, activity, operations and latency; accuracy and the pooling ablation need the
chosen percentile alone, so that a new percentile leaves them as they are.
"""

from __future__ import annotations

from bsnn.config import POOLING, Config, variant_name
from bsnn.paper import published

SWEPT = ("time", "activity", "operations", "latency")
RESULTS = ("accuracy", "time", "pooling", "activity", "operations", "latency", "hyperparameters")


def results_of(config: Config, name: str) -> list[str]:
    """Results of an experiment: the pooling ablation only where it has the other pools."""
    return [result for result in RESULTS if result != "pooling" or len(poolings(config, name)) > 1]


def sweep(config: Config) -> list[float]:
    """Percentiles of the sweep."""
    return sorted({*config.paper.percentile, *config.percentile, config.paper.chosen})


def poolings(config: Config, name: str) -> dict[tuple[str, str], str]:
    """Experiment of each pool and place: the ablation's variants and the experiment itself."""
    if config.experiments[name].own is not None:
        return {}
    network = config.experiments[name].family
    found = {pooling: variant_name(name, *pooling) for pooling in POOLING if config.experiments[name].ablation}
    found[network.pool, network.place] = name
    return {pooling: found[pooling] for pooling in POOLING if found.get(pooling) in config.experiments}


def protocols(config: Config, name: str) -> list[str]:
    """The experiment, and those that run too and measure the same networks, the first one of each other protocol."""

    def owner(other: str) -> str:
        return config.experiments[other].networks_of or other

    found = {config.experiments[name].protocol_name: name}  # by protocol, which is what tables tell them apart by
    for other in config.run:
        if owner(other) == owner(name):
            found.setdefault(config.experiments[other].protocol_name, other)
    return list(found.values())


def simulated(config: Config, name: str, result: str) -> dict[str, list[float]]:
    """Percentiles at which each experiment must have been simulated for a result."""
    chosen = config.paper.chosen
    if result in SWEPT:
        return {name: sweep(config)}
    if result == "pooling":
        return {experiment: [chosen] for experiment in poolings(config, name).values()}
    if result == "accuracy":
        entries = published.of(config.experiments[name]).accuracy
        wanted = {chosen, *(entry.percentile for entry in entries if entry.percentile is not None)}
        return {experiment: sorted(wanted) for experiment in protocols(config, name)}
    return {}


def chosen_time(config: Config, name: str) -> int:
    """Time steps of the tables that show one number of steps: as configured, as the authors' command, or all."""
    steps = config.experiments[name].simulation.time
    command = published.of(config.experiments[name]).conversion
    return min(steps, config.paper.time or (command.time if command else steps))


def times(config: Config, name: str) -> list[int]:
    """Reported time steps, the chosen one, and the last that is simulated."""
    steps = config.experiments[name].simulation.time
    return sorted({*(time for time in config.time if time <= steps), chosen_time(config, name), steps})


def view(config: Config, name: str, percentiles: list[float]) -> Config:
    """The configuration whose tables would hold all simulated steps at some percentiles."""
    return config.model_copy(update={"run": [name], "percentile": percentiles, "time": times(config, name)})
