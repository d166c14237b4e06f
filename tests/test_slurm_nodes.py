"""Training on two nodes of a real SLURM: the artifacts of two devices of one machine, also after a cancelled job."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_for_tests import Lab, running, site, wait_until
from test_slurm import CHECKPOINT, Disturbed
from test_workflow_faults import contents
from workflow_for_tests import TINY, checkout, run

from bsnn.config import merge

pytestmark = pytest.mark.slurm

NODES = {"nodes": 2, "gpu": 0, "gres": "gpu:1"}  # as in the profile's comment
PROFILE = {"train": NODES, "binarize": NODES}
LONG = {
    "data": {"image_size": 16, "train_images": 1400, "test_images": 100},
    "network": {"features": [32, "P", 64, "P"]},
    "train": {"epochs": 60, "optimiser": {"lr": 0.01}},  # time to cancel it
}
ONE_NETWORK = merge(TINY, {"weights": ["full"], "experiments": {"tiny": LONG}})


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running() as found:
        yield found


def on(config: dict[str, Any], **compute: int) -> dict[str, Any]:
    return merge(config, {"compute": compute})


def two_devices(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Artifacts of a run on this machine."""
    run(checkout(folder, on(config, devices=2)), "networks")
    return contents(folder)


def test_two_nodes_make_what_two_devices_make(lab: Lab, tmp_path: Path) -> None:
    folder = site(tmp_path / "nodes", on(TINY, nodes=2), PROFILE)
    lab.run(folder, "networks")
    jobs = {job.rule: job for job in lab.accounted(folder)}
    assert sorted(jobs) == ["binarize", "data", "train"]
    assert {job.state for job in jobs.values()} == {"COMPLETED"}
    for rule in ("train", "binarize"):
        assert jobs[rule].node == "gpu[1-2]"
        assert "gres/gpu=2," in jobs[rule].tres
        steps = lab.command("sacct", "-n", "-P", "-j", str(jobs[rule].job), "-o", "nodelist,ntasks,state").split()
        assert steps[-1] == "gpu[1-2]|2|COMPLETED"
    found = contents(folder)
    assert found == two_devices(tmp_path / "devices", TINY)
    assert len(found) == 5  # two networks with their histories, and the summary of the binary one


def test_cancelled_training_on_two_nodes_goes_on_within_its_epoch(lab: Lab, tmp_path: Path) -> None:
    expected = two_devices(tmp_path / "devices", ONE_NETWORK)
    folder = site(tmp_path / "cancelled", on(ONE_NETWORK, nodes=2), PROFILE)
    process = lab.start(folder, "networks")
    wait_until(lambda: list(folder.glob(CHECKPOINT)), process)
    found = Disturbed(lab, "train", folder, process)
    lab.command("scancel", str(found.job))
    lab.finish(folder, process)
    states = [(job.rule, job.state.split()[0]) for job in lab.accounted(folder)]
    assert states == [("data", "COMPLETED"), ("train", "CANCELLED"), ("train", "COMPLETED")]
    assert "steps of the next" in found.log()
    assert contents(folder) == expected
