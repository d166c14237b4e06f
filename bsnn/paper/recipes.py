"""Hyperparameters as run, beside the published ones: one row per setting, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from bsnn.config import Augment, Binarize, Experiment, Optimiser, Schedule, Train, Weights, format_percentile
from bsnn.paper import plan, published
from bsnn.paper.measures import Gathered

KINDS: tuple[Weights, ...] = ("full", "binary")


def hyperparameters(gathered: Gathered) -> pd.DataFrame:
    """Columns: setting, then published and used of each kind of network; empty where it is not known or has none."""
    config, experiment = gathered.config, gathered.config.experiments[gathered.name]
    recipes = published.of(experiment).recipes
    rows = [_row(setting, experiment, recipes, used) for setting, used in RECIPE.items()]
    for setting, text in _shared(gathered, experiment).items():
        stated = {f"published_{weights}": recipes.get(weights, {}).get(setting) for weights in KINDS}
        rows.append({"setting": setting, **stated, **{f"used_{weights}": text for weights in KINDS}})
    columns = ["setting", *(f"{which}_{weights}" for weights in KINDS for which in ("published", "used"))]
    # Columns of the kinds that the configuration has: `published_full` and the like.
    shown = [name for name in columns if name.rpartition("_")[2] in ("setting", *config.weights)]
    return pd.DataFrame(rows, columns=columns)[shown].astype("string")


def _row(
    setting: str,
    experiment: Experiment,
    recipes: Mapping[Weights, Mapping[str, str]],
    used: Callable[[Experiment, Train, Weights], str],
) -> dict[str, Any]:
    row: dict[str, Any] = {"setting": setting}
    for weights in KINDS:
        row[f"published_{weights}"] = recipes.get(weights, {}).get(setting)
        recipe = experiment.train if weights == "full" else experiment.binarize
        imported = experiment.imported.of(weights) is not None
        row[f"used_{weights}"] = "imported" if imported else used(experiment, recipe, weights)
    return row


def _optimiser(settings: Optimiser) -> str:
    if settings.name == "sgd":
        return f"SGD, {'Nesterov ' if settings.nesterov else ''}momentum {settings.momentum:g}"
    return "Adam" + ("" if settings.betas == (0.9, 0.999) else ", betas {:g}, {:g}".format(*settings.betas))


def _schedule(settings: Schedule) -> str:
    begin = f"warm-up over {settings.warm_up:g} epochs; " if settings.warm_up else ""
    if settings.kind != "steps":
        return f"{begin}{settings.kind} to 0"
    if settings.every is not None:
        return f"{begin}× {settings.factor:g} every {settings.every} epochs"
    if not settings.milestones:
        return f"{begin}constant"
    return f"{begin}× {settings.factor:g} after epochs {', '.join(map(str, settings.milestones))}"


def _form(recipe: Train) -> str:
    """How the network is trained, beyond the cross-entropy's gradient."""
    teacher = recipe.teacher if isinstance(recipe, Binarize) else None
    parts = {
        "centred weights, outputs divided by their root mean square, folded": recipe.form == "foldable",
        f"label smoothing {recipe.label_smoothing:g}": recipe.label_smoothing > 0,
        f"gradients clipped to {recipe.clip_norm or 0:g}": recipe.clip_norm is not None,
        f"averaged weights, decay {recipe.averaging or 0:g}": recipe.averaging is not None,
        f"teacher, share {teacher.weight if teacher else 0:g}": teacher is not None,
    }
    return "; ".join(text for text, used in parts.items() if used) or "plain"


def _images(recipe: Train) -> str:
    small = recipe.small_images
    return "whole" if small is None else f"{small.size} x {small.size} in the first {small.epochs} epochs"


def _decay(settings: Optimiser) -> str:
    until = settings.weight_decay_epochs
    return f"{settings.weight_decay:g}" + (f", 0 after epoch {until}" if until and settings.weight_decay else "")


def _augment(settings: Augment) -> str:
    parts = ["random resized crop"] if settings.resized_crop else []
    parts += [f"random crop, padding {settings.crop}"] if settings.crop else []
    return "; ".join(parts + (["flip"] if settings.flip else [])) or "none"


def _start(experiment: Experiment, weights: Weights) -> str:
    fresh = experiment.train.start is None if weights == "full" else experiment.binarize.from_scratch
    return "fresh" if fresh else "trained full-precision network"


INITS = {
    "fan_in": "He, fan_in",
    "unit_variance": "He, fan_in; layers scaled to unit variance",
    "original": "He, fan_out; linear normal(0, 0.01)",
}


def _init(experiment: Experiment, weights: Weights) -> str:
    if _start(experiment, weights) != "fresh":
        return "none"
    return INITS[experiment.family.init]


def _binarised(experiment: Experiment, weights: Weights) -> str:
    return "none" if weights == "full" else f"all but {' and '.join(experiment.binarize.keep_full) or 'none'}"


RECIPE: dict[str, Callable[[Experiment, Train, Weights], str]] = {
    "batch size": lambda _, recipe, __: str(recipe.batch_size),
    "epochs": lambda _, recipe, __: str(recipe.epochs),
    "optimiser": lambda _, recipe, __: _optimiser(recipe.optimiser),
    "learning rate": lambda _, recipe, __: f"{recipe.optimiser.lr:g}",
    "schedule": lambda _, recipe, __: _schedule(recipe.schedule),
    "weight decay": lambda _, recipe, __: _decay(recipe.optimiser),
    "augmentation": lambda _, recipe, __: _augment(recipe.augment),
    "training": lambda _, recipe, __: _form(recipe),
    "image size": lambda _, recipe, __: _images(recipe),
    "start": lambda experiment, _, weights: _start(experiment, weights),
    "initialisation": lambda experiment, _, weights: _init(experiment, weights),
    "dropout": lambda experiment, _, __: f"{experiment.family.dropout:g}",
    "binarised layers": lambda experiment, _, weights: _binarised(experiment, weights),
    "source": lambda *_: "this run's settings",
}


def _shared(gathered: Gathered, experiment: Experiment) -> dict[str, str]:
    """Settings of conversion and simulation, the same for both kinds."""
    config = gathered.config
    return {
        "pool": f"{experiment.family.pool}, {experiment.family.place} the ReLU",
        "seeds": ", ".join(map(str, config.seeds)),
        "calibration images": f"{experiment.activations.images:,}",
        "percentile over": "all values" if experiment.thresholds.population == "all" else "positive values",
        "percentiles": ", ".join(format_percentile(value) for value in plan.sweep(config)),
        "time steps": str(experiment.simulation.time),
        "initial potential": f"{experiment.simulation.initial:g} × threshold",
        "protocol": experiment.protocol_name,
    }
