"""Trained networks that come with the repository: results/reference/EXPERIMENT/networks, each with its card.

    from bsnn.networks import shipped

    trained = shipped.load("cifar100-half", "binary")

A network's file is the pipeline's own artifact. Its card, a JSON file beside it, says what it was trained on and how,
and pins the file by its SHA-256. Experiments of config.yaml start from these files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bsnn import artifacts, config
from bsnn.errors import ArtifactError
from bsnn.networks import files
from bsnn.networks.original_checkpoint import sha256
from bsnn.networks.vgg import Trained

FOLDER = Path(__file__).resolve().parents[2] / "results" / "reference"  # of a checkout; a wheel carries no networks
LICENCES = {
    "cifar10": "CIFAR-10 (Krizhevsky 2009) has no formal licence: cite it",
    "cifar100": "CIFAR-100 (Krizhevsky 2009) has no formal licence: cite it",
    "digits": "Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), CC BY 4.0",
}


@dataclass(frozen=True)
class Card:
    """What a shipped network is."""

    experiment: str
    weights: config.Weights
    seed: int
    test_accuracy: float  # of 1, in float32, on `test_images` images
    test_images: int
    epochs: int
    hours: float  # of the epochs' training steps; evaluation left out
    precision: str  # of training, in Fabric's words
    sha256: str  # of the network's file
    bytes: int
    data: Mapping[str, Any]  # settings, and its licence
    network: Mapping[str, Any]  # settings: a member of the family
    recipe: Mapping[str, Any]  # settings that differ from their defaults
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    revision: str
    created: str

    @property
    def text(self) -> str:
        """The card as it is kept: JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def path(experiment: str, weights: config.Weights, folder: Path = FOLDER) -> Path:
    """File of a shipped network; its card has the same name with .json."""
    return folder / experiment / "networks" / f"{weights}.safetensors"


def cards(folder: Path = FOLDER) -> list[Card]:
    """Cards of all networks, by experiment and kind.

    Raises:
        ArtifactError: a card cannot be read.
    """
    return [_read(file) for file in sorted(folder.glob("*/networks/*.json"))]


def load(experiment: str, weights: config.Weights = "binary", folder: Path = FOLDER) -> Trained:
    """A shipped network, ready for evaluation and conversion.

    Raises:
        ArtifactError: there is no such network, or its file is not the one that its card names.
    """
    file = path(experiment, weights, folder)
    if not file.with_suffix(".json").is_file():
        known = ", ".join(f"{card.experiment} ({card.weights})" for card in cards(folder)) or "none in this checkout"
        raise ArtifactError(f"there is no shipped network '{experiment}' with {weights} weights; there are: {known}")
    if not file.is_file():
        raise ArtifactError(
            f"{file}: no such file, but its card is there; bring it back from the repository, with: git checkout {file}"
        )
    card = _read(file.with_suffix(".json"))
    if sha256(file) != card.sha256:
        raise ArtifactError(f"{file}: its SHA-256 is not that of its card; bring the file back from the repository")
    return files.load(file, config.Network.model_validate(card.network))


def keep(card: Card, network: Path, folder: Path = FOLDER) -> Path:
    """Copy a network's file to the reference folder, with its card beside it; returns its path there."""
    place = path(card.experiment, card.weights, folder)
    artifacts.copy(network, place)
    artifacts.write_text(place.with_suffix(".json"), card.text)
    return place


def _read(file: Path) -> Card:
    try:
        found = json.loads(file.read_text())
        return Card(**{field.name: found[field.name] for field in fields(Card)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file}: is no network's card ({error!r}); bring it back from the repository") from error
