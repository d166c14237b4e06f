"""A training recipe as pure functions of the time, and its optimiser.

Time is counted in epochs, from 0 at the first step. Nothing here remembers: rates follow from it, so that a run which
goes on from a checkpoint does what an undisturbed one would have done.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from bsnn import config
from bsnn.networks.binary import latents
from bsnn.networks.vgg import VGG

BINARY_EPS = 1e-8  # eps = 0 would give 0/0 where a gradient is exactly 0


def learning_rate(recipe: config.Train, time: float) -> float:
    """Learning rate at a time, in epochs: the first epoch is 0 to 1, its whole steps share the rate of time 0."""
    schedule = recipe.schedule
    rising = min(1.0, time / schedule.warm_up) if schedule.warm_up else 1.0
    return float(recipe.optimiser.lr * rising * _falling(schedule, time, recipe.epochs))


def _falling(schedule: config.Schedule, time: float, epochs: int) -> float:
    """Share of the highest rate, warm-up left out."""
    if schedule.kind == "steps":
        if schedule.every is not None:
            return float(schedule.factor ** (time // schedule.every))
        return schedule.factor ** sum(milestone <= time for milestone in schedule.milestones)
    done = max(0.0, time - schedule.warm_up) / (epochs - schedule.warm_up)
    return 1 - done if schedule.kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def weight_decay(recipe: config.Train, time: float) -> float:
    """L2 penalty at a time, in epochs, on weights that are not binary latents."""
    last = recipe.optimiser.weight_decay_epochs
    return 0.0 if last is not None and time >= last else recipe.optimiser.weight_decay


def optimiser(recipe: config.Train, module: VGG) -> torch.optim.Optimizer:
    """Optimiser with two groups: real weights, and binary latents (weight decay 0, eps 1e-8; see networks.binary)."""
    settings = recipe.optimiser
    binary = list(latents(module).values())
    known = {id(parameter) for parameter in binary}  # tensors compare element by element
    real = [parameter for parameter in module.parameters() if id(parameter) not in known]
    groups: list[dict[str, Any]] = [{"params": real, "binary": False}, {"params": binary, "binary": True}]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=True
        )
    for group in groups:
        group["eps"] = BINARY_EPS if group["binary"] else settings.eps
    return torch.optim.Adam(groups, lr=settings.lr, betas=settings.betas, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, recipe: config.Train, time: float) -> None:
    """Set the learning rate and weight decay of a time, in epochs."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(recipe, time)
        group["weight_decay"] = 0.0 if group["binary"] else weight_decay(recipe, time)
