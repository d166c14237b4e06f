"""The report stands alone: everything in one file, user text escaped, numbers as in the tables."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import artifacts_for_tests as small
import pytest
import yaml

from bsnn import config, figures, report, tables
from bsnn.errors import ArtifactError
from bsnn.pipeline import identity
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place


class Page(HTMLParser):
    """Addresses, texts, identifiers and unclosed elements of a page."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

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
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
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
    assert not re.search(r"@import|url\(|<script", text)


def test_every_figure_is_inside(text: str) -> None:
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    assert len(pictures) == len(figures.FIGURES)
    assert all(base64.b64decode(data).startswith(b"<?xml") for data in pictures)


def test_user_text_is_escaped(text: str) -> None:
    page = Page(text)
    assert "Eight images &lt;of nothing&gt; &amp; more." in text
    assert "fastest <here>" in page.text
    assert "<here>" not in text


def test_accuracies_are_the_tables(results: tables.Results, text: str) -> None:
    page = Page(text)
    frame = results["accuracy"].query("weights == 'binary' and percentile == 99.9").set_index("time")
    expected = [f"{frame['snn_mean'][time]:.2f}" for time in (2, 4)]
    assert ["binary", "99.9", f"{frame['ann_mean'][2]:.2f}", *expected] in page.rows  # one seed: no deviation
    assert "ANN std" not in page.text


def test_several_seeds_show_their_spread(tmp_path: Path) -> None:
    results = collected(tmp_path, seeds=[0, 1], weights=["full"])
    page = Page(written(results, tmp_path))
    first = results["accuracy"].iloc[0]
    assert any(f"{first['snn_mean']:.2f} ± {first['snn_std']:.2f}" in row for row in page.rows)
    assert "Binary network" not in page.text  # there is none


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
    found = dict(report.facts(tables.collect(pipeline, small.NAME)))
    assert found["Test images"] == "11; 1,200 broken files left out"
    assert dict(report.facts(results))["Test images"] == "11"


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
    said = dict(report.protocol(changed))
    assert "the positive post-ReLU values" in said["Thresholds"]
    assert "v(0) = 0.5 × threshold" in said["Neuron"]
    assert said["Binary weights"].endswith("no layer.")
    assert "zeros included" in dict(report.protocol(results))["Thresholds"]


def test_report_needs_its_figures(results: tables.Results, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"accuracy_over_time\.svg.*make the figures first"):
        report.write(results, tmp_path / "none", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_written_tables_give_the_same_report(results: tables.Results, text: str, tmp_path: Path) -> None:
    tables.write(results, tmp_path / "tables")
    figures.draw(tmp_path / "tables", tmp_path / "figures")
    report.write(tmp_path / "tables", tmp_path / "figures", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == text
