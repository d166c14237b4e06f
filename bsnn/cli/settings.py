"""Commands about the configuration alone."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml

from bsnn import config, log
from bsnn.cli.options import CONFIG_FILE, Changes, ConfigFile, load


def schema() -> None:
    """Print the JSON schema of config.yaml."""
    typer.echo(config.schema(), nl=False)


def check(
    every: Annotated[
        bool, typer.Option("--all", help="Every setting of every experiment, defaults filled in.")
    ] = False,
    config_file: ConfigFile = CONFIG_FILE,
    changes: Changes = None,
) -> None:
    """Check the configuration; print what runs, and what differs from the defaults there."""
    with log.job():
        found = load(config_file, changes)
        if every:
            typer.echo(yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False), nl=False)
            return
        typer.echo(
            f"# {config_file} is valid. What runs, and what differs from the defaults; `bsnn check --all` shows all."
        )
        plain = found.model_dump(mode="json", exclude_defaults=True)
        names = [*found.run, *(other for name in found.run if (other := found.experiments[name].networks_of))]
        shown = {**plain, "experiments": {name: plain["experiments"][name] for name in dict.fromkeys(names)}}
        typer.echo(yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=110), nl=False)
        others = [name for name in found.experiments if name not in names]
        if others:
            typer.echo(f"# other experiments: {', '.join(others)}")
