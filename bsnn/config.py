"""The one source of every setting: typed, closed to unknown keys, checked as a whole before any job starts.

`load` turns config.yaml (and Snakemake's overrides) into a `Config`; `schema` writes the JSON schema that editors
use. Nothing else in the project states a default.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from bsnn.errors import ConfigError

Weights = Literal["full", "binary"]
Engine = Literal["auto", "bindsnet", "torch", "integer", "triton"]
Population = Literal["all", "positive"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


RESERVED = ("data", "reference", "checkpoints", "benchmarks")  # folders of results/ that no experiment may take


def _as_list(value: object) -> object:
    """One value stands for a list of one, so that `--config percentile=99.9` works."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, bool) for one in values):
        raise ValueError(f"expected a value or a list of values, found {value!r}")
    return values


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError(f"names a value twice: {values}")
    return values


def _on_grid(value: float) -> float:
    """Percentiles have three decimals from 90 to 100 and one below: the grid of the activation tables."""
    decimals = 3 if value >= 90 else 1
    if Decimal(repr(value)) != round(Decimal(repr(value)), decimals):
        raise ValueError(
            f"{value} is off the grid: three decimals from 90 to 100, one below (for example {round(value, decimals)})"
        )
    return value


Percentile = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False), AfterValidator(_on_grid)]


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Data(Section):
    """A data set and the part of it that is used."""

    name: Literal["digits", "cifar10", "cifar100", "imagenet", "folder"] = Field(
        description="Entry of the registry; `folder` takes any folder with train/ and val/ class folders."
    )
    path: Path | None = Field(
        None,
        description="Folder that already holds the files (cifar: the official .bin files; imagenet and folder: "
        "train/ and val/). Without it the cifar sets are downloaded.",
    )
    image_size: PositiveInt = Field(32, description="Height and width of the network's input, in pixels.")
    train_images: PositiveInt | None = Field(None, description="Use only this many training images (evenly spaced).")
    test_images: PositiveInt | None = Field(None, description="Use only this many test images (evenly spaced).")
    mean: tuple[float, float, float] | None = Field(
        None, description="Channel means for normalisation, of pixels in 0..1; without it the data set's own."
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, description="Channel deviations for normalisation; without it the data set's own."
    )

    @model_validator(mode="after")
    def _folder_has_path(self) -> Data:
        if self.name in ("imagenet", "folder") and self.path is None:
            raise ValueError(f"data set '{self.name}' cannot be downloaded: set `path` to the folder that holds it")
        return self


class Network(Section):
    """A member of the VGG family: 3x3 convolutions without bias or batch norm, 2x2 pools, linear layers."""

    features: list[PositiveInt | Literal["P"]] = Field(
        description="Output channels of each 3x3 convolution, and P for each 2x2 pool."
    )
    hidden: list[PositiveInt] = Field(description="Units of each hidden linear layer.")
    pool: Literal["average", "max"] = Field("average", description="Kind of pooling.")
    place: Literal["before", "after"] = Field("before", description="Pool before or after the ReLU.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after each ReLU without a pool, before linear ones.")
    init: Literal["fan_in", "original"] = Field(
        "fan_in",
        description="He fan_in everywhere, or the original's (fan_out, linear normal(0, 0.01)), which starts slowly.",
    )

    @model_validator(mode="after")
    def _pools_follow_convolutions(self) -> Network:
        previous: object = "P"
        for item in self.features:
            if item == "P" and previous == "P":
                raise ValueError("each P in `features` must follow a convolution")
            previous = item
        if not self.features:
            raise ValueError("`features` needs at least one convolution")
        return self

    @property
    def pools(self) -> int:
        """Number of 2x2 pools."""
        return self.features.count("P")


