"""The command line: every stage by hand, and questions about artifacts. `snakemake` runs the same stages by itself.

A command is one function in a module of its subject, and one line here: groups and order are those of `bsnn --help`.
`bsnn --install-completion` completes commands, options, experiments and targets in the shell.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import bsnn
from bsnn.cli import artifacts, convert, networks, pipeline, settings
from bsnn.errors import BsnnError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Looks at what `snakemake` makes, and runs each of its stages by hand. `snakemake` runs them all, and only "
    "those that are needed.",
)

GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Settings and plans": {"check": settings.check, "plan": artifacts.plan, "schema": settings.schema},
    "Artifacts": {
        "describe": artifacts.describe,
        "list": artifacts.list_artifacts,
        "clean": artifacts.clean,
        "share": artifacts.share,
        "fetch": artifacts.fetch,
        "keep-reference": artifacts.keep_reference,
    },
    "Networks, in and out": {
        "networks": networks.networks,
        "keep-network": networks.keep_network,
        "import-checkpoint": networks.import_checkpoint,
        "read-network": networks.read_network,
        "export-checkpoint": networks.export_checkpoint,
        "export-nir": networks.export_nir,
        "convert": convert.convert,
    },
    "Stages by hand, in order": {
        "data": pipeline.data,
        "train": pipeline.train,
        "binarize": pipeline.binarize,
        "activations": pipeline.activations,
        "thresholds": pipeline.thresholds,
        "simulate": pipeline.simulate,
        "tables": pipeline.tables,
        "figures": pipeline.figures,
        "report": pipeline.report,
    },
    "Stages of methods": {
        "method": pipeline.method,
        "latency": pipeline.latency,
        "search": pipeline.search,
        "early-exit": pipeline.early_exit,
        "exit-results": pipeline.exit_results,
    },
}
"""Commands by group, in the order of `bsnn --help`."""

LIKE_ARGPARSE: dict[str, Any] = {
    "cls": convert.Abbreviating,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""How `convert` takes its options: as the original's script."""

for group, commands in GROUPS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=group, **LIKE_ARGPARSE if name == "convert" else {})(command)


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
