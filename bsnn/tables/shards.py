"""One simulation from its shards: checked to belong together, with no image missing or counted twice, then reduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bsnn.errors import ArtifactError


@dataclass(frozen=True)
class Shard:
    """What one simulation job wrote."""

    path: Path  # of the predictions, for messages
    predictions: pa.Table  # image, label, ann: int64; predicted: list<int16> of the simulated steps
    spikes: pa.Table  # layer, step, spikes, images, neurons
    document: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What one network gave over the whole test set, up to the last reported step T."""

    labels: np.ndarray  # int64 [N], in the order of the test set
    ann_correct: int  # images that the ANN classifies correctly
    correct: np.ndarray  # int64 [T]: images that the spiking network classifies correctly at each step
    layers: tuple[str, ...]  # spiking layers from input to output
    neurons: np.ndarray  # int64 [layers], for one image
    spikes: np.ndarray  # int64 [layers, T], summed over all images
    documents: tuple[dict[str, Any], ...]  # one per shard

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self.labels)

    @property
    def rates(self) -> np.ndarray:
        """Mean firing rate of each layer up to T, in spikes per neuron and step: float64 [layers]."""
        steps = self.spikes.shape[1]
        return np.asarray(self.spikes.sum(1) / (self.images * self.neurons * steps))


def join(shards: Sequence[Shard], simulated: int, steps: int) -> Outcome:
    """One simulation from all its shards, whatever their number and order.

    Args:
        shards: all shards of the test set.
        simulated: steps that each shard must hold.
        steps: steps to keep, at most `simulated`.

    Raises:
        ArtifactError: when images are missing or appear twice, when a shard's spikes are not of its own images and
            steps, or when shards have different layers.
    """
    label, ann, predicted = predictions(shards, simulated)
    layers, neurons, counts = spikes(shards, simulated)
    return Outcome(
        labels=label,
        ann_correct=int((ann == label).sum()),
        correct=(predicted[:, :steps] == label[:, None]).sum(0, dtype=np.int64),
        layers=layers,
        neurons=neurons,
        spikes=counts[:, :steps],
        documents=tuple(shard.document for shard in shards),
    )


