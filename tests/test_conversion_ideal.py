"""Ideal quantised curves and balanced thresholds, against plain float64 NumPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks_for_tests import images, spiking, thresholds, trained
from torch import Tensor

from bsnn import engines
from bsnn.conversion import balancing, ideal, switches
from bsnn.conversion.from_graph import image_terms
from bsnn.conversion.layers import SpikingNetwork
from bsnn.conversion.spiking import convert
from bsnn.errors import ConversionError
from bsnn.networks.vgg import Trained
from bsnn.simulation.run import run


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """3x3 convolution with padding 1 of [N, in, height, width]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    taps = [(i, j, padded[:, :, i : i + height, j : j + width]) for i in range(3) for j in range(3)]
    return sum(np.einsum("oc,nchw->nohw", weight[:, :, i, j], part) for i, j, part in taps)


def forward(source: Trained, batch: Tensor, carried: object) -> np.ndarray:
    """Logits of the network in NumPy; `carried` changes the activations of a layer, by its name."""
    x = batch.double().numpy()
    for layer in source.plan:
        weight = source.module.get_parameter(f"{layer.name}.weight").double().numpy()
        x = convolved(x, weight) if layer.op == "conv" else x.reshape(len(x), -1) @ weight.T
        if layer == source.plan[-1]:
            break
        if layer.pool is not None and layer.place == "before":
            x = pooled(x, layer.pool)
        x = carried(layer.name, np.maximum(x, 0))  # type: ignore[operator]
        if layer.pool is not None and layer.place == "after":
            x = pooled(x, layer.pool)
            x = carried(f"{layer.name}.pool", x) if layer.pool == "average" else x  # type: ignore[operator]
    return x


def pooled(x: np.ndarray, kind: str) -> np.ndarray:
    windows = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2)
    return windows.mean((3, 5)) if kind == "average" else windows.max((3, 5))


@pytest.mark.parametrize("initial", [0.0, 0.5])
@pytest.mark.parametrize("pool", [("average", "before"), ("average", "after"), ("max", "before"), ("max", "after")])
@pytest.mark.parametrize("binary", [True, False])
def test_curve_against_float64(binary: bool, pool: tuple[str, str], initial: float) -> None:
    """Layer by layer theta / T * clip(floor(a T / theta + f), 0, T); classes, but where two logits are near-equal."""
    source, batch = trained(4, binary=binary, pool=pool[0], place=pool[1]), images(5, 40)
    theta = thresholds(source, batch, 97.0)
    network = convert(source, theta, initial=initial)
    times = [1, 3, 8, 64]
    found = ideal.predicted(network, batch, [*times, ideal.INFINITE])
    for column, steps in enumerate([*times, None]):

        def carried(name: str, a: np.ndarray, steps: int | None = steps) -> np.ndarray:
            if steps is None:
                return np.minimum(a, theta[name])
            return theta[name] / steps * np.clip(np.floor(a * steps / theta[name] + initial), 0, steps)

        logits = forward(source, batch, carried)
        expected = logits.argmax(1)
        classes = found[:, column].numpy()
        top = np.sort(logits, 1)
        sure = top[:, -1] - top[:, -2] > 0.01 * logits.std()
        assert sure.sum() >= 20 or steps in (1, 3)
        np.testing.assert_array_equal(classes[sure], expected[sure])


def test_counts_are_whole_and_the_same_in_any_batch() -> None:
    network, batch = spiking(7, initial=0.5), images(8, 9)
    for steps in (5, ideal.INFINITE):
        whole = ideal.propagated(network, image_terms(network, batch), steps)
        alone = torch.cat([ideal.propagated(network, image_terms(network, one), steps) for one in batch.split(2)])
        assert torch.equal(whole, alone)
        assert torch.equal(whole, whole.round())
        assert 0 <= float(whole.min()) < float(whole.max()) <= steps


def test_digits_give_the_same_sums_as_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = spiking(7), images(8, 5)
    terms = image_terms(network, batch)
    found = ideal.propagated(network, terms, ideal.INFINITE)
    monkeypatch.setattr(ideal, "direct_sums", lambda device: False)
    assert torch.equal(found, ideal.propagated(network, terms, ideal.INFINITE))


def test_first_layer_sends_what_its_curve_says() -> None:
    """Its input is even, so that a simulation sends the very spikes of the curve, as long as T spikes are enough."""
    network, batch = spiking(3, initial=0.5), images(4, 6)
    first = SpikingNetwork(network.layers[:1], torch.ones(2, network.layers[0].neurons).double(), network.input_shape)
    engine = engines.create("torch", first)
    sent = engine.advance(engine.start(batch), 7)[1].spikes.sum(0)
    found = ideal.propagated(first, image_terms(first, batch), 7).flatten(1)
    assert float((sent - found).abs().sum()) <= 0.001 * float(found.sum())  # float32 potentials round


def test_gap_to_the_simulation_closes_with_time() -> None:
    source, batch = trained(6), images(7, 60)
    network = convert(source, thresholds(source, batch, 100.0), initial=0.5)
    steps = 512
    simulated = run(engines.create("packed", network), [batch], steps).predicted[:, -1]
    found = ideal.predicted(network, batch, [steps])[:, 0]
    assert float((simulated == found).double().mean()) > 0.9


def test_what_has_no_curve() -> None:
    network = spiking(1)
    with pytest.raises(ConversionError, match="'conv1' has currents of a shift"):
        ideal.predicted(switches.with_shift(network, 4), images(1, 1), [4])
    with pytest.raises(ConversionError, match="signed spikes"):
        ideal.predicted(switches.with_signed_spikes(network), images(1, 1), [4])
    with pytest.raises(ConversionError, match="at least 1 time step, found 0"):
        ideal.predicted(network, images(1, 1), [0])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("pool", [("average", "before"), ("average", "after"), ("max", "after")])
def test_balanced_thresholds_against_float64(binary: bool, pool: tuple[str, str]) -> None:
    """The recursion over all activations, with what lies before clipped."""
    source, batch = trained(2, binary=binary, pool=pool[0], place=pool[1]), images(3, 12)
    expected: dict[str, float] = {}

    def clipped(name: str, a: np.ndarray) -> np.ndarray:
        theta = 0.0
        for _ in range(balancing.ITERATIONS):
            theta += 2 * np.maximum(a - theta, 0).mean()
        expected[name] = theta
        return np.minimum(a, theta)

    forward(source, batch, clipped)
    found = balancing.thresholds(source, batch)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-4)


def test_balanced_thresholds_do_not_depend_on_the_order_of_images() -> None:
    source, batch = trained(2), images(3, 12)
    assert balancing.thresholds(source, batch) == balancing.thresholds(source, batch.flip(0))


def test_balanced_by_hand() -> None:
    """Of 0, 0, 1, 3: theta 0 -> 2; then 2 + 2 * 1 / 4 = 2.5, 2.75, ...: halfway to 3 each time."""
    values = torch.tensor([0.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    assert balancing.balanced("x", values) == pytest.approx(3.0)
    with pytest.MonkeyPatch.context() as patch:
        for steps, theta in ((1, 2.0), (2, 2.5), (3, 2.75)):
            patch.setattr(balancing, "ITERATIONS", steps)
            assert balancing.balanced("x", values) == pytest.approx(theta)


def test_balanced_thresholds_need_images_and_activations() -> None:
    with pytest.raises(ConversionError, match="there are none"):
        balancing.thresholds(trained(2), images(3, 0))
    with pytest.raises(ConversionError, match="'conv1' never gave a positive activation"):
        balancing.thresholds(trained(2), torch.zeros(2, 3, 8, 8))
