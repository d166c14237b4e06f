"""Methods of conversion on graphs of layers: equal spikes on engines, and against the family, NumPy and definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from engine_checks import assert_equal, run
from modules_for_tests import ResNet, binarised, randomised
from networks_for_tests import trained
from test_graphs_spiking import images, reference
from torch import Tensor, nn

import bsnn
from bsnn import engines
from bsnn.config.method import METHODS, Method
from bsnn.conversion import activations, balancing, channel_thresholds, corrections, from_graph, ideal, method, spiking
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, Thresholds
from bsnn.errors import ConversionError
from bsnn.graphs.description import Graph
from bsnn.graphs.forward import forward
from bsnn.graphs.reading import from_module
from bsnn.networks.vgg import described
from bsnn.simulation import accounting

STEPS = 8
FULL_ONLY = ("channel-thresholds", "burst")
ONE_PASS = [name for name, switches in METHODS.items() if "second_pass" not in switches]


@cache
def resnet(*, binary: bool) -> Graph:
    torch.manual_seed(0)
    module = randomised(ResNet(blocks=1, width=4))
    return from_module(binarised(module) if binary else module, images(2, 8))


@cache
def table(graph_is_binary: bool):
    return activations.collect(resnet(binary=graph_is_binary), lambda: [images(16, 8, seed=1)])


def converted(switches: Method, *, binary: bool) -> tuple[SpikingNetwork, Thresholds]:
    graph, batch = resnet(binary=binary), images(16, 8, seed=1)
    how = {"percentile": 99.0, "population": "positive"}
    theta = method.thresholds(graph, table(binary), switches, STEPS, batch, **how)  # type: ignore[arg-type]
    return method.convert(graph, theta, switches, STEPS, batch), theta


@pytest.mark.parametrize("name", [name for name in ONE_PASS if name not in FULL_ONLY])
def test_engines_send_equal_spikes_by_every_method(name: str) -> None:
    network, _ = converted(Method.model_validate(METHODS[name]), binary=True)
    batch = images(4, 8, seed=2)
    found = run(engines.create("torch", network), batch, [5, 3])
    assert network.exact
    assert bool((found.counts.sum((0, 2)) > 0).all())
    assert_equal(run(engines.create("bindsnet", network), batch, [STEPS]), found)
    assert_equal(run(engines.create("packed", network), batch, [2, 6]), found)


def test_a_corrected_network_sends_what_the_definition_says() -> None:
    network, _ = converted(Method(threshold="squared-error", initial=0.5, correction="bias", signed=True), binary=True)
    batch = images(4, 8, seed=2)
    assert_equal(run(engines.create("torch", network), batch, [STEPS]), reference(network, batch, STEPS))


@pytest.mark.parametrize("name", [name for name in ONE_PASS if name not in FULL_ONLY and "correction" not in name])
def test_a_member_of_the_family_sends_the_same_as_its_description(name: str) -> None:
    """Read as a module, it is a graph; thresholds and counts are those of the family, bit by bit."""
    source, batch = trained(3, pool="average", place="before"), images(12, 8, seed=1)
    switches = Method.model_validate({**METHODS[name], "correction": "none"})
    graph = from_module(source.module, batch[:2])
    assert graph.observed == described(source).observed
    found = activations.collect(source, lambda: [batch])
    counts, curves = [], []
    for one in (source, graph):
        how = {"percentile": 99.0, "population": "positive"}
        theta = method.thresholds(one, found, switches, STEPS, batch, **how)  # type: ignore[arg-type]
        network = method.convert(one, theta, switches, STEPS, batch)
        counts.append(run(engines.create("torch", network), batch, [STEPS]).counts)
        plain = method.convert(one, theta, switches.even(99.0) or Method(), STEPS)
        curves.append(ideal.predicted(plain, batch, [1, STEPS, ideal.INFINITE]))
    assert torch.equal(*counts)
    assert torch.equal(*curves)


def evaluated(graph: Graph, batch: Tensor, carried: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Logits in float64, layer by layer as described; `carried` changes the activations of observed layers."""
    outputs = {"(image)": batch.double()}
    for layer in graph.layers:
        total = torch.zeros(len(batch), *layer.shape, dtype=torch.float64)
        for path in layer.paths:
            x = outputs[path.source]
            if path.op == "linear" and path.weight is not None:
                x = x.flatten(1) @ path.weight.double().T
            elif path.weight is not None:
                x = F.conv2d(x, path.weight.double(), None, path.stride, path.padding)
            if path.pool is not None:
                x = F.avg_pool2d(x, path.pool.kernel, path.pool.stride, path.pool.padding)
            scale = torch.ones(len(layer.shape) and layer.shape[0]) if path.scale is None else path.scale
            total += (x * scale.double().reshape(-1, *[1] * (x.dim() - 2))).reshape(total.shape)
        if layer.bias is not None:
            total += layer.bias.reshape(-1, *[1] * (total.dim() - 2))
        total = total.relu() if layer.kind == "relu" else total
        outputs[layer.name] = carried(layer.name, total) if layer.name in graph.observed else total
    return outputs[graph.layers[-1].name]


