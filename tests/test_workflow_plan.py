"""`bsnn plan` counts the jobs that `snakemake -n` plans, and the rules say what the declarations say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_for_tests import ROOT, TINY, checkout, configure, planned

from bsnn.config import merge, validate
from bsnn.pipeline import inventory
from bsnn.pipeline.costs import costs
from bsnn.pipeline.declarations import STAGES, TARGETS
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.stages import MODULES

LATENCY = {"time": [2, 8], "methods": {"fitted": {"correction": "channel"}, "bursts": {"burst": 3}}}
ORIGINAL = {"extends": "tiny", "networks_of": "tiny", "protocol": "original"}


def tiny(**sections: Any) -> dict[str, Any]:
    return {"experiments": {"tiny": sections}}


def imported(kind: str) -> dict[str, Any]:
    return tiny(imported={kind: {"path": "network.pth.tar", "sha256": "0" * 64}})


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "imported binary network alone": ({"weights": ["binary"], **imported("binary")}, "all"),
    "imported full network": (imported("full"), "all"),
    "full-precision alone": ({"weights": ["full"]}, "all"),
    "binary alone": ({"weights": ["binary"]}, "all"),
    "two seeds, shards": ({"seeds": [0, 1], **tiny(simulation={"shards": 3})}, "all"),
    "original protocol": ({"run": ["tiny", "other"], "experiments": {"other": ORIGINAL}}, "all"),
    "methods": (tiny(latency=LATENCY), "latency"),
    "baseline from a simulation": (tiny(latency={**LATENCY, "percentile": 99.0}), "latency"),
    "early exit": ({}, "early_exit"),
    "paper": (tiny(ablation=True), "paper"),
}


def counts(settings: dict[str, Any], target: str, folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for cost in costs(Pipeline(validate(settings), folder / "results"), folder / "benchmarks", target):
        found[cost.rule] = found.get(cost.rule, 0) + cost.to_do
    return {rule: count for rule, count in found.items() if count}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("plan") / "checkout", TINY)


@pytest.mark.parametrize("case", CASES)
def test_plan_counts_what_snakemake_plans(folder: Path, case: str) -> None:
    """From nothing, and where networks and an activation table are there without their data set."""
    changes, target = CASES[case]
    settings = merge(TINY, changes)
    configure(folder, settings)
    asked = [] if target == "all" else [target]
    before = planned(folder, "--cores", "1", *asked)
    assert counts(settings, target, folder) == {rule: n for rule, n in before.items() if rule != target} != {}
    pipeline = Pipeline(validate(settings), folder / "results")
    made = [path for one in pipeline.target("networks") for path in pipeline.files(*one)]
    made += pipeline.files("activations", pipeline.target("networks")[0][1])
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    after = planned(folder, "--cores", "1", *asked)
    assert counts(settings, target, folder) == {rule: n for rule, n in after.items() if rule != target} != before
    for rule in ("train", "binarize"):  # a lost data set must not train again; the paper's variants are not there
        assert after.get(rule, 0) == (before[rule] - 1 if target == "paper" else 0)
    for path in {*made}:
        path.unlink()


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"weights": ["binary"]}, {"train", "binarize"}),
        ({"weights": ["full"]}, {"train"}),
        ({"weights": ["binary"], **imported("binary")}, {"binarize"}),
    ],
)
def test_inventory_needs_the_networks_that_are_trained(
    tmp_path: Path, changes: dict[str, Any], stages: set[str]
) -> None:
    every, some = (Pipeline(validate(merge(TINY, one)), tmp_path) for one in ({}, changes))
    paths = {}
    for stage, place in (("train", Place("tiny")), ("binarize", Place("tiny", "binary"))):
        own = some if stage == "binarize" else every
        for path in own.files(stage, place):
            paths[path] = stage
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    needed = {paths[item.path] for item in inventory.artifacts(some) if item.needed}
    assert needed == stages


def test_rules_have_the_declared_files() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    rules = dict(re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.M))
    assert set(rules) == {*STAGES, "shown"} | {name for name in TARGETS if name.startswith("paper")}
    for name, stage in STAGES.items():
        output = rules[name].partition("    output:\n")[2].partition("    log:\n")[0]
        written = [re.sub(r"\{(\w+),[^}]*\}", r"{\1}", path) for path in re.findall(r'"([^"]+)"', output)]
        assert written == [f"results/{file.path}" for file in stage.files.values()]
        assert f'unpack(needs("{name}"))' in rules[name]


def test_every_stage_that_computes_on_a_device_asks_slurm_for_one() -> None:
    computing = {rule for module in ("train", "convert", "search") for rule in MODULES[module]} - {"data", "thresholds"}
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    assert set(profile["set-resources"]) == computing
