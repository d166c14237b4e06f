"""Commands that carry networks in from, and out to, other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bsnn import config, log, stages
from bsnn.cli.options import (
    CONFIG_FILE,
    Changes,
    CheckpointFile,
    ConfigFile,
    Experiment,
    Kind,
    MethodName,
    Seed,
    changes_of,
    job_of,
    weights_of,
)
from bsnn.config import reading
from bsnn.config.experiment import sort_of_network
from bsnn.errors import ConfigError
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

UNREAD = "0" * 64  # content of a network that was not read yet


def networks(
    folder: Annotated[Path | None, typer.Option(help="Reference folder; the repository's own without it.")] = None,
) -> None:
    """List the trained networks that come with the repository, each with what its card says."""
    from bsnn.networks import shipped

    with log.job():
        for card in shipped.cards(folder or shipped.FOLDER):
            size, accuracy = card.bytes / 1e6, 100 * card.test_accuracy
            machine = ", ".join([card.hardware["cpu"], *sorted(set(card.hardware["gpus"]))])
            typer.echo(
                f"{card.experiment:20}  {card.weights:6}  seed {card.seed}  {accuracy:6.2f} % of {card.test_images:,} "
                f"test images  {card.epochs} epochs, {card.hours:g} hours on {machine}  {size:.1f} MB  "
                f"{shipped.path(card.experiment, card.weights, folder or shipped.FOLDER)}"
            )


def keep_network(
    experiment: Experiment,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Copy a trained network to results/reference/EXPERIMENT/networks/, with a card that says what it is."""
    from bsnn import reference

    with log.job():
        job = job_of(config_file, changes, experiment, weights=weights, seed=seed)
        typer.echo(f"kept: {reference.keep_network(job)}")


def import_checkpoint(
    experiment: Experiment,
    file: CheckpointFile,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Import a checkpoint of the original, or a network of this project, and print the settings that use it."""
    from bsnn.networks import original_checkpoint

    with log.job():
        place = Place(experiment, weights_of(weights), seed)
        imported = {"imported": {place.weights: {"path": str(file), "sha256": original_checkpoint.sha256(file)}}}
        changed = config.merge(changes_of(changes), {"experiments": {experiment: imported}})
        job = Job(Pipeline(config.load(config_file, changed)), place)
        job.pipeline.check("network", place)
        if file.suffix != ".safetensors":  # one of this project is checked where it is read
            original_checkpoint.check(file, job.experiment.family, weights_of(weights), job.experiment.data.image_size)
        if not job.pipeline.path("data", place).exists():
            stages.run("data", job)
        stages.run(job.pipeline.rule("network", place), job)
        typer.echo(f"imported: {job.pipeline.path('network', place)}")
        typer.echo(f"the pipeline uses it with these settings, to be added to experiments.{experiment}:")
        typer.echo(yaml.safe_dump(imported, sort_keys=False), nl=False)


def read_network(
    experiment: Experiment,
    weights: Kind = "full",
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Run the Python file that builds an experiment's own network, read it, and print the settings that use it."""
    from bsnn.graphs import plain
    from bsnn.networks import own
    from bsnn.stages import train

    with log.job():
        asked = config.merge(changes_of(changes), {"weights": [weights_of(weights)]})
        job = Job.of(config.validate(_with_contents(config.merge(reading.read(config_file), asked))), experiment)
        job.pipeline.check("network", job.place)
        settings = job.experiment.own
        if settings is None:
            raise ConfigError(f"experiments.{experiment}.network: names no module, so there is nothing to be read")
        if not job.pipeline.path("data", job.place).exists():
            stages.run("data", job)
        graph = train.own_network(job, job.data_set(), settings).graph
        kind, binary = own.kind(graph), ", ".join(graph.binary) or "none"
        typer.echo(f"read: {len(graph.layers)} layers; binary weights: {binary}; run it with weights={kind}")
        content = plain.digest(graph)
        if settings.content not in (UNREAD, content):
            typer.echo(
                f"it is another network than its settings name ({settings.content}): with these, results are made anew"
            )
        typer.echo(f"its settings, to be added to experiments.{experiment}:")
        typer.echo(yaml.safe_dump({"network": {"content": content}}, sort_keys=False), nl=False)


def _with_contents(raw: dict[str, Any]) -> dict[str, Any]:
    """Settings in which each module without a content has one that stands for none."""
    experiments = raw.get("experiments")
    if not isinstance(experiments, Mapping):
        return raw
    contents = {
        name: {"network": {"content": UNREAD, **given["network"]}}
        for name, given in experiments.items()
        if isinstance(given, Mapping) and sort_of_network(given.get("network")) == "<own>"
    }
    return config.merge(raw, {"experiments": contents})


def export_checkpoint(
    experiment: Experiment,
    file: Annotated[Path, typer.Argument(help="File to write (.pth.tar).")],
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Export a trained network as a checkpoint that the original's scripts read."""
    from bsnn.networks import original_checkpoint

    with log.job():
        job = job_of(config_file, changes, experiment, weights=weights, seed=seed)
        original_checkpoint.save(file, job.network())
        typer.echo(f"exported: {file}")


def export_nir(
    experiment: Experiment,
    file: Annotated[Path, typer.Argument(help="File to write (.nir).")],
    name: MethodName = "baseline",
    steps: Annotated[int | None, typer.Option(min=1, help="Time steps T, for methods that are fitted to them.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="full or binary; without it the kind that a network of one's own is, else binary."),
    ] = None,
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Export a converted network as NIR; thresholds at latency.percentile, unless the method says otherwise."""
    from bsnn import nir_graph
    from bsnn.conversion.method import skipped
    from bsnn.stages.evaluation import Evaluation

    with log.job():
        job = job_of(config_file, changes, experiment, weights=weights or "binary", seed=seed)
        if weights is None and job.experiment.own is not None and not job.pipeline.path("network", job.place).exists():
            full = job_of(config_file, changes, experiment, weights="full", seed=seed)
            job = full if full.pipeline.path("network", full.place).exists() else job
        settings = job.experiment.latency
        switches, steps = settings.method(name), steps or max(settings.time)
        if skipped(switches) is not None:
            raise ConfigError(
                f"method '{name}' leaves out first steps of the read-out, by a delay or a second pass, which NIR "
                "cannot say: export another, or this one without"
            )
        network = Evaluation(job).converted(switches, steps).network
        percentile = switches.percentile_at(steps, settings.percentile)
        thresholds = f"percentile {percentile:g}" if switches.threshold == "percentile" else switches.threshold
        fitted = f", T = {steps}" if switches.per_time else ""
        about = (
            f"{experiment}, {job.place.weights} weights, seed {seed}, method {name}, thresholds by {thresholds}{fitted}"
        )
        nir_graph.write(file, network, about)
        typer.echo(f"exported: {file} ({about})")