@pytest.mark.parametrize("binary", [True, False])
def test_ideal_curve_against_float64(binary: bool) -> None:
    graph, batch = resnet(binary=binary), images(40, 8, seed=3)
    network, theta = converted(Method(initial=0.5), binary=binary)
    found = ideal.predicted(network, batch, [3, 64, ideal.INFINITE])
    for column, steps in enumerate([3, 64, None]):

        def carried(name: str, a: Tensor, steps: int | None = steps) -> Tensor:
            own = theta[name]
            return a.clamp(max=own) if steps is None else (a * steps / own + 0.5).floor().clamp(0, steps) * own / steps

        logits = evaluated(graph, batch, carried)
        top = logits.sort(1).values
        sure = top[:, -1] - top[:, -2] > 0.01 * logits.std()
        assert int(sure.sum()) >= 20
        assert torch.equal(found[sure, column].long(), logits.argmax(1)[sure])


@pytest.mark.parametrize("binary", [True, False])
def test_balanced_thresholds_against_float64(binary: bool) -> None:
    graph, batch = resnet(binary=binary), images(10, 8, seed=3)
    expected: dict[str, float] = {}

    def clipped(name: str, a: Tensor) -> Tensor:
        theta = 0.0
        for _ in range(200):
            theta += 2 * float((a - theta).clamp(min=0).mean())
        expected[name] = theta
        return a.clamp(max=theta)

    evaluated(graph, batch, clipped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balancing, "ITERATIONS", 200)
        assert balancing.thresholds(graph, batch) == pytest.approx(expected, rel=1e-4)


def test_corrections_follow_every_path_before_them() -> None:
    """After the correction of potentials each layer lacks just what it was given, all before it being corrected.

    The counter-test: without its shortcut, a layer would have been given something else.
    """
    graph, batch = resnet(binary=True), images(16, 8, seed=1)
    plain, theta = converted(Method(initial=0.5), binary=True)
    means = corrections.mean_activations(graph, batch.split(5))
    found = corrections.corrected(plain, theta, means, batch, STEPS, "potential")
    for index, layer in enumerate(plain.layers):
        partly = replace(plain, layers=(*found.layers[:index], *plain.layers[index:]))
        counts = run(engines.create("bindsnet", partly), batch, [STEPS]).counts[:, index].sum(0).double().mean()
        wanted = STEPS * means[layer.name].sum() / theta[layer.name]
        assert given(layer, found.layers[index]) == pytest.approx(float(wanted - counts), abs=1e-3)
    index = next(place for place, layer in enumerate(plain.layers) if len(layer.paths) > 1)
    alone = replace(plain.layers[index], paths=plain.layers[index].paths[:1])
    without = replace(plain, layers=(*plain.layers[:index], alone, *plain.layers[index + 1 :]))
    other = corrections.corrected(without, theta, means, batch, STEPS, "potential").layers[index]
    assert abs(given(alone, other) - given(plain.layers[index], found.layers[index])) > 1


def given(before: SpikingLayer, after: SpikingLayer) -> float:
    """Charge of all neurons of a layer that was added, in thresholds."""
    assert before.threshold is not None
    assert before.initial is not None
    assert after.initial is not None
    spread = (-1, *[1] * (len(before.shape) - 1))
    added = (after.initial - before.initial.reshape(spread)) / before.threshold.reshape(spread)
    return float(added.double().sum())


def test_spikes_carry_their_channels_amplitude_along_all_paths() -> None:
    """Over many steps every neuron's rate times its own threshold comes to its activation."""
    graph, batch = resnet(binary=False), images(4, 8, seed=4)
    whole = dict.fromkeys(graph.observed, 1.0)
    maxima = channel_thresholds.thresholds(graph, [batch], 100.0, "all", whole)
    network = spiking.convert(graph, maxima)
    engine, steps = engines.create("torch", network), 800
    rates: dict[str, Tensor] = {}
    engine.observe = lambda layer, x: rates.__setitem__(layer.name, x.mean(0))  # type: ignore[attr-defined]
    engine.advance(engine.start(batch), steps)
    shown: dict[str, Tensor] = {}
    logits = forward(graph, batch, shown.__setitem__)
    for name, values in shown.items():
        amplitude = maxima[name].reshape(-1, *[1] * (values.dim() - 2))
        assert float((rates[name] * amplitude - values).abs().mean()) < 0.03 * float(values.mean()) + 0.002
    assert network.readout_bias is not None
    read = rates[network.layers[-1].name].flatten(1).double() @ network.readout.T + network.readout_bias
    assert torch.allclose(read.float(), logits, atol=0.05 * float(logits.std()))


