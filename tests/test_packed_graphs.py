"""Engine `packed` on networks whose layers are sums of paths: the same spikes as the definition and as `torch`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_checks import assert_equal, in_eighths, run
from graphs_for_tests import images, reference, spiking
from modules_for_tests import ResNet, binarised, randomised
from random_graphs import STEPS, random_graph
from torch import Tensor

from bsnn import engines
from bsnn.conversion.layers import SpikingLayer, SpikingNetwork
from bsnn.engines import packed_layers, packed_terms
from bsnn.engines.packed import PackedEngine
from bsnn.engines.packed_layers import memory
from bsnn.engines.packed_terms import maps
from bsnn.engines.torch_engine import TorchEngine
from bsnn.graphs.description import IMAGE, Path, Pool
from bsnn.graphs.reading import from_module

CPU = torch.device("cpu")


def batch_of(network: SpikingNetwork, seed: int, count: int = 2) -> Tensor:
    return torch.randn(count, *network.input_shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 6))])
def test_random_sums_of_any_paths(part: int) -> None:
    """Kernels, strides, paddings, dilations, groups, pools at both places, scales, biases, signs, schedules."""
    sent = 0
    for seed in range(100 * part, 100 * part + 100):
        network = random_graph(seed)
        batch = batch_of(network, seed, 1 + seed % 3)
        expected = run(TorchEngine(network), batch, (STEPS,))
        try:
            assert_equal(run(PackedEngine(network), batch, ((7,), (3, 4), (1, 5, 1))[seed % 3]), expected)
            if seed % 10 == 0:
                assert_equal(expected, reference(network, batch, STEPS))
        except AssertionError as error:
            raise AssertionError(f"random_graph({seed}): {error}") from error
        sent += bool(expected.counts[:, -1].any())
    assert sent > 70, "networks that are silent at the end prove little"


def test_random_sums_of_real_weights() -> None:
    """Where float32 holds all sums, their order does not matter: the same spikes to the last one."""
    sent = real = 0
    for seed in range(600, 700):
        network = in_eighths(random_graph(seed), seed)
        batch = batch_of(network, seed, 1 + seed % 3)
        expected = run(TorchEngine(network), batch, (STEPS,))
        try:
            assert_equal(run(PackedEngine(network), batch, ((7,), (3, 4), (1, 5, 1))[seed % 3]), expected)
        except AssertionError as error:
            raise AssertionError(f"in_eighths(random_graph({seed})): {error}") from error
        real += not network.exact
        sent += bool(expected.counts[:, -1].any())
    assert real > 70
    assert sent > 60, "networks that are silent at the end prove little"


def test_binary_resnet20() -> None:
    torch.manual_seed(0)
    graph = from_module(binarised(randomised(ResNet(blocks=3, width=4))), images(2))
    network = spiking(graph, images(8, seed=1), initial=0.5)
    batch = images(2, seed=2)
    expected = run(TorchEngine(network), batch, [10])
    assert len(network.firing) == 19
    assert bool((expected.counts.sum((0, 2)) > 0).all())
    assert_equal(run(PackedEngine(network), batch, [4, 6]), expected)
    assert_equal(run(engines.create("bindsnet", network), batch, [10]), expected)


def test_a_product_is_rounded_before_it_is_added() -> None:
    """-3 (1 + 2^-23) is rounded to -(3 + 2^-21), and with 3 + 2^-21 makes 0; added unrounded it leaves 2^-23."""
    first = SpikingLayer("first", "sum", (3,), threshold=torch.ones(3), paths=(Path(IMAGE, "identity", "image"),))
    signs, source = torch.ones(1, 3, dtype=torch.int8), torch.tensor([[1, 1, 1]], dtype=torch.int8)
    paths = (
        Path("first", "linear", "three", signs, torch.tensor([-(1 + 2.0**-23)])),
        Path("first", "linear", "again", source, torch.tensor([(3 + 2.0**-21) / 3])),
    )
    assert float(paths[1].scale * torch.tensor(3.0)) == 3 + 2.0**-21  # type: ignore[operator]
    second = SpikingLayer("second", "sum", (1,), threshold=torch.tensor([2.0**-23]), paths=paths)
    network = SpikingNetwork((first, second), torch.ones(2, 1, dtype=torch.float64), (3,))  # type: ignore[arg-type]
    found = run(PackedEngine(network), torch.ones(1, 3), [3])
    assert found.counts[:, :, 0].tolist() == [[3, 0]] * 3
    assert_equal(found, reference(network, torch.ones(1, 3), 3))


@pytest.mark.parametrize("size", [100, 3000, 20000])
def test_bands_of_rows_and_chunks_of_steps_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_layers, "HELD", size)
    for seed in range(1000, 1015):
        network = random_graph(seed)
        batch = batch_of(network, seed)
        assert_equal(run(PackedEngine(network), batch, [6, 1]), run(TorchEngine(network), batch, [7]))


@pytest.mark.parametrize("threads", [2, 5])
def test_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in range(1030, 1045):
            network = random_graph(seed)
            batch = batch_of(network, seed, 1 + seed % 3)
            assert_equal(run(PackedEngine(network), batch, [7]), run(TorchEngine(network), batch, [7]))
    finally:
        torch.set_num_threads(before)


def test_spikes_that_are_still_read_are_not_overwritten() -> None:
    """Layers whose spikes share bytes are never needed at the same time; and bytes are shared."""
    shared = 0
    for seed in range(50):
        network = random_graph(seed)
        sizes = [some.size for some in maps(network).values()]
        names = [layer.name for layer in network.layers]
        readers = [[path.source for path in paths] for paths in network.sums]
        last = [max([number for number, some in enumerate(readers) if name in some], default=-1) for name in names]
        begins, size = memory(network)
        assert size <= sum(sizes)
        shared += size < sum(sizes)
        for later in range(len(names)):
            for earlier in range(later):
                if last[earlier] >= later:
                    apart = begins[earlier] + sizes[earlier] <= begins[later] or (
                        begins[later] + sizes[later] <= begins[earlier]
                    )
                    assert apart, f"random_graph({seed}): {names[earlier]} and {names[later]}"
    assert shared > 10


def _after(path: Path, shape: tuple[int, ...], **fields: object) -> SpikingNetwork:
    """A layer of 40 channels of 6 x 6 that reads the image, and one more."""
    image = Path(IMAGE, "conv", "image", torch.ones(40, 1, 3, 3), padding=(1, 1))
    first = SpikingLayer("first", "sum", (40, 6, 6), threshold=torch.ones(40), paths=(image,))
    given = {"threshold": torch.ones(shape[:1]), "paths": (path,), **fields}
    second = SpikingLayer("second", "sum", shape, **given)  # type: ignore[arg-type]
    return SpikingNetwork((first, second), torch.zeros(2, second.neurons, dtype=torch.float64), (1, 6, 6))


def test_largest_sums() -> None:
    """Every neuron fires, and all weights are one: sums near the end of 16 bits, in groups near half of it."""
    wide, pool = torch.ones(2, 40, 11, 11, dtype=torch.int8), Pool("average", (4, 4), (2, 2))
    path = Path("first", "conv", "wide", wide, padding=(5, 5), pool=pool)
    groups = replace(path, weight=wide[:, :20], groups=2, pool=replace(pool, kernel=(3, 3)))
    for given, largest in ((path, 40 * 36 * 16), (groups, 20 * 36 * 9)):
        network = _after(given, (2, 2, 2), threshold=torch.full((2,), float(largest)))
        batch = torch.ones(1, 1, 6, 6) * 2
        found = run(PackedEngine(network), batch, [3])
        assert found.counts[:, 1, 0].tolist() == [8, 8, 8]
        assert_equal(found, reference(network, batch, 3))


def test_refuses_what_it_cannot_do() -> None:
    kernel = torch.ones(4, 40, 3, 3)
    shape = (4, 4, 4)
    real = _after(Path("first", "conv", "real", kernel[:, :20], groups=2), shape)
    assert "'real' has real weights in groups" in str(PackedEngine.refuses(real, CPU))
    infinite = _after(Path("first", "conv", "infinite", torch.full_like(kernel, torch.inf)), shape)
    assert "layer 'second' has weights that are NaN or infinite" in str(PackedEngine.refuses(infinite, CPU))
    zero = _after(Path("first", "conv", "zero", torch.zeros_like(kernel, dtype=torch.int8)), shape)
    assert "layer 'second' has weights other than +-1" in str(PackedEngine.refuses(zero, CPU))
    signs = kernel.to(torch.int8)
    silent = _after(Path("first", "conv", "silent", signs), shape, threshold=None)
    assert "no neurons" in str(PackedEngine.refuses(silent, CPU))
    large, pool = torch.ones(2, 20, 11, 11, dtype=torch.int8), Pool("average", (4, 4), (2, 2))
    path = Path("first", "conv", "large", large, padding=(5, 5), groups=2, pool=pool)
    assert "46080 spikes (each counts twice because of groups) may" in str(
        PackedEngine.refuses(_after(path, (2, 2, 2)), CPU)
    )


def test_auto_takes_it_for_binary_graphs() -> None:
    assert engines.choose(random_graph(1), "cpu")[0] == "packed"


def _gaussian(network: SpikingNetwork, seed: int) -> SpikingNetwork:
    """Other weights in place of the real ones."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(path: Path) -> Path:
        real = path.weight is not None and path.weight.is_floating_point() and path.source != IMAGE
        return replace(path, weight=torch.randn(path.weight.shape, generator=generator)) if real else path  # type: ignore[union-attr]

    layers = [replace(layer, paths=tuple(map(drawn, layer.paths))) for layer in network.layers]
    return replace(network, layers=tuple(layers))


@pytest.mark.parametrize(("held", "cached", "threads"), [(100, 2**12, 2), (3000, 2**15, 5), (20000, 2**20, 1)])
def test_order_of_real_sums_depends_on_nothing_else(
    held: int, cached: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of all bits: equal potentials, to the last one, for any bands, chunks, lanes, threads and blocks."""

    def potentials(network: SpikingNetwork, batch: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        engine = PackedEngine(network)
        state = engine.start(batch)
        for steps in blocks:
            state, _ = engine.advance(state, steps)
        return state.tensors["potential"]  # type: ignore[return-value]

    before = torch.get_num_threads()
    for seed in range(600, 630):
        network = _gaussian(in_eighths(random_graph(seed), seed), seed)
        batch = batch_of(network, seed, 3)
        expected = potentials(network, batch, (7,))
        with monkeypatch.context() as patch:
            patch.setattr(packed_layers, "HELD", held)
            patch.setattr(packed_terms, "CACHED", cached)
            torch.set_num_threads(threads)
            try:
                found = potentials(network, batch, (1, 5, 1))
            finally:
                torch.set_num_threads(before)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True)), seed
