"""What srun starts on each node where several train together (bsnn.cluster.nodes): the devices of this node."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bsnn import config
from bsnn.cluster.nodes import MARK
from bsnn.errors import BsnnError
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.stages import train


def main(path: str, first: str) -> None:
    """Train on this node, as one of several.

    Args:
        path: the file with what to run.
        first: place among the nodes of the one that counts as the first.
    """
    note = json.loads(Path(path).read_text())
    settings = config.Config.model_validate(note["config"])
    os.environ["NODE_RANK"] = str((int(os.environ["SLURM_NODEID"]) - int(first)) % settings.compute.nodes)
    os.environ["MASTER_ADDR"] = os.environ["SLURM_LAUNCH_NODE_IPADDR"]
    pipeline = Pipeline(settings, Path(note["place"].pop("root")))
    job = Job(pipeline, Place(**note["place"]))
    try:
        train.take_part(job, note["logs"])
    except BsnnError as error:
        sys.stdout.write(f"{MARK}{json.dumps([type(error).__name__, str(error)])}\n")  # at once: other nodes write, too
        sys.stdout.flush()
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
