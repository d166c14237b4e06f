"""Every stage, declared once: its version, coordinates, settings and upstream, what it reads, and its files.

Keys, paths, the inputs of Snakemake's rules, inventory, costs and exchange all follow (bsnn.pipeline.model). A new
stage is a declaration here, a function in bsnn.stages and a rule in workflow/rules. Settings that only affect display
or resources are part of no identity. Raise a stage's version when its outputs change for the same settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from bsnn.config import Data, Method, Weights, format_percentile
from bsnn.folders import listing
from bsnn.paper import plan
from bsnn.pipeline import columns, shown
from bsnn.pipeline.parts import TEST, early_exit, engine, ideal, quirks, read_out, search, switched
from bsnn.pipeline.stage import File, Need, Place, Stage, first_of

if TYPE_CHECKING:
    from bsnn.pipeline.model import Pipeline

VERIFIED = ("digits", "cifar10", "cifar100")  # a checksum fixes their content: where they lie does not matter
CALIBRATION = ("augmented_calibration", "calibration_dropout", "first_images", "original_normalisation")


def _above(name: str) -> Callable[[Pipeline, Place], tuple[str, Place]]:
    return lambda pipeline, place: (name, place)


def data_settings(pipeline: Pipeline, settings: Data) -> dict[str, Any]:
    """What decides about a data set, but its normalisation, which belongs to later stages."""
    return pipeline.own(settings, "mean", "std", *(("path",) if settings.name in VERIFIED else ()))


def _data(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """A folder of images is known by its files, wherever it lies; by its path alone where they cannot be listed now."""
    settings = pipeline.experiment(place).data
    found: dict[str, Any] = {"settings": data_settings(pipeline, settings)}
    if settings.name in VERIFIED:
        return found
    moved = {"settings": pipeline.own(settings, "mean", "std", "path", "labels")}
    identity = {"stage": "data", "version": STAGES["data"].version, **moved}
    files = listing.known(settings, identity, pipeline.root)
    return {**(moved if files else found), "files": files}


def _training(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """Recipe of a network; of one from a file its content, wherever that lies."""
    experiment = pipeline.experiment(place)
    given, data = experiment.imported.of(place.weights), pipeline.own(experiment.data)
    normalisation = {name: value for name, value in data.items() if name in ("mean", "std")}
    if experiment.own is not None:
        return {"content": experiment.own.content, "normalisation": normalisation}
    network = {"network": pipeline.own(experiment.network), "normalisation": normalisation, "seed": place.seed}
    if given is not None:
        return {"checkpoint": given.sha256, **network}
    if place.weights == "binary":  # the rest is the full-precision network's
        return {"settings": pipeline.own(experiment.binarize)}
    start = experiment.train.start
    begun = {} if start is None else {"start": start.sha256}
    return {"settings": pipeline.own(experiment.train, "start"), **begun, **network}


def _before_binary(pipeline: Pipeline, place: Place) -> tuple[str, Place]:
    """The full-precision network, from scratch too, for a simple chain; of a network from a file the data alone."""
    given = pipeline.experiment(place).given("binary")
    return ("data", place) if given else ("train", place._replace(weights="full"))


def _binarize_reads(pipeline: Pipeline, place: Place) -> Iterator[Need]:
    yield pipeline.need("data", place)
    before, above = _before_binary(pipeline, place)
    if before == "train":
        yield pipeline.need("network", above)


def _activations(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """One table answers every percentile, and both populations."""
    experiment = pipeline.experiment(place)
    # Crops follow the seed. That of a network of one's own is in no identity, so all that has crops has it from here.
    cropped = experiment.own is not None and experiment.quirks & {"augmented_test", "augmented_calibration"}
    seed = {"seed": place.seed} if cropped else {}
    return {"settings": pipeline.own(experiment.activations), **quirks(experiment, CALIBRATION), **seed}


def _thresholds(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    settings = pipeline.own(pipeline.experiment(place).thresholds)
    return {"settings": settings, "percentile": format_percentile(place.percentile)}


def _simulate(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    """The number of shards is a matter of resources: it stands in the path, not in the key."""
    experiment = pipeline.experiment(place)
    settings = pipeline.own(experiment.simulation, "shards")
    return {"settings": settings, **engine(pipeline, place), **read_out(experiment), **quirks(experiment, TEST)}


def _method(pipeline: Pipeline, place: Place) -> dict[str, Any]:
    experiment = pipeline.experiment(place)
    settings = experiment.latency
    chosen = settings.method(place.method)
    at = {"percentile": format_percentile(chosen.percentile_at(place.steps, settings.percentile))}
    own = {"steps": place.steps, "images": settings.images, **engine(pipeline, place)}
    late = {"delay": "of the image"} if chosen.delay and "delayed" in experiment.quirks else {}  # until then: of spikes
    return {**own, **late, **switched(pipeline, experiment, chosen, at)}


def simulation_of(pipeline: Pipeline, place: Place) -> Place | None:
    """The simulation at a percentile whose first steps are what a method gives, where the pipeline makes it anyway.

    A percentile is a method with that field alone, so nothing else may be switched on.
    """
    settings, simulated = pipeline.experiment(place).latency, pipeline.experiment(place).simulation
    chosen = settings.method(place.method)
    percentile = chosen.percentile_at(place.steps, settings.percentile)
    plain = Method(percentile=chosen.percentile, percentiles=chosen.percentiles, initial=simulated.initial) == chosen
    if not plain or percentile not in pipeline.config.percentile or place.steps > simulated.time:
        return None
    return place._replace(percentile=percentile)


def _method_reads(pipeline: Pipeline, place: Place) -> Iterator[Need]:
    yield from first_of("activations", "network", "data")(pipeline, place)
    source = simulation_of(pipeline, place)
    if source is not None:
        yield from (pipeline.need("simulate", source, kind) for kind in ("predictions", "spikes"))


def _exit_upstream(pipeline: Pipeline, place: Place) -> tuple[str, Place]:
    settings = pipeline.experiment(place).latency
    return "method", place._replace(method=settings.exit_method, steps=max(settings.time))


NETWORK: tuple[str, ...] = ("weights", "seed")
OF_NETWORK = "{experiment}/{weights}/seed{seed}"
OF_PERCENTILE = OF_NETWORK + "/p{percentile}"
OF_METHOD = OF_NETWORK + "/methods/{method}/T{steps}"
SHARD = "-{key}.{shard}of{shards}.parquet"


def _network(weights: Weights) -> dict[str, File]:
    folder = f"{{experiment}}/{weights}/seed{{seed}}"
    summary = {"summary": File(f"{folder}/summary-{{key}}.parquet", columns.SUMMARY)}
    return {
        "network": File(f"{folder}/ann-{{key}}.safetensors"),
        "history": File(f"{folder}/history-{{key}}.parquet", columns.HISTORY),
        **(summary if weights == "binary" else {}),
    }


STAGES: dict[str, Stage] = {
    "data": Stage({"images": File("data/{data}-{key}.{suffix}")}, (), settings=_data, shared=True),
    "train": Stage(
        _network("full"),
        ("seed",),
        settings=_training,
        upstream=_above("data"),
        reads=first_of("data"),
        weights="full",
        shared=True,
        scratch="checkpoints/{experiment}/full/seed{seed}/{key}",
    ),
    "binarize": Stage(
        _network("binary"),
        ("seed",),
        settings=_training,
        upstream=_before_binary,
        reads=_binarize_reads,
        weights="binary",
        shared=True,
        scratch="checkpoints/{experiment}/binary/seed{seed}/{key}",
    ),
    "activations": Stage(
        {"activations": File(OF_NETWORK + "/activations-{key}.parquet", columns.ACTIVATIONS)},
        NETWORK,
        version=2,  # 2: those of the first layer are of the sum that it is simulated with
        settings=_activations,
        upstream=_above("network"),
        reads=first_of("network", "data"),
    ),
    "thresholds": Stage(
        {"thresholds": File(OF_PERCENTILE + "/thresholds-{key}.parquet", columns.THRESHOLDS)},
        (*NETWORK, "percentile"),
        settings=_thresholds,
        upstream=_above("activations"),
        reads=first_of("activations"),
    ),
    "simulate": Stage(
        {
            "predictions": File(OF_PERCENTILE + "/predictions" + SHARD, columns.PREDICTIONS),
            "spikes": File(OF_PERCENTILE + "/spikes" + SHARD, columns.SPIKES),
        },
        (*NETWORK, "percentile", "shard"),
        version=2,  # 2: a finer current of the first layer
        settings=_simulate,
        upstream=_above("thresholds"),
        reads=first_of("thresholds", "network", "data"),
        scratch="checkpoints/" + OF_NETWORK + "/shards-{key}",
    ),
    "method": Stage(
        {
            "predictions": File(OF_METHOD + "/predictions" + SHARD, columns.PREDICTIONS),
            "spikes": File(OF_METHOD + "/spikes" + SHARD, columns.SPIKES),
            "operations": File(OF_METHOD + "/operations" + SHARD, columns.OPERATIONS),
            "errors": File(OF_METHOD + "/errors" + SHARD, columns.ERRORS),
        },
        (*NETWORK, "method", "steps", "shard"),
        version=2,  # 2: as simulate
        settings=_method,
        upstream=_above("activations"),
        reads=_method_reads,
    ),
    "ideal": Stage(
        {"ideal": File(OF_NETWORK + "/methods/{method}/ideal" + SHARD, columns.PREDICTIONS)},
        (*NETWORK, "method", "shard"),
        settings=ideal,
        upstream=_above("activations"),
        reads=first_of("activations", "network", "data"),
    ),
    "find_switches": Stage(
        {"search": File(OF_NETWORK + "/search-{key}.parquet"), "text": File(OF_NETWORK + "/search-{key}.csv")},
        NETWORK,
        # 2: begins with all methods, tries the shift; 3: as simulate; 4: guided by ideal curves; 5: negative
        # thresholds; 6: a drop of just the wanted points is enough, and curves judge thresholds of two passes, too;
        # 7: the one-standard-error rule, and curves above what is reached are tried
        version=7,
        name="search",
        same_step=True,
        settings=search,
        upstream=_above("activations"),
        reads=first_of("activations", "network", "data"),
    ),
    "find_exit": Stage(
        {"exit": File(OF_NETWORK + "/exit-{key}.parquet"), "text": File(OF_NETWORK + "/exit-{key}.csv")},
        NETWORK,
        # 2: beside the bounds, fewer steps for all images; 3: columns split and method; 4: as simulate; 5: a loss of
        # just the allowed points is allowed
        version=5,
        name="exit",
        same_step=True,
        settings=early_exit,
        upstream=_exit_upstream,
        reads=first_of("activations", "network", "data"),
    ),
    **shown.STAGES,
}

# What `snakemake TARGET` asks for, of every experiment that runs; a result of the paper where the target names one.
TARGETS: dict[str, tuple[str, ...]] = {
    "all": ("tables", "figures", "report"),  # each by name: a report that is there does not look for lost figures
    "networks": ("network",),
    "activation_tables": ("activations",),
    "threshold_tables": ("thresholds",),
    "simulations": ("simulate",),
    "latency": ("latency_tables", "latency_figures"),
    "search": ("find_switches",),
    "early_exit": ("exit_results",),
    "paper": ("paper_report",),
    **{f"paper_{result}": ("paper_result",) for result in plan.RESULTS},
}