class Optimiser(Section):
    """SGD or Adam, with a weight decay that can be switched off at an epoch."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat = Field(description="Learning rate of the first epoch.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="Adam only."
    )
    eps: PositiveFloat = Field(1e-8, description="Adam only.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty; never applied to binarised latents.")
    weight_decay_epochs: PositiveInt | None = Field(None, description="Weight decay is 0 after this many epochs.")


class Schedule(Section):
    """The learning rate is multiplied by `factor` at each milestone, or every `every` epochs."""

    factor: PositiveFloat = 0.1
    milestones: list[PositiveInt] = Field(default_factory=list, description="Epochs after which to multiply.")
    every: PositiveInt | None = Field(None, description="Multiply every so many epochs, in place of milestones.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Schedule:
        if self.every is not None and self.milestones:
            raise ValueError("give `milestones` or `every`, not both")
        return self


class Augment(Section):
    """Augmentation of training images, run on the batch on the device."""

    crop: int = Field(0, ge=0, description="Random crop after padding by so many pixels.")
    flip: bool = Field(False, description="Random horizontal flip.")
    resized_crop: bool = Field(False, description="RandomResizedCrop while decoding (folders of images only).")


class Train(Section):
    """A training recipe."""

    epochs: PositiveInt
    batch_size: PositiveInt = Field(256, description="Global batch, over all devices.")
    optimiser: Optimiser
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="Fabric's name of the precision.")


class Binarize(Train):
    """Recipe of the binary network, and which layers stay full."""

    keep_full: list[Literal["first", "last"]] = Field(
        default=["first", "last"], description="Layers that keep their real weights."
    )
    from_scratch: bool = Field(False, description="Start from a fresh network, not from the trained one.")


class Activations(Section):
    """Calibration images for the percentiles: training images, without augmentation, with dropout off."""

    images: PositiveInt = Field(3500, description="Number of training images (evenly spaced; all if there are fewer).")
    batch_size: PositiveInt = Field(
        100,
        description="Images a forward pass; part of the identity, since it changes last bits of activations.",
    )


class Thresholds(Section):
    """How thresholds are read from the activation table."""

    population: Population = Field(
        "all",
        description="Percentile over all post-ReLU values, zeros included (as the original), or positive ones.",
    )


class Simulation(Section):
    """The spiking simulation."""

    time: PositiveInt = Field(description="Simulated time steps T.")
    initial: float = Field(0.0, ge=0, lt=1, description="Initial membrane potential, as a fraction of the threshold.")
    shards: PositiveInt = Field(1, description="Jobs over which the test set is spread.")


class Method(Section):
    """Switches of the conversion, on top of percentile thresholds; without any, the baseline of the experiment."""

    percentile: Percentile | None = Field(None, description="Thresholds at this percentile, not at latency.percentile.")
    percentiles: dict[PositiveInt, Percentile] = Field(
        default_factory=dict, description="Percentile for each reported time; others use `percentile`."
    )
    threshold: Literal["percentile", "squared-error"] = Field(
        "percentile", description="`squared-error`: thresholds with the least squared error of activations in T steps."
    )
    initial: float = Field(0.0, ge=0, lt=1, description="Initial membrane potential, as a fraction of the threshold.")
    shift: bool = Field(False, description="Half a threshold spread over T steps, in place of an initial potential.")
    signed: bool = Field(False, description="Negative spikes take back what was sent too early.")
    correction: Literal["none", "potential", "channel", "bias"] = Field(
        "none",
        description="Mean error on calibration images, added to the potentials of each neuron or channel, or "
        "to the currents of each channel.",
    )
    delay: int = Field(0, ge=0, description="First steps that the read-out leaves out, while at least 4 remain.")
    second_pass: Literal["none", "srp", "cos"] = Field(
        "none", description="Start again from what a first pass left in the membranes of the image's neurons."
    )
    first_pass: PositiveInt = Field(4, description="Steps of the first of two passes; they count as time steps.")

    @property
    def per_time(self) -> bool:
        """Whether the network depends on the number of time steps, so that each time is simulated by itself."""
        fitted = self.threshold == "squared-error" or self.correction != "none"
        return fitted or self.shift or bool(self.percentiles)

    @model_validator(mode="after")
    def _counts_nothing_twice(self) -> Method:
        charged = [name for name in ("initial", "shift") if getattr(self, name)]
        if len(charged) > 1:
            raise ValueError("initial and shift both add half a threshold by step T, which would count twice: use one")
        if self.shift and self.correction != "none":
            raise ValueError("a correction measures all that is missing by step T, the shift adds it again: use one")
        if self.second_pass != "none" and self.correction != "none":
            raise ValueError(
                "a correction is measured over one pass of T steps, and a second pass starts from potentials chosen "
                "for the image: both would move the same potentials for the same error; use one"
            )
        if self.second_pass != "none" and (self.signed or self.delay or self.per_time):
            raise ValueError(
                "second_pass takes back spikes sent too early, restarts the read-out and has fewer steps than T: it "
                "cannot be combined with signed spikes, delay, or settings that are fitted to T"
            )
        if self.threshold == "squared-error" and (self.percentile is not None or self.percentiles):
            raise ValueError("threshold squared-error chooses thresholds by itself: leave the percentile out")
        return self


METHODS: dict[str, dict[str, Any]] = {
    "half-threshold": {"initial": 0.5},
    "shift": {"shift": True},
    "percentile-by-time": {"percentiles": {1: 97.0, 2: 98.0, 4: 99.0, 8: 99.5, 16: 99.8}},
    "squared-error": {"threshold": "squared-error"},
    "delayed-readout": {"delay": 8},
    "potential-correction": {"correction": "potential"},
    "channel-correction": {"correction": "channel"},
    "bias-correction": {"correction": "bias"},
    "signed": {"signed": True},
    "srp": {"initial": 0.5, "second_pass": "srp"},
    "cos": {"initial": 0.5, "second_pass": "cos"},
    "best": {"threshold": "squared-error", "initial": 0.5, "correction": "potential", "signed": True},
}
"""Each switch alone, and one combination (`best`), the same everywhere; `snakemake search` finds a network's own."""


