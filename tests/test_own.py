"""Networks of one's own from Python: logits are compared on calibration images, inputs are checked."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from modules_for_tests import ResNet, randomised
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from bsnn import own
from bsnn.errors import ConfigError, ConversionError, EngineError
from bsnn.graphs.description import Graph
from bsnn.graphs.reading import from_module


def images(count: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def read(module: nn.Module | None = None) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    module = module or randomised(ResNet(blocks=1, width=4))
    return module, from_module(module, images(2))


def test_logits_are_compared_on_calibration_images() -> None:
    module, graph = read()
    module.train()
    own.to_spiking(graph, images().split(4), percentile=99)
    assert module.training
    module.fc.bias.data += 1e-3
    with pytest.raises(ConversionError, match=r"calibration images: .* differ by 0\.001.*read it again"):
        own.to_spiking(graph, images().split(4), percentile=99)


def test_a_deviation_that_the_example_does_not_show_is_found_in_any_batch() -> None:
    """Its forward looks at values of the image, behind the back of torch.export."""

    class Deviating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = randomised(ResNet(blocks=1, width=4))
            self.bright = False

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + (1.0 if self.bright else 0.0)

    module, graph = read(Deviating().eval())
    seen = []

    class Batches:
        def __iter__(self):  # type: ignore[no-untyped-def]
            for batch in images().split(4):
                module.bright = len(seen) == 2
                seen.append(len(batch))
                yield batch

    with pytest.raises(ConversionError, match=r"calibration images: .* differ by 1"):
        own.to_spiking(graph, Batches())
    assert seen == [4, 4, 4]


def test_results_name_their_engine_and_count_spikes_per_image() -> None:
    _, graph = read()
    network = own.to_spiking(graph, images().split(4), percentile=99)
    result = own.simulate(network, [(images(6), torch.zeros(6, dtype=torch.int64))], steps=5)
    assert result.engine.startswith("packed: ")
    assert result.accuracy is not None
    assert result.accuracy.shape == (5,)
    assert list(result.spikes_per_image) == list(graph.observed)
    total = sum(float(spikes.sum()) for spikes in result.spikes_per_image.values())
    assert total == pytest.approx(float(result.simulation.counts.sum()) / 6)


def test_bad_inputs_are_refused() -> None:
    _, graph = read()
    data = TensorDataset(images())
    with pytest.raises(ConfigError, match="not an iterator"):
        own.to_spiking(graph, iter(images().split(4)))
    with pytest.raises(ConfigError, match="shuffle=False"):
        own.to_spiking(graph, DataLoader(data, 4, shuffle=True))
    with pytest.raises(ConversionError, match=r"torch\.float64"):
        own.to_spiking(graph, [images().double()])
    with pytest.raises(ConfigError, match="no images"):
        own.simulate(own.to_spiking(graph, DataLoader(data, 4)), [], steps=2)
    with pytest.raises(ConfigError, match="accuracy needs labels"):
        own.ann_accuracy(graph, [images()])


@pytest.mark.parametrize(
    "chosen",
    [
        {"sampler": SubsetRandomSampler(range(12)), "batch_size": 4},
        {"sampler": WeightedRandomSampler(torch.ones(12), 12), "batch_size": 4},
        {"batch_sampler": BatchSampler(RandomSampler(range(12)), 4, drop_last=False)},
    ],
)
def test_loaders_of_random_order_are_refused(chosen: dict[str, Any]) -> None:
    _, graph = read()
    with pytest.raises(ConfigError, match="batch 1 had other images, or in another order, the second time"):
        own.to_spiking(graph, DataLoader(TensorDataset(images()), **chosen))


def test_inputs_of_other_types_are_refused() -> None:
    _, graph = read()
    network = own.to_spiking(graph, images().split(4), percentile=99)
    for labels in (None, {"y": 1}, ["a"] * 12):
        with pytest.raises(ConfigError, match=rf"12 images are {type(labels).__name__}, no tensor of numbers"):
            own.simulate(network, [(images(), labels)], steps=2)
    with pytest.raises(ConfigError, match="give batches"):
        own.simulate(network, images(), steps=2)
    with pytest.raises(ConfigError, match="give batches"):
        own.to_spiking(graph, images())
    with pytest.raises(ConversionError, match="a batch holds tuple"):
        own.simulate(network, [()], steps=2)
    for device, words in (("gpu", "'gpu': give cpu or cuda"), ("cuda:99", "CUDA device|only .* CUDA")):
        with pytest.raises((ConfigError, EngineError), match=words):
            own.simulate(network, [images()], steps=2, device=device)
    with pytest.raises(ConfigError, match=r"steps is 3\.0: give a whole number"):
        own.simulate(network, [images()], steps=3.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps is 0: give at least one"):
        own.to_spiking(graph, images().split(4), steps=0)
    for percentile, words in ((101.0, "less than or equal to 100"), (99.9999, "decimals")):
        with pytest.raises(ConfigError, match=words):
            own.to_spiking(graph, iter(()), percentile=percentile)


@pytest.mark.parametrize("engine", ["bindsnet", "packed", "torch"])
def test_any_name_of_a_module_will_do(engine: str) -> None:
    """BindsNET knows layers and inputs by their names in one place."""
    torch.manual_seed(0)
    layers = OrderedDict(input=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), flat=nn.Flatten(), image=nn.Linear(144, 10))
    graph = from_module(nn.Sequential(layers), images(2))
    network = own.to_spiking(graph, images().split(4), percentile=99)
    found, expected = (own.simulate(network, [images()], steps=8, engine=name) for name in (engine, "torch"))
    assert float(found.spikes_per_image["input"].sum()) > 0
    assert torch.equal(found.simulation.predicted, expected.simulation.predicted)


def test_images_steps_and_labels_of_another_network_are_refused() -> None:
    _, graph = read()
    with pytest.raises(ConfigError, match=r"images are \[3, 16, 16\], and the network was read for \[3, 8, 8\]"):
        own.to_spiking(graph, [torch.randn(4, 3, 16, 16)], percentile=99)
    network = own.to_spiking(graph, images().split(4), percentile=99)
    with pytest.raises(ConfigError, match="steps is 0"):
        own.simulate(network, [images()], steps=0)
    with pytest.raises(ConfigError, match="labels are 20 to 20, and the network has 10 classes"):
        own.simulate(network, [(images(), torch.full((12,), 20))], steps=2)
    with pytest.raises(ConfigError, match="labels are -1 to -1"):
        own.ann_accuracy(graph, [(images(), torch.full((12,), -1))])


def test_labels_of_another_shape_are_refused() -> None:
    _, graph = read()
    network = own.to_spiking(graph, images().split(4), percentile=99)
    labels = torch.arange(12) % 10
    row, column = [(images(), labels)], [(images(), labels[:, None].float())]
    simulated = [own.simulate(network, given, steps=4).accuracy for given in (row, column)]
    assert torch.equal(*simulated)  # type: ignore[arg-type]
    assert own.ann_accuracy(graph, column) == own.ann_accuracy(graph, row)
    for wrong in (nn.functional.one_hot(labels), labels + 0.5, labels[:1], labels[None]):
        with pytest.raises(ConfigError, match=r"12 images are torch\.\w+ \[.*argmax"):
            own.simulate(network, [(images(), wrong)], steps=2)
        with pytest.raises(ConfigError, match=r"12 images are torch\.\w+ \[.*argmax"):
            own.ann_accuracy(graph, [(images(), wrong)])
    with pytest.raises(ConfigError, match="1 labels for 12 images"):
        own.ann_accuracy(graph, [(images()[:1], labels[:1]), images()[1:]])
