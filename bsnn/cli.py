"""The command line: every stage by hand, and questions about artifacts. `snakemake` runs the same stages by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import bsnn
from bsnn import artifacts, config, inputs, inventory, log, stages
from bsnn.config import Config, Weights
from bsnn.errors import BsnnError, ConfigError
from bsnn.original.command import convert

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stages, in order: data, train, binarize, activations, thresholds, simulate, tables, figures, report. "
    "`snakemake` runs them all, and only those that are needed.",
)

Experiment = Annotated[str, typer.Argument(help="Experiment, by its name in the configuration.")]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="Experiment that the network is of.")]
CheckpointFile = Annotated[Path, typer.Argument(help="Checkpoint of the original (.pth.tar).")]
Kind = Annotated[str, typer.Option("--weights", help="full or binary.")]
Seed = Annotated[int, typer.Option(help="Seed of the network.")]
Percentile = Annotated[float, typer.Option(help="Percentile of the activations.")]
Shard = Annotated[int, typer.Option(help="Part of the test set: 1, 2, ...")]
MethodName = Annotated[str, typer.Option("--method", help="Method of conversion: baseline, or one of latency.methods.")]
ConfigFile = Annotated[Path, typer.Option("--config-file", help="Configuration.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting: key=value, with dots for sections; repeatable.")
]
CommonFolder = Annotated[Path, typer.Argument(help="Common folder of finished artifacts.")]

CONFIG_FILE = Path("config.yaml")


def _changes(texts: list[str] | None) -> dict[str, Any]:
    """Nested settings from `a.b=value` texts, values as YAML."""
    changes: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected key=value, for example --set compute.engine=torch")
        try:
            nested: Any = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: the value is not valid YAML: {error}") from None
        for part in reversed(name.split(".")):
            nested = {part: nested}
        changes = config.merge(changes, nested)
    return changes


def _load(path: Path, texts: list[str] | None) -> Config:
    return config.load(path, _changes(texts))


def _weights(text: str) -> Weights:
    if text == "full" or text == "binary":
        return text  # type: ignore[return-value]
    raise ConfigError(f"--weights {text}: expected full or binary")


def _run(stage: Callable[[stages.Job], None], file: Path, changes: list[str] | None, name: str, **place: Any) -> None:
    with log.job():
        stage(stages.Job(_load(file, changes), name, **place))


@app.command()
def data(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Fetch, verify and store the data set."""
    _run(stages.data, config_file, changes, experiment)


@app.command()
def train(
    experiment: Experiment, seed: Seed = 0, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None
) -> None:
    """Train the full-precision network."""
    _run(stages.train, config_file, changes, experiment, seed=seed)


@app.command()
def binarize(
    experiment: Experiment, seed: Seed = 0, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None
) -> None:
    """Fine-tune the binary network from the full-precision one."""
    _run(stages.train, config_file, changes, experiment, weights="binary", seed=seed)


