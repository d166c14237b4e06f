"""Where a number comes from."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("imports", "instructions"), [("", None), ("import torch;", "DEFAULT")])
def test_hardware_has_the_instructions_that_torch_uses(imports: str, instructions: str | None) -> None:
    """Those of the processor as far as they may be used; without torch, which takes seconds to load, none are named."""
    program = f"import json; {imports} from bsnn import provenance; print(json.dumps(provenance.hardware()))"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.get("instructions") == instructions
    assert found["cores"] >= 1
