"""What stages share: the device and its settings, and what artifacts note."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bsnn.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from bsnn.datasets import Split
    from bsnn.pipeline.model import Job


def settle(job: Job) -> torch.device:
    """Set threads and precision as the configuration asks; the device that `compute.accelerator` asks for.

    float32 means float32: convolutions on a GPU default to TF32.

    Raises:
        ConfigError: when a GPU is asked for and there is none.
    """
    import torch

    torch.set_num_threads(job.config.compute.threads)
    torch.backends.cudnn.allow_tf32 = False
    wanted = job.config.compute.accelerator
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.accelerator is 'cuda', but no CUDA device is here; use 'auto' or 'cpu'")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def left_out(split: Split) -> dict[str, Any]:
    """For an artifact's metadata: broken files that a split does without, where there are any."""
    return {"left_out": split.left_out} if split.left_out else {}
