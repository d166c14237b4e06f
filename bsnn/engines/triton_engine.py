"""Engine `triton`: exact networks on CUDA devices, int8 tensor cores, membranes on chip, a launch per layer and block.

Layer by layer over a block of time steps: the kernels of bsnn.engines.triton_kernels read the spikes of the layer
before and write only spikes and counts. Nothing in a block waits for the host. With TRITON_INTERPRET=1 in the
environment the same kernels run, slowly, in Triton's interpreter on the CPU.
"""

from __future__ import annotations

import importlib.util
import math
import os
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.conversion.spiking import input_current
from bsnn.engines.base import Block, Engine, State, within_schedules
from bsnn.engines.triton_lowering import Lowered, channels_first, channels_last, lower
from bsnn.engines.triton_tiles import Chip, Tile, programs, tile_for

OLDEST = (8, 0)  # compute capability: asynchronous copies and int8 tensor cores of Ampere


class TritonEngine(Engine):
    """Networks with integer sums on a CUDA device of compute capability 8.0 or newer."""

    name: ClassVar[str] = "triton"

    def __init__(self, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> None:
        super().__init__(network, device, memory_mib)
        # imported late: Triton reads TRITON_INTERPRET when kernels are defined, and is not on every machine
        self.kernels: ModuleType = importlib.import_module("bsnn.engines.triton_kernels")
        self.layers = lower(self.network)
        self.chip = Chip.of(self.device)

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Needs Triton, a CUDA device (or the interpreter) and a network of 3x3 and linear layers, +-1 and firing."""
        return _refuses_network(network) or _refuses_device(device)

    def block(self, images: int) -> int:
        """Steps whose spikes of two consecutive layers, one byte each, fit beside the state and the weights."""
        return steps_within(self.memory, self.layers, images)

    @torch.no_grad()
    def start(self, images: Tensor) -> State:
        """Constant current of the first layer, initial potentials, and for signed layers the spikes sent so far."""
        firing = [item for item in self.layers if item.layer.fires]
        return State(
            current=self._current(images),
            potential=[_initial(item, len(images), self.device) for item in firing],
            sent=[
                torch.zeros(len(images), item.result.values if item.layer.signed else 0, **_int32(self.device))
                for item in firing
            ],
        )

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance by `steps` time steps, layer by layer; potentials are updated in place."""
        within_schedules(self.network, state.steps + steps)
        current = cast(Tensor, state.tensors["current"])
        neurons = iter(zip(*(cast(list[Tensor], state.tensors[part]) for part in ("potential", "sent")), strict=True))
        images = len(current)
        firing = len(self.network.firing)
        counts = torch.zeros(steps, firing, images, **_int32(self.device))
        spikes = current  # what the first kernel reads in their place
        with _on(self.device):
            index = 0
            for item in self.layers:
                out = torch.empty(steps, images, item.result.values, dtype=torch.int8, device=self.device)
                potential, sent = next(neurons) if item.layer.fires else (spikes, spikes)  # unread without neurons
                if images:
                    self._launch(
                        item, (spikes, potential, sent, out, counts), (steps, images, index, firing), state.steps
                    )
                index += item.layer.fires
                spikes = out
        state.steps += steps
        return state, Block(channels_first(spikes, self.layers[-1].result), counts.long())

    def tile(self, item: Lowered, images: int) -> Tile:
        """Tile for a layer."""
        return tile_for(item, images, self.chip)

    def _current(self, images: Tensor) -> Tensor:
        """Current of the first layer [N, values], channels last; a few images at a time, for its float64 columns."""
        first = self.layers[0].layer
        scratch = 32 * (9 * self.network.input_shape[0] + first.shape[0]) * math.prod(self.network.input_shape[1:])
        group = max(1, self.memory // 4 // scratch)
        result = torch.empty(len(images), self.layers[0].result.values, device=self.device)
        for begin in range(0, len(images), group):
            current = input_current(self.network, images[begin : begin + group])
            result[begin : begin + group] = channels_last(current, self.layers[0].result).flatten(1)
        return result

    def _launch(self, item: Lowered, tensors: tuple[Tensor, ...], size: tuple[int, int, int, int], done: int) -> None:
        """One kernel for all steps, after `done` of them.

        `tensors`: input, potential, sent, out, counts; `size`: the kernels' integers.
        """
        spikes, potential, sent, out, counts = tensors
        # what a layer does not have is never read: counts stand in
        threshold = counts if item.threshold is None else item.threshold
        lower = threshold if item.lower is None else item.lower
        bias = counts if item.bias is None else item.bias
        weights = [] if item.weight is None else [item.weight]
        schedule = counts if item.schedule is None else item.schedule[done:]  # kernels count steps from 0
        before = [schedule] if item.kernel == "constant_scan" else [*weights, bias, schedule]
        tile = self.tile(item, size[1])
        grid = (programs(item, size[1], tile.rows, tile.columns),)
        kernel = getattr(self.kernels, item.kernel)
        kernel[grid](
            spikes, *before, threshold, lower, potential, sent, out, counts, *size,
            **constants(item, tile), num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


def steps_within(memory: int, layers: list[Lowered], images: int) -> int:
    """Largest number of steps whose buffers fit into the memory next to state and weights (at least 1)."""
    values = [item.result.values for item in layers]
    last = layers[-1].layer.neurons  # copied in the network's order
    # int8 spikes of two layers lie there at a time: what a kernel reads and what it writes. The first one reads
    # currents, which are state; the last one's spikes are copied once more, without silent channels.
    step = max(before + after for before, after in zip([0, *values], [*values, last], strict=True))
    firing = [item for item in layers if item.layer.fires]
    counts = 12 * len(firing)  # an int32 and an int64
    # 4 bytes each: currents of the first layer, potentials, and for signed layers the spikes sent so far
    state = values[0] + sum(item.result.values * (2 if item.layer.signed else 1) for item in firing)
    weights = sum(item.weight.numel() for item in layers if item.weight is not None)  # int8: bytes
    free = memory - weights - 4 * state * images
    return max(1, free // (max(images, 1) * (step + counts)))


def constants(item: Lowered, tile: Tile) -> dict[str, int | bool]:
    """Compile-time constants of the layer's kernel."""
    source, target = item.source, item.target
    shared: dict[str, int | bool] = {
        "OUTER": target.stored,
        "SIGNED": item.layer.signed,
        "SCHEDULED": item.schedule is not None,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "GROUP": math.gcd(tile.rows, target.positions),  # a power of two, as rows are: no group has rows of two images
    }
    if item.kernel == "constant_scan":
        return shared | {"POSITIONS": target.positions}
    shared |= {
        "HEIGHT": source.height,
        "WIDTH": source.width,
        "MAX": item.layer.pool == "max",
        "BIAS": 0 if item.bias is None else item.bias.dim(),  # 1: of channels; 2: of neurons
    }
    if item.kernel == "pool_scan":
        return shared | {"FIRES": item.layer.fires}
    return shared | {
        "INNER": source.stored,
        "OUT_HEIGHT": target.height,
        "OUT_WIDTH": target.width,
        "SIDE": item.side,
        "STRIDE": item.stride,
        "PAD": item.pad,
        "CHUNK": tile.chunk,
    }


def interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _refuses_network(network: SpikingNetwork) -> str | None:
    if network.branched:
        return "it is a graph of layers, with branches, strides or biases of its own; use engine 'torch'"
    if not network.exact:
        return "its sums are no integers (full-precision weights after the first layer); use engine 'torch'"
    for layer in network.layers:
        reason = _refuses_layer(layer)
        if reason:
            return f"layer '{layer.name}' {reason}; use engine 'torch'"
    return None


def _refuses_layer(layer: SpikingLayer) -> str | None:
    if layer.op == "conv" and layer.weight is not None and tuple(layer.weight.shape[2:]) != (3, 3):
        return f"has weights of {tuple(layer.weight.shape[2:])}, not 3 x 3"
    if layer.op != "pool" and not layer.fires:
        return "has weights but no neurons"
    if layer.op == "linear" and layer.pool:
        return "is a linear layer with a pool"
    if layer.threshold is not None and layer.threshold.shape != layer.shape[:1]:
        return "has a threshold a neuron, not one a channel"
    return None


def _refuses_device(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if interpreted():
        return None
    if device.type != "cuda" or not torch.cuda.is_available():
        return "it needs a CUDA device"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        return f"compute capability {capability[0]}.{capability[1]} is older than {OLDEST[0]}.{OLDEST[1]}"
    return None


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _int32(device: torch.device) -> dict[str, Any]:
    return {"dtype": torch.int32, "device": device}


def _initial(item: Lowered, images: int, device: torch.device) -> Tensor:
    """Potentials before the first step [images, values]; 0 in the silent channels."""
    potential = torch.zeros(images, item.result.values, device=device)
    return potential if item.initial is None else potential + item.initial.flatten()
