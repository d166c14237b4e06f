"""Seconds of jobs that were never measured: from operations of the recipe, and from how fast this machine did others.

Operations are multiply-accumulates of all products, also of those that an engine skips. Where no job of a rule was
measured here, the speed is that of two cores of a server, as RATES says: an order of magnitude, no more.
"""

from __future__ import annotations

from bsnn.config import Experiment, Train
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place

RATES = {
    "train": 2.0e11,  # 4 minutes per epoch of cifar100-cpu in bfloat16 (config.yaml); about a third of it without
    "activations": 1.2e11,  # as the engine `torch`
    "full": 4.0e11,  # engine `packed`: 2.6e11 for the network of half width, 7e11 for VGG-15
    "binary": 8.5e11,  # 2,710 images x steps per second of vgg15-32 (results/reference/simulation.csv), `packed`
}
"""Multiply-accumulates per second by kind of work."""

IMAGES = {"digits": (1437, 360, 10), "cifar10": (50_000, 10_000, 10), "cifar100": (50_000, 10_000, 100)}
START = 5.0  # seconds of any job: a process, and what it imports
LONG = 300.0  # seconds of a measured job from which on its speed says something about other networks
SEARCHING = ("ideal", "find_switches", "find_exit")  # rules that evaluate and simulate as often as it takes
BACKWARD = 3  # a training step's passes: forward, and gradients of activations and of weights


def kind(rule: str, place: Place) -> str | None:
    """Kind of work of a job, all of whose jobs are equally fast; None where time is no matter of operations."""
    if rule in ("train", "binarize"):
        return "train"
    if rule in ("simulate", "method"):
        return place.weights
    return rule if rule == "activations" else None


def brief(pipeline: Pipeline, rule: str, place: Place) -> bool:
    """Whether a job computes so little that its process's start is what takes the time."""
    experiment = pipeline.experiment(place)
    if rule == "data":
        return experiment.data.name == "digits"  # scikit-learn brings them; others are fetched, or decoded
    if kind(rule, place) == "train":
        return experiment.given(place.weights)  # read from a file, not trained
    return kind(rule, place) is None and rule not in SEARCHING


def operations(pipeline: Pipeline, rule: str, place: Place) -> float | None:
    """Multiply-accumulates of a job; None where they decide nothing, or the images or the network are not known."""
    experiment = pipeline.experiment(place)
    if kind(rule, place) is None or experiment.data.name not in IMAGES or experiment.own is not None:
        return None
    if kind(rule, place) == "train" and experiment.given(place.weights):  # read from a file, not trained
        return None
    given_train, given_test, _ = IMAGES[experiment.data.name]
    train = min(given_train, experiment.data.train_images or given_train)
    test = min(given_test, experiment.data.test_images or given_test, experiment.simulation.images or given_test)
    settings = experiment.train if rule == "train" else experiment.binarize
    taught = int(rule == "binarize" and experiment.binarize.teacher is not None)  # the teacher's forward pass
    trained = (BACKWARD + taught) * train * _whole_epochs(settings, experiment.data.image_size)
    passes = {
        "train": trained,
        "binarize": trained,
        "activations": min(train, experiment.activations.images),
        "simulate": test * experiment.simulation.time / experiment.simulation.shards,
        "method": test * place.steps / experiment.simulation.shards,
    }
    return passes[rule] * _macs(experiment)


def _whole_epochs(recipe: Train, size: int) -> float:
    """Epochs of a recipe, those on smaller images counted by their share of the pixels."""
    small = recipe.small_images
    return recipe.epochs if small is None else recipe.epochs - small.epochs * (1 - (small.size / size) ** 2)


def _macs(experiment: Experiment) -> int:
    """Multiply-accumulates of one image in one forward pass."""
    from bsnn.networks.vgg import plan

    size, classes = experiment.data.image_size, IMAGES[experiment.data.name][2]
    return sum(layer.macs for layer in plan(experiment.family, (3, size, size), classes))