class Search(Section):
    """Search for the best switches on training images that calibrate nothing; the test set is seen once, at the end."""

    time: PositiveInt | None = Field(None, description="Wanted number of time steps; 16 if no drop is wanted either.")
    drop: float | None = Field(
        None, description="Wanted drop from the ANN, in points: the fewest steps of latency.time that reach it."
    )
    images: PositiveInt = Field(500, description="Held-out training images.")
    percentiles: list[Percentile] = Field(
        default=[98.0, 99.0, 99.5, 99.8, 99.9, 99.95], description="Percentiles that are tried."
    )

    @model_validator(mode="after")
    def _one_wish(self) -> Search:
        if self.time is not None and self.drop is not None:
            raise ValueError("give the wanted `time` or the wanted `drop`, not both")
        return self


class EarlyExit(Section):
    """Images leave once their margin reaches a bound, which is chosen on training images that calibrate nothing."""

    method: Name = Field("half-threshold", description="Method of conversion; one that does not depend on T.")
    loss: float = Field(0.5, ge=0, description="Points of accuracy that the chosen bound may cost on held-out images.")
    images: PositiveInt = Field(500, description="Held-out training images.")


class Latency(Section):
    """Accuracy in few time steps: a baseline and other methods of conversion, side by side."""

    percentile: Percentile = Field(99.9, description="Thresholds of the baseline, and of methods that name none.")
    time: Annotated[list[PositiveInt], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)] = (
        Field(default=[1, 2, 4, 8, 16, 32, 64, 128], description="Time steps T; no more than these are simulated.")
    )
    images: PositiveInt = Field(128, description="Training images that corrections are measured on.")
    methods: dict[Name, Method] = Field(
        default_factory=lambda: {name: Method.model_validate(switches) for name, switches in METHODS.items()},
        description="Switches by method; `baseline`, without any, is always there.",
    )
    search: Search = Search()
    early_exit: EarlyExit = EarlyExit()

    @model_validator(mode="after")
    def _baseline_is_plain(self) -> Latency:
        if "baseline" in self.methods:
            raise ValueError("methods.baseline: the baseline is always there and has no switches; use another name")
        return self

    @model_validator(mode="after")
    def _exit_needs_a_curve(self) -> Latency:
        name = self.early_exit.method
        if name not in self.names:
            if self.early_exit == EarlyExit():  # own methods do not have to name the default's
                return self
            raise ValueError(f"early_exit.method: there is no method '{name}'; methods: {', '.join(self.names)}")
        if self.method(name).per_time:
            raise ValueError(f"early_exit.method: '{name}' is fitted to one number of steps; take one that is not")
        return self

    def method(self, name: str) -> Method:
        """Switches of a method."""
        return Method() if name == "baseline" else self.methods[name]

    def runs(self, name: str) -> list[int]:
        """Numbers of steps that a method is simulated for: the longest one shows all others, if it does not matter."""
        return sorted(self.time) if self.method(name).per_time else [max(self.time)]

    @property
    def names(self) -> list[str]:
        """All methods, the baseline first."""
        return ["baseline", *self.methods]


