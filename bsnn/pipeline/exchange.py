"""Finished artifacts in a common folder, for other checkouts and users. Paths carry the key, so they are names enough.

A file is copied under a temporary name, read as a whole, compared with the key in its name, and only then renamed:
who fetches while another one shares sees whole files or none. What is there and sound is never written again.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from bsnn import artifacts
from bsnn.config import Config
from bsnn.errors import ArtifactError
from bsnn.paper import plan
from bsnn.pipeline import identity
from bsnn.pipeline.declarations import STAGES
from bsnn.pipeline.model import RESULTS, Pipeline

logger = logging.getLogger(__name__)


def share(config: Config, folder: Path, root: Path = RESULTS) -> list[Path]:
    """Copy artifacts that the current settings need into a common folder.

    Returns:
        Paths below the folder of what was not there before, or damaged.

    Raises:
        ArtifactError: an artifact of this checkout is damaged, or the folder cannot be written.
    """
    missing = [path for path in _wanted(config, root) if (root / path).is_file() and not _sound(folder / path)]
    for path in missing:
        _copy(root / path, folder / path)
    return missing


def fetch(config: Config, folder: Path, root: Path = RESULTS) -> list[Path]:
    """Copy what the current settings need, and this checkout lacks, from a common folder.

    A damaged file there is named in a warning and skipped: the pipeline then makes its own.

    Returns:
        Paths below `root` of what was copied.

    Raises:
        ArtifactError: there is no such folder, or this checkout cannot be written.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; name the one that `bsnn share` fills")
    found = [path for path in _wanted(config, folder) if not (root / path).exists() and _sound(folder / path)]
    for path in found:
        _write_text_beside(folder / path, root / path)  # first: what lacks its Parquet file is fetched again
        _copy(folder / path, root / path)
    return found


def _wanted(config: Config, source: Path) -> list[Path]:
    """Artifacts of the experiments that run, and of their pooling ablations, below the folder they are copied from.

    Its index stands for images that are not there. No checkpoints: somebody may write them.
    """
    names = {*config.run, *(other for name in config.run for other in plan.poolings(config, name).values())}
    pipeline = Pipeline(config, source)
    found = {
        path
        for name in names
        for stage in STAGES
        for place in pipeline.places(stage, name, plan.sweep(config))
        for path in pipeline.files(stage, place)
    }
    return sorted(path.relative_to(source) for path in found if path.suffix in (".parquet", ".safetensors"))


def _sound(path: Path) -> bool:
    """Whether an artifact is there, whole, and what its name says."""
    if not path.exists():
        return False
    try:
        _check(path, path)
    except ArtifactError as error:
        logger.warning("skipped: %s", error)
        return False
    return True


def _check(path: Path, named: Path) -> None:
    """Read an artifact as a whole, and compare what it says of itself with its name: key, kind of table, shard."""
    kind = artifacts.describe(named)["kind"]
    if named.suffix == ".parquet":
        _, document = artifacts.read_table(path, kind, {})
    else:
        _, document = artifacts.read_tensors(path, kind)
    key, extra = identity.key(document["identity"]), document["extra"]
    # Tables are named by their kind, key and shard; networks and data sets begin otherwise, and go by their key alone.
    shard = f".{extra['shard']}of{extra['shards']}" if "shard" in extra else ""
    beginning = "" if document["identity"]["stage"] == "data" or named.suffix != ".parquet" else f"{kind}-"
    if not (named.name.startswith(beginning) and named.stem.endswith(key + shard)):
        raise ArtifactError(f"{named}: holds {beginning}{key}{shard}, as it says itself; remove it")


def _copy(source: Path, target: Path) -> None:
    with artifacts.replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        _check(temporary, source)  # the copy's content, by the artifact's name


def _write_text_beside(source: Path, path: Path) -> None:
    """The readable table beside a search's, which cannot be checked itself, from the one that was."""
    if path.name.startswith(("search-", "exit-")):
        table, _ = artifacts.read_table(source, artifacts.describe(source)["kind"], {})
        artifacts.write_csv(path.with_suffix(".csv"), table.to_pandas())
