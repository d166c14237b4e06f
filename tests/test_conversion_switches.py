"""Switches of the conversion: by hand on single neurons, exact on every engine, and refused where they count twice."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from engine_checks import SINGLE, assert_equal, reference
from engine_checks import run as blocks
from networks_for_tests import images, neuron, row, spiking, thresholds, trained
from torch import nn

from bsnn import engines
from bsnn.config import Method
from bsnn.conversion import activations, balancing, channel_thresholds, errors_by_layer, from_graph, switches
from bsnn.conversion import method as conversion
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.conversion.second_pass import SecondPassEngine
from bsnn.conversion.spiking import convert
from bsnn.engines import torch_engine
from bsnn.errors import ConversionError, EngineError
from bsnn.graphs.reading import from_module
from bsnn.networks.vgg import Trained
from bsnn.simulation.readout import Skipped


def sent(network: SpikingNetwork, image: torch.Tensor, steps: int) -> list[int]:
    engine = engines.create("torch", network)
    return engine.advance(engine.start(image), steps)[1].counts[:, 0].sum(1).tolist()


def table_of(source: Trained, batch: torch.Tensor) -> pd.DataFrame:
    return activations.collect(source, lambda: [batch])


def test_half_threshold_rounds_in_place_of_cutting_off() -> None:
    # 4 steps of 0.4 are 1.6 thresholds: cut off to 1 spike, rounded to 2
    assert sum(sent(neuron(), row(0.4), 4)) == 1
    assert sum(sent(switches.with_initial(neuron(), 0.5), row(0.4), 4)) == 2


def test_initial_potential_is_the_one_of_conversion() -> None:
    source = trained(1)
    found = thresholds(source, images(2, 8))
    switched, built_in = switches.with_initial(convert(source, found), 0.5), convert(source, found, initial=0.5)
    for one, other in zip(switched.layers, built_in.layers, strict=True):
        assert torch.equal(one.initial, other.initial)


def test_shift_has_added_half_a_threshold_by_the_last_step() -> None:
    network = switches.with_shift(neuron(2.0), 4)
    assert network.layers[0].bias.tolist() == [0.25]
    # 0.8 + 0.25 a step passes 2 at step 2 and 4 at step 4; without the shift 0.8 a step reaches 3.2 only
    assert sent(network, row(0.8), 4) == [0, 1, 0, 1]
    assert sent(neuron(2.0), row(0.8), 4) == [0, 0, 1, 0]


def test_half_a_threshold_is_never_added_twice() -> None:
    charged = switches.with_initial(neuron(), 0.5)
    with pytest.raises(ConversionError, match="not both"):
        switches.with_shift(charged, 4)
    with pytest.raises(ConversionError, match="count it twice"):
        switches.with_initial(switches.with_shift(neuron(), 4), 0.5)
    with pytest.raises(ConversionError, match="at least 1"):
        switches.with_shift(neuron(), 0)
    with pytest.raises(ConversionError, match="fraction"):
        switches.with_initial(neuron(), 1.0)


def test_signed_spikes_take_back_what_came_too_early() -> None:
    # 3 - 1.5: a spike, 0.5 left; then 1.5 less: at -1 the spike is taken back, and no more than it
    layer = replace(neuron().layers[0], initial=torch.tensor([3.0]))
    network = replace(neuron(), layers=(layer,))
    assert sent(network, row(-1.5), 4) == [1, 0, 0, 0]
    signed = switches.with_signed_spikes(network)
    engine = engines.create("torch", signed)
    assert engine.advance(engine.start(row(-1.5)), 4)[1].spikes.flatten().tolist() == [1, -1, 0, 0]


def test_spikes_that_are_taken_back_at_zero_are_those_of_even_input() -> None:
    """Whatever the order of the input, the count after each step is the ideal curve's: rounded, not below 0."""
    layer = SpikingLayer("n", "linear", (200,), threshold=torch.full((200,), 5.0))
    plain = switches.with_initial(SpikingNetwork((layer,), torch.zeros(1, 200).double(), (1, 1, 200)), 0.5)
    currents = torch.randint(-5, 6, (40, 1, 200), generator=torch.Generator().manual_seed(0)).float()
    even = torch.floor(currents.cumsum(0) / 5 + 0.5).clamp(min=0)

    def counts(fraction: float) -> torch.Tensor:
        [layer] = switches.with_signed_spikes(plain, fraction).layers
        assert layer.initial is not None
        start = layer.initial.expand(1, 200).clone()
        return torch_engine.scan(layer, currents.clone(), start, torch.zeros(1, 200)).cumsum(0)

    assert torch.equal(counts(0.0), even)
    assert (counts(1.0) - even).abs().sum() > (counts(0.25) - even).abs().sum() > 0
    with pytest.raises(ConversionError, match=r"fraction of the threshold, 0 to 1: 1\.5"):
        counts(1.5)


