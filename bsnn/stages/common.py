"""What stages share: the device and its settings, and what artifacts note."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bsnn.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from bsnn.datasets import Split
    from bsnn.pipeline.job import Job


def settle(job: Job) -> None:
    """Set threads as the configuration asks; float32 means float32 (convolutions on a GPU default to TF32)."""
    import torch

    torch.set_num_threads(job.config.compute.threads)
    torch.backends.cudnn.allow_tf32 = False


def device(job: Job) -> torch.device:
    """The device that `compute.accelerator` asks for, after `settle`. (Training asks on each of its nodes.)

    Raises:
        ConfigError: when a GPU is asked for and there is none.
    """
    import torch

    settle(job)
    wanted = job.config.compute.accelerator
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.accelerator is 'cuda', but no CUDA device is here; use 'auto' or 'cpu'")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def left_out(split: Split) -> dict[str, Any]:
    """For an artifact's metadata: broken files that a split does without, where there are any."""
    return {"left_out": split.left_out} if split.left_out else {}
