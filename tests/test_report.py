"""The report stands alone: everything in one file, user text escaped, numbers as in the tables."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import artifacts_for_tests as small
import numpy as np
import pytest
import yaml

from bsnn import config, figures, report, tables
from bsnn.errors import ArtifactError
from bsnn.pipeline import identity
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.report import about
from bsnn.tables.columns import compact
from bsnn.tables.costs_over_time import chosen, interval


class Page(HTMLParser):
    """Addresses, texts, identifiers and unclosed elements of a page."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})
    CODE = frozenset({"script", "style"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.names: list[str] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.names += [value or "" for name, value in attrs if name == "id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.CODE:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def collected(root: Path, **changes: object) -> tables.Results:
    chosen = small.settings(**changes)
    pipeline = small.write_all(chosen, root, small.random_truth(images=11), reason="fastest <here>", device="cpu")
    return tables.collect(pipeline, small.NAME)


def written(results: tables.Results, root: Path) -> str:
    figures.draw(results, root / "figures")
    report.write(results, root / "figures", root / "report.html")
    return (root / "report.html").read_text()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tables.Results:
    return collected(tmp_path_factory.mktemp("results"), percentile=[99.0, 99.9], shards=2)


@pytest.fixture(scope="module")
def text(results: tables.Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(results, tmp_path_factory.mktemp("report"))


def test_nothing_is_fetched(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert targets <= set(page.names)
    assert len(page.names) == len(set(page.names))
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"@import|url\(", style)
    assert re.findall(r"<script[^>]*>", text) == [
        '<script type="application/json" id="explorer-data">',
        '<script type="module">',
    ]


def test_every_figure_is_inside(text: str) -> None:
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    drawn = [base64.b64decode(data) for data in pictures]
    assert [data.startswith(b"<?xml") for data in drawn] == [False] + [True] * len(figures.FIGURES)
    assert b"<svg" in drawn[0]  # the explorer's, where scripts do not run


def test_user_text_is_escaped(text: str) -> None:
    page = Page(text)
    assert "Eight images &lt;of nothing&gt; &amp; more." in text
    assert "fastest <here>" in page.text
    assert "<here>" not in text


def test_glance_is_the_table(results: tables.Results, text: str) -> None:
    page = Page(text)
    frame = results["costs_over_time"].query("weights == 'binary' and percentile == 99.9").set_index("time")
    found = next(row for row in page.rows if row[:2] == ["binary", "99.9"])
    assert found[2] == f"{frame['ann'][2]:.2f}"
    for cell, time in zip(found[3:5], (2, 4), strict=True):
        row = frame.loc[time]
        interval = f"{row['low']:.1f} to {row['high']:.1f}"
        assert cell == f"{row['accuracy']:.2f}{interval}{compact(row['spikes_per_image'])} spikes"
    assert "ANN std" not in page.text  # one seed: no deviation


def test_several_seeds_are_averaged(tmp_path: Path) -> None:
    results = collected(tmp_path, seeds=[0, 1], weights=["full"])
    page = Page(written(results, tmp_path))
    first = results["accuracy"].iloc[0]
    assert any(row[:2] == ["full", "99"] and row[3].startswith(f"{first['snn_mean']:.2f}") for row in page.rows)
    assert "Means over 2 seeds." in page.text
    assert "Binary network" not in page.text  # there is none


def test_row_to_choose_has_the_fewest_spikes_that_are_near(results: tables.Results) -> None:
    """At 4 steps both percentiles are near the ANN; the one with fewer spikes is chosen, until it is too far."""
    frame = results["costs_over_time"].assign(drop=5.0)
    late = frame["time"] == 4
    few = late & (frame["percentile"] == 99.9)
    frame.loc[late, "drop"] = 0.4
    frame.loc[late, "spikes_per_image"] = 900.0
    frame.loc[few, "spikes_per_image"] = 800.0
    assert chosen(frame, [2, 4])[["percentile", "time", "near"]].values.tolist() == [[99.9, 4, True]] * 2
    frame.loc[few, "drop"] = 0.6
    assert chosen(frame, [2, 4])[["percentile", "time", "near"]].values.tolist() == [[99.0, 4, True]] * 2
    frame["drop"] = 5.0 + (frame["time"] == 4)
    assert chosen(frame, [2, 4])[["time", "near"]].values.tolist() == [[2, False]] * 2


def test_intervals_are_wilsons() -> None:
    """Brown, Cai and DasGupta (2001): 8 of 10 gives 0.490 to 0.943; nothing of 10 gives 0 to 0.278."""
    low, high = interval(np.array([80.0, 0.0]), 10)
    assert low.round(1).tolist() == [49.0, 0.0]
    assert high.round(1).tolist() == [94.3, 27.8]


def test_earlier_percentiles_are_shown(tmp_path: Path) -> None:
    collected(tmp_path, percentile=[99.9])
    results = collected(tmp_path, percentile=[99.0])
    page = Page(written(results, tmp_path))
    assert {row[1] for row in page.rows if row[:1] == ["full"] and len(row) == 6} == {"99", "99.9"}
    frame = results["costs_over_time"]
    assert frame.groupby("percentile")["asked"].first().to_dict() == {99.0: True, 99.9: False}
    assert set(results["accuracy"]["percentile"]) == {99.0}  # other tables answer the question at hand


def test_an_earlier_percentile_with_a_damaged_file_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = collected(tmp_path, percentile=[99.9])
    place = Place(small.NAME, "full", 0, 99.9)
    thresholds = Pipeline(earlier.config, tmp_path).path("thresholds", place)
    thresholds.write_bytes(thresholds.read_bytes()[:-1])
    frame = collected(tmp_path, percentile=[99.0])["costs_over_time"]
    found = {weights: set(part["percentile"]) for weights, part in frame.groupby("weights")}
    assert found == {"full": {99.0}, "binary": {99.0, 99.9}}
    assert f"left out of costs_over_time: {thresholds}" in caplog.text


def test_origins_are_shown(results: tables.Results, text: str) -> None:
    page = Page(text)
    key = Pipeline(results.config).key("simulate", Place(small.NAME, "full", 0, 99.0))
    assert [row[:3] for row in page.rows if key in row] == [["simulate", "full", "0"]]
    assert results["origins"]["revision"].dropna().iloc[0] in page.text
    assert f"Key of these results: {identity.key(results.identity)}" in page.text
    assert "numpy" in page.text


def test_broken_files_are_counted(results: tables.Results, tmp_path: Path) -> None:
    chosen = small.settings(shards=2)
    pipeline = small.write_all(chosen, tmp_path, small.random_truth(images=11), left_out=1200)
    found = dict(about.facts(tables.collect(pipeline, small.NAME)))
    assert found["Test images"] == "11; 1,200 broken files left out"
    assert dict(about.facts(results))["Test images"] == "11"


def test_settings_make_the_same_configuration_again(results: tables.Results, text: str) -> None:
    settings = Page(text).text.split("The configuration that made these results")[1].split("Key of these results")[0]
    assert config.validate(yaml.safe_load(settings)) == results.config


def test_protocol_follows_the_settings(results: tables.Results, tmp_path: Path) -> None:
    plain = results.config.model_dump(mode="json")
    experiment = plain["experiments"][small.NAME]
    experiment["thresholds"]["population"] = "positive"
    experiment["simulation"]["initial"] = 0.5
    experiment["binarize"]["keep_full"] = []
    changed = tables.Results(config.validate(plain), results.name, results.frames)
    said = dict(about.protocol(changed))
    assert "the positive post-ReLU values" in said["Thresholds"]
    assert "v(0) = 0.5 × threshold" in said["Neuron"]
    assert said["Binary weights"].endswith("no layer.")
    assert "zeros included" in dict(about.protocol(results))["Thresholds"]


def test_report_needs_its_figures(results: tables.Results, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"accuracy_over_time\.svg.*make the figures first"):
        report.write(results, tmp_path / "none", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_written_tables_give_the_same_report(results: tables.Results, text: str, tmp_path: Path) -> None:
    tables.write(results, tmp_path / "tables")
    figures.draw(tmp_path / "tables", tmp_path / "figures")
    report.write(tmp_path / "tables", tmp_path / "figures", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == text
