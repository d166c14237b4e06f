"""A training recipe as pure functions of the epoch, its optimiser, and the seeds of every random choice.

Nothing here remembers: rates and seeds follow from the recipe and the epoch's number, so that a run which goes on
from a checkpoint does what an undisturbed one would have done.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bsnn import config
from bsnn.networks.binary import latents
from bsnn.networks.vgg import VGG

BINARY_EPS = 1e-8  # eps = 0 would give 0/0 where a gradient is exactly 0


def learning_rate(recipe: config.Train, epoch: int) -> float:
    """Learning rate of an epoch (the first is 0)."""
    schedule = recipe.schedule
    if schedule.every is not None:
        cuts = epoch // schedule.every
    else:
        cuts = sum(milestone <= epoch for milestone in schedule.milestones)
    return float(recipe.optimiser.lr * schedule.factor**cuts)


def weight_decay(recipe: config.Train, epoch: int) -> float:
    """L2 penalty of an epoch (the first is 0) on weights that are not binary latents."""
    last = recipe.optimiser.weight_decay_epochs
    return 0.0 if last is not None and epoch >= last else recipe.optimiser.weight_decay


def optimiser(recipe: config.Train, module: VGG) -> torch.optim.Optimizer:
    """Optimiser with two groups: real weights, and binary latents (weight decay 0, eps 1e-8; see networks.binary)."""
    settings = recipe.optimiser
    binary = list(latents(module).values())
    groups = _groups(module, binary)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
    for group in groups:
        group["eps"] = BINARY_EPS if group["binary"] else settings.eps
    return torch.optim.Adam(groups, lr=settings.lr, betas=settings.betas, fused=True)


def _groups(module: nn.Module, binary: list[nn.Parameter]) -> list[dict[str, Any]]:
    known = {id(parameter) for parameter in binary}
    real = [parameter for parameter in module.parameters() if id(parameter) not in known]
    groups: list[dict[str, Any]] = [{"params": real, "binary": False}, {"params": binary, "binary": True}]
    return [group for group in groups if group["params"]]


def set_rates(optimiser: torch.optim.Optimizer, recipe: config.Train, epoch: int) -> float:
    """Set an epoch's learning rate and weight decay; gives the learning rate."""
    rate = learning_rate(recipe, epoch)
    for group in optimiser.param_groups:
        group["lr"] = rate
        group["weight_decay"] = 0.0 if group["binary"] else weight_decay(recipe, epoch)
    return rate
