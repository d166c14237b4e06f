"""The command line: every stage by hand, and questions about artifacts. `snakemake` runs the same stages by itself.

A command is one function in a module of its subject, and one line here: the order is that of `bsnn --help`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import bsnn
from bsnn.cli import artifacts, convert, networks, pipeline, settings
from bsnn.errors import BsnnError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stages, in order: data, train, binarize, activations, thresholds, simulate, tables, figures, report. "
    "`snakemake` runs them all, and only those that are needed.",
)

app.command()(pipeline.data)
app.command()(pipeline.train)
app.command()(pipeline.binarize)
app.command()(pipeline.activations)
app.command()(pipeline.thresholds)
app.command()(pipeline.simulate)
app.command()(pipeline.method)
app.command()(pipeline.latency)
app.command()(pipeline.search)
app.command("export-nir")(networks.export_nir)
app.command("early-exit")(pipeline.early_exit)
app.command("exit-results")(pipeline.exit_results)
app.command()(pipeline.tables)
app.command()(pipeline.figures)
app.command()(pipeline.report)
app.command("keep-reference")(artifacts.keep_reference)
app.command()(networks.networks)
app.command("keep-network")(networks.keep_network)
app.command("import-checkpoint")(networks.import_checkpoint)
app.command("export-checkpoint")(networks.export_checkpoint)
app.command(context_settings={"help_option_names": ["-h", "--help"]})(convert.convert)
app.command()(artifacts.describe)
app.command("list")(artifacts.list_artifacts)
app.command()(artifacts.clean)
app.command()(artifacts.share)
app.command()(artifacts.fetch)
app.command()(artifacts.plan)
app.command()(settings.schema)
app.command()(settings.check)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(bsnn.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point of `bsnn`."""
    try:
        app()
    except BsnnError as error:
        sys.exit(f"error: {error}")
