"""What stages read: artifacts of a job, each compared with the identity that its path stands for.

A file can lie under the wrong name: renamed, or copied from another checkout. It is then refused, like a damaged one.
All functions raise ArtifactError for a file that is missing, damaged, of another kind, or made with other settings than
its name says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bsnn import artifacts
from bsnn.pipeline import identity

if TYPE_CHECKING:
    import pyarrow as pa

    from bsnn.datasets import DataSet
    from bsnn.networks.vgg import Trained
    from bsnn.pipeline.job import Job


def data_set(job: Job) -> DataSet:
    """The experiment's images."""
    from bsnn import datasets

    return datasets.load(job.paths.data(job.name), identity.data(job.experiment))


def network(job: Job) -> Trained:
    """The job's trained network, on the CPU."""
    from bsnn.networks import files

    path = job.paths.network(job.name, job.weights, job.seed)
    stands_for = identity.network(job.experiment, job.weights, job.seed)
    return files.load(path, job.experiment.network, stands_for)


def activations(job: Job) -> pa.Table:
    """Activation table of the job's network: layer, population, percentile, value."""
    columns = {"layer": "string", "population": "string", "percentile": "double", "value": "double"}
    path = job.paths.activations(job.name, job.weights, job.seed)
    stands_for = identity.activations(job.experiment, job.weights, job.seed)
    return artifacts.read_table(path, "activations", columns, stands_for)[0]


def thresholds(job: Job) -> dict[str, float]:
    """Threshold of each layer at the job's percentile."""
    path = job.paths.thresholds(job.name, job.weights, job.seed, job.percentile)
    stands_for = identity.thresholds(job.experiment, job.weights, job.seed, job.percentile)
    table, _ = artifacts.read_table(path, "thresholds", {"layer": "string", "threshold": "double"}, stands_for)
    return dict(zip(table["layer"].to_pylist(), table["threshold"].to_pylist(), strict=True))
