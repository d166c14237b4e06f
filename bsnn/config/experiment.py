"""One experiment: data, network, recipes, conversion, and the protocol by which it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from bsnn.config.conversion import Activations, Latency, Simulation, Thresholds
from bsnn.config.training import Binarize, Checkpoint, Data, Full, Network, Own
from bsnn.config.values import Name, Section, Weights
from bsnn.errors import ConfigError

# Sorts of networks; no other key or name looks like these.
SORTS: dict[str, type[Section]] = {"<family>": Network, "<own>": Own}


def sort_of_network(value: object) -> str:
    """Which section describes a network: that of the family, unless a module is named."""
    own = isinstance(value, Own) or (isinstance(value, Mapping) and "module" in value)
    return "<own>" if own else "<family>"


def protocol_section(value: object) -> object:
    """A preset's name stands for the whole section."""
    return {"preset": value} if isinstance(value, str) else value


class Protocol(Section):
    """How numbers are measured: clean, or with quirks of the original's code. A switch overrides the preset."""

    preset: Literal["clean", "original"] = Field(
        "clean", description="`original` switches on what the original's script does on this data set."
    )
    delayed: bool | None = Field(
        None, description="Propagation with one step of delay per connection; a shift of the time axis."
    )
    augmented_test: bool | None = Field(
        None, description="Test images under a random crop (padding 4) and flip. Original: not for folders of images."
    )
    augmented_calibration: bool | None = Field(None, description="The same for the calibration images.")
    calibration_dropout: bool | None = Field(None, description="Dropout is active while activations are collected.")
    first_images: bool | None = Field(
        None, description="The first training images calibrate, instead of evenly spaced ones."
    )
    original_normalisation: bool | None = Field(
        None, description="The original's constants, whatever the network was trained with (cifar100, imagenet)."
    )
    stretched_test: bool | None = Field(
        None, description="Test images resized without regard to their aspect ratio (folders of images only)."
    )


QUIRKS = tuple(name for name in Protocol.model_fields if name != "preset")


class Imported(Section):
    """Checkpoints instead of training."""

    full: Checkpoint | None = Field(None, description="The full-precision network.")
    binary: Checkpoint | None = Field(None, description="The binary network, scaling factors folded into the weights.")

    def of(self, weights: Weights) -> Checkpoint | None:
        """The checkpoint of a kind of network, if it is not to be trained."""
        return self.full if weights == "full" else self.binary


class Experiment(Section):
    """One data set, one network, and the recipe of every stage."""

    description: str = Field("", description="Source, expected result and cost; shown in the report.")
    data: Data
    network: Annotated[
        Annotated[Network, Tag("<family>")] | Annotated[Own, Tag("<own>")], Discriminator(sort_of_network)
    ]
    train: Full
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
        Protocol, BeforeValidator(protocol_section, json_schema_input_type=Literal["clean", "original"] | Protocol)
    ] = Protocol()

    @property
    def family(self) -> Network:
        """Settings of the member of the VGG family.

        Raises:
            ConfigError: the network is a module of one's own.
        """
        if isinstance(self.network, Own):
            raise ConfigError(f"the network {self.network.module} is a module of one's own, not of the VGG family")
        return self.network

    @property
    def own(self) -> Own | None:
        """The module of one's own, if that is what the network is."""
        return self.network if isinstance(self.network, Own) else None

    def given(self, weights: Weights) -> bool:
        """Whether a kind of network comes from a file, and is not trained here."""
        return self.own is not None or self.imported.of(weights) is not None

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

    def _small_images_fit(self) -> None:
        """Small images reach the linear layers as one pixel per channel, as whole images do."""
        for stage, recipe in (("train", self.train), ("binarize", self.binarize)):
            small = recipe.small_images
            if small is None:
                continue
            where = f"{stage}.small_images"
            if self.data.image_size % small.size or small.size == self.data.image_size:
                whole = f"data.image_size {self.data.image_size}"
                raise ValueError(f"{where}.size {small.size} must be smaller than {whole}, and divide it")
            if small.size & (small.size - 1) or self.data.image_size != 2**self.family.pools:
                raise ValueError(
                    f"{where} needs sizes that are powers of two and pools that reduce whole images to one pixel "
                    f"(data.image_size {2**self.family.pools} with {self.family.pools} pools): the last pools are "
                    "left out on small ones"
                )
            if small.epochs >= recipe.epochs:
                raise ValueError(f"{where}.epochs {small.epochs} must be less than {stage}.epochs {recipe.epochs}")

    @property
    def _folder(self) -> bool:
        return self.data.name in ("imagenet", "folder")

    def _suits_a_module(self) -> None:
        """What a module of one's own cannot have."""
        if self.ablation:
            raise ValueError(
                "ablation varies the pools of the VGG family, and the network is a module: set it to false"
            )
        if self.imported != Imported():
            raise ValueError("imported brings networks of the VGG family, and the network is a module: leave it out")
        if self.train.start is not None:
            raise ValueError("train.start is where training begins, and a module is not trained here: leave it out")
        missing = self.quirks & {"delayed", "calibration_dropout"}
        if missing:
            raise ValueError(
                f"protocol: a network that is a module cannot have {' and '.join(sorted(missing))}; take "
                "the clean protocol, or {preset: original, delayed: false, calibration_dropout: false}"
            )

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.own is not None:
            self._suits_a_module()
        else:
            self._suits_the_family()
        if "stretched_test" in self.quirks and not self._folder:
            raise ValueError(f"protocol.stretched_test needs a folder of images, not '{self.data.name}'")
        if "original_normalisation" in self.quirks - self.original_quirks:
            raise ValueError(
                f"protocol.original_normalisation: the original has constants for cifar100 and imagenet, none for "
                f"'{self.data.name}'; give data.mean and data.std"
            )
        return self

    def _suits_the_family(self) -> None:
        factor = 2**self.family.pools
        if self.data.image_size % factor:
            raise ValueError(
                f"data.image_size {self.data.image_size} is not a multiple of {factor}, "
                f"which the {self.family.pools} pools of network.features need"
            )
        for stage in ("train", "binarize"):
            if getattr(self, stage).augment.resized_crop and not self._folder:
                raise ValueError(f"{stage}.augment.resized_crop needs a folder of images, not '{self.data.name}'")
        if self.ablation and self.train.start is not None:
            raise ValueError(
                "ablation compares networks of other pools, and train.start is of one of them: drop one of the two"
            )
        self._small_images_fit()
        if self.train.form == "foldable" and self.family.init == "unit_variance":
            raise ValueError(
                "network.init unit_variance scales weights by layer, and train.form foldable divides by that scale: "
                "use init fan_in"
            )
        if self.binarize.from_scratch and self.family.init == "unit_variance":
            raise ValueError(
                "network.init unit_variance scales real weights, and binarize.from_scratch starts from binary ones, "
                "whose variance is another: use init fan_in, or fine-tune"
            )
