"""Parts of identities: what of an experiment's settings decides the outputs of stages that convert and simulate.

Names are those that artifacts were made with, and a setting at its default is left out, so keys stay what they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bsnn.config import Experiment, Method, format_percentile
from bsnn.pipeline.stage import Place

if TYPE_CHECKING:
    from bsnn.pipeline.model import Pipeline

TEST = ("augmented_test", "stretched_test")  # the normalisation counts too, through the thresholds


def quirks(experiment: Experiment, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of some quirks of the original that are on; nothing if none is, so that clean keys stay what they are."""
    found = [name for name in names if name in experiment.quirks]
    return {"quirks": found} if found else {}


def tested(experiment: Experiment) -> dict[str, Any]:
    """Which test images are simulated, and how they are shown."""
    images = experiment.simulation.images
    return {**quirks(experiment, TEST), **({} if images is None else {"test_images": images})}


def engine(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """All engines give the same spikes for binary weights; for full ones the engine counts."""
    return {"engine": pipeline.config.compute.engine} if place.weights == "full" else {}


def read_out(experiment: Experiment) -> dict[str, Any]:
    """How logits with a bias are read out, which networks of one's own may have. 2: on the grid of the weights."""
    return {"read_out": 2} if experiment.own is not None else {}


def channels(experiment: Experiment) -> dict[str, Any]:
    """How thresholds of channels are measured, where it is not the customary way."""
    return {"channels": "with dropout"} if "calibration_dropout" in experiment.quirks else {}


def ideal(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """Thresholds, rounding and times of an ideal curve. Its sums are exact, whatever the engine."""
    experiment = pipeline.experiment(place)
    settings = experiment.latency
    chosen, times = settings.curve(place.method, place.weights), sorted(settings.time)
    at = {"percentiles": [format_percentile(chosen.percentile_at(time, settings.percentile)) for time in times]}
    images = {"images": settings.images} if chosen.calibrated else {}
    return {"times": times, **images, **switched(pipeline, experiment, chosen, at)}


def switched(pipeline: Pipeline, experiment: Experiment, chosen: Method, at: dict[str, Any]) -> dict[str, Any]:
    """Switches, not the method's name; where thresholds are percentiles, at which, however the method names them."""
    return {
        "switches": pipeline.own(chosen, "percentile", "percentiles"),
        **({**at, "thresholds": pipeline.own(experiment.thresholds)} if chosen.threshold == "percentile" else {}),
        **(channels(experiment) if chosen.channels else {}),
        **read_out(experiment),
        **tested(experiment),
    }


def search(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """What is searched for, where the search begins, and on which images."""
    experiment = pipeline.experiment(place)
    settings, full = experiment.latency, place.weights == "full"
    return {
        "settings": pipeline.own(settings.search),
        "times": sorted(settings.time) if settings.search.drop is not None else [],
        **{name: value for name, value in pipeline.own(settings).items() if name == "percentile"},
        "starts": [pipeline.own(settings.method(name)) for name in settings.names_for(place.weights)],
        "images": settings.images,
        "thresholds": pipeline.own(experiment.thresholds),
        **({**engine(pipeline, place), "tried": "channels, bursts", **channels(experiment)} if full else {}),
        **read_out(experiment),
        **tested(experiment),
    }


def early_exit(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """How a bound is chosen, and the times beside it; the method lies upstream."""
    settings = pipeline.experiment(place).latency
    return {"settings": pipeline.own(settings.early_exit, "method"), "times": sorted(settings.time)}
