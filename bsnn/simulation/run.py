"""Driver of a simulation: batches of images through an engine and the read-out, block by block, with early exit.

The driver decides how many images and steps an engine gets at once; no result depends on that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bsnn.config.conversion import EXIT_EVERY
from bsnn.engines.base import Engine
from bsnn.errors import ConfigError
from bsnn.log import Bar
from bsnn.simulation.readout import Readout, Skipped

if TYPE_CHECKING:
    import pyarrow as pa

_WORTHWHILE_STEPS = 8  # a batch is halved until this many steps fit into memory at once


@dataclass(frozen=True)
class Simulation:
    """What was recorded of N images over T steps; all tensors on the CPU."""

    predicted: Tensor  # int16 [N, T]; after an image has left, its last prediction
    margin: Tensor  # float32 [N, T]; likewise
    steps: Tensor  # int32 [N]: steps that were simulated for each image; T without early exit
    counts: Tensor  # int64 [layers, T]: spikes of either sign, summed over the images simulated at that step
    images: Tensor  # int64 [T]: images simulated at each step; N without early exit
    layers: tuple[str, ...]  # names of the layers with neurons
    neurons: tuple[int, ...]  # neurons of each of them


def run(
    engine: Engine,
    batches: Iterable[Tensor],
    steps: int,
    *,
    early_exit: float | None = None,
    exit_every: int = EXIT_EVERY,
    total: int | None = None,
    skipped: Skipped | None = None,
) -> Simulation:
    """Simulate images for a number of time steps.

    Args:
        engine: holds the network, the device and the memory budget.
        batches: float32 [N, channels, height, width], normalised; a batch is split where it exceeds the budget.
        steps: time steps T.
        early_exit: an image leaves once its margin (logit units) reaches this bound; its prediction then stays.
        exit_every: steps between two looks at the margins.
        total: number of images, for the progress bar.
        skipped: first steps that the read-out leaves out (readout.Skipped); all count without it.

    Raises:
        ConfigError: when `steps` or `exit_every` is below 1, or `early_exit` is not positive.
    """
    if steps < 1 or exit_every < 1:
        raise ConfigError(f"steps and exit_every must be at least 1, found {steps} and {exit_every}")
    if early_exit is not None and not early_exit > 0:
        raise ConfigError(f"early_exit must be positive, found {early_exit}: margins are 0 before the first spike")
    # Blocks end where margins are looked at, so that no step is simulated of an image that has left.
    longest = steps if early_exit is None else min(steps, exit_every)
    with Bar(total=None if total is None else total * steps, unit="image step", unit_scale=True, disable=None) as bar:
        parts = [_empty(engine, 0, steps)]  # so that no image at all gives tables, too
        parts += [
            _batch(engine, part, steps, early_exit, longest, bar, skipped) for part in _split(engine, batches, longest)
        ]
    return _gathered(parts)


def _split(engine: Engine, batches: Iterable[Tensor], longest: int) -> Iterator[Tensor]:
    """Batches on the engine's device, small enough for several steps at once."""
    wanted = min(longest, _WORTHWHILE_STEPS)
    for batch in batches:
        images = engine.together(len(batch))
        while images > 1 and engine.block(images) < wanted:
            images = (images + 1) // 2
        yield from (part.to(engine.device) for part in batch.split(max(1, images)) if len(part))


def _batch(
    engine: Engine,
    images: Tensor,
    steps: int,
    bound: float | None,
    longest: int,
    bar: Bar,
    skipped: Skipped | None,
) -> Simulation:
    """Simulate one batch to the last step, or until all of its images have left."""
    part = _empty(engine, len(images), steps)
    state = engine.start(images)
    readout = Readout(engine.network, len(images), engine.device, skipped)
    # Places in the batch of the images that the engine still has, in its order.
    active = torch.arange(len(images))
    done = 0
    while done < steps and len(active):
        # However many steps memory allows, a block ends at each multiple of `longest`: margins are looked at after the
        # same steps everywhere.
        size = min(longest - done % longest, steps - done, engine.block(len(active)))
        state, block = engine.advance(state, size)
        reading = readout.advance(block.spikes)
        span = slice(done, done + size)
        part.predicted[active, span] = reading.predicted.T.cpu()
        part.margin[active, span] = reading.margin.T.cpu()
        part.counts[:, span] = block.counts.sum(2).T.cpu()
        part.images[span] = len(active)
        done += size
        bar.update(size * len(active))
        # Not after the last step, where leaving spares nothing.
        if bound is not None and done < steps and done % longest == 0:
            staying = (part.margin[active, done - 1] < bound).nonzero()[:, 0]
            if len(staying) < len(active):
                _leave(part, active, staying, done)
                bar.update((len(active) - len(staying)) * (steps - done))  # steps spared: the bar still ends full
                active = active[staying]
                index = staying.to(engine.device)
                state = engine.keep(state, index)
                readout.keep(index)
    return part


