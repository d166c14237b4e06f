"""One job of the pipeline: what a stage's function takes. It has neither path nor identity in its body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn.config import Config, Experiment, Weights
from bsnn.pipeline.model import RESULTS, Pipeline
from bsnn.pipeline.stage import Place

if TYPE_CHECKING:
    from bsnn.datasets import DataSet
    from bsnn.networks.own import OwnNetwork
    from bsnn.networks.vgg import Trained


@dataclass(frozen=True)
class Job:
    """A place in the pipeline of a configuration, and what its stage reads.

    `data_set`, `network`, `source` and `thresholds` raise ArtifactError for a file that is missing, damaged, of another
    kind, or made with other settings than its name says: it may have been renamed, or copied from another checkout.
    """

    pipeline: Pipeline
    place: Place

    @classmethod
    def of(cls, config: Config, experiment: str, *where: Any, root: Path = RESULTS, **coordinates: Any) -> Job:
        """The job of an experiment, at the coordinates of a Place, under a configuration."""
        return cls(Pipeline(config, root), Place(experiment, *where, **coordinates))

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.pipeline.config

    @property
    def experiment(self) -> Experiment:
        """The experiment's settings."""
        return self.pipeline.experiment(self.place)

    def folder(self, name: str) -> Path:
        """A folder, or file, of the experiment's results at its plain name."""
        return self.pipeline.root / self.place.experiment / name

    def data_set(self) -> DataSet:
        """The experiment's images."""
        from bsnn import datasets

        path, stands_for = self.pipeline.path("data", self.place), self.pipeline.identity("data", self.place)
        return datasets.load(path, stands_for, self.experiment.data.path)

    def network(self, weights: Weights | None = None) -> Trained:
        """The trained network, on the CPU; of the other kind of weights, if that is asked for.

        Raises:
            ConfigError: it is a module of one's own: see `source`.
        """
        from bsnn.networks import files

        place = self.place if weights is None else self.place._replace(weights=weights)
        path, stands_for = self.pipeline.path("network", place), self.pipeline.identity("network", place)
        return files.load(path, self.experiment.family, stands_for)

    def source(self) -> Trained | OwnNetwork:
        """The network that is converted, on the CPU: of the VGG family, or one's own."""
        from bsnn.networks import own

        if self.experiment.own is None:
            return self.network()
        return own.load(self.pipeline.path("network", self.place), self.pipeline.identity("network", self.place))

    def thresholds(self) -> dict[str, float]:
        """Threshold of each layer at the place's percentile."""
        table, _ = self.pipeline.read("thresholds", self.place)
        return dict(zip(table["layer"].to_pylist(), table["threshold"].to_pylist(), strict=True))
