"""Commands about the configuration alone."""

from __future__ import annotations

import typer
import yaml

from bsnn import config, log
from bsnn.cli.options import CONFIG_FILE, Changes, ConfigFile, load


def schema() -> None:
    """Print the JSON schema of config.yaml."""
    typer.echo(config.schema(), nl=False)


def check(config_file: ConfigFile = CONFIG_FILE, changes: Changes = None) -> None:
    """Check the configuration and print it with all defaults filled in."""
    with log.job():
        typer.echo(yaml.safe_dump(load(config_file, changes).model_dump(mode="json"), sort_keys=False))
