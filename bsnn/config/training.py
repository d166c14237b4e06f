"""Data, network, and the recipes that train it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from bsnn.config.values import Section


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
    labels: Path | None = Field(
        None,
        description="File with the labels of validation images that lie in val/ without class folders: the "
        "development kit's ILSVRC2012_validation_ground_truth.txt (meta.mat beside it), Kaggle's LOC_val_solution.csv, "
        "or a list of images with the class's folder name or its place in the sorted names, from 0.",
    )
    broken: Literal["stop", "skip"] = Field(
        "stop",
        description="Image files that cannot be decoded: an error that names the first one, or all found and left out "
        "when the data set is prepared, which then decodes every file once.",
    )
    contents: bool = Field(
        False,
        description="Know a folder's files by what they hold, too, not by names, sizes and labels alone; all are read "
        "once, and again when one of them has changed.",
    )
    image_size: PositiveInt = Field(32, description="Height and width of the network's input, in pixels.")
    resize: Literal["margin", "auto", "none"] = Field(
        "margin",
        description="How image files come to image_size for evaluation. `margin`: the shorter side to 256/224 of it, "
        "then the centre is cut, as is customary for ImageNet; `none`: not at all, they must have it; `auto`, which "
        "is the default of `folder`: images that have it stay as they are, others get the margin.",
    )
    train_images: PositiveInt | None = Field(None, description="Use only this many training images (evenly spaced).")
    test_images: PositiveInt | None = Field(None, description="Use only this many test images (evenly spaced).")
    mean: tuple[float, float, float] | None = Field(
        None, description="Channel means for normalisation, of pixels in 0..1; without it the data set's own."
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, description="Channel deviations for normalisation; without it the data set's own."
    )

    @model_validator(mode="before")
    @classmethod
    def _resize_of_folders(cls, values: object) -> object:
        """`folder` has a default of its own, which enters its keys, since its images were all given the margin once."""
        if isinstance(values, Mapping) and values.get("name") == "folder":
            return {"resize": "auto", **values}
        return values

    @model_validator(mode="after")
    def _folders_of_images(self) -> Data:
        if self.name in ("imagenet", "folder") and self.path is None:
            raise ValueError(f"data set '{self.name}' cannot be downloaded: set `path` to the folder that holds it")
        own = self.labels is not None or self.broken != "stop" or self.resize != "margin" or self.contents
        if self.name not in ("imagenet", "folder") and own:
            settings = "`labels`, `broken`, `resize` and `contents`"
            raise ValueError(f"{settings} are for folders of images, and '{self.name}' is none")
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
    init: Literal["fan_in", "unit_variance", "original"] = Field(
        "fan_in",
        description="He fan_in everywhere; the same, each layer scaled to unit variance on training images, which "
        "starts sooner; or the original's (fan_out, linear normal(0, 0.01)), which starts slowly.",
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


MODULE = r".+\.py:[A-Za-z_]\w*"


class Own(Section):
    """A network of one's own: a torch module, made by a function of a Python file, and its trained weights.

    The file is run where the network is read: by the stages `train` and `binarize`, and by `bsnn read-network`.
    """

    module: str = Field(
        pattern=f"^{MODULE}$",
        description="FILE.py:FUNCTION: the function is called without arguments, and returns a torch.nn.Module.",
    )
    weights: Path | None = Field(
        None, description="Its state_dict as safetensors; without it the function returns a trained module."
    )
    content: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of what was read, layers and weights; printed by `bsnn read-network`. It stands for the "
        "network in all keys, whatever the files are called.",
    )

    @model_validator(mode="before")
    @classmethod
    def _says_what_it_wants(cls, value: Any) -> Any:
        """In the words of users, not of patterns."""
        if isinstance(value, Mapping) and "content" not in value:
            raise ValueError("content is missing; `bsnn read-network EXPERIMENT` reads the network and prints it")
        return value

    @field_validator("module", mode="before")
    @classmethod
    def _names_a_function(cls, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(MODULE, value):
            raise ValueError(f"expected FILE.py:FUNCTION, for example my_models.py:build (found {value!r})")
        return value


class Optimiser(Section):
    """SGD or Adam, with a weight decay that can be switched off at an epoch."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat = Field(description="Learning rate of the first epoch.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only.")
    nesterov: bool = Field(False, description="SGD only: Nesterov's momentum (Sutskever et al. 2013).")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="Adam only."
    )
    eps: PositiveFloat = Field(1e-8, description="Adam only.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty; never applied to binarised latents.")
    weight_decay_epochs: PositiveInt | None = Field(None, description="Weight decay is 0 after this many epochs.")

    @model_validator(mode="after")
    def _has_momentum(self) -> Optimiser:
        if self.nesterov and self.name == "sgd" and self.momentum == 0:
            raise ValueError("`nesterov` is a form of momentum, and `momentum` is 0: raise it, or drop `nesterov`")
        return self


