"""The lock file and what is made from it."""

import re
import runpy
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_conda_environment_holds_the_pins_of_the_lock() -> None:
    made = runpy.run_path(str(ROOT / ".ci/environment.py"))
    lock = (ROOT / "requirements.txt").read_text()
    assert (ROOT / "environment.yml").read_text() == made["environment"](lock), "run `make lock`"
    names = re.findall(r"^([a-z0-9.-]+)==", lock, flags=re.MULTILINE)
    [listed] = [entry["pip"] for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][2:]]
    assert [pin.partition("==")[0] for pin in listed] == names


def test_lock_has_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock):
        assert "--hash=sha256:" in block, block[:60]
