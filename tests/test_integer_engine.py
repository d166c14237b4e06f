"""Engine `integer`: the same spikes as the definition, for every member of the family, in any blocks."""

from __future__ import annotations

import pytest
from engine_checks import MEMBERS, assert_equal, biased, member, reference, run, signed
from networks_for_tests import images
from torch import Tensor

from bsnn.engines.integer import IntegerEngine
from bsnn.spiking import SpikingNetwork

STEPS = 12


def check(network: SpikingNetwork, batch: Tensor, blocks: tuple[int, ...] = (STEPS,)) -> None:
    found = run(IntegerEngine(network), batch, blocks)
    expected = reference(network, batch, sum(blocks))
    assert int(expected.counts.sum()) > 0
    assert_equal(found, expected)


def size(network: SpikingNetwork) -> int:
    return network.input_shape[1]


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_member_of_the_family(name: str, seed: int) -> None:
    network = member(name, seed)
    check(network, images(seed, 5, size(network)))


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("seed", [4, 5])
def test_negative_spikes(name: str, seed: int) -> None:
    network = signed(member(name, seed))
    check(network, images(seed, 3, size(network)), (20,))


@pytest.mark.parametrize("name", MEMBERS)
def test_bias_of_channels_and_of_neurons(name: str) -> None:
    network = biased(member(name, 6), 7)
    check(network, images(6, 3, size(network)))
    check(signed(network), images(6, 2, size(network)))
