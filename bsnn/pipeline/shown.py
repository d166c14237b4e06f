"""Declarations of the stages that show results: tables, figures and reports at plain names, each with a keyed note.

A changed setting must be a missing file here too. So beside files whose names stay lies a note whose name carries the
key; the note is the rule's output, and writing it removes those of other settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from bsnn.config import Experiment, format_percentile
from bsnn.paper import plan, published
from bsnn.pipeline.stage import File, Need, Place, Reads, Stage, first_of

if TYPE_CHECKING:
    from bsnn.pipeline.model import Pipeline


def _shows(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """Everything that an experiment's tables, figures and report show."""
    return _results(pipeline, place, pipeline.config.percentile, pipeline.config.time)


def _results(pipeline: Pipeline, place: Place, percentiles: list[float], times: list[int]) -> dict[str, Any]:
    config, experiment = pipeline.config, pipeline.experiment(place)
    return {
        "experiment": place.experiment,
        "time": sorted(times),
        "percentile": [format_percentile(percentile) for percentile in percentiles],
        "weights": list(config.weights),
        "seeds": list(config.seeds),
        "description": experiment.description,
        "simulations": [
            pipeline.key("simulate", Place(place.experiment, *network, percentile))
            for network in pipeline.networks
            for percentile in percentiles
        ],
        **_shift(experiment),
    }


def _shift(experiment: Experiment) -> dict[str, Any]:
    """Delayed propagation shifts the time axis of what is shown: no other simulation."""
    return {"quirks": ["delayed"]} if "delayed" in experiment.quirks else {}


def _artifacts(pipeline: Pipeline, name: str, percentiles: Iterable[float]) -> Iterator[Need]:
    """Everything behind the results at some percentiles."""
    for weights, seed in pipeline.networks:
        place = Place(name, weights, seed)
        yield from (pipeline.need("network", place, kind) for kind in ("network", "history"))
        for percentile in percentiles:
            yield pipeline.need("activations", place)
            at = Place(name, weights, seed, percentile)
            yield pipeline.need("thresholds", at)
            for shard in pipeline.shards(name):
                one = Place(name, weights, seed, percentile, shard)
                yield from (pipeline.need("simulate", one, kind) for kind in ("predictions", "spikes"))


def _tables_read(pipeline: Pipeline, place: Place) -> Iterator[Need]:
    yield from _artifacts(pipeline, place.experiment, pipeline.config.percentile)
    if "binary" in pipeline.config.weights:
        for seed in pipeline.config.seeds:
            yield pipeline.need("binarize", Place(place.experiment, "binary", seed), "summary")


def _every(stage: str, *kinds: str) -> Reads:
    """What a job reads: these files of every job of a stage for the experiment, the first one unless some are named."""

    def reads(pipeline: Pipeline, place: Place) -> Iterator[Need]:
        for one in pipeline.places(stage, place.experiment):
            yield from (pipeline.need(stage, one, kind) for kind in kinds or ("",))

    return reads


def _keys(pipeline: Pipeline, stage: str, experiment: str) -> dict[str, str]:
    """The key of every job of a stage for an experiment, by its coordinates; shards have one key."""
    axes = [axis for axis in pipeline.stage(stage).over if axis != "shard"]
    places = pipeline.places(stage, experiment)
    return {" ".join(str(getattr(one, axis)) for axis in axes): pipeline.key(stage, one) for one in places}


