"""A tiny experiment on random images with a rule to learn, shared by the tests of training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from bsnn import config
from bsnn.datasets import DataSet
from bsnn.datasets.arrays import ArraySplit

CLASSES = ("top left", "top right", "bottom left", "bottom right")


def data_set(images: int = 96, size: int = 8) -> DataSet:
    """Noise with one bright quarter, which is the class; 32 test images."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> ArraySplit:
        labels = torch.arange(count) % 4
        pixels = torch.randint(0, 128, (count, 3, size, size), generator=generator)
        half = size // 2
        for image, label in zip(pixels, labels.tolist(), strict=True):
            row, column = divmod(label, 2)
            image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 100
        return ArraySplit(pixels.to(torch.uint8), labels)

    return DataSet(CLASSES, (0.35,) * 3, (0.2,) * 3, size, split(images), split(32))


def experiment(**changes: object) -> config.Experiment:
    """Six epochs with everything that draws random numbers; `train__lr=...` style names change a recipe."""
    adam = {"name": "adam", "lr": 2e-3, "weight_decay": 1e-4, "weight_decay_epochs": 3}
    recipe = {"epochs": 6, "batch_size": 20, "optimiser": adam, "schedule": {"milestones": [4]}}
    settings = {
        "data": {"name": "digits", "image_size": 8},
        "network": {"features": [8, 8, "P", 16, "P"], "hidden": [16], "dropout": 0.1},
        "train": {**recipe, "augment": {"crop": 1, "flip": False}},
        "binarize": {**recipe, "augment": {"crop": 1}},
        "simulation": {"time": 10},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        settings[section] = {**settings[section], key: value}  # type: ignore[dict-item]
    return config.Experiment.model_validate(settings)


COMPUTE = config.Compute(accelerator="cpu", precision="32-true")  # the same on every CPU


def main() -> None:
    """Train the full network in a child process for each folder that is read from standard input.

    Prints the child's number, and how it ended.

    A test may kill the children. They are forks of a process that has computed nothing, so that all of them together
    import torch once.
    """
    from bsnn import log
    from bsnn.training import train

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            with log.job():
                train.fit(experiment(), "full", 0, data_set(), COMPUTE, Path(line.strip()), None)
            return
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(f"ended with {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
