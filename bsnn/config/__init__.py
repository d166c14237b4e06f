"""The one source of every setting: typed, closed to unknown keys, checked as a whole before any job starts.

`load` turns config.yaml (and Snakemake's overrides) into a `Config`; `schema` writes the JSON schema that editors
use. Nothing else in the project states a default. Modules: `values` (shared by all), `training` (data, network,
recipes), `conversion` (activations to methods), `experiment`, `run` (the whole), `loading` (from text), `faults` (in
the user's words) and `json_schema`.
"""

from bsnn.config.conversion import Activations, EarlyExit, Latency, Search, Simulation, Thresholds
from bsnn.config.experiment import QUIRKS, Experiment, Imported, Protocol
from bsnn.config.json_schema import schema
from bsnn.config.loading import POOLING, load, merge, validate, variant_name
from bsnn.config.method import METHODS, Method
from bsnn.config.run import Compute, Config, Paper
from bsnn.config.training import (
    Augment,
    Binarize,
    Checkpoint,
    Data,
    Full,
    Network,
    Optimiser,
    Own,
    Schedule,
    Teacher,
    Train,
)
from bsnn.config.values import (
    Engine,
    Name,
    Percentile,
    Population,
    Section,
    Weights,
    check_percentile,
    format_percentile,
    on_grid,
)

__all__ = [
    "METHODS",
    "POOLING",
    "QUIRKS",
    "Activations",
    "Augment",
    "Binarize",
    "Checkpoint",
    "Compute",
    "Config",
    "Data",
    "EarlyExit",
    "Engine",
    "Experiment",
    "Full",
    "Imported",
    "Latency",
    "Method",
    "Name",
    "Network",
    "Optimiser",
    "Own",
    "Paper",
    "Percentile",
    "Population",
    "Protocol",
    "Schedule",
    "Search",
    "Section",
    "Simulation",
    "Teacher",
    "Thresholds",
    "Train",
    "Weights",
    "check_percentile",
    "format_percentile",
    "load",
    "merge",
    "on_grid",
    "schema",
    "validate",
    "variant_name",
]