def test_charges_and_currents_add_up() -> None:
    layer = SpikingLayer("x", "conv", (2, 1, 2), torch.zeros(2, 1, 3, 3), threshold=torch.ones(2))
    twice = switches.with_charge(switches.with_charge(layer, torch.tensor([1.0, 2.0])), torch.ones(2, 1, 2))
    assert twice.initial.tolist() == [[[2.0, 2.0]], [[3.0, 3.0]]]
    twice = switches.with_bias(switches.with_bias(layer, torch.tensor([1.0, 2.0])), torch.tensor([0.5, 0.5]))
    assert per_output(twice.bias, layer.shape).expand(layer.shape).tolist() == [[[1.5, 1.5]], [[2.5, 2.5]]]


@pytest.mark.parametrize("name", [name for name, method in SINGLE.items() if not method.full_only])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_engine_sends_the_same_spikes(name: str, seed: int) -> None:
    source, batch, steps = trained(seed), images(seed + 20, 12), 8
    method = SINGLE[name]
    if method.threshold == "balanced":
        theta = balancing.thresholds(source, batch)
    else:
        theta = conversion.lambdas(table_of(source, batch), method, steps, percentile=99.0, population="all")
    network = conversion.convert(source, theta, method, steps, batch)
    assert network.exact
    expected = reference(network, batch, steps)
    assert expected.counts.sum() > 0
    for engine in ("torch", "packed", "bindsnet"):
        assert_equal(blocks(engines.create(engine, network), batch, [3, 5]), expected)


@pytest.mark.parametrize("kind", ["srp", "cos"])
def test_second_pass_starts_from_the_rest_of_the_first(kind: str) -> None:
    """Against the definition, with each image's potentials set by hand in a plain simulation."""
    network, batch, first = spiking(3, initial=0.5), images(4, 6), 3
    engine = SecondPassEngine(network, kind=kind, first_pass=first)  # type: ignore[arg-type]
    found = blocks(engine, batch, [2, 4, 3])
    plain = engines.create("torch", network)
    seen: dict[str, torch.Tensor] = {}
    plain.observe = lambda layer, spikes: seen.update({layer.name: spikes.sum(0)})  # type: ignore[attr-defined]
    state, one = plain.advance(plain.start(batch), first)
    again = plain.start(batch)
    for place, layer in enumerate(network.layers):
        rest, start = state.tensors["potential"][place], again.tensors["potential"][place]
        threshold = per_output(layer.threshold, layer.shape).expand(layer.shape)
        if kind == "srp":
            start[rest <= 0] = -torch.inf
        else:
            start += threshold * (rest >= threshold).float() - threshold * ((rest < 0) & (seen[layer.name] > 0)).float()
    two = plain.advance(again, 6)[1]
    assert torch.equal(found.counts, torch.cat([one.counts, two.counts]))
    assert torch.equal(found.spikes, torch.cat([one.spikes, two.spikes]))
    assert not torch.equal(two.counts, blocks(engines.create("torch", network), batch, [6]).counts)


def test_second_pass_goes_on_for_the_images_that_stay() -> None:
    network, batch = spiking(8, initial=0.5), images(9, 5)
    engine = SecondPassEngine(network, kind="cos", first_pass=4)
    whole = blocks(engine, batch, [4, 4])
    state, _ = engine.advance(engine.start(batch), 2)
    kept = torch.tensor([1, 3])
    state, _ = engine.advance(engine.keep(state, kept), 2)
    rest = engine.advance(state, 4)[1]
    assert torch.equal(rest.counts, whole.counts[4:, :, kept])
    with pytest.raises(EngineError, match="at least 1 step"):
        SecondPassEngine(network, kind="cos", first_pass=0)