def predictions(shards: Sequence[Shard], simulated: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all test images, in order: labels [N], and predictions of the ANN [N] and the spiking network [N, simulated].

    Args:
        shards: all shards of the test set, in any order.
        simulated: steps that each shard must hold.

    Raises:
        ArtifactError: when images are missing or appear twice, or a shard holds other steps.
    """
    image, label, ann = (
        np.concatenate([shard.predictions[name].to_numpy() for shard in shards]) for name in ("image", "label", "ann")
    )
    _complete(image, shards)
    order = np.argsort(image)
    predicted = np.concatenate([_predicted(shard, simulated) for shard in shards])
    return label[order], ann[order], predicted[order]


def spikes(shards: Sequence[Shard], simulated: int) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Layers from input to output, neurons of each [layers], and spikes of all test images, int64 [layers, simulated].

    Args:
        shards: all shards of the test set, in any order.
        simulated: steps that each shard must hold.

    Raises:
        ArtifactError: when a shard's spikes are not of its own images and steps, or shards have different layers.
    """
    layers, neurons = _layers(shards[0])
    counts = np.sum([_spikes(shard, layers, neurons, simulated) for shard in shards], axis=0)
    return layers, neurons, counts


def compared(labels: np.ndarray, ann: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Accuracies and agreement (percent of images), the drop (points), and `lost`, of each image.

    `lost` is 1 where only the ANN is right, -1 where only the other is.

    Args:
        labels: [N].
        ann: classes that the ANN predicts, [N].
        predicted: those that what stands for it predicts, [N].
    """
    right, reached = percent(predicted == labels), percent(ann == labels)
    return {
        "accuracy": right,
        "ann": reached,
        "drop": reached - right,
        "lost": (ann == labels).astype(np.int8) - (predicted == labels).astype(np.int8),
        "agreement": percent(predicted == ann),
    }


def percent(right: np.ndarray) -> float:
    """Percent of the images, for which it holds."""
    return 100 * int(right.sum()) / len(right)


def _again(shard: Shard) -> str:
    return f"delete its folder's predictions and spikes, and make them again with: snakemake {shard.path}"


def _complete(image: np.ndarray, shards: Sequence[Shard]) -> None:
    """Images are numbered 0, 1, ... in the test set: each must be there once, or as many as `simulation.images`."""
    for shard in shards:
        _as_noted(shard)
    if not len(image):
        raise ArtifactError(f"{shards[0].path}: there are no test images in any shard; {_again(shards[0])}")
    times = np.bincount(image)
    chosen = shards[0].document.get("extra", {}).get("chosen")
    if chosen is not None and len(image) != chosen:
        raise ArtifactError(
            f"{shards[0].path} and its {len(shards)} shard(s): hold {len(image)} test images, {chosen} were chosen; "
            + _again(shards[0])
        )
    # Chosen images are spread over the test set: numbers between them are not missing.
    missing = times == 0 if chosen is None else np.zeros(0, dtype=bool)
    for wrong, what in ((times > 1, "appear twice"), (missing, "are missing")):
        if wrong.any():
            some = ", ".join(map(str, np.flatnonzero(wrong)[:5]))
            raise ArtifactError(
                f"{shards[0].path} and its {len(shards)} shard(s): {wrong.sum()} test images {what} (such as {some}); "
                + _again(shards[0])
            )
    for shard in shards:
        total = shard.document["extra"].get("total")
        if total != len(image):
            raise ArtifactError(
                f"{shard.path}: is of {total} test images, and all shards together hold {len(image)}; {_again(shard)}"
            )


def _as_noted(shard: Shard) -> None:
    """A shard holds the images that its job noted: their number, the first and the last."""
    noted, images = shard.document["extra"], shard.predictions["image"].to_numpy()
    if noted.get("images") != len(images):
        raise ArtifactError(f"{shard.path}: holds {len(images)} images, says {noted.get('images')}; {_again(shard)}")
    ends = (int(images[0]), int(images[-1])) if len(images) else (None, None)
    said = (noted.get("first"), noted.get("last"))
    if said != ends:
        raise ArtifactError(
            f"{shard.path}: holds images {ends[0]} to {ends[1]}, says {said[0]} to {said[1]}; {_again(shard)}"
        )


def _predicted(shard: Shard, simulated: int) -> np.ndarray:
    """Predicted classes, int16 [images, simulated]."""
    column = shard.predictions["predicted"].combine_chunks()
    lengths = np.diff(column.offsets.to_numpy())
    if (lengths != simulated).any():
        raise ArtifactError(f"{shard.path}: holds other than the {simulated} simulated steps; {_again(shard)}")
    return np.asarray(column.flatten().to_numpy()).reshape(-1, simulated)


def _layers(shard: Shard) -> tuple[tuple[str, ...], np.ndarray]:
    """Layers in the order of the network, and the neurons of each."""
    found = shard.spikes.select(["layer", "neurons"]).to_pandas().drop_duplicates()
    if found["layer"].duplicated().any():
        raise ArtifactError(f"{shard.path}: a layer's number of neurons changes between steps; {_again(shard)}")
    return tuple(found["layer"]), found["neurons"].to_numpy(np.int64)


def _spikes(shard: Shard, layers: tuple[str, ...], neurons: np.ndarray, simulated: int) -> np.ndarray:
    """Spikes of the shard's images, int64 [layers, simulated]."""
    own, own_neurons = _layers(shard)
    if own != layers or not np.array_equal(own_neurons, neurons):
        raise ArtifactError(f"{shard.path}: has layers {own}, another shard {layers}; {_again(shard)}")
    frame = shard.spikes.to_pandas()
    expected = pd.MultiIndex.from_product([layers, range(1, simulated + 1)])
    counted = frame.set_index(["layer", "step"])
    # Each layer at each step, once: as many rows as expected, all of them expected, none of them twice.
    if len(counted) != len(expected) or not counted.index.isin(expected).all() or counted.index.duplicated().any():
        raise ArtifactError(f"{shard.path}: spikes are not of steps 1 to {simulated} of each layer; {_again(shard)}")
    own_images = len(shard.predictions)  # images may leave early, so that later steps are of fewer
    if (frame["images"] > own_images).any() or (frame.loc[frame["step"] == 1, "images"] != own_images).any():
        raise ArtifactError(f"{shard.path}: spikes and predictions are of different images; {_again(shard)}")
    # `loc` brings the rows into the order of layers and steps, whatever the file's.
    counts: np.ndarray = counted["spikes"].loc[expected].to_numpy(np.int64)
    return counts.reshape(len(layers), simulated)
