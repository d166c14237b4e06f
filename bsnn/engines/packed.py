"""Engine `packed`, on a CPU: one bit per spike, and per weight of binary networks; real weights are float32.

Each image goes through a block of time steps layer by layer, in one thread; only bits, one per neuron and step, go on
to the layers that read them. A layer is one call of compiled code (bsnn.engines.packed_kernels), which holds no lock of
Python, so images are spread over threads that sleep while they wait. Where fewer images than threads are left, the
threads share the rows or channels of each layer.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bsnn.conversion.currents import on_grid, weight_parts
from bsnn.conversion.from_graph import image_terms
from bsnn.conversion.layers import SpikingNetwork, per_output
from bsnn.conversion.spiking import first_weight
from bsnn.engines import packed_first
from bsnn.engines.base import Block, Engine, State, within_schedules
from bsnn.engines.compiled import cache_folder
from bsnn.engines.packed_layers import channels_last, memory, stages
from bsnn.engines.packed_lists import COPIED, ones_of_bytes
from bsnn.engines.packed_run import Run
from bsnn.engines.packed_shapes import Shape, Work
from bsnn.engines.packed_sums import PLANE, PLANES
from bsnn.engines.packed_terms import unfit
from bsnn.engines.packed_trial import STEPS, trials
from bsnn.engines.packed_vectors import aligned
from bsnn.graphs.description import IMAGE

logger = logging.getLogger(__name__)

TOGETHER = 2**24  # bytes of state that are worth holding at once
RECYCLED = 2**23  # bytes of one layer's spikes: more do not pay


class PackedEngine(Engine):
    """Fastest on a CPU: what does not spike costs nothing."""

    name: ClassVar[str] = "packed"

    def __init__(self, network: SpikingNetwork, device: torch.device | str = "cpu", memory_mib: int = 2048) -> None:
        super().__init__(network, device, memory_mib)
        self._stages = stages(self.network)
        self._spikes = memory(self.network)[1]  # bytes of one image and step, of all layers that are kept at once
        self._least = sum(array.nbytes for array in self._work(self._planned(1), 1))  # bytes of a thread's memory
        self._threads = torch.get_num_threads()
        self._ones = ones_of_bytes()
        self._pools: dict[int, ThreadPoolExecutor] = {}

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Takes networks whose layers all send spikes, one per step and neuron."""
        if device.type != "cpu":
            return "it runs on a CPU only"
        if any(layer.burst > 1 for layer in network.layers):
            return "a layer sends bursts (engine 'torch' takes it)"
        return unfit(network) or missing()

    def together(self, images: int) -> int:
        """As many images as keep the threads busy, and the state small."""
        return min(images, max(2 * self._threads, TOGETHER // self._state))

    def block(self, images: int) -> int:
        """Steps whose spikes fit beside the state and the threads' memory; more than `RECYCLED` does not pay."""
        largest = max(stage.map.size for stage in self._stages)
        step = self._threads * self._spikes
        # results of a block: a byte for each neuron of the last layer, 8 for each count
        step += images * (self.network.layers[-1].neurons + 8 * len(self.network.firing))
        left = self.memory - self._state * images - self._threads * self._least
        return max(1, min(RECYCLED // largest, left // step))

    @torch.no_grad()
    def start(self, images: Tensor) -> State:
        """Currents of the image, initial potentials, and for signed layers the spikes sent so far, all channels last.

        `current` is float32 [N, values]: for each layer that reads the image alone its whole current, with its offset
        and its bias; for one that reads spikes too, its terms of the image one after the other.
        """
        firing = [stage for stage in self._stages if stage.layer.fires]
        currents = self._terms(images) if self.network.branched else self._first(images)
        return State(
            current=currents,
            potential=[stage.initial.repeat(len(images), 1) for stage in firing],
            sent=[torch.zeros(len(images), stage.places if stage.layer.signed else 0) for stage in firing],
        )

    def _first(self, images: Tensor) -> Tensor:
        """Current of the first layer of the family."""
        first = self._stages[0]
        parts = weight_parts(first_weight(self.network, images), first.layer.pool)
        stored = (0, first.channels - first.layer.shape[0])
        # [channels, 3, 3, parts * stored channels]: all that one value of the image is multiplied by lies side by side
        weights = torch.cat([F.pad(part.permute(1, 2, 3, 0), stored) for part in parts], 3).numpy()
        grid = on_grid(images).contiguous().numpy()
        current = np.empty((len(images), first.places), np.float32)
        bias = first.bias.reshape(-1, first.channels)
        pool = (None, "average", "max").index(first.layer.pool)

        def fill(image: int) -> None:
            packed_first.first_current(grid[image], weights, bias, pool, current[image].reshape(-1, first.channels))

        self._each(fill, range(len(images)))
        return torch.from_numpy(current)

    def _terms(self, images: Tensor) -> Tensor:
        """Currents of all paths that read the image."""
        terms = iter(image_terms(self.network, images))
        found = []
        for stage in self._stages:
            layer = stage.layer
            some = [next(terms) for path in layer.paths if path.source == IMAGE]
            if stage.constant is not None:
                current, *others = some
                for term in others:
                    current = current + term
                for added in (layer.offset, layer.bias):
                    current = current if added is None else current + per_output(added, layer.shape)
                some = [current]
            found += [channels_last(term, stage.channels) for term in some]
        return torch.cat(found, 1)

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        """Advance by `steps` time steps, one image in each thread; those left over go through all threads together."""
        network, plans = self.network, self._planned(steps)
        within_schedules(network, state.steps + steps)
        images = len(cast(Tensor, state.tensors["current"]))
        spikes = np.empty((steps, images, network.layers[-1].neurons), np.int8)
        counts = np.empty((steps, len(network.firing), images), np.int64)
        run = Run(self._stages, plans, state, steps, self._ones, spikes, counts)
        # A memory for each thread, so `pop` always finds one. `whole` hands on a single memory: its layers are of one
        # part, which `_each` runs in the same thread, and no thread of the pool ever waits for the pool.
        works = deque(self._work(plans, steps) for _ in range(self._threads))

        def whole(image: int) -> None:
            work = works.pop()
            run.image(image, [work], self._each)
            works.append(work)

        left = images % self._threads
        self._each(whole, range(images - left))
        for image in range(images - left, images):
            run.image(image, list(works), self._each)
        state.steps += steps
        return state, Block(torch.from_numpy(spikes), torch.from_numpy(counts))

    def _each(self, function: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Call a function for each item, in all threads."""
        items = list(items)
        if self._threads == 1 or len(items) <= 1:
            for item in items:
                function(item)
        else:
            list(self._pool().map(function, items))

    def _pool(self) -> ThreadPoolExecutor:
        """Threads of this process: a forked one has the object of its parent, but none of its threads."""
        if self._pools.get(os.getpid()) is None:
            self._pools = {os.getpid(): ThreadPoolExecutor(self._threads, thread_name_prefix="packed")}
        return self._pools[os.getpid()]

    @property
    def _state(self) -> int:
        """Bytes of the state of one image."""
        neurons = sum(stage.places * (1 + stage.layer.signed) for stage in self._stages if stage.layer.fires)
        return 4 * (neurons + sum(stage.places * stage.images for stage in self._stages))

    def _planned(self, steps: int) -> list[tuple[Shape, np.ndarray]]:
        """Shape and table of terms of each layer for blocks of `steps` steps."""
        return [stage.planned(steps) for stage in self._stages]

    def _work(self, plans: list[tuple[Shape, np.ndarray]], steps: int) -> Work:
        """Memory of one thread for blocks of `steps` steps that are planned so."""
        sizes = [stage.work(shape) for stage, (shape, _) in zip(self._stages, plans, strict=True)]
        entries, starts, joined, carries, currents, totals = (max(each) for each in zip(*sizes, strict=True))
        return Work(
            spikes=aligned(self._spikes * steps),
            entries=np.empty(entries + COPIED, np.uint32),
            starts=np.empty(starts, np.int32),
            joined=np.empty(joined + COPIED, np.uint32),
            carries=aligned(carries),
            planes=aligned(PLANES * PLANE),
            currents=np.empty(currents, np.int16),
            totals=np.empty(totals, np.float32),
        )


class _Trial(PackedEngine):
    """Runs what it is given, without a trial before it."""

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        """Takes all."""
        return None


@lru_cache(maxsize=1)
def missing() -> str | None:
    """What keeps the compiled code from running here; None when small networks sent the right spikes."""
    try:
        for network, images, expected in trials():
            engine = _Trial(network)
            found = engine.advance(engine.start(images), STEPS)[1]
            if not (torch.equal(found.spikes, expected.spikes) and torch.equal(found.counts, expected.counts)):
                return "its compiled code gives wrong spikes on this CPU"
    except Exception as error:  # compilers and damaged files of compiled code fail in every way
        reason = (str(error).splitlines() or [""])[0]
        told = f"its code cannot be compiled, or loaded from {cache_folder()} ({type(error).__name__}: {reason})"
        logger.warning("engine 'packed' cannot be used: %s", told)
        return told
    return None
