"""Keep finished shards of a failed group job so that its retry can reuse them.

Snakemake makes a failed group again as a whole, and removes the outputs of its finished shards before. Within a SLURM
job each finished shard is therefore kept under a second name beside the checkpoints, as a hard link, and a job of the
same settings takes it back. `bsnn clean` removes what is kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bsnn import artifacts
from bsnn.errors import ArtifactError

logger = logging.getLogger("bsnn")


def keep(folder: Path, paths: Iterable[Path]) -> None:
    """Give finished files a second name in the folder; only within a SLURM job, where groups are.

    A file system without hard links keeps nothing, and says so in the log.
    """
    if not _in_slurm():
        return
    try:
        for path in paths:
            artifacts.link(path, folder / path.name)
    except ArtifactError as error:
        logger.info("nothing is kept for another try: %s", error)


def take(folder: Path, paths: Mapping[str, Path], stands_for: Mapping[str, Any], shard: int, shards: int) -> bool:
    """Give kept files their own names again; only within a SLURM job.

    Args:
        folder: where they are kept.
        paths: the outputs, by the kinds of their tables.
        stands_for: what the files must have been made from.
        shard: which shard they must be.
        shards: of how many.

    Returns:
        Whether all were there, and whole.
    """
    kept = {kind: folder / path.name for kind, path in paths.items()}
    if not _in_slurm() or not all(path.is_file() for path in kept.values()):
        return False
    try:
        # All are checked before the first is linked: a shard is taken whole, or simulated again.
        for kind, path in kept.items():
            artifacts.check_shard(path, artifacts.read_table(path, kind, {}, stands_for)[1], shard, shards)
        for kind, path in paths.items():
            artifacts.link(kept[kind], path)
    except ArtifactError as error:
        logger.warning("a kept shard cannot be used, and is simulated again: %s", error)
        return False
    return True


def _in_slurm() -> bool:
    return "SLURM_JOB_ID" in os.environ
