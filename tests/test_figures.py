"""Figures show the tables' numbers, are the same for the same tables, and need nothing outside their file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import artifacts_for_tests as small
import numpy as np
import pytest

from bsnn import figures, tables
from bsnn.errors import ArtifactError
from bsnn.figures.near import limits


def collected(root: Path, **changes: object) -> tables.Results:
    chosen = small.settings(**changes)
    truth = small.random_truth(images=11, steps=changes.get("steps", 4))  # type: ignore[arg-type]
    return tables.collect(small.write_all(chosen, root, truth), small.NAME)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tables.Results:
    return collected(tmp_path_factory.mktemp("results"), seeds=[0, 1], percentile=[99.0, 100.0])


def test_every_figure_in_both_formats_the_same_again(results: tables.Results, tmp_path: Path) -> None:
    tables.write(results, tmp_path / "tables")
    figures.draw(results, tmp_path / "one")
    figures.draw(tmp_path / "tables", tmp_path / "two")
    names = {f"{name}.{kind}" for name in figures.FIGURES for kind in ("svg", "png")}
    for folder in ("one", "two"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        if name.endswith("svg"):
            text = (tmp_path / "one" / name).read_text()
            assert "<dc:date>" not in text
            assert not re.search(r'href="(?!#)', text)  # nothing to fetch


def test_accuracy_lines_are_the_mean_over_seeds(results: tables.Results) -> None:
    figure = figures.accuracy_over_time(results)
    assert [axis.get_title("left") for axis in figure.axes] == ["full-precision weights", "binary weights"]
    axis = figure.axes[1]
    frame = results["accuracy_over_time"]
    frame = frame[(frame["weights"] == "binary") & (frame["percentile"] == 100.0)]
    line = next(line for line in axis.lines if line.get_label() == "100")
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert np.allclose(line.get_ydata(), frame.groupby("step")["accuracy"].mean())
    dashed = next(line for line in axis.lines if line.get_linestyle() == "--")
    ann = results["accuracy"].query("weights == 'binary'")["ann_mean"].iloc[0]
    assert dashed.get_ydata() == [ann, ann]
    assert axis.get_xscale() == "linear"


def test_long_times_are_on_a_logarithmic_axis(tmp_path: Path) -> None:
    figure = figures.accuracy_over_time(collected(tmp_path, steps=40, time=[40], weights=["binary"]))
    assert len(figure.axes) == 1
    assert figure.axes[0].get_xscale() == "log"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2", "4", "8", "16", "32"]


def test_rates_are_shares_of_the_activations(results: tables.Results) -> None:
    frame = results["rates"].copy()
    silent = (frame["weights"] == "full") & (frame["layer"] == "fc1")
    frame.loc[silent, "ratio"] = 0.0
    changed = tables.Results(results.config, results.name, {**results.frames, "rates": frame})
    axis = figures.rates(changed).axes[0]
    (points,) = (line for line in axis.lines if line.get_label() == "99")
    expected = frame[(frame["weights"] == "full") & (frame["percentile"] == 99)]["ratio"].tolist()
    assert points.get_ydata().tolist() == expected
    assert expected[-1] == 0
    assert [label.get_text() for label in axis.get_xticklabels()] == ["conv1", "fc1"]


def test_rates_of_an_entirely_silent_network_are_still_drawn(results: tables.Results, tmp_path: Path) -> None:
    frame = results["rates"].assign(estimate=0.0, ratio=0.0)
    figures.draw(tables.Results(results.config, results.name, {**results.frames, "rates": frame}), tmp_path)
    assert (tmp_path / "rates.svg").stat().st_size > 0


def test_spikes_follow_the_layers_of_the_network(results: tables.Results) -> None:
    axis = figures.spikes_by_layer(results).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["conv1", "fc1"]
    frame = results["spikes_by_layer"].query("weights == 'full' and percentile == 99.0")
    line = next(line for line in axis.lines if line.get_label() == "99")
    assert line.get_ydata().tolist() == frame["spikes_per_neuron"].tolist()
    assert "4 steps" in axis.get_ylabel()


def test_accuracy_begins_where_curves_differ() -> None:
    rising = [10.0, 10.0, 60.0, 97.0, 98.0]
    low, high = limits(rising, [99.0], [98.0, 96.0])
    assert (low, high) == pytest.approx((84.0 - 0.75, 99.0 + 0.75))  # 12 points below the lowest end, and some room
    low, high = limits([10.0, 40.0], [99.0], [40.0, 12.0])
    assert low < 10 < 99 < high  # one that never gets there is shown where it ends


def test_no_point_lies_outside_its_panel(results: tables.Results) -> None:
    frame = results["spikes_by_layer"].copy()
    frame.loc[frame["weights"] == "binary", "spikes_per_neuron"] *= 3  # the second panel reaches higher
    changed = tables.Results(results.config, results.name, {**results.frames, "spikes_by_layer": frame})
    for name, picture in figures.FIGURES.items():
        for axis in picture.draw(changed).axes:
            low, high = axis.get_ylim()
            heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
            assert (heights <= high).all(), name
            assert (heights >= low).all() or name.startswith("accuracy_over"), name


def test_training_has_a_line_for_each_seed(results: tables.Results) -> None:
    loss, accuracy = figures.training(results).axes
    assert sorted(line.get_ydata().tolist() for line in loss.lines) == [[1.5, 0.5]] * 2 + [[1.5, 1.5]] * 2
    assert len(accuracy.lines) == 8  # training and test


def test_figures_need_their_tables(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="make the tables first"):
        figures.draw(tmp_path / "none", tmp_path)


def test_tables_and_report_load_neither_torch_nor_matplotlib() -> None:
    code = "import sys, bsnn.figures, bsnn.report.more; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
