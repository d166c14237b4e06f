"""Modules read into descriptions: the same logits; what cannot be read is listed at once, with place and remedy."""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from modules_for_tests import Depthwise, RandomNet, ResNet, Strided, binarised, random_images, randomised
from torch import Tensor, nn

from bsnn.errors import ConversionError
from bsnn.graphs.description import IMAGE, READOUT
from bsnn.graphs.forward import forward
from bsnn.graphs.reading import from_module
from bsnn.simulation import energy


def batch(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet20": (lambda: randomised(ResNet()), (2, 3, 16, 16)),
    "resnet20, binary": (lambda: binarised(randomised(ResNet())), (2, 3, 16, 16)),
    "depthwise": (lambda: randomised(Depthwise()), (2, 3, 16, 16)),
    "strided": (lambda: randomised(Strided()), (2, 3, 16, 16)),
    "linear": (lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), (2, 12)),
}


@pytest.mark.parametrize("name", MODULES)
def test_logits_are_the_modules_own_in_double_precision(name: str) -> None:
    torch.manual_seed(1)
    make, shape = MODULES[name]
    module = make().eval()
    graph = from_module(module, batch(*shape))
    images = batch(5, *shape[1:], seed=1)
    found = forward(graph, images.double())
    with torch.no_grad():
        expected = module.double()(images.double())
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_torchvision_resnet18() -> None:
    torch.manual_seed(0)
    module = randomised(torchvision.models.resnet18(num_classes=5))
    graph = from_module(module, batch(2, 3, 64, 64))
    assert len(graph.observed) == 17
    assert graph.layer("layer2.0.conv2").sources == ("layer2.0.conv1", "layer1.1.conv2")


def test_torchvision_vgg11_bn_on_small_images() -> None:
    """Its adaptive pool enlarges a single place to 7 x 7: the weights of places that hold one value are added up."""
    torch.manual_seed(0)
    module = randomised(torchvision.models.vgg11_bn(num_classes=5))
    module.classifier[3] = nn.Linear(4096, 64)
    module.classifier[6] = nn.Linear(64, 5)
    graph = from_module(module, batch(2, 3, 32, 32))
    assert graph.layer("classifier.0").paths[0].weight.shape == (4096, 512)  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_random_graphs(count: int) -> None:
    @settings(max_examples=count, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 10_000))
    def check(seed: int) -> None:
        module = RandomNet(seed)
        images = random_images(seed)
        graph = from_module(module, images)
        with torch.no_grad():
            expected = module.double()(images.double())
        assert torch.allclose(forward(graph, images.double()), expected, rtol=1e-9, atol=1e-9)

    check()


def test_binary_weights_are_recognised_and_batch_norm_leaves_them_so() -> None:
    module = binarised(randomised(ResNet(blocks=1, width=4)))
    graph = from_module(module, batch(2, 3, 8, 8))
    assert graph.binary == tuple(name for name, part in module.named_modules() if isinstance(part, nn.Conv2d))[1:]
    path = graph.layer("blocks.0.conv2").paths[0]
    conv, norm = module.blocks[0].conv2, module.blocks[0].bn2
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    assert bool((factor < 0).any())
    assert path.weight.dtype == torch.int8  # type: ignore[union-attr]
    assert torch.equal(
        path.weight[:, 0, 0, 0], (torch.sign(conv.weight[:, 0, 0, 0]) * torch.sign(factor)).to(torch.int8)
    )  # type: ignore[index]
    assert torch.allclose(path.scale, conv.weight[:, 0, 0, 0].double().abs() * factor.abs(), rtol=1e-12)  # type: ignore[arg-type]


def test_sums_that_go_on_without_relu_are_read_again_by_each_reader() -> None:
    """A pre-activation ResNet: what its skip connection adds up becomes paths of every later layer."""

    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), conv(), conv()
            self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.conv1(F.relu(self.norm1(x)))
            x = x + self.conv2(F.relu(self.norm2(x)))
            return self.fc(F.relu(self.norm3(x)).mean((2, 3)))

    graph = from_module(randomised(PreActivation()), batch(2, 3, 8, 8))
    last = graph.layers[-3]
    assert [path.name for path in last.paths] == ["stem", "conv1", "conv2"]


def test_weights_computed_from_parameters_are_constants() -> None:
    class Signs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latent = nn.Parameter(torch.randn(6, 8))
            self.first, self.last = nn.Linear(4, 8), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            alpha = self.latent.abs().mean(1, keepdim=True)
            return self.last(F.relu(F.linear(F.relu(self.first(x)), torch.sign(self.latent) * alpha)))

    graph = from_module(Signs(), batch(2, 4))
    assert [path.binary for path in graph.paths] == [False, True, False]


