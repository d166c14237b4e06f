"""Simulation engines behind one signature (bsnn.engines.base), by name; an engine's module is imported when it is used.

A new engine is one new file, one line in ENGINES, and its name in bsnn.config.values.Engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from bsnn.errors import EngineError

if TYPE_CHECKING:
    import torch

    from bsnn.conversion.layers import SpikingNetwork
    from bsnn.engines.base import Engine

ENGINES: dict[str, str] = {
    "bindsnet": "bsnn.engines.bindsnet_engine:BindsnetEngine",
    "torch": "bsnn.engines.torch_engine:TorchEngine",
    "packed": "bsnn.engines.packed:PackedEngine",
    "triton": "bsnn.engines.triton_engine:TritonEngine",
}
"""Where each engine lies, as module:class. On CUDA `auto` prefers triton, on a CPU packed; otherwise it takes torch."""

_FAST = {"cuda": "triton", "cpu": "packed"}


def engine_class(name: str) -> type[Engine]:
    """Class of an engine.

    Raises:
        EngineError: when there is no such engine, or what it needs is not installed.
    """
    if name not in ENGINES:
        raise EngineError(f"there is no engine '{name}'; engines: {', '.join(ENGINES)} (or auto)")
    module, _, label = ENGINES[name].partition(":")
    try:
        return cast("type[Engine]", getattr(import_module(module), label))
    except ImportError as error:
        raise EngineError(f"engine '{name}' cannot be loaded here: {error}; choose another, or auto") from error


def create(name: str, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> Engine:
    """Engine of a name for a network on a device.

    Args:
        name: key of ENGINES.
        network: converted network, on any device.
        device: where to simulate.
        memory_mib: memory budget of the simulation.

    Raises:
        EngineError: when there is no such engine, or it refuses the network or the device.
    """
    return engine_class(name)(network, device, memory_mib)


def choose(network: SpikingNetwork, device: torch.device | str) -> tuple[str, str]:
    """Name of the fastest engine that takes the network on the device, and why it was chosen, for a log."""
    import torch

    device = torch.device(device)
    fast = _FAST.get(device.type)
    if fast is None:
        return "torch", f"the only engine for device '{device.type}'"
    try:
        reason = engine_class(fast).refuses(network, device)
    except EngineError as error:
        reason = str(error)
    if reason:
        return "torch", f"'{fast}' cannot run this network on {device}: {reason}"
    if network.exact:
        return fast, f"all layers after the first have integer sums, which '{fast}' uses"
    return fast, f"'{fast}' adds up the weights of those inputs alone that spike"
