"""A network of one's own, in ten lines: a torch module, calibration images, a percentile; then spikes and accuracy.

    graph = bsnn.from_module(module, example)
    network = bsnn.to_spiking(graph, calibration_loader, percentile=99.9)
    result = bsnn.simulate(network, test_loader, steps=32)
    print(result.engine, result.accuracy, result.spikes_per_image)

Each step is a few lines on functions of the package, which docs/own-networks.md names for more than these.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from bsnn import config
from bsnn.conversion import activations
from bsnn.conversion import method as methods
from bsnn.conversion.layers import SpikingNetwork
from bsnn.conversion.percentiles import Population
from bsnn.errors import ConfigError, ConversionError
from bsnn.graphs.comparison import require_source
from bsnn.graphs.description import Graph
from bsnn.graphs.forward import forward
from bsnn.simulation.readout import accuracy
from bsnn.simulation.run import Simulation, run

MEASURED = 128  # calibration images that corrections are measured on, as of an experiment by default
COMPARED = 8  # images of each calibration batch whose logits are compared with the module's own


@dataclass(frozen=True)
class Result:
    """What a simulation of T steps showed."""

    engine: str  # and why it was chosen
    accuracy: Tensor | None  # float64 [T], fraction of images after each step; None without labels
    spikes_per_image: dict[str, Tensor]  # float64 [T] by layer, of either sign, sent at each step
    simulation: Simulation  # predictions, margins, counts

    def __repr__(self) -> str:
        """The last step in a line; tensors of every step would fill the screen."""
        sent = sum(float(spikes.sum()) for spikes in self.spikes_per_image.values())
        right = "" if self.accuracy is None else f" accuracy={float(self.accuracy[-1]):.4f},"
        steps = len(next(iter(self.spikes_per_image.values())))
        return f"Result(T={steps},{right} spikes_per_image={sent:,.0f}, engine={self.engine!r})"


def to_spiking(
    graph: Graph,
    calibration: Iterable[Any],
    percentile: float = 99.9,
    *,
    population: Population = "all",
    method: config.Method | None = None,
    steps: int | None = None,
    measured: int = MEASURED,
) -> SpikingNetwork:
    """Spiking network with each layer's threshold at a percentile of its activations over calibration images.

    Args:
        graph: of `from_module`.
        calibration: batches of normalised images, float32 [N, ...], or tuples that begin with them, as a DataLoader
            gives; read twice, in the same order, and its first images once more where the method is measured on them.
        percentile: three decimals from 90 to 100, one below; NumPy's linear definition, exact over all images.
        population: of all activations, zeros included, or of the `positive` ones.
        method: switches of the conversion (docs/low-latency.md); none by default.
        steps: time steps that the network will run for; needed by switches that depend on it.
        measured: how many of the first calibration images corrections, balanced thresholds and thresholds of channels
            are measured on; they are held in memory, with their activations or spikes.

    Raises:
        ConfigError: a loader that cannot be read twice in the same order, a method that needs `steps`, or no measured
            image, steps below 1, a percentile that is not held, or calibration images of another size.
        BsnnError: no images, or activations without a positive value.
        ConversionError: a switch that this network cannot have; logits of calibration images (the first of each batch)
            that are not those of the module that the graph was read from, beyond rounding.
    """
    chosen = config.Method() if method is None else method
    if measured < 1:
        raise ConfigError(f"measured is {measured}: methods are measured on at least one image")
    if steps is None and chosen.per_time:
        raise ConfigError("the method fits one number of time steps: give steps")
    fitted = 1 if steps is None else _at_least_one(steps)
    if chosen.percentile is None:
        config.check_percentile(percentile)
    _require_repeatable(calibration)
    passes, digests = iter((True, False)), list[int]()
    table = activations.collect(graph, lambda: _calibrating(graph, calibration, digests, first=next(passes)))
    images = _first(images_of(calibration, graph.device), measured) if chosen.calibrated else None
    theta = methods.thresholds(graph, table, chosen, fitted, images, percentile=percentile, population=population)
    return methods.convert(graph, theta, chosen, fitted, images)


def simulate(
    network: SpikingNetwork,
    batches: Iterable[Any],
    steps: int,
    *,
    engine: str = "auto",
    device: torch.device | str = "cpu",
    method: config.Method | None = None,
    memory_mib: int = 2048,
) -> Result:
    """Spikes of images over T steps, and the class that is read out after each.

    Args:
        network: of `to_spiking`.
        batches: normalised images, or pairs of images and labels, whole numbers [N] or [N, 1].
        steps: time steps T.
        engine: by name (docs: Engines), or auto for the fastest that takes the network.
        device: where to simulate.
        method: that the network was converted with; its delayed read-out or second pass is for the simulation.
        memory_mib: memory budget of the simulation; more steps or images at once are faster, and change no result.

    Raises:
        ConfigError: no time step, no images, labels for some batches only, of another shape or of other classes, or a
            device that is not there.
        EngineError: an engine that cannot run this network.
    """
    chosen = config.Method() if method is None else method
    steps, device = _at_least_one(steps), _device(device)
    made, why = methods.engine(engine, network, chosen, device, memory_mib)
    labels: list[Tensor] = []
    result = run(
        made, _remembering(batches, labels, device, len(network.readout)), steps, skipped=methods.skipped(chosen)
    )
    images = len(result.predicted)
    if not images:
        raise ConfigError("there are no images to simulate; give at least one batch")
    found = _of_all(labels, images)
    return Result(
        engine=f"{made.name}: {why}",
        accuracy=None if found is None else accuracy(result.predicted, found),
        spikes_per_image={
            name: counts.double() / images for name, counts in zip(result.layers, result.counts, strict=True)
        },
        simulation=result,
    )


def _at_least_one(steps: int) -> int:
    try:
        found = operator.index(steps)
    except TypeError:
        raise ConfigError(f"steps is {steps!r}: give a whole number of time steps") from None
    if found < 1:
        raise ConfigError(f"steps is {steps}: give at least one time step")
    return found


def _device(given: torch.device | str) -> torch.device:
    try:
        device = torch.device(given)
    except RuntimeError:
        raise ConfigError(f"device is {str(given)!r}: give cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is '{device}', and torch finds no CUDA device here: give cpu")
    return device


@torch.no_grad()
def ann_accuracy(graph: Graph, batches: Iterable[Any]) -> float:
    """Fraction of images that the network itself, before conversion, classifies correctly.

    Raises:
        ConfigError: no labels, labels for some batches only or of another shape than [N] or [N, 1], or some of classes
            that the network has not.
    """
    labels: list[Tensor] = []
    given = _remembering(batches, labels, graph.device, graph.layers[-1].shape[0])
    found = [forward(graph, images).argmax(1).cpu() for images in given]
    right = _of_all(labels, sum(map(len, found)))
    if right is None:
        raise ConfigError("accuracy needs labels: give pairs of images and labels")
    return float((torch.cat(found) == right).double().mean())


def images_of(batches: Iterable[Any], device: torch.device | str) -> Iterator[Tensor]:
    """Images of batches, of pairs or tuples their first part, on a device."""
    return _remembering(batches, [], device)


def _first(batches: Iterable[Tensor], count: int) -> Tensor:
    """The first images of batches, or all if there are fewer."""
    found: list[Tensor] = []
    left = count
    for batch in batches:
        found.append(batch[:left])
        left -= len(found[-1])
        if not left:
            break
    return torch.cat(found)


def _calibrating(graph: Graph, batches: Iterable[Any], digests: list[int], *, first: bool) -> Iterator[Tensor]:
    """Images of a pass; the first compares logits and fills in a digest of each batch, the second compares these."""
    for number, images in enumerate(images_of(batches, graph.device)):
        if images.shape[1:] != graph.input_shape:
            wanted, found = list(graph.input_shape), list(images.shape[1:])
            raise ConfigError(f"calibration images are {found}, and the network was read for {wanted}")
        digest = zlib.crc32(images.detach().cpu().contiguous().numpy().data)
        if first:
            require_source(graph, images[:COMPARED])
            digests.append(digest)
        elif digests[number : number + 1] != [digest]:
            raise ConfigError(
                f"calibration images are read twice in the same order, and batch {number + 1} had other images, or in "
                "another order, the second time: give a DataLoader without a random sampler and random transforms"
            )
        yield images


def _remembering(
    batches: Iterable[Any], labels: list[Tensor], device: torch.device | str, classes: int | None = None
) -> Iterator[Tensor]:
    """Images of batches, on a device; labels, which are read if there is a number of classes, are put into a list."""
    if isinstance(batches, Tensor):
        raise ConfigError("images are one tensor: give batches, a DataLoader or a list such as [images]")
    for batch in batches:
        images, rest = (batch[0], batch[1:]) if isinstance(batch, tuple | list) and batch else (batch, ())
        if not isinstance(images, Tensor) or images.dtype != torch.float32:
            found = str(images.dtype) if isinstance(images, Tensor) else type(images).__name__
            raise ConversionError(f"a batch holds {found}; give float32 images [N, ...], or pairs of them and labels")
        if rest and classes is not None:
            labels.append(_labels(rest[0], len(images), classes))
        yield images.to(device)


def _labels(labels: Any, images: int, classes: int) -> Tensor:
    """Labels of a batch, int64 [images]."""
    try:
        given = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"labels of a batch of {images} images are {type(labels).__name__}, no tensor of numbers ({error}); give "
            "the number of each image's class, or images alone"
        ) from error
    found = given.long()
    if given.shape not in ((images,), (images, 1)) or not bool((found == given).all()):
        raise ConfigError(
            f"labels of a batch of {images} images are {given.dtype} {list(given.shape)}; give the number of each "
            "image's class, whole numbers [N] (of scores or one-hot rows, argmax(1))"
        )
    if not bool(((found >= 0) & (found < classes)).all()):
        raise ConfigError(f"labels are {int(found.min())} to {int(found.max())}, and the network has {classes} classes")
    return found.flatten()


def _of_all(labels: list[Tensor], images: int) -> Tensor | None:
    """Labels of all batches, int64 [images]; None if no batch had any."""
    if not labels:
        return None
    found = torch.cat(labels)
    if len(found) != images:
        raise ConfigError(f"{len(found)} labels for {images} images; give labels with every batch, or with none")
    return found


def _require_repeatable(batches: Iterable[Any]) -> None:
    """Refuse before the first pass what is plainly read in another order, or not at all, in the second."""
    if iter(batches) is batches:
        raise ConfigError("calibration images are read twice: give a DataLoader or a list, not an iterator")
    if isinstance(getattr(batches, "sampler", None), RandomSampler):
        raise ConfigError("calibration images are read twice in the same order: give a DataLoader with shuffle=False")