def _preset(value: object) -> object:
    """A preset's name stands for the whole section."""
    return {"preset": value} if isinstance(value, str) else value


class Protocol(Section):
    """How numbers are measured: clean, or with quirks of the original's code. A switch outweighs the preset."""

    preset: Literal["clean", "original"] = Field(
        "clean", description="`original` switches on what the original's script does on this data set."
    )
    delayed: bool | None = Field(
        None, description="Propagation with one step of delay a connection; a shift of the time axis."
    )
    augmented_test: bool | None = Field(
        None, description="Test images under a random crop (padding 4) and flip. Original: not for folders of images."
    )
    augmented_calibration: bool | None = Field(None, description="The same for the calibration images.")
    calibration_dropout: bool | None = Field(None, description="Dropout is active while activations are collected.")
    first_images: bool | None = Field(
        None, description="The first training images calibrate, in place of evenly spaced ones."
    )
    original_normalisation: bool | None = Field(
        None, description="The original's constants, whatever the network was trained with (cifar100, imagenet)."
    )
    stretched_test: bool | None = Field(
        None, description="Test images resized without regard to their aspect ratio (folders of images only)."
    )


QUIRKS = tuple(name for name in Protocol.model_fields if name != "preset")


class Checkpoint(Section):
    """A checkpoint of the original, known by its content."""

    path: Path = Field(description="The file (.pth.tar), read when the network is imported.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file; `bsnn import-checkpoint` tells it."
    )


class Imported(Section):
    """Checkpoints in place of training."""

    full: Checkpoint | None = Field(None, description="The full-precision network.")
    binary: Checkpoint | None = Field(None, description="The binary network, scaling factors folded into the weights.")

    def of(self, weights: Weights) -> Checkpoint | None:
        """The checkpoint of a kind of network, if it is not to be trained."""
        return self.full if weights == "full" else self.binary


class Paper(Section):
    """The paper's results (`snakemake paper`), beside an experiment's own tables and figures."""

    percentile: Annotated[
        list[Percentile], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)
    ] = Field(
        default=[99.0, 99.5, 99.7, 99.9, 99.95, 99.99, 100.0],
        description="Sweep of percentiles; those of `percentile` belong to it too.",
    )
    chosen: Percentile = Field(
        99.9, description="Percentile of the tables that show one alone: the one of the authors' sample commands."
    )
    time: PositiveInt | None = Field(
        None, description="Time steps of these tables; without it those of the authors' sample command, or all."
    )
    within: Annotated[
        list[PositiveFloat], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)
    ] = Field(default=[0.5, 1.0, 2.0], description="Latency is the time to within so many points of the ANN.")


