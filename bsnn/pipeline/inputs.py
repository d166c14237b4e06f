"""What stages read that is no plain table: data sets and networks, each compared with what its path stands for.

A file can lie under the wrong name: renamed, or copied from another checkout. It is then refused, like a damaged one.
All functions raise ArtifactError for a file that is missing, damaged, of another kind, or made with other settings than
its name says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bsnn.datasets import DataSet
    from bsnn.networks.vgg import Trained
    from bsnn.pipeline.model import Job


def data_set(job: Job) -> DataSet:
    """The experiment's images."""
    from bsnn import datasets

    return datasets.load(job.pipeline.path("data", job.place), job.pipeline.identity("data", job.place))


def network(job: Job) -> Trained:
    """The trained network, on the CPU."""
    from bsnn.networks import files

    path, stands_for = job.pipeline.path("network", job.place), job.pipeline.identity("network", job.place)
    return files.load(path, job.experiment.network, stands_for)


def thresholds(job: Job) -> dict[str, float]:
    """Threshold of each layer at the place's percentile."""
    table, _ = job.pipeline.read("thresholds", job.place)
    return dict(zip(table["layer"].to_pylist(), table["threshold"].to_pylist(), strict=True))
