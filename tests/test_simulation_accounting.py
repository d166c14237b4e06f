"""Costs against numbers worked out by hand, and against NeuroBench's way of counting, in plain torch."""

import pytest
import torch
import torch.nn.functional as F
from engine_checks import MEMBERS, member, signed
from networks_for_tests import images, spiking
from torch import Tensor

from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines import create
from bsnn.errors import ConfigError
from bsnn.simulation import accounting
from bsnn.simulation.energy import energy, totals
from bsnn.simulation.run import run
from bsnn.simulation.works import works


def tiny() -> SpikingNetwork:
    """3x3 image; conv1 hands on pixels of 1 at every step; conv2 sums the neighbours, fires at 3; two classes."""
    centre = torch.zeros(1, 1, 3, 3)
    centre[..., 1, 1] = 1
    ones = torch.ones(2, 1, 3, 3, dtype=torch.int8)
    first = SpikingLayer("conv1", "conv", (1, 3, 3), centre, threshold=torch.tensor([1.0]))
    second = SpikingLayer("conv2", "conv", (2, 3, 3), ones, threshold=torch.tensor([3.0, 3.0]))
    return SpikingNetwork((first, second), torch.ones(2, 18, dtype=torch.float64), (1, 3, 3))


def picture() -> Tensor:
    """Pixels of 1 in a corner, at an edge and in the centre."""
    return torch.tensor([[[[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]])


def costs(**options: object):
    network = tiny()
    found = run(create("torch", network), [picture()], 2)
    operations = accounting.counted(network, [picture()], 2)
    return accounting.table(network, found.counts, found.images, operations, **options)  # type: ignore[arg-type]


def values(table, layer: str, quantity: str) -> list[float]:
    chosen = table[(table["layer"] == layer) & (table["quantity"] == quantity)]
    return list(chosen.sort_values("step")["value"])


def test_tiny_network_by_hand() -> None:
    table = costs()
    # conv1: 7 * 7 products of a 3x3 kernel with a 3x3 map, at step 1 alone
    assert values(table, "conv1", "effective_macs") == [49, 0]
    # conv2 has two outputs; a corner reaches 4 places, an edge 6, the centre 9
    assert values(table, "conv2", "effective_binary_acs") == [2 * (4 + 6 + 9)] * 2
    assert values(table, "conv2", "dense_operations") == [2 * 49] * 2
    # sums of neighbours are 3 at four places (fire at once) and 2 at two more (fire at step 2)
    assert values(table, "conv2", "spikes") == [2 * 4, 2 * 6]
    assert values(table, "readout", "effective_acs") == [2 * 8, 2 * 12]
    assert values(table, "readout", "dense_operations") == [36, 36]
    assert values(table, "conv1", "activation_sparsity") == pytest.approx([1 - 3 / 9] * 2)
    assert values(table, "conv2", "activation_sparsity") == pytest.approx([1 - 8 / 18, 1 - 12 / 18])
    # 9 float32 weights and a threshold; 18 weights of one bit (3 bytes) and two thresholds; 36 float32 weights
    assert values(table, "conv1", "footprint_bytes") == [40]
    assert values(table, "conv2", "footprint_bytes") == [3 + 8]
    assert values(table, "readout", "footprint_bytes") == [144]


def test_first_layer_once_or_at_every_step() -> None:
    assert values(costs(first="every-step"), "conv1", "effective_macs") == [49, 49]
    assert totals(costs(first="every-step"))["effective_macs"].tolist() == [49, 98]
    assert totals(costs())["effective_macs"].tolist() == [49, 49]


def test_totals_and_energy_by_hand() -> None:
    summed = totals(costs())
    assert summed["spikes"].tolist() == [11, 26]
    assert summed["effective_binary_acs"].tolist() == [38, 76]
    assert summed["effective_acs"].tolist() == [16, 40]
    assert summed["dense_operations"].tolist() == [49 + 98 + 36, 49 + 2 * (98 + 36)]
    assert energy(summed).tolist() == pytest.approx([(4.6 * 49 + 0.9 * 54) / 1e3, (4.6 * 49 + 0.9 * 116) / 1e3])
    expected = (4.6 * 49 + 0.9 * 40 + 0.1 * 76) / 1e3
    assert energy(summed, "45nm-integer")[1] == pytest.approx(expected)
    expected = ((1.31 + 0.38) * 49 + 0.38 * 40 + 0.03 * 76) / 1e3
    assert energy(summed, "7nm-integer")[1] == pytest.approx(expected)


def test_estimate_gives_each_spike_the_mean_fan_out() -> None:
    network = tiny()
    found = run(create("torch", network), [picture()], 2)
    estimate = accounting.estimated(network, found.counts)
    assert estimate[0].tolist() == [0, 0]
    assert estimate[1].tolist() == pytest.approx([3 * 98 / 9] * 2)
    assert estimate[2].tolist() == [16, 24]


@pytest.mark.parametrize("name", list(MEMBERS))
def test_counted_as_neurobench_does(name: str) -> None:
    """NeuroBench's effective operations: spikes and weights replaced by ones, passed through the layer, and summed."""
    network, batch, steps = signed(member(name, 3)), images(5, 3, int(MEMBERS[name].get("size", 8))), 5
    seen: list[Tensor] = []
    engine = create("torch", network)
    engine.observe = lambda layer, spikes: seen.append(spikes.abs().clone())  # type: ignore[attr-defined]
    engine.advance(engine.start(batch), steps)
    expected = [torch.zeros(steps)]
    for before, layer in zip(seen, network.layers[1:], strict=False):
        x = before.flatten(0, 1)
        if layer.op == "conv":
            x = F.conv2d(x, torch.ones(layer.weight.shape), padding=1)  # type: ignore[union-attr]
        elif layer.op == "linear":
            x = F.linear(x.flatten(1), torch.ones(layer.weight.shape))  # type: ignore[union-attr]
        if layer.weight is not None or layer.fires:
            expected.append(x.unflatten(0, (steps, -1)).flatten(1).sum(1))
    expected.append(seen[-1].flatten(1).sum(1) * network.classes)
    assert accounting.counted(network, [batch[:1], batch[1:]], steps).tolist() == torch.stack(expected).tolist()


def test_estimate_is_exact_for_spikes_spread_evenly() -> None:
    network = tiny()
    everywhere = torch.ones(1, 1, 3, 3)
    found = run(create("torch", network), [everywhere], 2)
    exact = accounting.counted(network, [everywhere], 2)
    assert exact[1].tolist() == [98, 98]
    assert torch.equal(accounting.estimated(network, found.counts), exact)


def test_images_that_left_early_cost_nothing() -> None:
    network = spiking(1)
    batch = images(2, 6)
    found = run(create("packed", network), [batch], 12, early_exit=1e-3, exit_every=2)
    table = accounting.table(network, found.counts, found.images, first="every-step")
    share = found.images.double() / 6
    assert share[-1] < 1
    dense = values(table, "conv2", "dense_operations")
    assert dense == pytest.approx((dense[0] * share).tolist())
    assert works(network)[1].dense == dense[0] == 8 * 8 * 22 * 22


def test_what_is_refused() -> None:
    network = tiny()
    with pytest.raises(ConfigError, match="no simulated images"):
        accounting.table(network, torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ConfigError, match="presets: 45nm"):
        energy(totals(costs()), "3nm")
