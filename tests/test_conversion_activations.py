"""The activation table of a network against NumPy on its concatenated activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import networks_for_tests as networks
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bsnn import artifacts
from bsnn.conversion.activations import collect, observe
from bsnn.conversion.percentiles import grid
from bsnn.errors import BsnnError
from bsnn.networks.vgg import Trained


def batches_of(images: Tensor, size: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: images.split(size)


def concatenated(network: Trained, batches: Callable[[], tuple[Tensor, ...]]) -> dict[str, np.ndarray]:
    """Every activation of each observed layer, as float64."""
    kept: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for batch in batches():
            observe(network, batch, lambda name, x: kept.setdefault(name, []).append(x.flatten().double().numpy()))
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def part(table: pd.DataFrame, layer: str, population: str) -> pd.DataFrame:
    return table[(table["layer"] == layer) & (table["population"] == population)]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_every_layer_equals_numpy(binary: bool, pool: str, place: str) -> None:
    network = networks.trained(3, binary=binary, pool=pool, place=place)
    batches = batches_of(networks.images(4, 23), 5)
    table = collect(network, batches)
    expected = concatenated(network, batches)
    assert ("conv2.pool" in expected) == (pool == "average" and place == "after")
    assert list(table["layer"].unique()) == list(expected)
    for layer, values in expected.items():
        for population, members in (("all", values), ("positive", values[values > 0])):
            rows = part(table, layer, population)
            np.testing.assert_array_equal(rows["percentile"], grid())
            np.testing.assert_array_equal(rows["value"], np.percentile(members, grid()))
            assert (rows["count"] == len(members)).all()
            assert (rows["maximum"] == members.max()).all()
            np.testing.assert_allclose(rows["mean"], members.mean(), rtol=1e-13)
    assert len(table) == 2 * len(grid()) * len(expected)


@pytest.mark.parametrize("settings", [{}, {"place": "after"}, {"pool": "max"}, {"keep_full": False}])
@pytest.mark.parametrize("features", [[8, 8, "P"], [8, "P", 8]])
def test_activations_are_those_of_the_network(settings: dict[str, object], features: list[object]) -> None:
    """Up to float32's rounding: only the first layer's sum is made in another way."""
    network, images = networks.trained(5, features=features, **settings), networks.images(6, 9)  # type: ignore[arg-type]
    shown: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    with torch.no_grad():
        observe(network, images, shown.__setitem__)
        network.module(images, expected.__setitem__)
    assert list(shown) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(shown[name], values, rtol=1e-4, atol=1e-5)


def test_dropout_is_off_and_the_mode_is_given_back() -> None:
    network = networks.trained(0, dropout=0.5)
    batches = batches_of(networks.images(1, 4), 2)
    expected = collect(network, batches)
    network.module.train()
    pd.testing.assert_frame_equal(collect(network, batches), expected)
    assert network.module.training


def test_table_survives_its_artifact(tmp_path: Path) -> None:
    table = collect(networks.trained(0), batches_of(networks.images(1, 4), 2))
    artifacts.write_table(tmp_path / "table.parquet", table, "activations", {"version": 1})
    columns = {"layer": "string", "population": "string", "percentile": "double", "value": "double"}
    columns |= {"count": "int64", "mean": "double", "maximum": "double"}
    read, _ = artifacts.read_table(tmp_path / "table.parquet", "activations", columns)
    assert read.schema.names == list(columns)
    assert read["value"].to_pylist() == table["value"].tolist()


def test_silent_layer_has_no_positive_population() -> None:
    network = networks.trained(0, binary=False)
    network.module.get_submodule("conv3").get_parameter("weight").data.abs_().neg_()
    table = collect(network, batches_of(networks.images(1, 4), 2))
    silent = part(table, "conv3", "all")
    assert (silent["value"] == 0).all()
    assert (silent["count"] == 4 * 16 * 4 * 4).all()
    assert (silent["mean"] == 0).all()
    nothing = part(table, "conv3", "positive")
    assert (nothing["count"] == 0).all()
    assert nothing[["value", "mean", "maximum"]].isna().to_numpy().all()


def test_weights_that_are_no_numbers_are_refused() -> None:
    network = networks.trained(0, binary=False)
    network.module.get_submodule("conv2").get_parameter("weight").data[3, 0, 1, 1] = float("nan")
    with pytest.raises(BsnnError, match=r"'conv2'.*NaN"):
        collect(network, batches_of(networks.images(1, 4), 2))


def test_second_pass_over_other_images_is_refused() -> None:
    seeds = iter((1, 2))
    with pytest.raises(BsnnError, match=r"'conv1'.*second pass"):
        collect(networks.trained(0), lambda: networks.images(next(seeds), 4).split(2))


def test_no_images_are_refused() -> None:
    with pytest.raises(BsnnError, match="no calibration images"):
        collect(networks.trained(0), list)
