"""A method of conversion: thresholds, switches and corrections put together, and the engine and read-out that it needs.

The order is fixed: thresholds, initial potential or shift, signed spikes, and last the correction, which measures what
all others leave.
"""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from bsnn import engines
from bsnn.config import Method
from bsnn.conversion import balancing, channel_thresholds, corrections, spiking, switches
from bsnn.conversion import thresholds as by_table
from bsnn.conversion.layers import SpikingNetwork, Thresholds
from bsnn.conversion.percentiles import Population
from bsnn.conversion.second_pass import SecondPassEngine
from bsnn.engines.base import Engine
from bsnn.errors import ConversionError
from bsnn.graphs.description import Graph
from bsnn.networks.vgg import Trained
from bsnn.simulation.readout import Skipped


def thresholds(
    trained: Trained | Graph,
    table: pa.Table | pd.DataFrame,
    method: Method,
    steps: int,
    images: Tensor | None,
    *,
    percentile: float,
    population: Population,
    dropout_seed: int | None = None,
) -> Thresholds:
    """Thresholds of a method, whatever they are measured on.

    Args:
        trained: as of `convert`.
        table: of `bsnn.conversion.activations.collect`, or read back.
        method: its switches.
        steps: time steps T that the network will run for.
        images: calibration images, normalised; needed for balanced thresholds and for those of channels.
        percentile: for methods that name none.
        population: over which percentiles are taken.
        dropout_seed: with one, dropout is active while channels are measured, as in bsnn.conversion.activations.

    Raises:
        ConversionError: images are needed, and none are given; or they give no threshold.
    """
    measured = torch.zeros(0) if images is None else images
    if method.threshold == "balanced":
        return balancing.thresholds(trained, measured)
    whole = lambdas(table, method, steps, percentile=percentile, population=population)
    if not method.channels:
        return whole
    how = (method.percentile_at(steps, percentile), population, whole)
    some = measured.split(16) if len(measured) else ()
    return channel_thresholds.thresholds(trained, some, *how, dropout_seed=dropout_seed)


def lambdas(
    table: pa.Table | pd.DataFrame, method: Method, steps: int, *, percentile: float, population: str
) -> dict[str, float]:
    """Threshold of each layer, from the activation table.

    Args:
        table: of `bsnn.conversion.activations.collect`, or read back.
        method: its switches.
        steps: time steps T that the network will run for.
        percentile: for methods that name none.
        population: over which percentiles are taken.

    Raises:
        ConversionError: thresholds that are balanced on images (bsnn.conversion.balancing).
    """
    if method.threshold == "balanced":
        raise ConversionError("balanced thresholds are measured on calibration images: see bsnn.conversion.balancing")
    if method.threshold == "squared-error":
        found = by_table.by_squared_error(table, steps, 0.5 if method.shift else method.initial)
    else:
        found = by_table.from_table(table, method.percentile_at(steps, percentile), population)
    return dict(zip(found["layer"], found["threshold"], strict=True))


def convert(
    trained: Trained | Graph, theta: Thresholds, method: Method, steps: int, images: Tensor | None = None
) -> SpikingNetwork:
    """The network as a method converts it.

    Args:
        trained: full-precision or binary, on the device of the images; or a description of bsnn.graphs.
        theta: of `lambdas`, or of bsnn.conversion.channel_thresholds.
        method: its switches.
        steps: time steps T that the network will run for.
        images: calibration images, float32 [N, channels, height, width], normalised; needed for corrections only.

    Raises:
        ConversionError: a switch that cannot be used here, or a correction without images.
    """
    network = switches.with_initial(spiking.convert(trained, theta), method.initial)
    if method.shift:
        network = switches.with_shift(network, steps)
    if method.signed:
        network = switches.with_signed_spikes(network, method.negative_threshold)
    if method.burst > 1:
        network = switches.with_bursts(network, method.burst)
    if method.correction == "none":
        return network
    if images is None:
        raise ConversionError(f"correction '{method.correction}' is measured on calibration images, and none are given")
    means = corrections.mean_activations(trained, images.split(100))
    return corrections.corrected(network.to(images.device), theta, means, images, steps, method.correction).to("cpu")


def engine(
    name: str, network: SpikingNetwork, method: Method, device: torch.device | str = "cpu", memory_mib: int = 2048
) -> tuple[Engine, str]:
    """Engine for a method, and why it was chosen.

    `name`: an engine's, or auto; second passes and bursts always take `torch`.
    """
    if method.second_pass != "none":
        first = method.first_pass
        found = SecondPassEngine(network, device, memory_mib, kind=method.second_pass, first_pass=first)
        return found, "second passes start from potentials of their own for each image, which only 'torch' knows"
    if name not in ("auto", "torch") and method.burst > 1:
        return engines.create("torch", network, device, memory_mib), f"'{name}' has no bursts, which 'torch' has"
    chosen, reason = engines.choose(network, device) if name == "auto" else (name, "as configured")
    return engines.create(chosen, network, device, memory_mib), reason


def skipped(method: Method) -> Skipped | None:
    """First steps that the method's read-out leaves out."""
    if method.second_pass != "none":
        return Skipped(method.first_pass, restarts=True)
    return Skipped(method.delay) if method.delay else None
