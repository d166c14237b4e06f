"""What a stage declares, and the coordinates by which one of its jobs is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from bsnn.config import Weights

if TYPE_CHECKING:
    from bsnn.pipeline.model import Pipeline


class Place(NamedTuple):
    """Coordinates of an artifact. A stage looks at those that it declares; the others do not matter to it."""

    experiment: str
    weights: Weights = "full"
    seed: int = 0
    percentile: float = 100.0
    shard: int = 1  # of the test set: 1, 2, ...
    method: str = "baseline"
    steps: int = 1
    result: str = ""  # of the paper


class Need(NamedTuple):
    """One file that a job reads: the stage that makes it, of which place, and which of the stage's files."""

    stage: str
    place: Place
    kind: str


Columns = Mapping[str, str]  # name -> Arrow type, as bsnn.pipeline.columns writes it


@dataclass(frozen=True)
class File:
    """One output of a stage: its path below the results folder, and the columns of a table that is read back."""

    path: str
    columns: Columns = field(default_factory=dict)


Reads = Callable[["Pipeline", Place], Iterator[Need]]


def first_of(*stages: str) -> Reads:
    """What a job reads: the first file of some stages, each at the job's own place."""

    def reads(pipeline: Pipeline, place: Place) -> Iterator[Need]:
        yield from (pipeline.need(stage, place) for stage in stages)

    return reads


NOTHING = first_of()


def _no_upstream(pipeline: Pipeline, place: Place) -> None:
    return None


@dataclass(frozen=True)
class Stage:
    """What decides a stage's outputs, what its jobs read, and the files that they write."""

    files: Mapping[str, File]
    over: tuple[str, ...]  # coordinates beside the experiment
    version: int = 1  # raised when outputs change for the same settings
    name: str = ""  # in identities, where it is not the rule's name
    settings: Callable[[Pipeline, Place], dict[str, Any]] = lambda pipeline, place: {}  # its own part of the identity
    upstream: Callable[[Pipeline, Place], tuple[str, Place] | None] = _no_upstream  # whose identity is part of its own
    identity_of: str = ""  # a stage with the very same identity: figures show what the tables hold
    reads: Reads = NOTHING
    weights: Weights | None = None  # of a stage that makes one kind of network alone
    shared: bool = False  # experiments with `networks_of` use another experiment's
    same_step: bool = False  # of no experiment under delayed propagation
    family: bool = False  # of no experiment whose network is a module of one's own
    scratch: str = ""  # folder that survives a killed job: no declared output, which Snakemake would remove
    shown: tuple[str, ...] = ()  # files at plain names, which a keyed note vouches for (notes.path)
