"""One block of time steps of the engine `packed`: an image through all layers, by one thread or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
from torch import Tensor

from bsnn.engines import packed_first, packed_pools
from bsnn.engines import packed_kernels as kernels
from bsnn.engines.base import State
from bsnn.engines.packed_layers import Stage, channels_first
from bsnn.engines.packed_shapes import Neurons, Shape, Work

Each = Callable[[Callable[[Any], None], Iterable[Any]], None]  # calls a function for each item, in several threads


class Part(NamedTuple):
    """Rows and blocks of channels of a layer's output."""

    top: int
    bottom: int
    left: int
    right: int


class Run:
    """A block of `steps`: the layers as planned for it, the state, and where results go.

    Args:
        stages: layers.
        plans: shape and table of terms of each layer for such a block (Stage.planned).
        state: of all images; potentials are advanced in place.
        steps: of the block.
        ones: of packed_lists.ones_of_bytes.
        spikes: int8 [steps, N, units], filled.
        counts: int64 [steps, firing layers, N], filled.
    """

    def __init__(
        self,
        stages: list[Stage],
        plans: list[tuple[Shape, np.ndarray]],
        state: State,
        steps: int,
        ones: np.ndarray,
        spikes: np.ndarray,
        counts: np.ndarray,
    ) -> None:
        self.stages, self.plans, self.steps, self.ones = stages, plans, steps, ones
        self.begin = state.steps
        self.current = cast(Tensor, state.tensors["current"]).numpy()
        self.potential, self.sent = (
            [tensor.numpy() for tensor in cast(list[Tensor], state.tensors[part])] for part in ("potential", "sent")
        )
        self.spikes, self.counts = spikes, counts

    def image(self, image: int, works: list[Work], each: Each) -> None:
        """Take an image through all layers, with one thread for each memory; spikes go into the first one."""
        works = [work._replace(spikes=works[0].spikes) for work in works]  # lists and currents of their own
        firing = 0
        for stage, (shape, terms) in zip(self.stages, self.plans, strict=True):
            parts = _parts(stage, len(works))
            if not stage.layer.fires:
                for part in parts:
                    packed_pools.passed(shape, terms, part.top, part.bottom, works[0])
                continue
            neurons = self._neurons(stage, firing, image)
            # a row for each part, so that no two threads add to the same number
            counts = np.zeros((len(parts), self.steps), np.int64)

            def layer(item: tuple[Part, np.ndarray, Work]) -> None:
                part, count, work = item
                self._fire(stage, shape, terms, part, self.current[image], neurons._replace(counts=count), work)  # noqa: B023

            # waits for all parts: the layer's variables do not change under it, and the next layer finds its spikes
            each(layer, zip(parts, counts, works, strict=False))
            self.counts[:, firing, image] = counts.sum(0)
            firing += 1
        last, begin = self.stages[-1], self.plans[-1][0].out
        self.spikes[:, image] = channels_first(works[0].spikes[begin:], last.map, self.steps)

    def _neurons(self, stage: Stage, firing: int, image: int) -> Neurons:
        """Neurons of a layer, the `firing`-th that has any; their counts are none yet."""
        v, sent = self.potential[firing][image], self.sent[firing][image]
        schedule = stage.schedule[self.begin * stage.shape.schedule_stride :]
        sent = sent if stage.layer.signed else v  # never read if unsigned
        return Neurons(
            stage.offsets, stage.bias, schedule, stage.threshold, stage.lower, v, sent, np.empty(0, np.int64)
        )

    def _fire(
        self,
        stage: Stage,
        shape: Shape,
        terms: np.ndarray,
        part: Part,
        current: np.ndarray,
        neurons: Neurons,
        work: Work,
    ) -> None:
        """Part of a layer with neurons, from the spikes of layers before."""
        if stage.constant is not None:
            packed_first.constant(shape, part.top, part.bottom, current[stage.constant :], neurons, work)
        else:
            weights = (stage.weights, self.ones, stage.scales)
            kernels.advance(shape, terms, *part, *weights, current, neurons, work)


def _parts(stage: Stage, threads: int) -> list[Part]:
    """A layer in at most so many parts: by rows that may be apart, or by blocks of channels where there are more."""
    height, side, blocks = stage.shape.out_height, stage.shape.side, stage.blocks
    rows = -(-height // side)
    # currents of the image and pools are cut by rows alone; a linear layer has one row, but often many blocks
    if stage.terms and stage.layer.fires and blocks > rows:
        return [Part(0, height, *span) for span in _cut(blocks, threads)]
    return [Part(low * side, min(top * side, height), 0, blocks) for low, top in _cut(rows, threads)]


def _cut(size: int, parts: int) -> list[tuple[int, int]]:
    """Even shares of a range, none of them empty."""
    edges = [size * part // parts for part in range(parts + 1)]
    return [(low, top) for low, top in pairwise(edges) if low < top]
