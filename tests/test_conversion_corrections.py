"""Corrections: by hand, against float64, and each layer's after what lies before it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_checks import run as blocks
from networks_for_tests import images, neuron, row, thresholds, trained

from bsnn import engines
from bsnn.config import Method
from bsnn.conversion import corrections, switches
from bsnn.conversion import method as conversion
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork, per_output
from bsnn.conversion.spiking import convert
from bsnn.errors import ConversionError, EngineError


@pytest.mark.parametrize(
    ("kind", "part", "expected"),
    [("potential", "initial", [0.1, 0.25]), ("channel", "initial", [0.175]), ("bias", "bias", [0.175 / 4])],
)
def test_corrections_by_hand(kind: corrections.Correction, part: str, expected: list[float]) -> None:
    # in 4 steps, 0.3 and 0.5 send 1 and 2 of the 1.2 and 2.0 wanted; 0.25 and 0.625 send 1 and 2 of 1.0 and 2.5
    pictures = torch.cat([row(0.3, 0.25), row(0.5, 0.625)])
    means = {"conv1": pictures.double().mean(0)}
    found = corrections.corrected(neuron(units=2), {"conv1": 1.0}, means, pictures, 4, kind).layers[0]
    assert getattr(found, part).flatten().tolist() == pytest.approx(expected)


def test_corrections_follow_what_lies_before() -> None:
    """Each layer's charge is what the network lacks there once all layers before it are corrected."""
    source, batch, steps = trained(5), images(6, 24), 8
    theta = thresholds(source, batch)
    plain = switches.with_initial(convert(source, theta), 0.5)
    means = corrections.mean_activations(source, batch.split(7))
    found = corrections.corrected(plain, theta, means, batch, steps, "potential")
    for index, layer in enumerate(plain.layers):
        partly = replace(plain, layers=(*found.layers[:index], *plain.layers[index:]))
        engine = engines.create("packed", partly)
        counts = blocks(engine, batch, [steps]).counts[:, index].sum(0).double().mean()
        wanted = steps * means[layer.name].sum() / theta[layer.name]
        threshold = layer.threshold.reshape(-1, *[1] * (len(layer.shape) - 1))
        start = per_output(layer.initial, layer.shape).expand(layer.shape)
        added = ((found.layers[index].initial - start) / threshold).double().sum()
        assert float(added) == pytest.approx(float(wanted - counts), abs=1e-3)


@pytest.mark.parametrize("kind", ["potential", "channel", "bias"])
def test_currents_that_are_held_are_those_of_a_second_pass(
    kind: corrections.Correction, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, batch = trained(5), images(20, 24)  # more than are simulated at once
    theta = thresholds(source, batch)
    means, found = corrections.mean_activations(source, batch.split(7)), []
    for held in (corrections._HELD, 0):
        monkeypatch.setattr(corrections, "_HELD", held)
        found.append(corrections.corrected(convert(source, theta), theta, means, batch, 8, kind).layers)
    for one, other in zip(*found, strict=True):
        for part in ("initial", "bias"):
            first, second = getattr(one, part), getattr(other, part)
            assert (first is None and second is None) or torch.equal(first, second)


def test_temporal_correction_against_float64() -> None:
    """Two layers of neurons, step by step and round by round as in the formula."""
    generator = np.random.default_rng(3)
    pixels, signs = generator.random((5, 4)) * 1.2, generator.choice([-1, 1], (3, 4))
    first = neuron(0.9, units=4).layers[0]
    second = SpikingLayer("fc1", "linear", (3,), torch.tensor(signs).to(torch.int8), threshold=torch.tensor([1.5] * 3))
    network = SpikingNetwork((first, second), torch.ones(2, 3, dtype=torch.float64), (1, 1, 4))
    theta, steps = {"conv1": 0.9, "fc1": 1.3}, 6
    means = {"conv1": torch.tensor(pixels.mean(0)).reshape(1, 1, 4), "fc1": torch.tensor([0.4, 0.0, 1.1]).double()}
    batch = torch.tensor(pixels).float().reshape(5, 1, 1, 4)
    found = corrections.corrected(network, theta, means, batch, steps, "temporal")

    def settled(
        x: np.ndarray, threshold: float, wanted: np.ndarray, groups: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Currents [T, channels] and spikes [T, N, neurons], of x [T, N, neurons]."""
        v, rows, spikes = np.zeros(x.shape[1:]), [], []
        for current in x:
            b = np.zeros(len(wanted))
            for _ in range(10):
                mean = (v + current + b[groups] >= threshold).mean(0)
                rate = np.array([mean[groups == channel].mean() for channel in range(len(wanted))])
                b += 0.5 * threshold * (wanted - rate)
            s = v + current + b[groups] >= threshold
            v = v + current + b[groups] - s * threshold
            rows.append(b)
            spikes.append(s)
        return np.array(rows), np.array(spikes)

    wanted = np.array([pixels.mean() / 0.9])
    rows, spikes = settled(np.repeat(pixels[None], steps, 0), 0.9, wanted, np.zeros(4, int))
    np.testing.assert_allclose(found.layers[0].schedule, rows, atol=1e-5)
    wanted = means["fc1"].numpy() / 1.3
    rows, spikes = settled(spikes @ signs.T, 1.5, wanted, np.arange(3))
    np.testing.assert_allclose(found.layers[1].schedule, rows, atol=1e-5)
    assert blocks(engines.create("packed", found), batch, [4, 2]).spikes.tolist() == spikes.astype(int).tolist()


def test_temporal_correction_brings_each_step_nearer() -> None:
    """Every layer's mean spikes at each step, on the images that it is measured on, against the mean activation."""
    source, batch, steps = trained(5), images(6, 24), 6
    theta, method = thresholds(source, batch), Method(correction="temporal", initial=0.5)
    means = corrections.mean_activations(source, batch.split(7))
    wanted = torch.tensor([float(means[name].sum()) / theta[name] for name in theta])
    gaps = []
    for switches_on in (method.model_copy(update={"correction": "none"}), method):
        network = conversion.convert(source, theta, switches_on, steps, batch)
        sent = blocks(engines.create("torch", network), batch, [steps])
        gaps.append((sent.counts.double().mean(2) - wanted).abs().mean(0) / wanted)
    assert bool((gaps[1] < gaps[0]).all())
    assert gaps[1].sum() < 0.5 * gaps[0].sum()


def test_temporal_correction_is_for_its_own_steps() -> None:
    source, batch = trained(0), images(1, 8)
    network = conversion.convert(source, thresholds(source, batch), Method(correction="temporal"), 4, batch)
    assert all(layer.schedule.shape == (4, layer.shape[0]) for layer in network.layers)
    with pytest.raises(EngineError, match="currents for 4 time steps"):
        blocks(engines.create("packed", network), batch, [5])
    with pytest.raises(ConversionError, match="count it twice"):
        switches.with_initial(network, 0.5)


def test_corrections_need_images_and_what_they_stand_for() -> None:
    with pytest.raises(ConversionError, match="at least one"):
        corrections.mean_activations(trained(0), [])
    with pytest.raises(ConversionError, match="conv1"):
        corrections.corrected(neuron(), {}, {}, row(0.5), 4, "bias")
    with pytest.raises(ConversionError, match="calibration images"):
        conversion.convert(trained(0), thresholds(trained(0), images(1, 4)), Method(correction="bias"), 4)
