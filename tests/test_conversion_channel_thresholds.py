"""Thresholds of channels: NumPy's percentiles, amplitudes in the next weights, refused for binary networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_checks import run
from networks_for_tests import images, thresholds, trained

from bsnn.config import Method
from bsnn.conversion import channel_thresholds
from bsnn.conversion.activations import observe
from bsnn.conversion.layers import SpikingNetwork
from bsnn.conversion.spiking import convert
from bsnn.engines.torch_engine import TorchEngine
from bsnn.errors import ConversionError
from bsnn.networks.vgg import Trained


def observed(source: Trained, batch: torch.Tensor) -> dict[str, np.ndarray]:
    """Activations by layer, float64 [channels, values]."""
    found: dict[str, np.ndarray] = {}
    observe(source, batch, lambda name, x: found.__setitem__(name, x.transpose(0, 1).flatten(1).double().numpy()))
    return found


def spikes(network: SpikingNetwork, batch: torch.Tensor, steps: int = 40) -> torch.Tensor:
    return run(TorchEngine(network), batch, [steps]).counts


def test_percentile_of_each_channel() -> None:
    source, batch = trained(1, binary=False), images(1, 12)
    whole = thresholds(source, batch)
    expected = observed(source, batch)
    for population in ("all", "positive"):
        found = channel_thresholds.thresholds(source, batch.split(5), 99.0, population, whole)
        assert list(found) == list(expected)
        for name, values in expected.items():
            for value, own in zip(found[name].tolist(), values, strict=True):
                chosen = own if population == "all" else own[own > 0]
                percentile = np.percentile(chosen, 99.0) if len(chosen) else 0.0
                assert value == pytest.approx(percentile if percentile > 0 else whole[name], rel=1e-5)  # other batches


def test_silent_channels_take_the_threshold_of_the_layer() -> None:
    source = trained(1, binary=False)
    source.module.get_parameter("conv2.weight")[3] = -1e6  # ReLU before it: never positive
    found = channel_thresholds.thresholds(
        source, [images(1, 4)], 99.9, "all", dict.fromkeys(observed(source, images(1, 4)), 7.0)
    )
    assert found["conv2"][3] == 7.0


def test_dropout_is_active_with_a_seed_alone() -> None:
    """The percentiles of what the network shows in training mode, under the same seed; afterwards all is as before."""
    source, batch = trained(1, binary=False, dropout=0.5), images(1, 12)
    whole = thresholds(source, batch)
    off = observed(source, batch)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        source.module.train()
        on = observed(source, batch)
        source.module.eval()
    before = torch.random.get_rng_state()
    for seed, expected in ((7, on), (None, off)):
        found = channel_thresholds.thresholds(source, [batch], 100.0, "all", whole, dropout_seed=seed)
        for name, values in expected.items():
            maxima = [float(own.max()) or whole[name] for own in values]
            assert found[name].tolist() == maxima, (seed, name)
    assert any(not np.array_equal(on[name], off[name]) for name in on)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not source.module.training


def test_no_images_are_refused() -> None:
    with pytest.raises(ConversionError, match="calibration images"):
        channel_thresholds.thresholds(trained(1, binary=False), [], 99.0, "all", {})


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("pool", ["average", "max"])
def test_equal_thresholds_of_all_channels_are_those_of_the_layer(pool: str, place: str) -> None:
    """Powers of two, so that amplitudes in the weights change no bit of a sum's ratio to its threshold."""
    source, batch = trained(2, binary=False, pool=pool, place=place), images(2, 4)
    whole = {name: 2.0 ** round(np.log2(theta)) for name, theta in thresholds(source, batch).items()}
    counted = observed(source, batch)
    by_channel = {name: torch.full((len(counted[name]),), theta, dtype=torch.float64) for name, theta in whole.items()}
    one, other = convert(source, whole), convert(source, by_channel)
    assert torch.equal(spikes(one, batch), spikes(other, batch))
    assert torch.equal(one.readout, other.readout)


def test_spikes_carry_their_channels_amplitude() -> None:
    """Over many steps every neuron's rate times its own threshold comes to its activation."""
    source, batch = trained(4, binary=False), images(4, 6)
    maxima = channel_thresholds.thresholds(source, [batch], 100.0, "all", thresholds(source, batch))
    network = convert(source, maxima)
    steps = 600
    engine = TorchEngine(network)
    rates: dict[str, torch.Tensor] = {}
    engine.observe = lambda layer, x: rates.__setitem__(layer.name, x.sum(0) / steps)
    engine.advance(engine.start(batch), steps)
    for name, values in observed(source, batch).items():
        carried = rates[name].transpose(0, 1).flatten(1).double() * maxima[name][:, None]
        assert float((carried - torch.from_numpy(values)).abs().mean()) < 0.02 * float(values.mean())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="tensors on two devices need an NVIDIA GPU, and none is here")
def test_network_on_a_gpu_is_converted_to_the_same() -> None:
    source, batch = trained(1, binary=False), images(1, 4)
    found = channel_thresholds.thresholds(source, [batch], 99.0, "all", thresholds(source, batch))
    expected = convert(source, found)
    source.module.cuda()
    moved = convert(source, found)
    assert torch.equal(moved.readout, expected.readout)
    assert all(
        torch.equal(one.weight, other.weight)
        for one, other in zip(moved.layers, expected.layers, strict=True)
        if one.weight is not None and other.weight is not None
    )


def test_binary_weights_cannot_carry_amplitudes() -> None:
    source, batch = trained(1), images(1, 4)
    found = channel_thresholds.thresholds(source, [batch], 99.0, "all", thresholds(source, batch))
    with pytest.raises(ConversionError, match=r"conv2.*one threshold per layer"):
        convert(source, found)


def test_combinations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="whole layers"):
        Method(channels=True, threshold="squared-error")
    with pytest.raises(ValueError, match="one spike per step"):
        Method(burst=3, signed=True)
    with pytest.raises(ValueError, match="one spike per step"):
        Method(burst=3, threshold="squared-error")
    with pytest.raises(ValueError, match="one spike per step"):
        Method(burst=3, initial=0.5, second_pass="srp")
