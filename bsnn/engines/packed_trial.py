"""A small network that uses every compiled function of the engine `packed`, to compile and to check them."""

from __future__ import annotations

import torch
from torch import Tensor

from bsnn.conversion.spiking import SpikingLayer, SpikingNetwork
from bsnn.engines.base import Block
from bsnn.engines.torch_engine import TorchEngine

STEPS = 6


def trial() -> tuple[SpikingNetwork, Tensor, Block]:
    """A network, images, and what it sends in STEPS steps."""
    generator = torch.Generator().manual_seed(0)

    def signs(*shape: int) -> Tensor:
        return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(torch.int8)

    layers = (
        SpikingLayer(
            "first", "conv", (40, 8, 8), torch.randn(40, 3, 3, 3, generator=generator), threshold=torch.ones(40)
        ),
        SpikingLayer("sum", "conv", (40, 4, 4), signs(40, 40, 3, 3), "average", threshold=torch.full((40,), 20.0)),
        SpikingLayer("pass", "pool", (40, 2, 2), pool="max"),
        SpikingLayer(
            "signed", "conv", (130, 2, 2), signs(130, 40, 3, 3), threshold=torch.full((130,), 3.0), signed=True
        ),
        SpikingLayer(
            "pool",
            "pool",
            (130, 1, 1),
            pool="average",
            threshold=torch.full((130,), 2.0),
            schedule=torch.randn(STEPS, 130, generator=generator),
        ),
        SpikingLayer("last", "linear", (70,), signs(70, 130), threshold=torch.full((70,), 2.0)),
    )
    network = SpikingNetwork(layers, torch.zeros(2, 70, dtype=torch.float64), (3, 8, 8))
    images = torch.randn(2, 3, 8, 8, generator=generator)
    engine = TorchEngine(network)
    return network, images, engine.advance(engine.start(images), STEPS)[1]