@app.command()
def activations(
    experiment: Experiment,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Collect every percentile of every layer's activations."""
    _run(stages.activations, config_file, changes, experiment, weights=_weights(weights), seed=seed)


@app.command()
def thresholds(
    experiment: Experiment,
    percentile: Percentile,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Read thresholds at one percentile from the activation table."""
    place = {"weights": _weights(weights), "seed": seed, "percentile": percentile}
    _run(stages.thresholds, config_file, changes, experiment, **place)


@app.command()
def simulate(
    experiment: Experiment,
    percentile: Percentile,
    weights: Kind = "full",
    seed: Seed = 0,
    shard: Shard = 1,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Simulate the spiking network on one shard of the test set."""
    place = {"weights": _weights(weights), "seed": seed, "percentile": percentile, "shard": shard}
    _run(stages.simulate, config_file, changes, experiment, **place)


@app.command()
def method(
    experiment: Experiment,
    name: MethodName,
    steps: Annotated[int, typer.Option(help="Time steps T.")],
    weights: Kind = "full",
    seed: Seed = 0,
    shard: Shard = 1,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Convert by a method and simulate it on one shard of the test set."""
    from bsnn import stages_methods

    with log.job():
        loaded = _load(config_file, changes)
        kind = _weights(weights)
        stages_methods.method(stages_methods.MethodJob(loaded, experiment, kind, seed, 100.0, shard, name, steps))


@app.command()
def latency(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Write tables and figures of all methods of conversion, side by side."""
    from bsnn import stages_methods

    _run(stages_methods.tables, config_file, changes, experiment)
    _run(stages_methods.figures, config_file, changes, experiment)


@app.command()
def search(
    experiment: Experiment,
    weights: Kind = "binary",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Search the best switches for a wanted time or drop (latency.search), on held-out training images."""
    from bsnn import stages_search

    _run(stages_search.search, config_file, changes, experiment, weights=_weights(weights), seed=seed)


@app.command("export-nir")
def export_nir(
    file: Annotated[Path, typer.Argument(help="File to write (.nir).")],
    experiment: ExperimentOption,
    name: MethodName = "baseline",
    steps: Annotated[int | None, typer.Option(help="Time steps T, for methods that are fitted to them.")] = None,
    weights: Kind = "binary",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Export a converted network as NIR."""
    from bsnn import nir_graph, stages_search

    with log.job():
        job = stages.Job(_load(config_file, changes), experiment, weights=_weights(weights), seed=seed)
        settings = job.experiment.latency
        network, _ = stages_search.Bench(job, None).converted(settings.method(name), steps or max(settings.time))
        nir_graph.write(file, network)
        typer.echo(f"exported: {file}")


@app.command("early-exit")
def early_exit(
    experiment: Experiment,
    weights: Kind = "binary",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Accuracy against mean steps, the bound chosen on held-out training images (latency.early_exit)."""
    from bsnn import stages_search

    _run(stages_search.early_exit, config_file, changes, experiment, weights=_weights(weights), seed=seed)


@app.command()
def tables(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Write the tables (CSV, Parquet, Markdown)."""
    _run(stages.tables, config_file, changes, experiment)


@app.command()
def figures(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Draw the figures (SVG, PNG)."""
    _run(stages.figures, config_file, changes, experiment)


@app.command()
def report(experiment: Experiment, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Write the report (one HTML file)."""
    _run(stages.report, config_file, changes, experiment)


@app.command("keep-reference")
def keep_reference(
    experiment: Experiment, command: Annotated[str, typer.Option(help="The command that made the results.")]
) -> None:
    """Copy an experiment's tables to results/reference/, with hardware, versions, revision, seeds and command."""
    from bsnn import reference, tables

    with log.job():
        typer.echo(reference.keep(tables.read(Path("results") / experiment / "tables"), command))


@app.command("import-checkpoint")
def import_checkpoint(
    file: CheckpointFile,
    experiment: ExperimentOption,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Import a checkpoint of the original in place of training, and tell the settings that use it."""
    from bsnn.original import checkpoint

    with log.job():
        job = stages.Job(_load(config_file, changes), experiment, weights=_weights(weights), seed=seed)
        imported = {"imported": {weights: {"path": str(file), "sha256": checkpoint.sha256(file)}}}
        changed = config.merge(_changes(changes), {"experiments": {experiment: imported}})
        job = stages.Job(config.load(config_file, changed), experiment, weights=job.weights, seed=seed)
        if not job.paths.data(experiment).exists():
            stages.data(job)
        stages.train(job)
        typer.echo(f"imported: {job.paths.network(experiment, job.weights, seed)}")
        typer.echo(f"the pipeline uses it with these settings, to be added to experiments.{experiment}:")
        typer.echo(yaml.safe_dump(imported, sort_keys=False), nl=False)


@app.command("export-checkpoint")
def export_checkpoint(
    file: CheckpointFile,
    experiment: ExperimentOption,
    weights: Kind = "full",
    seed: Seed = 0,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Export a trained network as a checkpoint that the original's scripts read."""
    from bsnn.original import checkpoint

    with log.job():
        job = stages.Job(_load(config_file, changes), experiment, weights=_weights(weights), seed=seed)
        checkpoint.save(file, inputs.network(job))
        typer.echo(f"exported: {file}")


app.command(context_settings={"help_option_names": ["-h", "--help"]})(convert)


@app.command()
def describe(path: Annotated[Path, typer.Argument(help="Artifact: .parquet or .safetensors.")]) -> None:
    """Tell what an artifact is: the settings that its key stands for, and where it comes from."""
    with log.job():
        typer.echo(json.dumps(artifacts.describe(path), indent=2))


@app.command("list")
def list_artifacts(
    unused: Annotated[bool, typer.Option("--unused", help="Only those that no current setting needs.")] = False,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """List artifacts: size in MiB, whether a current setting needs them, path."""
    with log.job():
        for item in inventory.artifacts(_load(config_file, changes)):
            if not (unused and item.needed):
                typer.echo(f"{item.size / 2**20:10.2f}  {'needed' if item.needed else 'unused'}  {item.path}")


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only tell.")] = False,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Remove artifacts that no current setting needs."""
    with log.job():
        unused = [item for item in inventory.artifacts(_load(config_file, changes)) if not item.needed]
        for item in unused:
            typer.echo(f"{'removed' if yes else 'would remove'} {item.path}")
            if yes:
                item.remove()
        size = sum(item.size for item in unused) / 2**20
        typer.echo(f"{len(unused)} artifacts, {size:.1f} MiB" + ("" if yes else "; add --yes to remove them"))


@app.command()
def share(folder: CommonFolder, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Copy finished artifacts to a common folder, for other checkouts and users."""
    from bsnn import sharing

    with log.job():
        copied = sharing.share(_load(config_file, changes), folder)
        typer.echo("\n".join([*map(str, copied), f"{len(copied)} artifacts shared in {folder}"]))


@app.command()
def fetch(folder: CommonFolder, config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Copy artifacts that are needed and missing here from a common folder, each checked as a whole."""
    from bsnn import sharing

    with log.job():
        copied = sharing.fetch(_load(config_file, changes), folder)
        typer.echo("\n".join([*map(str, copied), f"{len(copied)} artifacts fetched from {folder}"]))


@app.command()
def plan(
    target: Annotated[str, typer.Argument(help="all, paper, latency, search or early_exit.")] = "all",
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Tell what a target has to do: jobs by rule; hours, memory and disk where jobs of their kind were measured."""
    from bsnn import plan as rooms

    with log.job():
        typer.echo(rooms.to_text(rooms.stages(_load(config_file, changes), target=target)))


@app.command()
def schema() -> None:
    """Print the JSON schema of config.yaml."""
    typer.echo(config.schema(), nl=False)


@app.command()
def check(config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Check the configuration and print it with all defaults filled in."""
    with log.job():
        typer.echo(yaml.safe_dump(_load(config_file, changes).model_dump(mode="json"), sort_keys=False))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(bsnn.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point of `bsnn`."""
    try:
        app()
    except BsnnError as error:
        sys.exit(f"error: {error}")