def test_read_out_of_each_method() -> None:
    assert conversion.skipped(Method()) is None
    assert [Skipped(3)(step) for step in range(1, 10)] == [0, 0, 0, 0, 1, 2, 3, 3, 3]
    assert [Skipped(3, restarts=True)(step) for step in range(1, 7)] == [0, 0, 0, 3, 3, 3]
    assert conversion.skipped(Method(delay=2)) == Skipped(2)
    assert conversion.skipped(Method(second_pass="cos", first_pass=5)) == Skipped(5, restarts=True)
    engine, reason = conversion.engine("auto", spiking(0), Method(second_pass="srp"))
    assert isinstance(engine, SecondPassEngine)
    assert "torch" in reason
    assert conversion.engine("bindsnet", spiking(0), Method())[0].name == "bindsnet"
    bursts = switches.with_bursts(spiking(0, binary=False), 3)
    for name in ("auto", "bindsnet", "packed", "torch"):
        assert conversion.engine(name, bursts, Method(burst=3))[0].name == "torch"


def test_balanced_thresholds_are_in_no_table() -> None:
    with pytest.raises(ConversionError, match=r"bsnn\.conversion\.balancing"):
        conversion.lambdas(
            table_of(trained(0), images(1, 4)), Method(threshold="balanced"), 8, percentile=99.0, population="all"
        )


def test_percentile_by_time() -> None:
    source, batch = trained(2), images(3, 16)
    table, method = table_of(source, batch), Method(percentile=98.0, percentiles={4: 95.0})

    def first(steps: int, chosen: Method) -> float:
        return conversion.lambdas(table, chosen, steps, percentile=99.0, population="all")["conv1"]

    rows = table[(table["layer"] == "conv1") & (table["population"] == "all")].set_index("percentile")["value"]
    assert (first(4, method), first(5, method), first(4, Method())) == (rows[95.0], rows[98.0], rows[99.0])


def test_burst_sends_at_once_what_was_held_back() -> None:
    # 2.6 a step: 2 and 0.6 left, 3 and 0.2 left, 2 and 0.8 left; at most 2 a step leaves 0.6, 1.2, 1.8
    assert sent(switches.with_bursts(neuron(), 5), row(2.6), 3) == [2, 3, 2]
    assert sent(switches.with_bursts(neuron(), 2), row(2.6), 3) == [2, 2, 2]
    assert sent(switches.with_bursts(neuron(), 1), row(2.6), 3) == sent(neuron(), row(2.6), 3) == [1, 1, 1]
    assert sent(switches.with_bursts(neuron(), 5), row(-2.6), 3) == [0, 0, 0]


@pytest.mark.parametrize("most", [0, 16])
def test_bursts_out_of_range_are_refused(most: int) -> None:
    with pytest.raises(ConversionError, match="1 to 15"):
        switches.with_bursts(neuron(), most)


def test_bursts_are_refused_for_binary_networks_and_signed_spikes() -> None:
    with pytest.raises(ConversionError, match="full-precision"):
        switches.with_bursts(spiking(1), 5)
    with pytest.raises(ConversionError, match="signed"):
        switches.with_bursts(switches.with_signed_spikes(spiking(1, binary=False)), 5)


def test_real_weights_behind_a_pool_alone_are_no_binary_network() -> None:
    """Convolution, maximum pool, read-out: no sum over spikes but the read-out's own."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5))
    graph = from_module(module, torch.rand(2, 3, 8, 8))
    network = from_graph.convert(graph, dict.fromkeys(graph.observed, 0.5))
    assert any(layer.burst == 5 for layer in switches.with_bursts(network, 5).layers)


def test_only_one_engine_takes_bursts() -> None:
    network = switches.with_bursts(spiking(1, binary=False), 5)
    assert engines.choose(network, "cpu")[0] == "torch"
    for name in ("bindsnet", "packed"):
        with pytest.raises(EngineError, match=r"bursts|real weights"):
            engines.create(name, network)


def test_bursts_and_channels_come_nearer_to_the_network() -> None:
    """Thresholds low for most neurons, and spikes enough for the rest: the mean activation is carried in 8 steps."""
    source, batch = trained(3, binary=False), images(3, 64)
    table = table_of(source, batch)
    gaps = {}
    for name, method in {"baseline": Method(), "burst": Method(burst=15), "channels": Method(channels=True)}.items():
        whole = conversion.lambdas(table, method, 8, percentile=90.0, population="all")
        theta = channel_thresholds.thresholds(source, [batch], 90.0, "all", whole) if method.channels else whole
        network = conversion.convert(source, theta, method, 8)
        found = errors_by_layer.errors(source, network, theta, lambda: [batch], [8], 0.0)
        gaps[name] = float(found["total"].sum())
    assert gaps["burst"] < 0.7 * gaps["baseline"]
    assert gaps["channels"] < 0.95 * gaps["baseline"]
    assert gaps["channels"] < gaps["baseline"]
