"""Pages quote reference results, and nothing else."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest
from artifacts_for_tests import NAME, settings

from bsnn import artifacts, reference, tables
from bsnn.errors import ArtifactError
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables.origins import merged

ROOT = Path(__file__).parent.parent
README = runpy.run_path(str(ROOT / ".ci/readme.py"))


def test_pages_quote_the_reference_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pages = [page.read_text() for page in README["PAGES"]]
    assert [README["fill"](text) for text in pages] == pages, "run `make readme`"
    assert "".join(pages).count("<!-- table:") == len(README["PAGE_TABLES"])


def test_every_reference_result_says_where_it_comes_from() -> None:
    folders = [path for path in (ROOT / "results/reference").iterdir() if path.is_dir()]
    assert folders
    for folder in folders:
        origin = json.loads((folder / "origin.json").read_text())
        assert {"command", "seeds", "settings", "made", "kept"} <= set(origin)
    for path in (ROOT / "results/reference").glob("*.csv"):
        assert {"cpu", "cores", "torch", "revision"} <= set(pd.read_csv(path).columns), path


def test_table_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    rows = {"weights": ["full"] * 2, "percentile": [99.9] * 2, "time": [5, 10], "ann_mean": [98.76] * 2}
    frame = pd.DataFrame({**rows, "snn_mean": [50.0, 98.765], "spikes_per_image": [950.4, 4321], "images": [360] * 2})
    frame.to_csv(tmp_path / "digits/accuracy.csv", index=False)
    (tmp_path / "digits/origin.json").write_text(json.dumps({"command": "make run", "seeds": [0]}))
    filled = README["fill"]("a\n<!-- table: digits -->\nold\n<!-- end -->\nb", tmp_path)
    assert "old" not in filled
    row = next(line for line in filled.splitlines() if line.startswith("| full"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["full", "99.9", "98.76", "50.00 950", "98.77 4.3k"]
    assert "of 360 test images and 1 seed; `make run`: [" in filled


@pytest.mark.parametrize(("table", "stage"), [("search", "find_switches"), ("early_exit", "find_exit")])
def test_choices_are_kept_if_they_are_of_these_settings(tmp_path: Path, table: str, stage: str) -> None:
    """One of each network; a file that was copied from the other seed is refused, and nothing is written."""
    chosen = settings(seeds=[0, 1], weights=["full"])
    pipeline = Pipeline(chosen, tmp_path)

    def write(seed: int, of_seed: int) -> None:
        stands_for = pipeline.identity(stage, Place(NAME, "full", of_seed))
        path = pipeline.path(stage, Place(NAME, "full", seed))
        artifacts.write_table(path, pd.DataFrame({"T": [10 + of_seed]}), stands_for["stage"], stands_for)

    write(0, 0)
    write(1, 1)
    results = tables.Results(chosen, NAME, {"origins": pd.DataFrame()})
    place = reference.keep(results, "make", tmp_path / "reference", tmp_path)
    expected = pd.DataFrame({"T": [10, 11], "weights": "full", "seed": [0, 1]})
    pd.testing.assert_frame_equal(pd.read_csv(place / f"{table}.csv"), expected)
    made = json.loads((place / "origin.json").read_text())["made"]
    keys = [pipeline.key(stage, Place(NAME, "full", seed)) for seed in (0, 1)]
    assert [(row["seed"], row["key"]) for row in made] == list(enumerate(keys))
    write(1, 0)
    with pytest.raises(ArtifactError, match="was made with other settings"):
        reference.keep(results, "make", tmp_path / "other", tmp_path)
    assert not (tmp_path / "other").exists()


def test_shards_of_one_artifact_are_one_row() -> None:
    """On each machine; what was not measured stays empty."""
    shards = [("a", "one", 3, 1.5), ("a", "one", 2, 2.0), ("a", "two", 4, None)]
    rows = pd.DataFrame(shards, columns=["key", "cpu", "images", "seconds"]).assign(shards=1)
    found = merged(rows.astype({"seconds": "Float64"}))
    assert found[["cpu", "shards", "images"]].values.tolist() == [["one", 2, 5], ["two", 1, 4]]
    assert found["seconds"].isna().tolist() == [False, True]
    assert found["seconds"][0] == 3.5
