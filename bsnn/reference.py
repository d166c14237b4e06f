"""Reference results: measured tables that the README quotes, kept in the repository with where they come from."""

from __future__ import annotations

import json
from pathlib import Path

from bsnn import artifacts, identity, provenance
from bsnn.tables import Results

KEPT = ("accuracy", "accuracy_over_time", "spikes_by_layer", "rates", "binary_summary", "training")
FOLDER = Path("results/reference")


def keep(results: Results, command: str, folder: Path = FOLDER) -> Path:
    """Copy an experiment's tables to the reference folder, with `origin.json` beside them; returns their folder.

    Args:
        results: tables, as bsnn.tables.read gives them.
        command: what was run, to be run again by whoever doubts the numbers.
        folder: the reference folder.
    """
    place = folder / results.name
    for name in KEPT:
        if name in results.frames:
            artifacts.write_text(place / f"{name}.csv", results[name].to_csv(index=False, lineterminator="\n"))
    origin = {
        "command": command,
        "seeds": list(results.config.seeds),
        "settings": identity.results(results.config, results.name),
        "made": results["origins"].to_dict(orient="records"),
        "kept": provenance.collect(),
    }
    artifacts.write_text(place / "origin.json", json.dumps(origin, indent=2, default=str) + "\n")
    return place
