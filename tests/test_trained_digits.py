"""The recipe of config.yaml on digits, trained for real: accuracy, and engines that agree on what training made."""

from functools import partial
from pathlib import Path

import pytest
import torch
from engine_checks import assert_equal, run
from torch import Tensor

from bsnn import config, datasets, engines
from bsnn.config import Weights
from bsnn.conversion import activations, spiking, thresholds
from bsnn.conversion.layers import SpikingNetwork
from bsnn.engines.torch_engine import TOLERANCE
from bsnn.networks.vgg import Trained
from bsnn.simulation.readout import Readout
from bsnn.training import train

STEPS, PERCENTILE = 100, 99.9
EXPERIMENT = config.load(Path(__file__).parent.parent / "config.yaml").experiments["digits"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> datasets.DataSet:
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare(EXPERIMENT.data, folder / "digits.safetensors", {"version": 1}, cache=folder)
    return datasets.load(folder / "digits.safetensors")


@pytest.fixture(scope="module")
def networks(data: datasets.DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[Weights, Trained]:
    compute = config.Compute(accelerator="cpu")
    fit = partial(train.fit, EXPERIMENT, seed=0, data=data, compute=compute)
    full = fit(weights="full", checkpoints=tmp_path_factory.mktemp("full"), start=None)[0]
    binary = fit(weights="binary", checkpoints=tmp_path_factory.mktemp("binary"), start=full)[0]
    return {"full": full, "binary": binary}


def batch(network: Trained, split: datasets.Split, count: int | None = None) -> tuple[Tensor, Tensor]:
    order = datasets.evenly(len(split), count)
    [(images, labels)] = split.batches(order, len(order), "cpu")
    return datasets.Normalise(network.mean, network.std)(images), labels


def converted(network: Trained, data: datasets.DataSet) -> SpikingNetwork:
    calibration, _ = batch(network, data.train, 500)
    table = thresholds.from_table(activations.collect(network, lambda: [calibration]), PERCENTILE, "all")
    return spiking.convert(network, dict(zip(table["layer"], table["threshold"], strict=True)))


def accuracy(network: Trained, data: datasets.DataSet) -> float:
    images, labels = batch(network, data.test)
    with torch.no_grad():
        return float((network.module(images).argmax(1) == labels).double().mean())


def test_networks_reach_their_accuracy(networks: dict[Weights, Trained], data: datasets.DataSet) -> None:
    full, binary = accuracy(networks["full"], data), accuracy(networks["binary"], data)
    assert full >= 0.985
    assert abs(full - binary) <= 0.01


@pytest.mark.parametrize("weights", ["full", "binary"])
def test_spiking_network_comes_within_half_a_point(
    networks: dict[Weights, Trained], data: datasets.DataSet, weights: Weights
) -> None:
    network = networks[weights]
    images, labels = batch(network, data.test)
    spiking_network = converted(network, data)
    engine = engines.create(engines.choose(spiking_network, "cpu")[0], spiking_network)
    reading = Readout(spiking_network, len(images)).advance(run(engine, images, [STEPS]).spikes)
    found = float((reading.predicted[-1] == labels).double().mean())
    assert abs(found - accuracy(network, data)) <= 0.005


def test_engines_agree_on_the_binary_network(networks: dict[Weights, Trained], data: datasets.DataSet) -> None:
    """Layer by layer, step by step, image by image."""
    network = converted(networks["binary"], data)
    images, _ = batch(networks["binary"], data.test, 100)
    expected = run(engines.create("bindsnet", network), images, [64])
    assert int(expected.counts.sum((0, 2)).min()) > 0
    assert_equal(run(engines.create("torch", network), images, [50, 14]), expected)
    assert_equal(run(engines.create("packed", network), images, [7, 57]), expected)


def test_engines_agree_on_the_full_network_within_the_tolerance(
    networks: dict[Weights, Trained], data: datasets.DataSet
) -> None:
    network = converted(networks["full"], data)
    images, _ = batch(networks["full"], data.test, 100)
    one, *others = (run(engines.create(name, network), images, [64]).counts for name in ("bindsnet", "torch", "packed"))
    for other in others:
        differing = (one - other).abs().sum((0, 2)).double() / one.sum((0, 2))
        assert float(differing.max()) <= TOLERANCE
