"""Percentiles of every layer's activations over calibration images: two forward passes, whatever the number of images.

One table answers every percentile on the grid (percentiles.grid), and others that were asked for beforehand, for all
values, zeros included, and for the positive ones alone; a percentile that it holds never touches an image again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bsnn.conversion.currents import image_term
from bsnn.conversion.percentiles import CoarseCounts, FineCounts, Population, Summary, grid
from bsnn.conversion.thresholds import TEXT
from bsnn.errors import BsnnError
from bsnn.graphs.description import Graph
from bsnn.graphs.forward import Observer, forward, scaled
from bsnn.networks.vgg import Trained, described


def collect(
    trained: Trained | Graph,
    batches: Callable[[], Iterable[Tensor]],
    *,
    dropout_seed: int | None = None,
    percentiles: Sequence[float] = (),
) -> pd.DataFrame:
    """Exact percentiles of each observed layer, equal to NumPy's over the concatenated activations as float64.

    Args:
        trained: the network, of the VGG family or a description of bsnn.graphs; runs without gradients, on the device
            of its weights; without `dropout_seed`, dropout is off.
        batches: gives the same normalised images, float32 [N, channels, height, width] on the network's device, in
            the same batches each time it is called; called twice.
        dropout_seed: with one, dropout is active, as in the original's code, and the same in both passes.
        percentiles: wanted beside those of the grid.

    Returns:
        layer (string), population ("all" or "positive"), percentile, value (float64), and for each layer and
        population, repeated: count (int64), mean, maximum (float64). Layers in the network's order, percentiles
        increasing. A layer without a positive value has count 0 and NaN throughout in population "positive".

    Raises:
        BsnnError: no images; NaN, infinite or negative activations (names the layer); passes that differ; or a
            `dropout_seed` for a description, which has no dropout.
    """
    graph = described(trained)
    device, names = graph.device, graph.observed
    first = {name: CoarseCounts(name, device) for name in names}
    _feed(trained, batches(), first, "activations, pass 1 of 2", dropout_seed)
    wanted = grid(percentiles)
    # Each first table is freed as its second is made: tens of MiB a layer.
    second = {name: FineCounts(first.pop(name), wanted) for name in names}
    _feed(trained, batches(), second, "activations, pass 2 of 2", dropout_seed)
    summaries = {name: counter.summaries() for name, counter in second.items()}
    rows = [_rows(name, one, found, wanted) for name in names for one, found in summaries[name].items()]
    return pd.concat(rows, ignore_index=True)


def computed(trained: Trained | Graph, images: Tensor, observer: Observer | None = None) -> Tensor:
    """Logits [N, classes] as the network itself computes them; each observed layer's activations are shown.

    A member of the VGG family multiplies by alpha * sign, its description by signs and then by alpha: last bits differ.
    """
    if isinstance(trained, Graph):
        return forward(trained, images, observer)
    logits: Tensor = trained.module(images, observer)
    return logits


def observe(trained: Trained | Graph, images: Tensor, observer: Observer) -> None:
    """Show each observed layer's activations, in the network's mode and on its device.

    Those of layers that read the image are of the very sums that feed their neurons when they spike
    (bsnn.conversion.currents): a threshold taken from them is met exactly by each neuron that has that activation.
    (With binary weights, the sum times alpha is rounded once more, and such a neuron may miss it by the last bit.)
    """
    if isinstance(trained, Graph):
        forward(trained, images, observer, image_term)
        return
    path = trained.graph.layers[0].paths[0].to(trained.device)  # the one that reads the image
    trained.module.from_first_current(scaled(path, image_term(path, images)), observer)


def _feed(
    trained: Trained | Graph,
    batches: Iterable[Tensor],
    counters: Mapping[str, CoarseCounts | FineCounts],
    title: str,
    dropout_seed: int | None,
) -> None:
    """Show each layer's activations to its counter."""
    images = 0
    with mode(trained, dropout_seed), torch.no_grad():
        for batch in tqdm(batches, desc=title, unit="batch", disable=None):
            observe(trained, batch, lambda name, values: counters[name].add(values))
            images += len(batch)
    if not images:
        raise BsnnError(f"{title}: there are no calibration images; give at least one")


@contextmanager
def mode(trained: Trained | Graph, dropout_seed: int | None) -> Iterator[None]:
    """Switch dropout off, or on with a seed; restore mode and random generators on exit.

    Raises:
        BsnnError: a seed for a description, which has no dropout.
    """
    if isinstance(trained, Graph):
        if dropout_seed is not None:
            raise BsnnError("a description of a network has no dropout: leave dropout_seed out")
        yield
        return
    module = trained.module
    training, devices = module.training, {parameter.device for parameter in module.parameters()}
    try:
        with torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"]):
            module.train(dropout_seed is not None)
            if dropout_seed is not None:
                torch.manual_seed(dropout_seed)
            yield
    finally:
        module.train(training)


def _rows(name: str, population: Population, found: Summary, percentiles: np.ndarray) -> pd.DataFrame:
    """One row per percentile."""
    return pd.DataFrame(
        {
            "layer": pd.Series([name] * len(percentiles), dtype=TEXT),
            "population": pd.Series([population] * len(percentiles), dtype=TEXT),
            "percentile": percentiles,
            "value": found.percentiles,
            "count": np.int64(found.count),
            "mean": found.mean,
            "maximum": found.maximum,
        }
    )
