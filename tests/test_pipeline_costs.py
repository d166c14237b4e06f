"""What is to do, and its cost, against numbers set by hand."""

from pathlib import Path

import pytest
from workflow_for_tests import RESULTS, TINY

from bsnn import config
from bsnn.config import merge
from bsnn.errors import ConfigError
from bsnn.pipeline import costs, estimates
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

SETTINGS = config.validate(merge(TINY, {"seeds": [0, 1], "experiments": {"tiny": {"simulation": {"shards": 3}}}}))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def benchmark(folder: Path, rule: str, name: str, seconds: float, memory: str) -> None:
    write(folder / rule / name, f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{memory}\n".encode())


def counted(root: Path) -> dict[str, tuple[int, int]]:
    return {stage.rule: (stage.done, stage.to_do) for stage in costs.costs(Pipeline(SETTINGS, root), root / "none")}


def test_nothing_is_there(tmp_path: Path) -> None:
    """Two seeds, two kinds of network, two percentiles, three shards."""
    to_do = {"data": 1, "train": 2, "binarize": 2, "activations": 4, "thresholds": 8, "simulate": 24, **RESULTS}
    assert counted(tmp_path) == {rule: (0, count) for rule, count in to_do.items()}
    text = costs.to_text(costs.costs(Pipeline(SETTINGS, tmp_path), tmp_path / "none"))
    assert "never measured: data of tiny, train of tiny, activations of tiny, thresholds of tiny" in text
    times = {1: "5 s", 2: "10 s", 4: "20 s", 8: "40 s", 24: "2 min"}  # 5 s each: of operations for less
    assert cells(text) == {
        **{("tiny", rule): ["0", str(n), "5 s", "-", times[n], "-"] for rule, n in to_do.items()},
        ("sum", ""): ["0", "44", "-", "-", "4 min", "-"],
    }


def cells(text: str) -> dict[tuple[str, str], list[str]]:
    """Rows of the printed table, by experiment and rule."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:] if line[0] == "|"]
    return {(experiment, rule): rest for experiment, rule, *rest in rows}


def test_nothing_measured_is_a_dash_and_nothing_to_do_a_zero() -> None:
    half, mib = 0.5, 2.0**20
    found = [
        costs.Cost("a", "data", 1, 0, None, None, False, None),
        costs.Cost("a", "train", 1, 2, half, None, False, 3 * mib),
        costs.Cost("a", "simulate", 0, 4, None, 12.0, False, None),
    ]
    assert cells(costs.to_text(found)) == {
        ("a", "data"): ["1", "0", "-", "-", "0 s", "0.0"],
        ("a", "train"): ["1", "2", "30 min", "-", "60 min", "6.0"],
        ("a", "simulate"): ["0", "4", "-", "12", "-", "-"],
        ("sum", ""): ["2", "6", "-", "-", "60 min", "6.0"],
    }


def test_sum_of_what_was_not_measured_is_no_zero() -> None:
    """Usual after `--until data`: what is done costs nothing more, and what is to do is not known."""
    done = costs.Cost("a", "data", 1, 0, 0.5, 1.0, False, 9.0)
    ahead = costs.Cost("a", "train", 0, 2, None, None, False, None)
    assert cells(costs.to_text([done, ahead]))[("sum", "")] == ["1", "2", "-", "-", "-", "-"]
    assert cells(costs.to_text([done]))[("sum", "")] == ["1", "0", "-", "-", "0 s", "0.0"]


def planned(changes: dict[str, object], target: str, root: Path) -> dict[tuple[str, str], int]:
    settings = config.validate(merge(TINY, changes))
    found = costs.costs(Pipeline(settings, root), root / "none", target)
    return {(stage.experiment, stage.rule): stage.to_do for stage in found}


def test_methods_and_searches_have_targets_of_their_own(tmp_path: Path) -> None:
    """Two networks, two shards; the baseline's longest run, three of a fitted method; bursts of the full network."""
    latency = {"time": [2, 4, 8], "methods": {"fitted": {"threshold": "squared-error"}, "bursts": {"burst": 3}}}
    changes = {"experiments": {"tiny": {"simulation": {"shards": 2}, "latency": latency}}}
    shared = {("tiny", "data"): 1, ("tiny", "train"): 1, ("tiny", "binarize"): 1, ("tiny", "activations"): 2}
    tables = {("tiny", "latency_tables"): 1, ("tiny", "latency_figures"): 1}
    assert planned(changes, "search", tmp_path) == {**shared, ("tiny", "find_switches"): 2}
    assert planned(changes, "early_exit", tmp_path) == {**shared, ("tiny", "find_exit"): 2, ("tiny", "exit_results"): 1}
    jobs = {("tiny", "method"): 2 * (2 * (1 + 3) + 1), ("tiny", "ideal"): 2 * (2 * 2 + 1)}
    assert planned(changes, "latency", tmp_path) == {**shared, **jobs, **tables}


def test_paper_needs_its_sweep_and_the_other_pools(tmp_path: Path) -> None:
    """Of both networks: a sweep of three percentiles, and the chosen one of three more pools."""
    changes = {
        "percentile": [99.0],
        "paper": {"percentile": [99.0, 99.5], "chosen": 99.9},
        "experiments": {"tiny": {"ablation": True}},
    }
    found = planned(changes, "paper", tmp_path)
    assert found["tiny", "simulate"] == 2 * 3
    variants = {name for name, _ in found if name != "tiny"}
    assert len(variants) == 3
    assert {(found[name, "train"], found[name, "simulate"]) for name in variants} == {(1, 2)}
    assert [key for key in found if key[1] == "data"] == [("tiny", "data")]  # shared


def test_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no target 'papers'.*latency, search"):
        costs.costs(Pipeline(SETTINGS, tmp_path), tmp_path, "papers")


def test_jobs_done_are_those_whose_artifacts_are_all_there(tmp_path: Path) -> None:
    pipeline = Pipeline(SETTINGS, tmp_path)
    write(pipeline.path("network", Place("tiny", "full", 1)), b"")
    write(pipeline.path("network", Place("tiny", "full", 1), "history"), b"")
    write(pipeline.path("simulate", Place("tiny", "full", 0, 99.0, 1)), b"")
    assert counted(tmp_path)["train"] == (1, 1)
    assert counted(tmp_path)["simulate"] == (0, 24)
    write(pipeline.path("simulate", Place("tiny", "full", 0, 99.0, 1), "spikes"), b"")
    assert counted(tmp_path)["simulate"] == (1, 23)


def test_costs(tmp_path: Path) -> None:
    pipeline, measured = Pipeline(SETTINGS, tmp_path), tmp_path / "benchmarks"
    for shard, size in ((1, 100), (2, 200)):
        write(pipeline.path("simulate", Place("tiny", "full", 0, 99.0, shard)), bytes(size))
        write(pipeline.path("simulate", Place("tiny", "full", 0, 99.0, shard), "spikes"), bytes(50))
    benchmark(measured, "simulate", "tiny/a.tsv", 1800, "900.5")
    benchmark(measured, "simulate", "tiny/b.tsv", 5400, "NA")
    benchmark(measured, "simulate", "other/c.tsv", 9999, "9999")
    benchmark(measured, "data", "digits-0.safetensors.tsv", 360, "10")
    stages = {stage.rule: stage for stage in costs.costs(Pipeline(SETTINGS, tmp_path), measured)}
    simulate = stages["simulate"]
    assert (simulate.hours_each, simulate.hours, simulate.memory_mb) == (1.0, 22.0, 900.5)
    assert (simulate.size_each, simulate.size) == (200.0, 4400.0)
    assert stages["data"].hours == pytest.approx(0.1)
    assert stages["train"].estimated
    assert not simulate.estimated
    assert stages["tables"].hours == pytest.approx(estimates.START / 3600)
    benchmark(measured, "find_switches", "tiny/a.tsv", 3600, "NA")
    search = {stage.rule: stage for stage in costs.costs(Pipeline(SETTINGS, tmp_path), measured, "search")}[
        "find_switches"
    ]
    assert (search.hours, search.memory_mb) == (4.0, None)


@pytest.mark.parametrize(
    "torn", [b"", b"s\th:m:s\tmax", b"s\th:m:s\tmax_rss\n", b"s\th:m:s\tmax_rss\n18", b"s\th:m:s\n18\t0", b"\xff"]
)
def test_benchmark_files_that_cannot_be_read_are_skipped(tmp_path: Path, torn: bytes) -> None:
    benchmark(tmp_path, "train", "tiny/a.tsv", 1800, "900.5")
    write(tmp_path / "train" / "tiny" / "b.tsv", torn)
    [train] = [stage for stage in costs.costs(Pipeline(SETTINGS, tmp_path), tmp_path) if stage.rule == "train"]
    assert (train.hours_each, train.memory_mb, train.estimated) == (0.5, 900.5, False)


def test_epochs_on_small_images_count_by_their_pixels(tmp_path: Path) -> None:
    """Two epochs of four on a quarter of the pixels: 2.5 whole ones."""
    vgg = {"features": [4, "P", 4, "P", 4, "P", 4, "P", 4, "P"]}

    def operations(recipe: dict[str, object]) -> float:
        data = {"name": "cifar10", "image_size": 32, "test_images": None, "train_images": None}
        changes = {"data": data, "network": vgg, "train": {"epochs": 4, **recipe}}
        pipeline = Pipeline(config.validate(merge(TINY, {"experiments": {"tiny": changes}})), tmp_path)
        found = estimates.operations(pipeline, "train", Place("tiny", "full", 0))
        assert found is not None
        return found

    small = operations({"small_images": {"size": 16, "epochs": 2}, "form": "foldable"})
    assert small / operations({}) == pytest.approx(2.5 / 4)