def _empty(engine: Engine, images: int, steps: int) -> Simulation:
    """Room for the results of a batch."""
    firing = engine.network.firing
    return Simulation(
        predicted=torch.zeros(images, steps, dtype=torch.int16),
        margin=torch.zeros(images, steps),
        steps=torch.full((images,), steps, dtype=torch.int32),
        counts=torch.zeros(len(firing), steps, dtype=torch.int64),
        images=torch.zeros(steps, dtype=torch.int64),
        layers=tuple(layer.name for layer in firing),
        neurons=tuple(layer.neurons for layer in firing),
    )


def _leave(part: Simulation, active: Tensor, staying: Tensor, done: int) -> None:
    """Freeze the results of the images that leave after `done` steps."""
    gone = torch.ones(len(active), dtype=torch.bool)
    gone[staying] = False
    leaving = active[gone]
    part.steps[leaving] = done
    for results in (part.predicted, part.margin):
        results[leaving, done:] = results[leaving, done - 1, None]


def _gathered(parts: list[Simulation]) -> Simulation:
    """Results of all batches as one."""
    return replace(
        parts[0],
        predicted=torch.cat([part.predicted for part in parts]),
        margin=torch.cat([part.margin for part in parts]),
        steps=torch.cat([part.steps for part in parts]),
        counts=torch.stack([part.counts for part in parts]).sum(0),
        images=torch.stack([part.images for part in parts]).sum(0),
    )


def to_tables(result: Simulation, *, images: Tensor, labels: Tensor, ann: Tensor) -> tuple[pa.Table, pa.Table]:
    """Two tables of a simulation.

    Args:
        result: of `run`.
        images: index of each image in the test set, [N].
        labels: their true classes, [N].
        ann: classes that the network itself, before conversion, predicts for them, [N].

    Returns:
        predictions: one row per image: image (int32), label (int16), ann (int16), steps (int32: simulated for it),
            predicted (list of int16) and margin (list of float), one value per step; and
        spikes: one row per layer and step: layer, step (int32, from 1), spikes (int64, over all images), images (int64,
            simulated at that step), neurons (int64, of one image).

    Raises:
        ConfigError: when there is not one of images, labels and ann for each simulated image.
    """
    count = len(result.predicted)
    for name, values in (("images", images), ("labels", labels), ("ann", ann)):
        if len(values) != count:
            raise ConfigError(f"{name} has {len(values)} entries for {count} simulated images; give one for each")
    return _predictions(result, images, labels, ann), _spikes(result)


def _predictions(result: Simulation, images: Tensor, labels: Tensor, ann: Tensor) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "image": pa.array(images.int().numpy()),
            "label": pa.array(labels.short().numpy()),
            "ann": pa.array(ann.short().numpy()),
            "steps": pa.array(result.steps.numpy()),
            "predicted": _lists(result.predicted),
            "margin": _lists(result.margin),
        }
    )


def _lists(values: Tensor) -> pa.Array:
    """A list column with the rows of [N, T]."""
    import pyarrow as pa

    rows, length = values.shape
    offsets = torch.arange(rows + 1, dtype=torch.int32) * length
    return pa.ListArray.from_arrays(pa.array(offsets.numpy()), pa.array(values.flatten().numpy()))


def _spikes(result: Simulation) -> pa.Table:
    import pyarrow as pa

    layers, steps = result.counts.shape
    return pa.table(
        {
            "layer": [name for name in result.layers for _ in range(steps)],
            "step": pa.array(torch.arange(1, steps + 1, dtype=torch.int32).repeat(layers).numpy()),
            "spikes": pa.array(result.counts.flatten().numpy()),
            "images": pa.array(result.images.repeat(layers).numpy()),
            "neurons": pa.array(torch.tensor(result.neurons, dtype=torch.int64).repeat_interleave(steps).numpy()),
        },
    )
