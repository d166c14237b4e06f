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
from bsnn.engines.packed_kernels import Shape, Work
from bsnn.engines.packed_layers import Stage, channels_first

Each = Callable[[Callable[[Any], None], Iterable[Any]], None]  # calls a function for each item, in several threads


class Part(NamedTuple):
    """Rows of tiles and blocks of channels of a layer's output."""

    top: int
    bottom: int
    left: int
    right: int


class Neurons(NamedTuple):
    """State of one layer's neurons for one image, flat; `sent` is not used for unsigned ones."""

    v: np.ndarray
    sent: np.ndarray


class Run:
    """A block of `steps`: the layers as planned for it, the state, and where results go.

    Args:
        stages: layers.
        state: of all images; potentials are advanced in place.
        steps: of the block.
        ones: of packed_lists.ones_of_bytes.
        spikes: int8 [steps, N, units], filled.
        counts: int64 [steps, firing layers, N], filled.
    """

    def __init__(
        self,
        stages: list[Stage],
        state: State,
        steps: int,
        ones: np.ndarray,
        spikes: np.ndarray,
        counts: np.ndarray,
    ) -> None:
        self.stages, self.steps, self.ones = stages, steps, ones
        self.shapes = [stage.planned(steps) for stage in stages]
        self.begin = state.steps
        self.current = cast(Tensor, state.tensors["current"]).numpy()
        self.potential, self.sent = (
            [tensor.numpy() for tensor in cast(list[Tensor], state.tensors[part])] for part in ("potential", "sent")
        )
        self.spikes, self.counts = spikes, counts

    def image(self, image: int, works: list[Work], each: Each) -> None:
        """Take an image through all layers, with one thread for each memory."""
        steps = self.steps
        size = max(stage.bits * steps for stage in self.stages)
        bits, out = np.empty(size, np.uint8), np.empty(size, np.uint8)
        firing = 0
        for stage, shape in zip(self.stages, self.shapes, strict=True):
            parts = _parts(stage, len(works))
            if stage.layer.fires:
                v, sent = self.potential[firing][image], self.sent[firing][image]
                neurons = Neurons(v, sent if stage.layer.signed else v)
                counts = np.zeros((len(parts), steps), np.int64)

                def layer(item: tuple[Part, np.ndarray, Work]) -> None:
                    self._fire(stage, shape, item[0], self.current[image], bits, neurons, out, *item[1:])  # noqa: B023

                each(layer, zip(parts, counts, works, strict=False))
                self.counts[:, firing, image] = counts.sum(0)
                firing += 1
            else:
                for part in parts:
                    packed_pools.passed(shape, part.top, part.bottom, bits, out)
            bits, out = out, bits
        self.spikes[:, image] = channels_first(bits, self.stages[-1], steps)

    def _fire(
        self,
        stage: Stage,
        shape: Shape,
        part: Part,
        current: np.ndarray,
        bits: np.ndarray,
        neurons: Neurons,
        out: np.ndarray,
        counts: np.ndarray,
        work: Work,
    ) -> None:
        """Part of a layer with neurons, from the bits of the layer before."""
        threshold, bias, rows = stage.threshold, stage.bias, (part.top, part.bottom)
        schedule = cast(np.ndarray, stage.schedule)[self.begin * shape.schedule_stride :]
        if stage is self.stages[0]:
            packed_first.constant(shape, *rows, current, schedule, *neurons, threshold, out, counts)
        elif stage.weights is None:
            end = shape.height * shape.width * self.steps * shape.bytes * shape.planes
            packed_pools.pooled(shape, *rows, bits[:end], bias, schedule, *neurons, threshold, out, counts, work)
        else:
            given = (bits, stage.weights, self.ones, bias, schedule)
            kernels.weighted(shape, *part, *given, *neurons, threshold, out, counts, work)


def _parts(stage: Stage, threads: int) -> list[Part]:
    """A layer in at most so many parts: by rows of tiles, or by blocks of channels where there are more of them."""
    rows, blocks = stage.tiles, stage.blocks
    if stage.weights is not None and blocks > rows:
        return [Part(0, rows, *span) for span in _cut(blocks, threads)]
    return [Part(*span, 0, blocks) for span in _cut(rows, threads)]


def _cut(size: int, parts: int) -> list[tuple[int, int]]:
    """Even shares of a range, none of them empty."""
    edges = [size * part // parts for part in range(parts + 1)]
    return [(low, top) for low, top in pairwise(edges) if low < top]