class Schedule(Section):
    """The learning rate over time: multiplied at some epochs, or falling to 0 at the last step."""

    kind: Literal["steps", "linear", "cosine"] = Field(
        "steps",
        description="`steps` multiplies by `factor` at each milestone, or every `every` epochs; `linear` falls to 0 "
        "along a line, `cosine` along half a cosine (Loshchilov & Hutter 2017), both updated at every step.",
    )
    warm_up: float = Field(
        0.0, ge=0, description="Epochs over which the rate first rises linearly from 0 (Goyal et al. 2017)."
    )
    factor: PositiveFloat = Field(0.1, description="Of kind `steps`.")
    milestones: list[PositiveInt] = Field(default_factory=list, description="Epochs after which to multiply.")
    every: PositiveInt | None = Field(None, description="Multiply every so many epochs, instead of at milestones.")

    @model_validator(mode="after")
    def _consistent(self) -> Schedule:
        if self.every is not None and self.milestones:
            raise ValueError("give `milestones` or `every`, not both")
        if self.kind != "steps" and (self.every is not None or self.milestones):
            raise ValueError(f"`milestones` and `every` belong to kind steps, and kind is {self.kind}")
        return self


class Augment(Section):
    """Augmentation of training images, run on the batch on the device."""

    crop: int = Field(0, ge=0, description="Random crop after padding by so many pixels.")
    flip: bool = Field(False, description="Random horizontal flip.")
    resized_crop: bool = Field(False, description="RandomResizedCrop while decoding (folders of images only).")


class SmallImages(Section):
    """The first epochs on smaller images (progressive resizing: Tan & Le 2021), which cost a fraction."""

    size: PositiveInt = Field(description="Height and width in pixels; divides data.image_size.")
    epochs: PositiveInt = Field(description="So many epochs; the others take whole images.")


class Teacher(Section):
    """Distillation from the trained full-precision network (Hinton et al. 2015)."""

    weight: float = Field(0.5, gt=0, le=1, description="Share of the teacher's loss; the labels' has the rest.")
    temperature: PositiveFloat = Field(2.0, description="Divides both networks' logits.")


class Checkpoint(Section):
    """A trained network in a file, known by its content."""

    path: Path = Field(
        description="A checkpoint of the original (.pth.tar), or a network of this project (.safetensors); read when "
        "the network is imported, or training starts from it."
    )
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file; printed by `bsnn import-checkpoint`."
    )


class Train(Section):
    """A training recipe."""

    epochs: PositiveInt
    batch_size: PositiveInt = Field(256, description="Global batch, over all devices.")
    optimiser: Optimiser
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    form: Literal["plain", "foldable"] = Field(
        "plain",
        description="`foldable`: while training, weights are centred and outputs divided by their root mean square "
        "over the batch, with a gain per channel; it trains nearly as fast as batch norm does, and folds into plain "
        "weights at the end (docs/training.md).",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Szegedy et al. 2016.")
    clip_norm: PositiveFloat | None = Field(
        None, description="Gradients of a larger norm are scaled down to it (Pascanu et al. 2013)."
    )
    averaging: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay per step of an exponential moving average of the weights, which is then what is evaluated "
        "and kept (Polyak & Juditsky 1992).",
    )
    small_images: SmallImages | None = None

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Train:
        if self.schedule.warm_up >= self.epochs:
            raise ValueError(
                f"schedule.warm_up {self.schedule.warm_up:g} must be less than epochs {self.epochs}: the rate would "
                "never reach optimiser.lr"
            )
        return self


class Full(Train):
    """Recipe of the full-precision network."""

    start: Checkpoint | None = Field(
        None,
        description="Trained full-precision network to start from: fine-tuning, or another cycle of the schedule (warm "
        "restarts: Loshchilov & Hutter 2017). Its file enters the key by its SHA-256. All seeds start from it, so that "
        "their deviation is that of the rest; network.init has no effect.",
    )
    rounding: Literal["none", "bfloat16"] = Field(
        "none", description="Round the finished weights to bfloat16: files of half the size, evaluated as rounded."
    )


class Binarize(Train):
    """Recipe of the binary network, and which layers stay full."""

    keep_full: list[Literal["first", "last"]] = Field(
        default=["first", "last"], description="Layers that keep their real weights."
    )
    from_scratch: bool = Field(False, description="Start from a fresh network, not from the trained one.")
    teacher: Teacher | None = None

    @model_validator(mode="after")
    def _has_its_teacher(self) -> Binarize:
        if self.from_scratch and self.teacher is not None:
            raise ValueError("`teacher` is the trained network, and `from_scratch` does without it: drop one of them")
        return self
