"""Which artifacts are there, and which of them the current settings need."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bsnn.config import Config, Weights
from bsnn.paper import plan
from bsnn.pipeline.identity import KEY_LENGTH, METHOD_FILES, Paths

KEYED = re.compile(rf"-[0-9a-f]{{{KEY_LENGTH}}}(\.\d+of\d+)?\.(parquet|safetensors|csv)$")


@dataclass(frozen=True)
class Item:
    """One artifact, or one folder of checkpoints."""

    path: Path
    size: int  # bytes
    needed: bool

    def remove(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink()


def needed(config: Config, root: Path) -> set[Path]:
    """Every path that an experiment of the configuration can ask for, with its seeds, weights and percentiles.

    Checkpoints are needed until their network is there.
    """
    paths = Paths(config, root)
    found = {paths.data(name) for name in config.experiments}
    for name, weights, seed in product(config.experiments, config.weights, config.seeds):
        place = (name, weights, seed)
        found |= {path(name, kind, seed) for kind in ("full", weights) for path in (paths.network, paths.history)}
        found |= {paths.activations(*place), paths.summary(name, seed)}
        found |= {paths.checkpoints(*place)} if not paths.network(*place).exists() else set()
        for percentile in plan.sweep(config):
            found.add(paths.thresholds(*place, percentile))
            shards = range(1, config.experiments[name].simulation.shards + 1)
            found |= {path(*place, percentile, shard) for shard in shards for path in (paths.predictions, paths.spikes)}
        chosen = (paths.search(*place), paths.early_exit(*place))
        found |= _methods(config, paths, place) | {
            path.with_suffix(kind) for path in chosen for kind in (".parquet", ".csv")
        }
    return found


def _methods(config: Config, paths: Paths, place: tuple[str, Weights, int]) -> set[Path]:
    """What the methods of conversion leave."""
    settings, shards = config.experiments[place[0]].latency, config.experiments[place[0]].simulation.shards
    runs = [(name, steps) for name in settings.names_for(place[1]) for steps in settings.runs(name)]
    every = product(METHOD_FILES, runs, range(1, shards + 1))
    return {paths.method(what, *place, name, steps, shard) for what, (name, steps), shard in every}


def artifacts(config: Config, root: Path = Path("results")) -> list[Item]:
    """All artifacts and checkpoints under a results folder, sorted by path; reference tables are not among them."""
    wanted = needed(config, root)
    files = [path for path in root.rglob("*") if path.is_file() and KEYED.search(path.name)]
    files = [path for path in files if not {root / "reference", root / "checkpoints"} & set(path.parents)]
    folders = [path for path in (root / "checkpoints").glob("*/*/*/*") if path.is_dir()]
    return [Item(path, _size(path), path in wanted) for path in sorted([*files, *folders])]


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    found = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum(file.st_size for file in found if file.st_nlink == 1)  # a second name takes no space
