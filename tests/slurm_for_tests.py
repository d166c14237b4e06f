"""A SLURM of the tests' own (slurm/lab.sh), and the pipeline submitted to it with the profile that users have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_for_tests import checkout, environment

SCRIPT = Path(__file__).parent / "slurm" / "lab.sh"
PROFILE = "workflow/profiles/slurm"
FIELDS = ("job", "state", "partition", "node", "tres", "comment")
QUICK = {"slurm-init-seconds-before-status-checks": 4, "latency-wait": 5}  # of tests alone: less polling


@dataclass(frozen=True)
class Job:
    """What the accounting says about a submission."""

    job: int
    state: str
    partition: str
    node: str
    tres: str
    comment: str  # rule_<rule or group>_...

    @property
    def rule(self) -> str:
        return self.comment.split("_")[1]


@dataclass(frozen=True)
class Lab:
    """A running SLURM."""

    folder: Path

    def command(self, *words: str) -> str:
        """A command of SLURM's, and what it says."""
        return subprocess.run(
            [str(self.folder / "bin" / words[0]), *words[1:]], capture_output=True, text=True, check=True
        ).stdout

    def script(self, *words: str) -> None:
        subprocess.run(["bash", str(SCRIPT), str(self.folder), *words], check=True, stdout=subprocess.DEVNULL)

    def start(self, checkout: Path, *arguments: str) -> subprocess.Popen[str]:
        """Snakemake, submitting, in a session of its own."""
        variables = environment(checkout)
        variables["PATH"] = f"{self.folder / 'bin'}:{variables['PATH']}"
        variables["SLURM_CONF"] = str(self.folder / "etc/slurm.conf")
        with (checkout / "snakemake.out").open("a") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--workflow-profile", PROFILE, *arguments],
                cwd=checkout,
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def finish(self, checkout: Path, process: subprocess.Popen[str]) -> None:
        try:
            process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            waiting = self.command("squeue")
            for job in self.active(checkout):
                self.command("scancel", str(job))
            pytest.fail((checkout / "snakemake.out").read_text() + waiting)
        assert process.returncode == 0, (checkout / "snakemake.out").read_text()

    def run(self, checkout: Path, *arguments: str) -> None:
        self.finish(checkout, self.start(checkout, *arguments))

    def active(self, checkout: Path) -> dict[int, tuple[str, str]]:
        """Rule and node of each submission that waits or runs."""
        lines = self.command("squeue", "-h", "-t", "PD,R", "-o", "%i|%k|%N|%Z").splitlines()
        rows = [line.split("|") for line in lines]
        return {int(job): (comment.split("_")[1], node) for job, comment, node, at in rows if at == str(checkout)}

    def accounted(self, checkout: Path) -> list[Job]:
        """Every submission from this checkout, as soon as the accounting has as many as SLURM itself saw end."""
        ended = (self.folder / "log/jobcomp.log").read_text().count(f"WorkDir={checkout} ")
        rows: list[list[str]] = []
        for _ in range(90):
            columns = "jobid,state,partition,nodelist,alloctres,comment,workdir"
            since = "now-1days"  # else midnight, and jobs that ended before it are not shown
            text = self.command("sacct", "-X", "-n", "-P", "-S", since, "-o", columns)
            rows = [line.split("|") for line in text.splitlines() if line.endswith(f"|{checkout}")]
            if len(rows) == ended and not any(row[1] in ("PENDING", "RUNNING") for row in rows):
                break
            time.sleep(1)
        assert len(rows) == ended
        return [Job(int(row[0]), *row[1:6]) for row in rows]


@contextmanager
def running() -> Iterator[Lab]:
    """A SLURM, from here to the end; skips the tests that need it where it cannot be had."""
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # short, for its sockets
    folder.chmod(0o755)
    try:
        up = subprocess.run(["bash", str(SCRIPT), str(folder), "up"], text=True, capture_output=True)
        if up.returncode == 3:
            pytest.skip(up.stderr.strip())
        assert up.returncode == 0, up.stdout + up.stderr
        yield Lab(folder)
    finally:
        subprocess.run(["bash", str(SCRIPT), str(folder), "down"], check=True, capture_output=True)
        shutil.rmtree(folder)


def site(folder: Path, config: dict[str, Any], resources: dict[str, dict[str, Any]], **settings: Any) -> Path:
    """A checkout whose profile a site has changed: resources of rules, and other settings."""
    checkout(folder, config)
    path = folder / PROFILE / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    for rule, changes in resources.items():
        profile["set-resources"][rule] = {**profile["set-resources"][rule], **changes}
    path.write_text(yaml.safe_dump({**profile, **QUICK, **settings}))
    return folder


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "snakemake ended before"
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.1)