class Experiment(Section):
    """One data set, one network, and the recipe of every stage."""

    description: str = Field("", description="Source, expected result and cost; shown in the report.")
    data: Data
    network: Network
    train: Train
    binarize: Binarize
    imported: Imported = Imported()
    networks_of: Name | None = Field(
        None, description="Experiment of the same data, network and recipes whose trained networks are used."
    )
    activations: Activations = Activations()
    thresholds: Thresholds = Thresholds()
    simulation: Simulation
    latency: Latency = Latency()
    ablation: bool = Field(
        False, description="Adds an experiment for each other pool and place (NAME-max-before, ...), for the paper."
    )
    protocol: Annotated[
        Protocol, BeforeValidator(_preset, json_schema_input_type=Literal["clean", "original"] | Protocol)
    ] = Protocol()

    @property
    def original_quirks(self) -> frozenset[str]:
        """Quirks that the original's script has on this data set."""
        own = {"delayed", "calibration_dropout", "first_images"}
        own |= {"stretched_test"} if self._folder else {"augmented_test", "augmented_calibration"}
        return frozenset(own | ({"original_normalisation"} if self.data.name in ("cifar100", "imagenet") else set()))

    @property
    def quirks(self) -> frozenset[str]:
        """Quirks that are on."""
        preset = self.original_quirks if self.protocol.preset == "original" else frozenset()
        chosen = {name: getattr(self.protocol, name) for name in QUIRKS}
        return frozenset(name for name in QUIRKS if (name in preset if chosen[name] is None else chosen[name]))

    @property
    def protocol_name(self) -> str:
        """The protocol in words: clean, original, or how it differs from the nearer preset."""
        if self.quirks in (frozenset(), self.original_quirks):
            return "original" if self.quirks else "clean"
        if self.protocol.preset == "clean":
            return f"clean with {', '.join(sorted(self.quirks))}"
        changes = {"without": self.original_quirks - self.quirks, "with": self.quirks - self.original_quirks}
        return "original " + " and ".join(
            f"{word} {', '.join(sorted(names))}" for word, names in changes.items() if names
        )

    @property
    def _folder(self) -> bool:
        return self.data.name in ("imagenet", "folder")

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        factor = 2**self.network.pools
        if self.data.image_size % factor:
            raise ValueError(
                f"data.image_size {self.data.image_size} is not a multiple of {factor}, "
                f"which the {self.network.pools} pools of network.features need"
            )
        for stage in ("train", "binarize"):
            if getattr(self, stage).augment.resized_crop and not self._folder:
                raise ValueError(f"{stage}.augment.resized_crop needs a folder of images, not '{self.data.name}'")
        if "stretched_test" in self.quirks and not self._folder:
            raise ValueError(f"protocol.stretched_test needs a folder of images, not '{self.data.name}'")
        if "original_normalisation" in self.quirks - self.original_quirks:
            raise ValueError(
                f"protocol.original_normalisation: the original has constants for cifar100 and imagenet, none for "
                f"'{self.data.name}'; give data.mean and data.std"
            )
        return self


class Compute(Section):
    """How jobs run here. No part of any artifact's identity, but for full-precision networks the engine's name."""

    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device kind, in Fabric's words.")
    devices: PositiveInt = Field(1, le=64, description="Devices a training job uses.")
    engine: Engine = Field("auto", description="Simulation engine; `auto` chooses and says why.")
    batch_size: PositiveInt = Field(256, description="Most images simulated at once; less where memory asks for it.")
    memory_mib: PositiveInt = Field(2048, description="Memory budget of the simulation, in MiB.")
    threads: PositiveInt = Field(2, description="CPU threads a job uses.")
    workers: int = Field(2, ge=0, description="Processes that decode images.")


