"""All CPU engines on VGG-15 in the CIFAR shape: equal spikes for every layer, step and image, several seeds."""

import pytest
import torch
from engine_checks import assert_equal, run
from networks_for_tests import VGG15, images, spiking

from bsnn.engines import create


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "blocks"), [(1, [32]), (17, [20, 12])])
def test_engines_are_equal(seed: int, count: int, blocks: list[int]) -> None:
    network = spiking(seed, features=VGG15, hidden=[4096], size=32, classes=100)
    batch = images(seed + 100, count, 32)
    expected = run(create("bindsnet", network), batch, [32])
    assert bool((expected.counts.sum((0, 2)) > 0).all())
    for name in ("torch", "packed"):
        assert_equal(run(create(name, network), batch, blocks), expected)


@pytest.mark.slow
def test_batch_of_64_equals_its_parts() -> None:
    network = spiking(7, features=VGG15, hidden=[4096], size=32, classes=100)
    batch = images(107, 64, 32)
    whole = run(create("packed", network), batch, [16])
    parts = [run(create("torch", network), part, [5, 11]) for part in batch.split([63, 1])]
    assert torch.equal(whole.counts, torch.cat([part.counts for part in parts], 2))
    assert torch.equal(whole.spikes, torch.cat([part.spikes for part in parts], 1))