def test_the_module_is_left_as_it_was_and_dropout_is_off() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.9), nn.ReLU(), nn.Linear(8, 2))
    module[0].eval()
    graph = from_module(module, batch(1, 4))
    assert [part.training for part in module] == [False, True, True, True]
    assert graph.input_shape == (4,)
    assert graph.layers[0].sources == (IMAGE,)


def test_a_value_changed_in_place_is_seen_changed() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y = self.second(F.relu(x, inplace=True))
            return self.last(F.relu(y + x))

    graph = from_module(InPlace(), batch(2, 4))
    assert graph.layer("second").sources == ("first", "first")


def after(*layers: nn.Module) -> nn.Module:
    """A convolution and ReLU, then these layers, then logits."""
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *layers, *tail)


class Function(nn.Module):
    """A function of the middle of a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def conv() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return (x.flatten(2) + self.attention(tokens, tokens, tokens)[0].transpose(1, 2)).reshape(x.shape)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lstm(x[:, 0])[0][:, None]


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * F.relu(x.mean((2, 3), keepdim=True))


def turning(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    norm.weight.data[1] = -1.0
    return norm


UNSUPPORTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "GELU": (lambda: after(nn.GELU()), r"2 \(GELU\).*activation other than ReLU \(gelu\)\. .*nn\.ReLU"),
    "ReLU6": (lambda: after(conv(), nn.ReLU6()), r"3 \(ReLU6\).*activation other than ReLU \(hardtanh\)"),
    "batch norm that turns maxima": (
        lambda: after(conv(), nn.MaxPool2d(2), turning(nn.BatchNorm2d(4)), nn.ReLU()),
        r"4 \(BatchNorm2d\).*a negative factor.*between a maximum pool and its ReLU",
    ),
    "LeakyReLU": (lambda: after(conv(), nn.LeakyReLU()), r"activation other than ReLU \(leaky_relu\)"),
    "sigmoid, functional": (lambda: after(Function(torch.sigmoid)), r"test_graphs_reading.py line \d+.*\(sigmoid\)"),
    "attention": (lambda: after(Attention()), r"2\.attention \(MultiheadAttention\): a MultiheadAttention"),
    "LSTM": (lambda: after(Recurrent()), r"2\.lstm \(LSTM\): a LSTM"),
    "instance norm": (lambda: after(conv(), nn.InstanceNorm2d(4), nn.ReLU()), "statistics of its own input"),
    "group norm": (lambda: after(conv(), nn.GroupNorm(2, 4), nn.ReLU()), "statistics of the image itself"),
    "layer norm": (lambda: after(conv(), nn.LayerNorm([4, 8, 8]), nn.ReLU()), r"image itself \(layer_norm\)"),
    "batch statistics": (
        lambda: after(conv(), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()),
        "track_running_stats=True",
    ),
    "batch norm after ReLU": (lambda: after(nn.BatchNorm2d(4), conv(), nn.ReLU()), "put it before the ReLU"),
    "normalisation": (
        lambda: nn.Sequential(Function(lambda x: (x - 0.5) / 0.25), after()),
        r"made of \(image\)\. leave it out of the module, and normalise images in the data set",
    ),
    "no ReLU between": (lambda: after(conv(), conv(), nn.ReLU()), "a convolution of what has no ReLU yet"),
    "gate": (lambda: after(Gate()), "leave out gates such as squeeze-and-excitation"),
    "joined": (lambda: after(Function(lambda x: torch.cat([x[:, :2], x[:, 2:]], 1))), r"joined value \(slice\)"),
    "ceil_mode": (lambda: after(nn.MaxPool2d(3, 2, ceil_mode=True)), "ceil_mode=False"),
    "border average": (lambda: after(nn.AvgPool2d(3, 1, 1, count_include_pad=False)), "count_include_pad=True"),
    "uneven adaptive pool": (lambda: after(nn.AdaptiveAvgPool2d(3)), "whose windows differ in size"),
    "transposed": (lambda: after(nn.ConvTranspose2d(4, 4, 2), nn.ReLU()), "a convolution other than Conv2d"),
    "upsampling": (lambda: after(nn.Upsample(scale_factor=2)), "interpolation"),
    "reflected border": (
        lambda: after(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        "padding_mode='zeros'",
    ),
    "functional dropout": (lambda: after(Function(F.dropout)), "active in evaluation"),
    "softmax": (lambda: nn.Sequential(after(), nn.Softmax(1)), "at the end leave it out"),
    "ends in ReLU": (lambda: nn.Sequential(after(), nn.ReLU()), "end with nn.Linear"),
    "a map": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), "pool and flatten it"),
    "pooled image": (lambda: nn.Sequential(nn.AvgPool2d(2), after()), "a pool of the image itself"),
    "broadcast": (lambda: after(Function(lambda x: x + x[:, :1])), r"joined value \(slice\)"),
    "halves": (lambda: after(Function(lambda x: x.half().float())), "keep float32 throughout"),
    "noise": (lambda: after(Function(lambda x: x + torch.rand(8))), "random numbers in evaluation"),
    "a bound for each channel": (
        lambda: after(conv(), Function(lambda x: torch.clamp(x, min=torch.zeros(4, 1, 1)))),
        r"activation other than ReLU \(clamp\)",
    ),
    "a factor that makes channels": (
        lambda: after(nn.Conv2d(4, 1, 3), Function(lambda x: x * torch.ones(4, 1, 1)), nn.ReLU()),
        r"a constant that enlarges a value of \[1, 6, 6\] to \[4, 6, 6\]",
    ),
    "a number that makes channels": (
        lambda: after(nn.Conv2d(4, 1, 3), Function(lambda x: torch.ones(4, 1, 1) - x), nn.ReLU()),
        r"a constant that enlarges a value of \[1, 6, 6\] to \[4, 6, 6\]",
    ),
    "linear on maps": (lambda: after(nn.Linear(8, 8), nn.ReLU()), "flatten the map first"),
}


SEVERAL = ("attention", "LSTM", "joined")  # the test's own slices and transpositions are listed as well


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str) -> None:
    make, message = UNSUPPORTED[name]
    with pytest.raises(ConversionError) as caught:
        from_module(make(), batch(2, 3, 8, 8))
    assert ("for 1 reason:" in str(caught.value)) == (name not in SEVERAL)
    assert re.search(message, str(caught.value), re.IGNORECASE), str(caught.value)


def test_all_that_is_unsupported_is_listed_at_once() -> None:
    module = after(nn.GELU(), conv(), nn.GroupNorm(2, 4), nn.SiLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Gate())
    with pytest.raises(ConversionError) as caught:
        from_module(module, batch(2, 3, 8, 8))
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert [re.match(r"  (\d)\. (\d)", line).groups() for line in lines[1:]] == [  # type: ignore[union-attr]
        ("1", "2"),
        ("2", "4"),
        ("3", "5"),
        ("4", "6"),
        ("5", "7"),
    ]


def test_an_average_with_a_divisor_of_its_own_takes_the_bias_along() -> None:
    pool = nn.AvgPool2d(2, divisor_override=2)
    module, x = nn.Sequential(after(conv(), pool, nn.ReLU())), batch(2, 3, 8, 8)
    assert torch.allclose(forward(from_module(module, x), x), module(x), atol=1e-5)


def test_no_hidden_layer_has_the_name_of_the_read_out() -> None:
    """Under which tables have the last layer."""
    names = OrderedDict(readout=nn.Linear(4, 8), relu=nn.ReLU(), last=nn.Linear(8, 2))
    graph = from_module(nn.Sequential(names), batch(2, 4))
    assert [layer.name for layer in graph.layers] == ["readout.2", "logits"]
    assert READOUT == energy.READOUT


def test_what_torch_cannot_follow_is_said_so() -> None:
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConversionError, match=r"torch.export cannot follow the module.*must not choose its way"):
        from_module(Choosing(), batch(2, 4))


def test_logits_that_depend_on_more_than_the_images_are_noticed() -> None:
    calls = itertools.count()

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x) * (1 + 1e-4 * next(calls))

    with pytest.raises(ConversionError, match="other logits than the module"):
        from_module(Counting(), batch(2, 4))


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (nn.Linear(4, 2).double(), batch(2, 4), "must be float32"),
        (nn.Linear(4, 2), batch(2, 4).double(), "must be float32"),
        (nn.Linear(4, 2), batch(4), r"the example is \[4\]"),
        (nn.Linear(4, 2), batch(2, 4) / 0, "NaN or infinity"),
        (nn.Linear(4, 2), batch(2, 4), "read from the spikes of one layer"),
        (nn.Linear(4, 2), batch(2, 5), "itself cannot take the example"),
        (nn.LSTM(4, 2), batch(2, 4), "gives a tuple"),
    ],
)
def test_other_inputs_are_refused(module: nn.Module, example: Tensor, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        from_module(module, example)
