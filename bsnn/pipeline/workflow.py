"""What the Snakefile asks: the inputs of a job, the files of a target. Snakemake's own words stay in workflow/."""

from __future__ import annotations

from collections.abc import Mapping

from bsnn.errors import ConfigError
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.pipeline.wildcards import place_of


def inputs(pipeline: Pipeline, rule: str, wildcards: Mapping[str, str]) -> dict[str, list[str]]:
    """Files that a job reads, by the stages that make them; none where its own files are all there.

    Snakemake would make these again, as soon as something else needs a file upstream that was lost: a network, for the
    sake of its data set.

    Raises:
        ConfigError: the wildcards are not of the current settings, or the source of a data set is not there.
    """
    place = place_of(pipeline, rule, wildcards)
    if rule == "data":
        _check_source(pipeline, place)
    found: dict[str, list[str]] = {}
    if all(path.exists() for path in pipeline.files(rule, place)):
        return found
    for need in pipeline.reads(rule, place):
        label = "network" if need.stage in ("train", "binarize") else need.stage
        found.setdefault(label, []).append(str(pipeline.path(*need)))
    return found


def targets(pipeline: Pipeline, target: str) -> list[str]:
    """Files that a target asks for."""
    return [str(path) for one in pipeline.target(target) for path in pipeline.files(*one)]


def _check_source(pipeline: Pipeline, place: Place) -> None:
    """The data set needs no artifact, but what its settings name; asked for only where the data set is to be made."""
    settings, made = pipeline.experiment(place).data, pipeline.path("data", place)
    for setting, path in (("path", settings.path), ("labels", settings.labels)):
        if path is not None and not path.exists() and not made.exists():
            raise ConfigError(
                f"experiments.{place.experiment}.data.{setting}: {path.absolute()} does not exist; set it to where the "
                "data lie, as this machine sees them"
            )
