"""What stages share: the device, its settings, the images of a shard, and what artifacts note."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bsnn.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bsnn.datasets import Split
    from bsnn.pipeline.job import Job


def settle(job: Job) -> None:
    """As many threads as the job may use; float32 means float32 (convolutions on a GPU default to TF32)."""
    import torch

    torch.set_num_threads(job.config.compute.threads)
    torch.backends.cudnn.allow_tf32 = False


def device(job: Job) -> torch.device:
    """The device that `compute.accelerator` asks for.

    Raises:
        ConfigError: when a GPU is asked for and there is none.
    """
    import torch

    wanted = job.config.compute.accelerator
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.accelerator is 'cuda', but no CUDA device is here; use 'auto' or 'cpu'")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def simulated(job: Job, count: int) -> tuple[Tensor, dict[str, int]]:
    """Indices of the test images of the job's shard, among `count` (int64); what to note where not all are chosen."""
    from bsnn import datasets

    settings = job.experiment.simulation
    chosen = datasets.evenly(count, settings.images)
    noted = {} if settings.images is None else {"chosen": len(chosen)}
    return chosen.tensor_split(settings.shards)[job.shard - 1], noted


def predictions(module: torch.nn.Module, batches: Iterator[Tensor]) -> Tensor:
    """Classes that the network itself predicts, int64 [N], on the CPU."""
    import torch

    with torch.no_grad():
        found = [module(batch).argmax(1).cpu() for batch in batches]
    return torch.cat([torch.zeros(0, dtype=torch.int64), *found])


def left_out(split: Split) -> dict[str, Any]:
    """For an artifact's metadata: broken files that a split does without, where there are any."""
    return {"left_out": split.left_out} if split.left_out else {}
