"""What Snakemake asks: which job a path names, what a job reads, and the files of a target.

Snakemake's own words stay in workflow/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bsnn.errors import ConfigError, DataError
from bsnn.folders import listing
from bsnn.paper import plan
from bsnn.pipeline import notes
from bsnn.pipeline.declarations import STAGES
from bsnn.pipeline.identity import KEY_LENGTH
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.notes import MADE
from bsnn.pipeline.stage import Place

CONSTRAINTS = {  # regular expressions
    "weights": "full|binary",
    "seed": r"\d+",
    "percentile": r"\d+(\.\d+)?",
    "key": f"[0-9a-f]{{{KEY_LENGTH}}}",
    "made": MADE,
    "shard": r"\d+",
    "shards": r"\d+",
    "method": "[A-Za-z0-9][A-Za-z0-9._-]*",
    "steps": r"\d+",
    "result": "|".join(plan.RESULTS),
    "suffix": "safetensors|parquet",
}
SHOWN = {  # below an experiment's folder: file at a plain name -> whose it is, and of which result of the paper
    path.format(experiment="", result=result).removeprefix("/"): (name, result if "result" in stage.over else "")
    for name, stage in STAGES.items()
    for path in stage.shown
    for result in plan.RESULTS
}
CONSTRAINTS["shown"] = "|".join(map(re.escape, SHOWN))
READ: dict[str, Callable[[str], Any]] = {"seed": int, "percentile": float, "shard": int, "steps": int}  # others: text


def place_of(pipeline: Pipeline, name: str, wildcards: Mapping[str, str]) -> Place:
    """The job that the wildcards of a path name.

    Args:
        name: the stage.
        wildcards: texts by name, spelled as in the path that the current settings give.

    Raises:
        ConfigError: no such experiment, percentile, shard, method or result; or a path that the current settings do
            not give.
    """
    if "experiment" in wildcards:
        found = {axis: READ.get(axis, str)(wildcards[axis]) for axis in STAGES[name].over if axis in wildcards}
        place = Place(wildcards["experiment"], **found)
    else:
        place = _of_data(pipeline, wildcards)
    pipeline.check(name, place)
    place = pipeline.at(name, place)
    words, path = {**pipeline.words(name, place), "shard": str(place.shard)}, pipeline.path(name, place)
    # The second note of the same settings ends with .2: its key is what comes before.
    key = wildcards.get("key", wildcards.get("made", words["key"]).partition(".")[0])
    if key != words["key"]:
        raise ConfigError(
            f"key {key} does not belong to the current settings, whose file is {path}. Ask for that file, or restore "
            "the settings (`bsnn describe FILE` says what the key of an existing file stands for)."
        )
    # A place can be spelled in other ways (p99.90, another experiment with the same networks): its job would write
    # under the pipeline's own path, and Snakemake would miss the file that it asked for.
    for wildcard, text in wildcards.items():
        if text != words.get(wildcard, text):
            raise ConfigError(f"{wildcard} '{text}' is not the current settings'; ask for their file, {path}")
    return place


def _of_data(pipeline: Pipeline, wildcards: Mapping[str, str]) -> Place:
    """The experiment that stands for a data set."""
    wanted = "{data}-{key}.{suffix}".format(**wildcards)
    experiments = pipeline.config.experiments
    for name in dict.fromkeys(pipeline.data_owners.values()):
        if experiments[name].data.name == wildcards["data"] and pipeline.path("data", Place(name)).name == wanted:
            return Place(name)
    raise ConfigError(
        f"no experiment of the current settings uses data set {wildcards['data']} with key {wildcards['key']}"
    )


def inputs(
    pipeline: Pipeline, rule: str, wildcards: Mapping[str, str], *, forced: bool = False
) -> dict[str, list[str]]:
    """Files that a job reads, by the stages that make them; none where its own files are all there.

    Snakemake would make these again, as soon as something else needs a file upstream that was lost: a network, for the
    sake of its data set.

    Args:
        pipeline: of the current settings.
        rule: of the job.
        wildcards: of the job.
        forced: some files are to be made again although they are there.

    Raises:
        ConfigError: the wildcards are not of the current settings, or the source of a data set is not there.
    """
    place = place_of(pipeline, rule, wildcards)
    if rule == "data":
        _check_source(pipeline, place)
    if rule in ("train", "binarize"):
        _check_module(pipeline, rule, place)
    found: dict[str, list[str]] = {}
    if not forced and all(path.exists() for path in pipeline.files(rule, place)):
        return found
    for need in pipeline.reads(rule, place):
        label = "network" if need.stage in ("train", "binarize") else need.stage
        found.setdefault(label, []).append(str(pipeline.path(*need)))
    return found


def targets(pipeline: Pipeline, target: str) -> list[str]:
    """Files that a target asks for."""
    return [str(path) for one in pipeline.target(target) for path in pipeline.files(*one)]


def note_of(pipeline: Pipeline, experiment: str, shown: str) -> Path:
    """The note that vouches for a file at a plain name, under the current settings; it may have to be made.

    Args:
        pipeline: of the current settings.
        experiment: by its name.
        shown: path below the experiment's folder, one of `SHOWN`.

    Raises:
        ConfigError: the experiment has no such result of the paper.
    """
    stage, result = SHOWN[shown]
    place = Place(experiment, result=result)
    pipeline.check(stage, place)
    return pipeline.path(stage, place)


def shown(pipeline: Pipeline, target: str) -> list[Path]:
    """Files at plain names that a target makes and that are there, of the current settings."""
    jobs = [job for job in pipeline.target(target) if "note" in pipeline.stage(*job).files]
    return [path for job in jobs if pipeline.path(*job).exists() for path in notes.shown(pipeline, *job)]


def unlisted(pipeline: Pipeline, experiment: str) -> bool:
    """Whether an experiment's images cannot be listed now, so that its keys are not known."""
    return pipeline.identity("data", Place(experiment)).get("files", "") is None


def _check_source(pipeline: Pipeline, place: Place) -> None:
    """The data set needs no artifact, but what its settings name; asked for only where the data set is to be made."""
    settings = pipeline.experiment(place).data
    if pipeline.path("data", place).exists():
        return
    for setting, path in (("path", settings.path), ("labels", settings.labels)):
        if path is not None and not path.exists():
            raise ConfigError(
                f"experiments.{place.experiment}.data.{setting}: {path.absolute()} does not exist; set it to where the "
                "data lie, as this machine sees them"
            )
    if unlisted(pipeline, place.experiment):
        try:
            listing.read(settings)
        except DataError as error:
            raise ConfigError(f"experiments.{place.experiment}.data: {error}") from error


def _check_module(pipeline: Pipeline, rule: str, place: Place) -> None:
    """Files of a module of one's own; asked for only where the network is to be read."""
    own = pipeline.experiment(place).own
    if own is None or pipeline.path(rule, place).exists():
        return
    for setting, path in (("module", Path(own.module.rpartition(":")[0])), ("weights", own.weights)):
        if path is not None and not path.is_file():
            raise ConfigError(
                f"experiments.{place.experiment}.network.{setting}: {path.absolute()} does not exist; set it to where "
                "the file lies, as this machine sees it"
            )