class Config(Section):
    """Everything: what to run, and every experiment's definition."""

    run: Annotated[list[Name], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)] = Field(
        description="Experiments to run; names from `experiments`."
    )
    percentile: Annotated[
        list[Percentile], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)
    ] = Field(description="Percentiles at which to convert.")
    time: Annotated[list[PositiveInt], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)] = (
        Field(description="Reported time steps; the largest must not exceed the simulated time.")
    )
    seeds: Annotated[
        list[Annotated[int, Field(ge=0)]],
        BeforeValidator(_as_list),
        AfterValidator(_distinct),
        Field(min_length=1),
    ] = Field(default=[0], description="One trained network for each.")
    weights: Annotated[list[Weights], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)] = (
        Field(default=["full", "binary"], description="Kinds of network.")
    )
    compute: Compute = Compute()
    paper: Paper = Paper()
    experiments: dict[Name, Experiment]

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for name in self.run:
            if name not in self.experiments:
                raise ValueError(f"run: there is no experiment '{name}'; experiments: {sorted(self.experiments)}")
            simulated = self.experiments[name].simulation.time
            if max(self.time) > simulated:
                raise ValueError(
                    f"time: {max(self.time)} steps cannot be reported, experiment '{name}' simulates {simulated}; "
                    f"raise experiments.{name}.simulation.time or report at most {simulated}"
                )
            if (self.paper.time or 0) > simulated:
                raise ValueError(f"paper.time: experiment '{name}' simulates {simulated} steps, not {self.paper.time}")
            self._can_be_computed(name)
        for name in self.experiments:
            if name in RESERVED:
                raise ValueError(f"experiments: '{name}' is a folder of results/ already; choose another name")
            self._shares_networks(name)
        return self

    def _can_be_computed(self, name: str) -> None:
        """Devices share each batch evenly; engines that need integer sums are asked for binary networks only."""
        for stage in ("train", "binarize"):
            batch = getattr(self.experiments[name], stage).batch_size
            if batch % self.compute.devices:
                raise ValueError(
                    f"compute.devices: {self.compute.devices} devices cannot share a batch of {batch} evenly "
                    f"(experiments.{name}.{stage}.batch_size)"
                )
        if self.compute.engine in ("integer", "triton") and "full" in self.weights:
            raise ValueError(
                f"compute.engine: '{self.compute.engine}' takes binary networks only; "
                "set weights to binary, or the engine to auto, which takes it wherever it can"
            )
        if self.compute.engine == "triton" and self.compute.accelerator == "cpu":
            raise ValueError("compute.engine: 'triton' needs a GPU, and compute.accelerator is cpu")

    def _shares_networks(self, name: str) -> None:
        own = self.experiments[name]
        if own.networks_of is None:
            return
        other = self.experiments.get(own.networks_of)
        where = f"experiments.{name}.networks_of"
        if other is None or other.networks_of is not None:
            raise ValueError(f"{where}: there is no experiment '{own.networks_of}' with networks of its own")
        for section in ("data", "network", "train", "binarize", "imported"):
            if getattr(own, section) != getattr(other, section):
                raise ValueError(f"{where}: {section} is not that of '{own.networks_of}'; set networks_of to null")


