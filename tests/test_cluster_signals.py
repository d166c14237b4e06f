"""SIGTERM reaches what a step's first process started, whatever that process makes of it."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("told"))
print("up", flush=True)
while True:  # a signal that comes just before a single long wait would be looked at after it
    time.sleep(0.1)
"""
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
    left_out = ("SLURM_STEP_ID", "PYTHONUNBUFFERED")  # lines of several processes stay whole
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
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


LATE = "import time; time.sleep(1)" + CHILD
UNAWARE = "import time; time.sleep(3); print('finished')"
LOCAL = f"""
import signal, subprocess, sys
from bsnn.cluster import signals
signals.to_trainings()
signal.signal(signal.SIGTERM, lambda *_: None)
children = [subprocess.Popen([sys.executable, "-c", code]) for code in {(LATE, UNAWARE, CHILD)!r}]
print(*[child.wait() for child in children])
"""


def test_local_run_stops_those_that_catch_the_signal_and_waits_for_others() -> None:
    """Also one that has not come so far when the signal does; SLURM's steps are told as a whole, see above."""
    left_out = ("SLURM_STEP_ID", "PYTHONUNBUFFERED")  # lines of several processes stay whole
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LOCAL], env=variables, start_new_session=True, **streams) as first:
        limit = threading.Timer(120, os.killpg, (first.pid, signal.SIGKILL))
        limit.start()
        assert first.stdout is not None
        assert first.stderr is not None
        assert first.stdout.readline() == "up\n"
        first.send_signal(signal.SIGTERM)
        assert first.stdout.read().split() == ["up", "finished", "1", "0", "1"]
        assert first.stderr.read().splitlines() == ["told", "told"]
        limit.cancel()
