"""Currents of all layers over blocks of time steps, for networks of every kind: sums of paths (SpikingNetwork.sums).

The order is part of the result: sum of a path, rounded to the nearest integer where a library may be inexact, pooled,
times its scale; the paths' terms one after another; then the offset. Each product and each sum is rounded to float32 on
its own (no fused multiply-add), which gives the same bits everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines import products, summed_kernels
from bsnn.graphs.description import IMAGE, Path
from bsnn.graphs.forward import per_channel, pooled, times_scale, unpooled


def path_sum(path: Path, spikes: Tensor, *, binary: bool, direct: bool, bfloat16: bool = False) -> Tensor:
    """Weighted and pooled sum of a path for spikes [N, *shape of its source], float32; without its scale.

    Args:
        path: with weights in the type of the spikes.
        spikes: float32, or float64 for longer sums.
        binary: whether the weights are integers.
        direct: whether sums of integers come out exact here (bsnn.engines.base.direct_sums).
        bfloat16: whether products are native ones of bfloat16 numbers, where these are right (bsnn.engines.products).
    """
    if path.weight is not None and spikes.dtype == torch.float32 and _usual(path):
        sums = products.convolution(spikes, path.weight, bfloat16=bfloat16)
    elif path.weight is not None and path.op == "linear" and spikes.dtype == torch.float32:
        sums = products.linear(spikes.flatten(1), path.weight, bfloat16=bfloat16)
    else:
        sums = unpooled(path, spikes)
    if binary and not direct:
        sums = sums.round()
    return pooled(sums, path.pool)


def _usual(path: Path) -> bool:
    """Whether it is a 3x3 convolution, padded by one place."""
    kernel = path.op == "conv" and path.weight is not None and tuple(path.weight.shape[2:]) == (3, 3)
    return kernel and path.groups == 1 and path.stride == path.padding == path.dilation == (1, 1)


def total(layer: SpikingLayer, terms: list[Tensor], times: float | Tensor = 1) -> Tensor:
    """The terms of a layer added up in their order, then the offset so many times, in their type: [..., *shape].

    A single term without an offset is given back itself.
    """
    found = terms[0]
    for term in terms[1:]:
        found = found + term
    return found if layer.offset is None else found + per_channel(layer.offset.to(found), len(layer.shape)) * times


class Branches:
    """Paths of a network, ready for blocks of time steps.

    Args:
        network: on the device where it is simulated.
        direct: whether sums of integers come out exact there (bsnn.engines.base.direct_sums).
    """

    def __init__(self, network: SpikingNetwork, *, direct: bool) -> None:
        self.layers, self.direct = network.layers, direct
        self.paths = [[ready(path) for path in paths] for paths in network.sums]
        # asked of the paths as they were: `ready` makes weights float32, and then they count as real ones
        self.binary = [[path.binary for path in paths] for paths in network.sums]
        sources = [[path.source for path in paths] for paths in network.sums]
        # terms of the image lie in one list, layer by layer: a layer's begin after those of all layers before
        self.images = [sum(some.count(IMAGE) for some in sources[:index]) for index in range(len(sources))]
        # layers that read the image alone: the same current at every step
        self.first = [all(source == IMAGE for source in some) for some in sources]

    def current(
        self, index: int, outputs: Mapping[str, Tensor], image: list[Tensor], steps: int, *, bfloat16: bool = False
    ) -> Tensor:
        """Currents [steps, N, *shape] of a layer, in memory of their own.

        Args:
            index: place of the layer.
            outputs: float32 spikes [steps, N, *shape] of layers by name, at least of those that it reads.
            image: terms of all paths that read the image (bsnn.conversion.from_graph.image_terms).
            steps: number of steps.
            bfloat16: as of `path_sum`.
        """
        constant = iter(image[self.images[index] :])
        terms = [
            next(constant) if path.source == IMAGE else self._term(path, outputs[path.source], binary, bfloat16)
            for path, binary in zip(self.paths[index], self.binary[index], strict=True)
        ]
        found = total(self.layers[index], terms)
        # the scan writes spikes over currents, so each step needs memory of its own; elsewhere image terms broadcast
        return found.expand(steps, *found.shape).clone() if self.first[index] else found

    def _term(self, path: Path, spikes: Tensor, binary: bool, bfloat16: bool) -> Tensor:
        sums = path_sum(path, spikes.flatten(0, 1), binary=binary, direct=self.direct, bfloat16=bfloat16)
        term = times_scale(path, sums)
        # an identity path without pool and scale gives the source's own memory, which the scan would write over
        return (term.clone() if term.data_ptr() == spikes.data_ptr() else term).unflatten(0, spikes.shape[:2])

    @property
    def weights(self) -> list[Tensor]:
        """Weights that are multiplied by spikes."""
        read = [path for paths in self.paths for path in paths if path.source != IMAGE]
        return [path.weight for path in read if path.weight is not None]

    @property
    def constants(self) -> int:
        """Values of all terms that read the image."""
        counts = [sum(path.source == IMAGE for path in paths) for paths in self.paths]
        return sum(layer.neurons * count for layer, count in zip(self.layers, counts, strict=True))

    @property
    def values(self) -> int:
        """Most values that one image and step needs at once: outputs that are still read, sums, and currents.

        Sums of unusual convolutions count twice: oneDNN has them in a layout of its own first.
        """
        needed = []
        for index, layer in enumerate(self.layers):
            paths = self.paths[index]
            read = {path.source for some in self.paths[index:] for path in some}
            held = sum(before.neurons for before in self.layers[:index] if before.name in read)
            # a pool of stride 2 takes four sums for each that it gives; those that `ready` folds in are gone, and pools
            # of spikes read what is held
            pools = [path.pool for path in paths if path.pool is not None and path.weight is not None]
            unpooled = max([0, *(pool.stride[0] * pool.stride[1] for pool in pools)])
            # Beside the sum: all terms, and one before its factor; of a single one, it before its factor or the offset.
            single = layer.offset is not None or paths[0].scale is not None
            terms = len(paths) + 1 if len(paths) > 1 else int(single)
            copied = any(path.op == "conv" and path.source != IMAGE and not _usual(path) for path in paths)
            needed.append(held + layer.neurons * (1 + unpooled + terms + copied * max(1, unpooled)))
        return max(needed)


def ready(path: Path) -> Path:
    """A path with float32 weights, channels last, and a 2x2 sum of integer results folded in."""
    if path.weight is None:
        return path
    weight = path.weight.float()
    if path.binary and summed_kernels.has_one(path):
        weight, path = summed_kernels.of(weight), replace(path, stride=(2, 2), pool=None)
    return replace(path, weight=weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight)