def test_thresholds_of_channels_in_groups_and_flattened_maps() -> None:
    torch.manual_seed(0)
    first, grouped = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, groups=2, bias=False)
    module = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), grouped, nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    graph = from_module(module.eval(), images(2, 8))
    names = graph.observed
    theta = {names[0]: torch.tensor([1.0, 2.0, 3.0, 4.0]), names[1]: torch.arange(1.0, 7.0)}
    network = spiking.convert(graph, theta)
    weight = next(layer for layer in network.layers if layer.name == names[1]).paths[0].weight
    each = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(3, 0)[:, :, None, None]
    assert torch.equal(weight, grouped.weight.detach() * each)  # type: ignore[arg-type]
    last = module[-1].weight.detach().double()  # type: ignore[union-attr]
    assert torch.equal(network.readout, last * torch.arange(1.0, 7.0).repeat_interleave(4))


def test_binary_weights_cannot_carry_amplitudes() -> None:
    graph = resnet(binary=True)
    theta = {name: torch.ones(graph.layer(name).shape[0]) for name in graph.observed}
    with pytest.raises(ConversionError, match=r"before 'blocks\.0\.conv1'.*one threshold per layer"):
        from_graph.convert(graph, theta)


def test_layers_that_binary_weights_read_keep_one_threshold() -> None:
    """Binary 3x3 convolutions, the second behind a maximum pool, and a real shortcut, as most binary networks have."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shortcut = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 1)
            self.binary, self.second = (nn.Conv2d(*channels, 3, padding=1, bias=False) for channels in ((4, 6), (6, 5)))
            for layer in (self.binary, self.second):
                layer.weight.data = 0.1 * layer.weight.data.sign()
            self.last = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            x = F.max_pool2d((self.binary(x) + self.shortcut(x)).relu(), 2)
            return cast(Tensor, self.last(self.second(x).relu().mean((2, 3))))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, batch = Mixed(), images(8, 8)
    graph = from_module(module, batch)
    first, middle, last, *_ = graph.observed
    whole = dict.fromkeys(graph.observed, 0.5)
    found = channel_thresholds.thresholds(graph, [batch], 99.0, "all", whole)
    assert (found[first], found[middle]) == (0.5, 0.5)
    assert isinstance(found[last], Tensor)
    assert found[last].shape == (5,)
    bsnn.to_spiking(graph, [batch], method=Method(channels=True), population="positive")


def test_operations_at_each_spikes_place() -> None:
    """NeuroBench's way: spikes and weights replaced by ones, passed through each path, and summed."""
    network, _ = converted(Method(initial=0.5), binary=True)
    batch = images(3, 8, seed=5)
    engine = engines.create("torch", network)
    sent: dict[str, Tensor] = {}
    engine.observe = lambda layer, x: sent.__setitem__(layer.name, x.clone())  # type: ignore[attr-defined]
    engine.advance(engine.start(batch), 3)
    expected = []
    for layer in network.layers:
        for path in layer.paths:
            if path.source == "(image)":
                expected.append(torch.zeros(3))
                continue
            x = sent[path.source].flatten(0, 1)
            if path.weight is not None:
                ones = torch.ones_like(path.weight, dtype=torch.float32)
                x = F.conv2d(x, ones, None, path.stride, path.padding)
            expected.append(x.unflatten(0, (3, -1)).flatten(1).sum(1))
    expected.append(sent[network.layers[-1].name].flatten(1).sum(1) * network.classes)
    assert torch.equal(accounting.counted(network, batch.split(2), 3), torch.stack(expected).double())


def test_a_correction_in_three_calls_is_measured_on_the_first_images() -> None:
    graph, batch = resnet(binary=True), images(12, 8, seed=1)
    chosen = Method(correction="channel", initial=0.5)
    options = {"percentile": 99.0, "population": "positive", "method": chosen, "steps": STEPS}
    found = bsnn.to_spiking(graph, batch.split(5), measured=7, **options)  # type: ignore[arg-type]
    theta = method.lambdas(
        activations.collect(graph, lambda: batch.split(5)), chosen, STEPS, percentile=99.0, population="positive"
    )
    expected = method.convert(graph, theta, chosen, STEPS, batch[:7])
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert torch.equal(one.initial, other.initial)  # type: ignore[arg-type]
    again = bsnn.to_spiking(graph, batch.split(5), measured=12, **options)  # type: ignore[arg-type]
    assert not torch.equal(again.layers[-1].initial, found.layers[-1].initial)  # type: ignore[arg-type]
