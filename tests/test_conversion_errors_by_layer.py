"""Errors by layer: by hand for one neuron, and their sum against the total where only one layer can err."""

import pandas as pd
import pytest
import torch
from networks_for_tests import images, thresholds, trained

from bsnn.conversion import errors_by_layer, switches
from bsnn.conversion.spiking import convert


def test_one_neuron_by_hand() -> None:
    # T = 4, theta = 2, half a threshold at the start; a = 2.7 is clipped by 0.7; a = 0.7: round(1.4) = 1 spike of 0.5
    a, sent, rest = torch.tensor([2.7, 0.7]), torch.tensor([4.0, 2.0]), torch.tensor([2.9, -0.6])
    clipping, quantisation, unevenness, total, same = errors_by_layer._errors(
        a, sent, rest, torch.tensor(2.0), 4, 0.5, 1
    )
    assert clipping.tolist() == pytest.approx([0.7, 0.0])
    assert quantisation.tolist() == pytest.approx([0.0, 0.2])
    # the first cannot send more than 4; the second has sent one spike more than its input was worth
    assert unevenness.tolist() == pytest.approx([0.0, 0.5])
    assert total.tolist() == pytest.approx([0.7, 0.3])
    assert same.tolist() == a.tolist()


def test_one_bursting_neuron_by_hand() -> None:
    # T = 4, theta = 2, up to 2 spikes per step, from zero: 5.1 is clipped by 1.1; 2.7: 5 spikes of 0.5 carry 2.5
    a, sent, rest = torch.tensor([5.1, 2.7]), torch.tensor([8.0, 4.0]), torch.tensor([2.2, 1.4])
    clipping, quantisation, unevenness, total, _ = errors_by_layer._errors(a, sent, rest, torch.tensor(2.0), 4, 0.0, 2)
    assert clipping.tolist() == pytest.approx([1.1, 0.0])
    assert quantisation.tolist() == pytest.approx([0.0, 0.2])
    assert unevenness.tolist() == pytest.approx([0.0, 0.5])  # the second should have sent one more
    assert total.tolist() == pytest.approx([1.1, 0.7])


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_the_first_layer_has_even_input(initial: float) -> None:
    source, batch = trained(3), images(4, 10)
    theta = thresholds(source, batch, 95.0)
    network = switches.with_initial(convert(source, theta), initial)
    table = errors_by_layer.errors(source, network, theta, lambda: batch.split(4), [2, 8, 32], initial)
    first = table[table["layer"] == "conv1"]
    assert (first["unevenness"] < 1e-4).all()
    assert (first["clipping"] > 0).all()
    # clipping and quantisation add up where only one of them is there, as it is for each neuron of the first layer
    assert first["total"].to_numpy() == pytest.approx((first["clipping"] + first["quantisation"]).to_numpy(), rel=1e-2)
    assert first["quantisation"].is_monotonic_decreasing
    deeper = table[table["layer"] == "conv3"]
    assert deeper["unevenness"].iloc[-1] > 0
    assert list(pd.unique(table["layer"])) == [layer.name for layer in network.firing]


def test_batches_do_not_matter() -> None:
    source, batch = trained(5), images(6, 9)
    theta = thresholds(source, batch)
    network = convert(source, theta)
    whole, parts = (
        errors_by_layer.errors(source, network, theta, lambda n=n: batch.split(n), [3, 7], 0.0) for n in (9, 4)
    )
    numbers = [*errors_by_layer.ERRORS, "activation"]
    assert whole[numbers].to_numpy() == pytest.approx(parts[numbers].to_numpy(), rel=1e-5)
