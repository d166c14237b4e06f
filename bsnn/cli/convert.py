"""`bsnn convert`: the original's conversion.py, flag by flag, run by this project's stages under protocol `original`.

It writes what that script wrote: a line in JOB_DIR/results/RESULTS_FILE, the accuracy at every step as .npy, and its
plot as .png. Beside them, JOB_DIR/artifacts keeps what the stages made, so that another percentile, or `--one-step`,
needs no new pass over the training images. What was put right is listed in docs/original.md. Options can be abbreviated
as argparse has it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from filelock import FileLock
from typer.core import TyperCommand

from bsnn import artifacts, config, log, stages
from bsnn.errors import ArtifactError, BsnnError, ConfigError
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.stage import Place
from bsnn.stages import train as stages_train

if TYPE_CHECKING:
    from bsnn.tables.shards import Outcome

logger = logging.getLogger(__name__)

NAME = "convert"
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vgg15ab": {
        "features": [64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P"],
        "hidden": [4096],
        "dropout": 0.1,
    }
}
IMAGE_SIZE = {"cifar100": 32, "imagenet": 224}
HEADER = "seed,simulation time,batch size,inference time,accuracy\n"
MEMORY_MIB = 256  # of a simulation: the original holds one step of a batch, and more steps at once hardly pay here
NOT_RUN = "not run"  # in place of the seconds of a simulation that an earlier run has made
UNUSED = {"epochs": 1, "optimiser": {"lr": 0.1}}  # a recipe is asked for, and never used: the checkpoint is there


class Abbreviating(TyperCommand):
    """A command whose options may be given by any beginning that is theirs alone, as in the original's argparse."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See typer; with options in full."""
        known = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        return super().parse_args(ctx, in_full(args, known))


def in_full(args: list[str], known: Collection[str]) -> list[str]:
    """Arguments with abbreviated options in full; unknown ones, and all after `--`, as they are.

    Raises:
        typer.BadParameter: several options begin so.
    """
    end = args.index("--") if "--" in args else len(args)
    found = []
    for arg in args[:end]:
        name, equals, value = arg.partition("=")
        fitting = sorted(option for option in known if arg.startswith("--") and option.startswith(name))
        if name not in known and fitting:
            if len(fitting) > 1:
                raise typer.BadParameter(f"{name} is ambiguous: {', '.join(fitting)}")
            [name] = fitting
        found.append(name + equals + value)
    return found + args[end:]


