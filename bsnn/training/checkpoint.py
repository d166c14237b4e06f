"""Checkpoints at epoch ends and within epochs, from which a killed run goes on to the same weights.

Each is one safetensors file (no pickle), written whole or not at all, with a digest of its content and the identity of
the run. The last two are kept: a damaged one is named and skipped; and the last epoch's end, from which other
devices can go on. A lock in the folder keeps two processes from training the same network at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import Tensor, nn

from bsnn import artifacts
from bsnn.artifacts.claim import TRAINING_LOCK
from bsnn.errors import ArtifactError, BsnnError
from bsnn.training.position import Position

logger = logging.getLogger(__name__)

KIND = "checkpoint"
KEEP = 2
WITHIN = ".step-"  # in the name of a checkpoint within an epoch
LOCK_MESSAGE_SECONDS = 60.0


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Be the only process that trains in this folder; wait for another one, and say so once a minute.

    The lock is the operating system's: it goes with its process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / TRAINING_LOCK)
    patience = 0.0  # first, so that the wait is told at once
    while not lock.is_locked:
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            logger.warning("%s: another process is training this network and holds the lock; waiting for it", folder)
            patience = LOCK_MESSAGE_SECONDS
    try:
        for left in folder.glob(".*.tmp"):  # of a killed process: nobody else can be writing now
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def save(
    folder: Path,
    identity: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, float]],
    position: Position | None = None,
) -> Path:
    """Write the checkpoint of the last epoch in `history`, or of a position within the next.

    The last two are kept, and the last of an epoch's end.

    Args:
        folder: of the checkpoints.
        identity: of the network that is trained.
        networks: what is trained, by name: `model`, and `averaged` where there is an average.
        optimiser: its state is kept, its rates are not: they follow from the recipe.
        history: one row for each finished epoch.
        position: within the next one; None at its beginning.

    Raises:
        ArtifactError: the file cannot be written.
    """
    tensors = {
        f"{which}/{name}": tensor for which, module in networks.items() for name, tensor in module.state_dict().items()
    }
    for index, state in optimiser.state_dict()["state"].items():
        # By the parameter's number, counted over all groups.
        tensors |= {f"optimiser/{index}/{name}": value for name, value in state.items() if value is not None}
    name, extra = f"epoch-{len(history):06d}", cast(dict[str, Any], {"history": history})
    if position is not None:
        name += f"{WITHIN}{position.steps:09d}"
        tensors |= {f"position/{part}": value for part, value in position.tensors.items()}
        extra |= {"position": {key: getattr(position, key) for key in ("steps", "seconds", "device")}}
    path = folder / f"{name}.safetensors"
    artifacts.write_tensors(path, tensors, KIND, identity, extra)
    for old in _superseded(_newest_first(folder)):
        old.unlink(missing_ok=True)
    return path


def restore(
    folder: Path,
    identity: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    fabric: Fabric,
) -> tuple[list[dict[str, float]], Position | None]:
    """Put networks (see `save`) and their optimiser back to the newest sound checkpoint.

    Sound is one of the same run that these processes can go on from.

    Without one, nothing is changed and the history is empty. A damaged or foreign checkpoint is named in a warning.

    Returns:
        One row for each finished epoch, and the position within the next one; None at its beginning.
    """
    for path in _newest_first(folder):
        try:
            tensors, found = artifacts.read_tensors(path, KIND)
        except ArtifactError as error:
            logger.warning("skipped a checkpoint: %s", artifacts.with_remedy(error, None))
            continue
        if found["identity"] != identity:
            logger.warning("skipped a checkpoint: %s belongs to a run with other settings", path)
            continue
        noted = found["extra"].get("position")
        position = None if noted is None else Position(**noted, tensors=_under("position/", tensors))
        if position is not None and not position.suits(fabric):
            logger.warning("skipped a checkpoint: %s is within an epoch of other, or of more or fewer, devices", path)
            continue
        for which, module in networks.items():
            module.load_state_dict(_under(f"{which}/", tensors))
        _restore_optimiser(optimiser, _under("optimiser/", tensors))
        history: list[dict[str, float]] = found["extra"]["history"]
        logger.info("going on from %s", path)
        return history, position
    return [], None


def require_same(folder: Path, fabric: Fabric, epochs: int, position: Position | None) -> None:
    """Refuse to go on where processes restored different checkpoints; each must ask.

    Raises:
        BsnnError: nodes do not see the same files.
    """
    steps = 0 if position is None else position.steps
    mine = torch.tensor([epochs, steps], device=fabric.device)
    places = cast(Tensor, fabric.all_gather(mine)).reshape(-1, 2).tolist()
    if places != places[:1] * len(places):
        raise BsnnError(
            f"{folder}: processes found different checkpoints there (finished epochs and steps of each: {places}). "
            "Nodes must share this folder; a file system may need a minute to show a new file everywhere: give the "
            "command again"
        )


def _newest_first(folder: Path) -> list[Path]:
    """By name without ending: an epoch's end comes before the steps of the next."""
    return sorted(folder.glob("epoch-*.safetensors"), key=lambda path: path.stem, reverse=True)


def _superseded(newest_first: list[Path]) -> list[Path]:
    ends = [path for path in newest_first if WITHIN not in path.stem]
    return [path for path in newest_first[KEEP:] if path not in ends[:1]]  # other devices may need that one


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Fill the optimiser's state, in the memory layout of its parameters (which fused steps insist on)."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, entry = name.partition("/")
        like = parameters[int(index)]
        # Adam's counts of steps have another shape, and stay as they are.
        shaped = torch.empty_like(like, requires_grad=False).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[entry] = shaped
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