def _methods(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    experiment = pipeline.experiment(place)
    keys = {name: _keys(pipeline, stage, place.experiment) for name, stage in (("runs", "method"), ("ideals", "ideal"))}
    shown = {"time": sorted(experiment.latency.time), "order": experiment.latency.names}  # figures show first and last
    return {"experiment": place.experiment, **shown, **keys, **_shift(experiment)}


def _methods_read(pipeline: Pipeline, place: Place) -> Iterator[Need]:
    yield from _every("method", "predictions", "spikes", "operations", "errors")(pipeline, place)
    yield from _every("ideal")(pipeline, place)


def _exits(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    return {"experiment": place.experiment, "networks": _keys(pipeline, "find_exit", place.experiment)}


def _paper(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """The networks and simulations behind a result of the paper, and what it shows of them."""
    config, name, result = pipeline.config, place.experiment, place.result
    parts = {}
    for other, percentiles in plan.simulated(config, name, result).items():
        shown = _results(pipeline, Place(other), percentiles, plan.times(config, other))
        parts[other] = {"stage": "results", "version": STAGES["tables"].version, **shown}
    found: dict[str, Any] = {
        "result": result,
        "experiment": name,
        "parts": parts,
        "chosen": [format_percentile(config.paper.chosen), plan.chosen_time(config, name)],
    }
    if result == "latency":
        found["within"] = sorted(config.paper.within)
    experiment = pipeline.experiment(place)
    if result in ("accuracy", "hyperparameters"):
        found["published"] = published.of(experiment).model_dump(mode="json")
    if result == "hyperparameters":
        found["networks"] = [pipeline.key("network", Place(name, *network)) for network in pipeline.networks]
        sections = (experiment.activations, experiment.thresholds, experiment.simulation)
        settings = [section.model_dump(mode="json") for section in sections]
        found["settings"] = [{name: value for name, value in one.items() if value != []} for one in settings]
        found["protocol"] = experiment.protocol_name
        found["sweep"] = [format_percentile(value) for value in plan.sweep(config)]
    return found


def _paper_read(pipeline: Pipeline, place: Place) -> Iterator[Need]:
    """Networks of the experiment always; those of others, and simulations, as the result needs them."""
    needed = plan.simulated(pipeline.config, place.experiment, place.result)
    for other in {place.experiment: None, **needed}:
        yield from _artifacts(pipeline, other, needed.get(other, []))


def _paper_report(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    return {"experiment": place.experiment, "results": _keys(pipeline, "paper_result", place.experiment)}


def _note(path: str) -> dict[str, File]:
    return {"note": File("{experiment}/" + path + "-{made}.json")}


def _files(folder: str, names: str, suffixes: str) -> tuple[str, ...]:
    return tuple(f"{{experiment}}/{folder}{name}.{suffix}" for name in names.split() for suffix in suffixes.split())


TABLES = (
    "accuracy accuracy_over_time spikes_by_layer rates costs_over_time binary_summary training training_history origins"
)
FIGURES = "accuracy_over_time accuracy_over_cost spikes_by_layer rates training"
LATENCY = "latency latency_operations latency_energy latency_errors"

STAGES: dict[str, Stage] = {
    "tables": Stage(
        _note("tables/results"),
        (),
        version=3,  # 2: rates as shares of activations, layer by layer; 3: costs over time
        name="results",
        settings=_shows,
        reads=_tables_read,
        shown=(*_files("tables/", TABLES, "csv parquet md"), "{experiment}/tables/settings.json"),
    ),
    "figures": Stage(
        _note("figures/results"),
        (),
        identity_of="tables",
        reads=first_of("tables"),
        shown=_files("figures/", FIGURES, "svg png"),
    ),
    "report": Stage(
        _note("report"),
        (),
        identity_of="tables",
        reads=first_of("tables", "figures"),
        shown=_files("", "report", "html"),
    ),
    "latency_tables": Stage(
        _note("tables/latency"),
        (),
        version=4,  # 2: standard error of the drop, agreement, Pareto front; 3: ideal curves; 4: deviations over seeds
        name="latency",
        settings=_methods,
        reads=_methods_read,
        shown=(
            *_files("tables/", "latency latency_costs latency_errors latency_ideal", "csv parquet"),
            "{experiment}/tables/latency_operations.parquet",
        ),
    ),
    "latency_figures": Stage(
        _note("figures/latency"),
        (),
        identity_of="latency_tables",
        reads=first_of("latency_tables"),
        shown=_files("figures/", LATENCY, "svg png"),
    ),
    "exit_results": Stage(
        _note("tables/early_exit"),
        (),
        name="exits",
        same_step=True,
        settings=_exits,
        reads=_every("find_exit"),
        shown=(
            *_files("tables/", "early_exit", "csv parquet"),
            *_files("figures/", "early_exit early_exit_operations", "svg png"),
        ),
    ),
    "paper_result": Stage(
        _note("paper/{result}"),
        ("result",),
        version=2,  # 2: tables with a digest over all that they hold
        name="paper",
        family=True,
        settings=_paper,
        reads=_paper_read,
        shown=_files("paper/", "{result}", "csv parquet md tex"),  # some have more
    ),
    "paper_report": Stage(
        _note("paper"),
        (),
        version=2,  # 2: as its results
        name="paper",
        family=True,
        settings=_paper_report,
        reads=_every("paper_result"),
        shown=_files("", "paper", "html"),
    ),
}
