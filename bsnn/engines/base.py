"""What every engine offers: start with images, advance by blocks of steps, let images leave between blocks.

An engine knows a spiking network, a device and a memory budget; it knows nothing of files, configs or percentiles.
For a network that is `exact` all engines give equal spikes, for every layer, step and image.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bsnn.conversion.from_graph import image_terms
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.errors import EngineError


class Block(NamedTuple):
    """Results of consecutive time steps for N images."""

    spikes: Tensor  # int8 [steps, N, units]: the last hidden layer's spikes, flattened (sums of four after a bare pool)
    counts: Tensor  # int64 [steps, firing layers, N]: spikes sent, of either sign, in the order of network.firing


class State:
    """Where a simulation stands: tensors whose first dimension is the image, and the number of steps done."""

    def __init__(self, steps: int = 0, **tensors: Tensor | list[Tensor]) -> None:
        self.steps = steps
        self.tensors = tensors

    def keep(self, index: Tensor) -> State:
        """The same simulation for fewer images; `index` is int64, in the order wanted."""

        def chosen(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
            return [item[index] for item in value] if isinstance(value, list) else value[index]

        return State(self.steps, **{name: chosen(value) for name, value in self.tensors.items()})


class Engine(ABC):
    """Simulates one spiking network on one device.

    Raises:
        EngineError: from the constructor, when `refuses` gives a reason.
    """

    name: ClassVar[str]

    def __init__(self, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> None:
        self.device = torch.device(device)
        reason = self.refuses(network, self.device)
        if reason:
            raise EngineError(f"engine '{self.name}' cannot run this network on {self.device}: {reason}")
        self.network = network.to(self.device)
        self.memory = memory_mib * 2**20

    @classmethod
    @abstractmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Why this engine cannot run this network on this device; None when it can."""

    @abstractmethod
    def block(self, images: int) -> int:
        """Largest number of time steps of `images` images that fits into the memory budget (at least 1)."""

    @abstractmethod
    def start(self, images: Tensor) -> State:
        """State before the first step. `images`: float32 [N, channels, height, width], normalised, on the device."""

    @abstractmethod
    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance by `steps` time steps. The given state must not be used again: its tensors may be reused."""

    def together(self, images: int) -> int:
        """How many of a batch of `images` images are best simulated at once; the others follow."""
        return images

    def keep(self, state: State, index: Tensor) -> State:
        """Let all images but `index` (int64, increasing) leave."""
        return state.keep(index)


@torch.no_grad()
def at_rest(network: SpikingNetwork, images: Tensor) -> State:
    """State before the first step, in float32.

    Its tensors: `current`, the list of all terms that read the image [N, *shape], in order, constant over time; and,
    for each firing layer, `potential` [N, *shape] and `sent`, the positive minus the negative spikes so far
    ([N, *shape]; empty for unsigned layers).
    """
    count, firing = len(images), network.firing
    return State(
        current=image_terms(network, images),
        potential=[initial_potential(layer, count, images.device) for layer in firing],
        sent=[torch.zeros(count, *(layer.shape if layer.signed else (0,)), device=images.device) for layer in firing],
    )


def initial_potential(layer: SpikingLayer, images: int, device: torch.device) -> Tensor:
    """Membrane potential before the first step, float32 [images, *shape]."""
    potential = torch.zeros(images, *layer.shape, device=device)
    return potential if layer.initial is None else potential + per_output(layer.initial, layer.shape)


def within_schedules(network: SpikingNetwork, steps: int) -> None:
    """Check that the currents of every step up to the last one are known.

    Raises:
        EngineError: a layer's schedule has fewer steps.
    """
    for layer in network.layers:
        if layer.schedule is not None and steps > len(layer.schedule):
            raise EngineError(
                f"layer '{layer.name}' has currents for {len(layer.schedule)} time steps, and step {steps} was asked "
                "for: convert the network for as many steps as are simulated"
            )


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: full-precision networks need all bits of float32."""
    matmul = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)


def direct_sums(device: torch.device) -> bool:
    """Whether float32 convolutions are known to be summed directly here, so that sums of integers come out exact.

    They are in oneDNN on x86. Other libraries (cuDNN, Arm Compute Library, NNPACK) may choose Winograd or FFT, whose
    sums of integers are off by less than 0.01 and must be rounded.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and x86 and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