def check_percentile(value: float) -> float:
    """The value, if it is a percentile of the activation tables.

    Raises:
        ConfigError: out of range, or off the grid.
    """
    try:
        return TypeAdapter(Percentile).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"percentile {value}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def format_percentile(percentile: float) -> str:
    """Shortest text of a percentile, as used in paths: 99.9, 100."""
    return f"{percentile:.3f}".rstrip("0").rstrip(".")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Deep copy of `base` with `changes` laid over it; sections are merged, everything else replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _extended(name: str, experiments: Mapping[str, Any], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Definition of an experiment with its `extends` resolved."""
    if name in seen:
        raise ConfigError(f"experiments.{name}: extends itself through {' -> '.join((*seen, name))}")
    if name not in experiments:
        raise ConfigError(
            f"experiments.{seen[-1]}.extends: there is no experiment '{name}'; have {sorted(experiments)}"
        )
    definition = experiments[name]
    if not isinstance(definition, Mapping):
        raise ConfigError(f"experiments.{name}: is {definition!r}, expected a section with data, network, train, ...")
    own = {key: value for key, value in definition.items() if key != "extends"}
    parent = definition.get("extends")
    if not isinstance(parent, str | None):
        raise ConfigError(f"experiments.{name}.extends: expected the name of one experiment, found {parent!r}")
    return own if parent is None else merge(_extended(parent, experiments, (*seen, name)), own)


POOLING = (("average", "before"), ("average", "after"), ("max", "before"), ("max", "after"))


def variant_name(name: str, pool: str, place: str) -> str:
    """Name of an experiment with another pool."""
    return f"{name}-{pool}-{place}"


def _variants(name: str, definition: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same experiment with each other pool and place, where it asks for that; only networks of its own can vary."""
    network = definition.get("network")
    if definition.get("ablation") is not True or definition.get("networks_of") or not isinstance(network, Mapping):
        return {}
    own = tuple(network.get(key, Network.model_fields[key].default) for key in ("pool", "place"))
    variants = {}
    for pool, place in (pooling for pooling in POOLING if pooling != own):
        text = f"{definition.get('description', '')} Pooling ablation: {pool}, {place} the ReLU."
        changes = {"network": {"pool": pool, "place": place}, "ablation": False, "description": text.strip()}
        variants[variant_name(name, pool, place)] = merge(definition, changes)
    return variants


def _sections(annotation: Any) -> list[type[Section]]:
    """Section classes that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _known(location: tuple[int | str, ...]) -> str:
    """Keys that are allowed beside an unknown one."""
    section: type[Section] = Config
    for part in location[:-1]:
        if part in section.model_fields:
            section = _sections(section.model_fields[str(part)].annotation)[0]
    return ", ".join(section.model_fields)


def _message(error: ValidationError) -> str:
    """One line a fault: key, what is wrong or allowed, and the value found."""
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        found = fault.get("input")
        shown = "" if isinstance(found, Mapping | BaseModel) else f" (found {found!r})"
        what = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            what = f"unknown key; known here: {_known(fault['loc'])}"
        lines.append(f"{where}: {what}{shown}" if where else what)
    return "\n  ".join(["the configuration is not valid:", *lines])


def validate(raw: Mapping[str, Any]) -> Config:
    """Checked configuration from plain data.

    Raises:
        ConfigError: naming each faulty key, its value and what is allowed.
    """
    experiments = raw.get("experiments")
    if not isinstance(experiments, Mapping):
        raise ConfigError("experiments: missing; expected a section with one entry an experiment")
    resolved = {name: _extended(name, experiments) for name in experiments}
    varied: dict[str, Any] = {}
    for name, definition in resolved.items():
        varied |= _variants(name, definition)
    try:
        return Config.model_validate({**raw, "experiments": {**resolved, **varied, **resolved}})
    except ValidationError as error:
        raise ConfigError(_message(error)) from None


def load(path: str | Path, changes: Mapping[str, Any] | None = None) -> Config:
    """Checked configuration from a YAML file, with `changes` laid over it.

    Raises:
        ConfigError: when the file is missing, is no YAML, or is not valid.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; give one with --config-file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    return validate(merge(raw, changes or {}))


def schema() -> str:
    """JSON schema of config.yaml, for editors; `extends` is resolved before validation and added here by hand."""
    document = Config.model_json_schema()
    experiment = document["$defs"]["Experiment"]
    experiment["properties"]["extends"] = {
        "type": "string",
        "description": "Experiment whose settings to start from.",
    }
    experiment.pop("required")
    _loosen_sections(document["$defs"])
    for key in ("run", "percentile", "time", "seeds", "weights"):
        listed = document["properties"][key]
        document["properties"][key] = {
            "description": listed.get("description", ""),
            "anyOf": [{k: v for k, v in listed.items() if k != "description"}, listed["items"]],
        }
    return json.dumps(document, indent=2) + "\n"


def _loosen_sections(definitions: dict[str, Any]) -> None:
    """An experiment that extends another may give a part of a section: nothing is required for an editor."""
    for name in ("Data", "Network", "Optimiser", "Train", "Binarize", "Simulation"):
        definitions[name].pop("required", None)
