"""Where an epoch stands: what its rest depends on, beside weights and optimiser.

Random choices of an epoch come from seeds, but its generators have moved on by the time a run is stopped within it:
a checkpoint there holds their states, and the sums over the images so far.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor


@dataclass(frozen=True)
class Position:
    """A position within an epoch, of all processes that train; tensors have one row per process."""

    steps: int  # done
    seconds: float  # of training, without evaluation
    device: str  # cpu or cuda: the states of their generators are different things
    tensors: dict[str, Tensor]  # total: float64 [processes, 2]; augmentation, dropout: uint8 [processes, bytes]

    def suits(self, fabric: Fabric) -> bool:
        """Whether these processes can go on from here: as many, on the same kind of device."""
        return (len(self.tensors["total"]), self.device) == (fabric.world_size, fabric.device.type)


class Running:
    """What one process carries through an epoch.

    Args:
        fabric: its device and its place among the processes.
        augmentation: seed of the epoch's augmentation.
        dropout: seed of the epoch's dropout.
        found: position to go on from; None at the epoch's beginning.
    """

    def __init__(self, fabric: Fabric, augmentation: int, dropout: int, found: Position | None) -> None:
        self.fabric = fabric
        self.steps = 0
        self.begin = time.perf_counter()
        self.end: float | None = None  # of the training part, once evaluation goes on
        self.total = torch.zeros(2, dtype=torch.float64, device=fabric.device)  # summed loss and correct images
        self.augmenting = torch.Generator(fabric.device).manual_seed(augmentation)
        torch.manual_seed(dropout)
        if found is not None:
            self._go_on(found)

    def _go_on(self, found: Position) -> None:
        rank = self.fabric.global_rank
        mine = {name: rows[rank].clone() for name, rows in found.tensors.items()}  # set_state ignores a view's offset
        self.steps = found.steps
        self.begin -= found.seconds  # as if the stopped run had gone on until now
        self.total.copy_(mine["total"])
        self.augmenting.set_state(mine["augmentation"])
        self._dropout().set_state(mine["dropout"])

    def trained(self) -> None:
        """All steps are done: what follows is evaluation, and its time counts no more."""
        self.end = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds that the epoch's steps took until now, those of stopped runs included."""
        return (time.perf_counter() if self.end is None else self.end) - self.begin

    def position(self) -> Position:
        """Where all processes stand; each of them must ask, at the same step."""
        mine = {
            "total": self.total,
            "augmentation": self.augmenting.get_state(),
            "dropout": self._dropout().get_state(),
        }
        rows = {name: self._gathered(tensor) for name, tensor in mine.items()}
        return Position(self.steps, self.seconds, self.fabric.device.type, rows)

    def _gathered(self, tensor: Tensor) -> Tensor:
        gathered = cast(Tensor, self.fabric.all_gather(tensor))  # one process: as it is
        return gathered.reshape(self.fabric.world_size, -1).cpu()

    def _dropout(self) -> torch.Generator:
        """The generator that dropout draws from: the device's own."""
        device = self.fabric.device
        if device.type == "cuda":
            return torch.cuda.default_generators[device.index or 0]
        return torch.default_generator
