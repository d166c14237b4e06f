"""The driver: nothing depends on how images and steps are cut up; early exit freezes what it says; the tables."""

from __future__ import annotations

from dataclasses import replace

import engine_checks as checks
import networks_for_tests as networks
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsnn.conversion.layers import SpikingNetwork
from bsnn.conversion.spiking import convert
from bsnn.engines.base import Block, Engine, State
from bsnn.engines.torch_engine import TorchEngine
from bsnn.errors import ConfigError
from bsnn.simulation import run as simulation
from bsnn.simulation.readout import Readout, accuracy

STEPS = 12


class Limited(TorchEngine):
    """Takes so few images and steps at once as it is asked to, and notes what it was given."""

    most = 1_000_000

    def block(self, images: int) -> int:
        return max(1, self.most // images)

    def start(self, images: Tensor) -> State:
        self.started = [*getattr(self, "started", []), len(images)]
        return super().start(images)

    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        self.advanced = [*getattr(self, "advanced", []), steps]
        return super().advance(state, steps)


def _network(seed: int = 0) -> SpikingNetwork:
    return checks.member("average-before", seed)


def _expected(network: SpikingNetwork, images: Tensor, steps: int = STEPS) -> tuple[Tensor, Tensor, Tensor]:
    block = checks.reference(network, images, steps)
    reading = Readout(network, len(images)).advance(block.spikes)
    return reading.predicted.T, reading.margin.T, block.counts.sum(2).T


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    most=st.integers(1, 60),
    seed=st.integers(0, 3),
)
def test_results_do_not_depend_on_batches_or_memory(sizes: list[int], most: int, seed: int) -> None:
    network, images = _network(seed), networks.images(seed, sum(sizes))
    engine = Limited(network)
    engine.most = most
    result = simulation.run(engine, images.split(sizes), STEPS)
    predicted, margin, counts = _expected(network, images)
    assert torch.equal(result.predicted, predicted)
    assert torch.equal(result.margin, margin)
    assert torch.equal(result.counts, counts)
    assert result.images.tolist() == [len(images)] * STEPS
    assert result.steps.tolist() == [STEPS] * len(images)


def test_shapes_types_and_names() -> None:
    network = _network()
    result = simulation.run(TorchEngine(network), [networks.images(0, 3)], STEPS)
    assert (result.predicted.shape, result.predicted.dtype) == ((3, STEPS), torch.int16)
    assert (result.margin.shape, result.margin.dtype) == ((3, STEPS), torch.float32)
    assert (result.counts.shape, result.counts.dtype) == ((5, STEPS), torch.int64)
    assert result.layers == ("conv1", "conv2", "conv3", "conv4", "fc1")
    assert result.neurons == (8 * 8 * 8, 8 * 4 * 4, 16 * 4 * 4, 16 * 2 * 2, 32)


def test_batches_are_split_until_several_steps_fit() -> None:
    engine = Limited(_network())
    engine.most = 32  # 4 images by 8 steps
    simulation.run(engine, [networks.images(0, 13)], STEPS)
    assert engine.started == [4, 4, 4, 1]
    assert engine.advanced == [8, 4] * 3 + [12]


def test_no_images() -> None:
    result = simulation.run(TorchEngine(_network()), [], STEPS)
    assert result.predicted.shape == (0, STEPS)
    assert not result.counts.any()
    assert not result.images.any()


def test_a_smaller_time_is_the_beginning_of_a_larger_one() -> None:
    network, images = _network(), networks.images(1, 5)
    long = simulation.run(TorchEngine(network), [images], STEPS)
    short = simulation.run(TorchEngine(network), [images], 5)
    assert torch.equal(long.predicted[:, :5], short.predicted)
    assert torch.equal(long.margin[:, :5], short.margin)
    assert torch.equal(long.counts[:, :5], short.counts)


