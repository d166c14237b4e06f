"""Commands that look at artifacts: what they are, which are needed, shared, or still to be made."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from bsnn import artifacts, log
from bsnn.cli.options import CONFIG_FILE, Changes, CommonFolder, ConfigFile, Experiment, Target, load
from bsnn.errors import ArtifactError, ConfigError
from bsnn.pipeline import about, inventory
from bsnn.pipeline.model import Pipeline


def describe(
    path: Annotated[Path, typer.Argument(help="Artifact: .parquet or .safetensors.")],
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Tell what an artifact is: the settings that its key stands for, and where it comes from."""
    with log.job():
        try:
            document = artifacts.describe(path)
        except ArtifactError as error:
            raise _possible(error, path, config_file, changes) from None
        typer.echo(f"{path}: {about.sentence(document)}\n")
        typer.echo(json.dumps(document, indent=2))


def _possible(error: ArtifactError, path: Path, config_file: Path, changes: list[str] | None) -> ArtifactError:
    """The error, without advice to make a file that no current setting asks for."""
    if f"snakemake {path}" not in str(error):
        return error
    try:
        pipeline = Pipeline(load(config_file, changes))
        if path.is_relative_to(pipeline.root) and inventory.in_use(pipeline, path):
            return error
    except ConfigError:
        pass  # then nothing can be made
    return artifacts.with_remedy(error, f"no setting of {config_file} asks for such a file")


def list_artifacts(
    unused: Annotated[bool, typer.Option("--unused", help="Only those that no current setting needs.")] = False,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """List artifacts: size in MiB, whether a current setting needs them, path."""
    with log.job():
        for item in inventory.artifacts(Pipeline(load(config_file, changes))):
            if not (unused and item.needed):
                typer.echo(f"{item.size / 2**20:10.2f}  {'needed' if item.needed else 'unused'}  {item.path}")


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only tell.")] = False,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Remove artifacts that no current setting needs."""
    with log.job():
        pipeline = Pipeline(load(config_file, changes))
        unused = [item for item in inventory.artifacts(pipeline) if not item.needed]
        with artifacts.claimed(pipeline.root) if yes else nullcontext():
            for item in list(unused):
                if yes and not item.remove():
                    unused.remove(item)
                    typer.echo(f"kept {item.path}: a training is writing it")
                else:
                    typer.echo(f"{'removed' if yes else 'would remove'} {item.path}")
        size = sum(item.size for item in unused) / 2**20
        typer.echo(f"{len(unused)} artifacts, {size:.1f} MiB" + ("" if yes else "; add --yes to remove them"))


def share(folder: CommonFolder, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Copy finished artifacts to a common folder, for other checkouts and users."""
    from bsnn.pipeline import exchange

    with log.job():
        copied = exchange.share(load(config_file, changes), folder)
        typer.echo("\n".join([*map(str, copied), f"{len(copied)} artifacts shared in {folder}"]))


def fetch(folder: CommonFolder, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Copy artifacts that are needed and missing here from a common folder, each checked as a whole."""
    from bsnn.pipeline import exchange

    with log.job():
        copied = exchange.fetch(load(config_file, changes), folder)
        typer.echo("\n".join([*map(str, copied), f"{len(copied)} artifacts fetched from {folder}"]))


def plan(
    target: Target = "all",
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Tell what a target has to do: jobs by rule; time, memory and disk as measured, or time as estimated."""
    from bsnn.pipeline import costs

    with log.job():
        typer.echo(costs.to_text(costs.costs(Pipeline(load(config_file, changes)), target=target)))


def keep_reference(
    experiment: Experiment, command: Annotated[str, typer.Option(help="The command that made the results.")]
) -> None:
    """Copy an experiment's tables to results/reference/, with hardware, versions, revision, seeds and command."""
    from bsnn import reference, tables

    with log.job():
        typer.echo(reference.keep(tables.read(Path("results") / experiment / "tables"), command))