@dataclass(frozen=True)
class Flags:
    """Flags of the original's command, under its names."""

    job_dir: Path
    model: Path
    results_file: str = "sim_result.txt"
    seed: int = 0
    time: int = 80
    batch_size: int = 100
    n_workers: int = 4
    norm: int = 128
    gpu: bool = False
    one_step: bool = False
    data: Path = Path("./data/")
    arch: str = "vgg15ab"
    percentile: float = 99.7
    eval_size: int = -1
    dataset: str = "cifar100"

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise ConfigError(f"--arch {self.arch}: unknown architecture; known: {', '.join(ARCHITECTURES)}")
        if self.dataset not in IMAGE_SIZE:
            raise ConfigError(f"--dataset {self.dataset}: unsupported; known: {', '.join(IMAGE_SIZE)}")
        for name in ("time", "batch_size", "norm"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.eval_size != -1 and self.eval_size < 1:
            raise ConfigError(f"--eval_size {self.eval_size}: a number of images, or -1 for all")
        if self.n_workers < -1:
            raise ConfigError(f"--n-workers {self.n_workers}: a number of processes, or -1 for four a GPU")


def settings(flags: Flags) -> config.Config:
    """The experiment that a command line stands for: one imported network under protocol `original`.

    Raises:
        ConfigError: a flag's value that no experiment can have.
        ArtifactError: the checkpoint cannot be read.
    """
    from bsnn.networks import original_checkpoint

    weights = original_checkpoint.kind(flags.model)
    beside = [] if config.on_grid(flags.percentile) else [flags.percentile]
    experiment = {
        "data": {
            "name": flags.dataset,
            "image_size": IMAGE_SIZE[flags.dataset],
            "path": _folder(flags),
        },
        "network": ARCHITECTURES[flags.arch],
        "train": UNUSED,
        "binarize": UNUSED,
        "imported": {weights: {"path": flags.model, "sha256": original_checkpoint.sha256(flags.model)}},
        "activations": {"images": flags.norm, "percentiles": beside},
        "simulation": {"time": flags.time, "images": None if flags.eval_size == -1 else flags.eval_size},
        "protocol": {"preset": "original", "delayed": not flags.one_step},
    }
    chosen = {"run": NAME, "percentile": flags.percentile, "time": flags.time, "seeds": flags.seed, "weights": weights}
    return config.validate({**chosen, "compute": _compute(flags), "experiments": {NAME: experiment}})


def _folder(flags: Flags) -> Path | None:
    """Folder that holds the data; None where CIFAR-100 is to be downloaded into it."""
    from bsnn.datasets.cifar import SETS

    if flags.dataset not in SETS:
        return flags.data
    spec = SETS[flags.dataset]
    names = [spec.archive, *spec.files, *(f"{spec.folder}/{name}" for name in spec.files)]
    return flags.data if any((flags.data / name).is_file() for name in names) else None


def _compute(flags: Flags) -> dict[str, Any]:
    """How jobs run. The original asked for a GPU even without `--gpu`; here a missing one is no obstacle."""
    import torch

    cuda = flags.gpu and torch.cuda.is_available()
    if flags.gpu and not cuda:
        logger.warning("--gpu: no CUDA device is here; going on with the CPU, which takes longer")
    workers = (4 * torch.cuda.device_count() if cuda else 0) if flags.n_workers == -1 else flags.n_workers
    threads = torch.get_num_threads()
    accelerator = "cuda" if cuda else "cpu"
    return {
        "accelerator": accelerator,
        "batch_size": flags.batch_size,
        "memory_mib": MEMORY_MIB,
        "workers": workers,
        "threads": threads,
    }


def run(flags: Flags) -> float:
    """Convert, simulate, and write what the original wrote.

    Returns:
        Accuracy after the last step, in percent.

    Raises:
        BsnnError: a flag, the checkpoint or the data cannot be used.
    """
    try:
        return _run(flags)
    except BsnnError as error:
        raise type(error)(_in_flags(error)) from error


def _in_flags(error: BsnnError) -> str:
    """A message of the pipeline in the words of this command, which makes its artifacts itself."""
    if isinstance(error, ArtifactError) and "again with: snakemake" in str(error):
        error = artifacts.with_remedy(error, "delete it and run this command again")
    text = str(error).replace("data.path", "--data")
    if re.search(r"\bdata\.(labels|broken|resize|mean|std)\b", text):
        text += " (settings of config.yaml, under protocol `original`; `bsnn convert` has the original's flags alone)"
    return text


def _run(flags: Flags) -> float:
    from bsnn.tables.gather import Source

    chosen = settings(flags)
    place = Place(NAME, chosen.weights[0], flags.seed, chosen.percentile[0])
    job = Job(Pipeline(chosen, flags.job_dir / "artifacts"), place)
    simulated = not job.pipeline.path("simulate", place).exists()
    for name in ("data", "network", "activations", "thresholds", "simulate"):
        path, rule = job.pipeline.path(name, place), job.pipeline.rule(name, place)
        if path.exists():
            logger.info("%s: there already", path)
        elif rule == "data":
            stages_train.data(job, downloads=flags.data)
        else:
            stages.run(rule, job)
    found = Source(job.pipeline, NAME).simulation(place.weights, place.seed, place.percentile)
    return _write(flags, found, simulated=simulated)


def _write(flags: Flags, found: Outcome, *, simulated: bool) -> float:
    """The three results, and the two lines on the terminal; the time of a simulation that was run now."""
    import numpy as np

    if flags.eval_size > found.images:
        logger.warning("--eval_size %d: the test set has %d images, and all were taken", flags.eval_size, found.images)
    accuracy = found.correct / found.images
    folder, percentile = flags.job_dir, flags.percentile
    target = folder / f"voltage_accuracy_{flags.arch}_{percentile}.npy"
    with artifacts.replacing(target) as temporary, temporary.open("wb") as file:
        np.save(file, accuracy.astype(np.float32))
    title = f"{flags.dataset} {flags.arch} ANN-SNN@{percentile} percentile"
    _plot(accuracy, title, folder, f"{flags.arch}_{percentile}")
    seconds = sum(document["extra"]["seconds"] for document in found.documents)
    last = float(100 * accuracy[-1])
    typer.echo(f"SNN accuracy: {last:.2f}")
    typer.echo(f"Clock time used: {seconds:.4f} s." if simulated else f"Clock time used: {NOT_RUN}, simulated before.")
    time = seconds if simulated else NOT_RUN
    _note(folder / "results" / flags.results_file, [flags.seed, flags.time, flags.batch_size, time, last])
    return last


def _plot(accuracy: Any, title: str, folder: Path, name: str) -> None:
    """In matplotlib's own style, as the original's."""
    from matplotlib.figure import Figure

    from bsnn.figures.style import save, style

    with style({}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        axis = figure.subplots()
        axis.plot(range(1, len(accuracy) + 1), accuracy)
        axis.set(xlabel="Timestep", ylabel="Accuracy", title=title)
        axis.grid()
        save(figure, folder, name, ("png",))


def _note(path: Path, values: list[Any]) -> None:
    """Add a line to the results; the file is replaced as a whole, by one process after another."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            before = path.read_text() if path.is_file() else HEADER
            artifacts.write_text(path, before + ",".join(map(str, values)) + "\n")
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written: {error.strerror or error}; make room or give write access, then run again"
        ) from error


def convert(
    job_dir: Annotated[Path, typer.Option(help="Working directory to store results.")],
    model: Annotated[Path, typer.Option(help="Checkpoint of the pretrained network.")],
    results_file: Annotated[
        str, typer.Option(help="File in JOB_DIR/results that a line is added to.")
    ] = "sim_result.txt",
    seed: Annotated[int, typer.Option(min=0, help="Seed of crops, flips and dropout.")] = 0,
    time: Annotated[int, typer.Option(help="Time steps to simulate.")] = 80,
    batch_size: Annotated[int, typer.Option(help="Images simulated at once.")] = 100,
    n_workers: Annotated[int, typer.Option(help="Processes that decode images; -1: four a GPU.")] = 4,
    norm: Annotated[int, typer.Option(help="Training images that thresholds are measured on.")] = 128,
    gpu: Annotated[bool, typer.Option("--gpu", help="Use a GPU.")] = False,
    one_step: Annotated[bool, typer.Option("--one-step", help="Pass all layers within a step.")] = False,
    data: Annotated[
        Path, typer.Option(metavar="DATA_PATH", help="Folder of the data; CIFAR-100 is downloaded.")
    ] = Path("./data/"),
    arch: Annotated[str, typer.Option(help=f"Architecture: {', '.join(ARCHITECTURES)}.")] = "vgg15ab",
    percentile: Annotated[float, typer.Option(help="Percentile of activations that gives the thresholds.")] = 99.7,
    eval_size: Annotated[int, typer.Option("--eval_size", help="Test images; -1: all.")] = -1,
    dataset: Annotated[str, typer.Option(help="cifar100 or imagenet.")] = "cifar100",
) -> None:
    """Convert and simulate a checkpoint with the flags of the original's conversion.py."""
    given: dict[str, Any] = dict(locals())
    with log.job():
        run(Flags(**given))
