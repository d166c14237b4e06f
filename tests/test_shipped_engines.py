"""The engines on the trained networks that come with the repository: equal spikes for each method of conversion."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from engine_checks import SINGLE, assert_equal, reference, run
from torch import Tensor

from bsnn import engines
from bsnn.conversion import activations, balancing
from bsnn.conversion import method as conversion
from bsnn.networks import shipped
from bsnn.networks.vgg import Trained

STEPS = 16
SHIPPED = [card.experiment for card in shipped.cards() if card.weights == "binary"]


@cache
def case(experiment: str) -> tuple[Trained, Tensor]:
    """A network, and images that are smooth as photographs are: no data set is needed."""
    trained = shipped.load(experiment, "binary")
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(6, 3, 8, 8, generator=generator)
    return trained, F.interpolate(coarse, trained.input_shape[1:], mode="bicubic").clamp(-2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, method in SINGLE.items() if not method.full_only])
@pytest.mark.parametrize("experiment", SHIPPED)
def test_every_engine_sends_the_same_spikes(experiment: str, name: str) -> None:
    trained, images = case(experiment)
    method = SINGLE[name]
    if method.threshold == "balanced":
        theta = balancing.thresholds(trained, images)
    else:
        table = activations.collect(trained, lambda: [images])
        theta = conversion.lambdas(table, method, STEPS, percentile=99.0, population="all")
    network = conversion.convert(trained, theta, method, STEPS, images)
    expected = reference(network, images, STEPS)
    assert (
        expected.counts.sum((0, 2)) > 0
    ).sum() >= 8  # layers that fire; the slow methods need more steps for the rest
    for engine in ("torch", "packed", "bindsnet"):
        assert_equal(run(engines.create(engine, network), images, [5, 11]), expected)
