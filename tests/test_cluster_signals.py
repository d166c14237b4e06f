"""SIGTERM reaches what a step's first process started, whatever that process makes of it."""

import os
import signal
import subprocess
import sys

import pytest

CHILD = "import signal, sys; signal.signal(15, lambda *_: sys.exit('told')); print('up', flush=True); signal.pause()"
FIRST = f"""
import signal, subprocess, sys
from bsnn.cluster import signals
signals.within_step()
signal.signal(signal.SIGTERM, lambda *_: print("goes on", flush=True))  # as Snakemake: it waits for its jobs
command = [sys.executable, "-c", {CHILD!r}]
if sys.argv[1] == "shell":
    command = ["bash", "-c", '"$@"; echo shell lives with $?', "bash", *command]
done = subprocess.run(command, stderr=subprocess.STDOUT)
print("ended", flush=True)
"""


@pytest.mark.parametrize("how", ["direct", "shell"])
@pytest.mark.parametrize("within", [True, False])
def test_step_hands_the_signal_on(how: str, within: bool) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "SLURM_STEP_ID"}
    variables |= {"SLURM_STEP_ID": "0"} if within else {}
    command = [sys.executable, "-c", FIRST, how]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, start_new_session=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "up\n"
        first.send_signal(signal.SIGTERM)
        assert first.stdout.readline() in ("goes on\n", "told\n")
        if not within:
            with pytest.raises(subprocess.TimeoutExpired):
                first.wait(2)
            os.killpg(first.pid, signal.SIGKILL)
            return
        rest = first.stdout.read()
        assert "told" in rest or "goes on" in rest
        assert rest.endswith("ended\n")
        assert ("shell lives with 1\n" in rest) == (how == "shell")
