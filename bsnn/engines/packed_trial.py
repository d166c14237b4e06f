"""Small networks that use every compiled function of the engine `packed`, to compile and to check them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines.base import Block
from bsnn.engines.torch_engine import TorchEngine
from bsnn.graphs.description import IMAGE, Path, Pool

STEPS = 6


def trials() -> Iterator[tuple[SpikingNetwork, Tensor, Block]]:
    """Networks, images, and what they send in STEPS steps."""
    generator = torch.Generator().manual_seed(0)
    for network in (_chain(generator), _graph(generator)):
        images = torch.randn(2, *network.input_shape, generator=generator)
        engine = TorchEngine(network, native_bfloat16=False)
        yield network, images, engine.advance(engine.start(images), STEPS)[1]


def _signs(generator: torch.Generator, *shape: int) -> Tensor:
    return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(torch.int8)


def _eighths(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(-8, 9, shape, generator=generator) / 8


def _chain(generator: torch.Generator) -> SpikingNetwork:
    """Convolutions with a pool and without, pools of spikes, linear layers."""
    first, schedule = torch.randn(40, 3, 3, 3, generator=generator), torch.randn(STEPS, 130, generator=generator)
    layers = (
        SpikingLayer("first", "conv", (40, 8, 8), first, threshold=torch.ones(40)),
        SpikingLayer(
            "sum", "conv", (40, 4, 4), _signs(generator, 40, 40, 3, 3), "average", threshold=torch.full((40,), 20.0)
        ),
        SpikingLayer("pass", "pool", (40, 2, 2), pool="max"),
        SpikingLayer(
            "signed", "conv", (130, 2, 2), _signs(generator, 130, 40, 3, 3), threshold=torch.full((130,), 3.0),
            lower=torch.full((130,), -1.0), signed=True,
        ),
        SpikingLayer(
            "pool", "pool", (130, 1, 1), pool="average", threshold=torch.full((130,), 2.0), schedule=schedule
        ),
        SpikingLayer("last", "linear", (70,), _signs(generator, 70, 130), threshold=torch.full((70,), 2.0)),
        # real weights, of so few bits that float32 holds every sum: the order in which they are added does not matter
        SpikingLayer("real", "linear", (200,), _eighths(generator, 200, 70), threshold=torch.full((200,), 0.5)),
    )  # fmt: skip
    return SpikingNetwork(layers, torch.zeros(2, 200, dtype=torch.float64), (3, 8, 8))


def _graph(generator: torch.Generator) -> SpikingNetwork:
    """A sum of a strided, dilated convolution in groups, spikes, a depthwise convolution, and the image."""

    def scale(channels: int) -> Tensor:
        return torch.randn(channels, generator=generator)

    image = torch.randn(40, 3, 3, 3, generator=generator)
    first = Path(IMAGE, "conv", "image", image, padding=(1, 1))
    paths = (
        Path(
            "first", "conv", "grouped", _signs(generator, 40, 20, 3, 3), scale(40), (2, 2), (2, 2), (2, 2), groups=2
        ),
        Path("first", "identity", "shrunk", scale=scale(40), pool=Pool("max", (3, 3), (2, 2), (1, 1))),
        Path(
            "first", "conv", "depthwise", _signs(generator, 40, 1, 5, 5), scale(40), (2, 2), (2, 2), groups=40
        ),
        Path(IMAGE, "conv", "again", image, scale(40), (2, 2), (1, 1)),
    )  # fmt: skip
    layers = (
        SpikingLayer("first", "sum", (40, 8, 8), threshold=torch.ones(40), paths=(first,), offset=scale(40)),
        SpikingLayer(
            "sum", "sum", (40, 4, 4), threshold=torch.full((40,), 2.0), signed=True, paths=paths, offset=scale(40)
        ),
    )
    return SpikingNetwork(layers, torch.zeros(2, 640, dtype=torch.float64), (3, 8, 8))