def _exit_step(margin: Tensor, bound: float, every: int) -> Tensor:
    """First multiple of `every` at which each margin [N, T] has reached the bound; T if none."""
    steps = margin.shape[1]
    leaving = list(range(every, steps, every))
    return torch.tensor([next((s for s in leaving if row[s - 1] >= bound), steps) for row in margin.tolist()])


@pytest.mark.parametrize("every", [1, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_early_exit(seed: int, every: int) -> None:
    """Until they leave, images are as without; afterwards their results stay, and their spikes are not counted."""
    network, images = _network(seed), networks.images(seed, 11)
    predicted, margin, _ = _expected(network, images)
    bound = float(margin[:, 6].median())
    steps = _exit_step(margin, bound, every)
    result = simulation.run(
        TorchEngine(network), images.split([4, 7]), STEPS, early_exit=bound, exit_every=every, total=11
    )
    assert result.steps.tolist() == steps.tolist()
    assert steps.unique().numel() > 1, "all images leave at once: nothing is tested"
    last = torch.minimum(torch.arange(STEPS)[None], steps[:, None] - 1)
    assert torch.equal(result.predicted, predicted.gather(1, last))
    assert torch.equal(result.margin, margin.gather(1, last))
    simulated = torch.arange(STEPS)[:, None] < steps[None]
    assert torch.equal(result.images, simulated.sum(1))
    counts = checks.reference(network, images, STEPS).counts
    assert torch.equal(result.counts, (counts * simulated[:, None]).sum(2).T)


def test_early_exit_is_the_same_in_little_memory() -> None:
    """Images leave at the same steps, however short the blocks that memory allows."""
    network, images = _network(), networks.images(0, 6)
    bound = float(_expected(network, images)[1][:, 6].median())
    whole = simulation.run(TorchEngine(network), [images], STEPS, early_exit=bound, exit_every=4)
    engine = Limited(network)
    engine.most = 3  # steps of one image
    parted = simulation.run(engine, [images], STEPS, early_exit=bound, exit_every=4)
    assert max(engine.advanced) == 3
    assert whole.steps.unique().numel() > 1, "all images leave at once: nothing is tested"
    for name in ("steps", "predicted", "margin", "counts", "images"):
        assert torch.equal(getattr(parted, name), getattr(whole, name)), name


def test_early_exit_saves_steps() -> None:
    """Once all images have left, nothing more is simulated."""
    engine = Limited(_network())
    images = networks.images(0, 6)
    result = simulation.run(engine, [images], 400, early_exit=1e-9, exit_every=4)
    assert sum(engine.advanced) < 400
    assert sum(engine.advanced) == int(result.steps.max())


def test_an_unreachable_bound_changes_nothing() -> None:
    network, images = _network(), networks.images(0, 5)
    plain = simulation.run(TorchEngine(network), [images], STEPS)
    bounded = simulation.run(TorchEngine(network), [images], STEPS, early_exit=1e9)
    assert torch.equal(plain.predicted, bounded.predicted)
    assert torch.equal(plain.counts, bounded.counts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps and exit_every must be at least 1, found 0"),
        ({"exit_every": 0}, "found 5 and 0"),
        ({"early_exit": 0.0}, "early_exit must be positive, found 0.0"),
        ({"early_exit": float("nan")}, "early_exit must be positive, found nan"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulation.run(TorchEngine(_network()), [], **{"steps": 5, **changes})  # type: ignore[arg-type]


class Scripted(Engine):
    """Sends prepared spikes of two last units: a driver needs no neurons."""

    name = "scripted"
    script = torch.tensor([[[0, 0], [1, 0]], [[0, 1], [1, 0]], [[0, 1], [0, 1]]], dtype=torch.int8)

    @classmethod
    def refuses(cls, network: SpikingNetwork, device: torch.device) -> str | None:
        return None

    def block(self, images: int) -> int:
        return 3

    def start(self, images: Tensor) -> State:
        return State(which=torch.arange(len(images)))

    def advance(self, state: State, steps: int) -> tuple[State, Block]:
        which = state.tensors["which"]
        spikes = self.script[state.steps : state.steps + steps][:, which]
        state.steps += steps
        return state, Block(spikes, spikes.sum(2).long()[:, None])


def _scripted() -> simulation.Simulation:
    network = _network()
    two = replace(network, layers=(replace(network.layers[-1], shape=(2,)),), readout=torch.eye(2).double())
    return simulation.run(Scripted(two), [torch.zeros(2, 3, 8, 8)], 3)


def test_by_hand() -> None:
    """Image 0 sees (0,0) (0,1) (0,2); image 1 (1,0) (2,0) (2,1)."""
    result = _scripted()
    assert result.predicted.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert torch.equal(result.margin, torch.tensor([[0.0, 1 / 2, 2 / 3], [1.0, 1.0, 1 / 3]]))
    assert result.counts.tolist() == [[1, 2, 2]]
    assert accuracy(result.predicted, torch.tensor([1, 1])).tolist() == [0.0, 0.5, 0.5]


def test_tables_by_hand() -> None:
    predictions, spikes = simulation.to_tables(
        _scripted(), images=torch.tensor([7, 9]), labels=torch.tensor([1, 0]), ann=torch.tensor([1, 1])
    )
    assert predictions.to_pydict() == {
        "image": [7, 9],
        "label": [1, 0],
        "ann": [1, 1],
        "steps": [3, 3],
        "predicted": [[0, 1, 1], [0, 0, 0]],
        "margin": [[0.0, 0.5, pytest.approx(2 / 3)], [1.0, 1.0, pytest.approx(1 / 3)]],
    }
    types = {field.name: str(field.type) for field in predictions.schema}
    assert types == {
        "image": "int32",
        "label": "int16",
        "ann": "int16",
        "steps": "int32",
        "predicted": "list<item: int16>",
        "margin": "list<item: float>",
    }
    assert spikes.to_pydict() == {
        "layer": ["fc1"] * 3,
        "step": [1, 2, 3],
        "spikes": [1, 2, 2],
        "images": [2] * 3,
        "neurons": [2] * 3,
    }


def test_spikes_table_of_several_layers() -> None:
    network, images = _network(), networks.images(0, 4)
    result = simulation.run(TorchEngine(network), [images], STEPS)
    zeros = torch.zeros(4, dtype=torch.int64)
    _, table = simulation.to_tables(result, images=torch.arange(4), labels=zeros, ann=zeros)
    frame = table.to_pandas().set_index(["layer", "step"])
    counts = checks.reference(network, images, STEPS).counts.sum(2)
    for index, layer in enumerate(network.firing):
        assert frame.loc[layer.name, "spikes"].tolist() == counts[:, index].tolist()
        assert set(frame.loc[layer.name, "neurons"]) == {layer.neurons}
    assert isinstance(table, pa.Table)


def test_tables_need_one_label_an_image() -> None:
    two, three = torch.arange(2), torch.arange(3)
    with pytest.raises(ConfigError, match="labels has 3 entries for 2 simulated images"):
        simulation.to_tables(_scripted(), images=two, labels=three, ann=two)


@pytest.mark.parametrize("binary", [True, False])
def test_the_spiking_network_approaches_the_network_it_came_from(binary: bool) -> None:
    """With thresholds at the maximum nothing is clipped, and the mean input of the read-out becomes the logits."""
    source = networks.trained(3, binary=binary)
    images = networks.images(3, 64)
    network = convert(source, networks.thresholds(source, images, 100.0), initial=0.5)
    logits = source.module(images)
    engine, readout = TorchEngine(network), Readout(network, 64)
    errors = {}
    state, done = engine.start(images), 0
    for steps in (50, 800):
        state, block = engine.advance(state, steps - done)
        readout.advance(block.spikes)
        errors[steps] = float((readout.potential / steps - logits).abs().mean() / logits.std())
        done = steps
    assert errors[800] < 0.2 * errors[50]
    assert errors[800] < 0.02
