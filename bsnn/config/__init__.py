"""The one source of every setting: typed, closed to unknown keys, checked as a whole before any job starts.

`load` turns config.yaml (and Snakemake's overrides) into a `Config`; `schema` writes the JSON schema that editors
use. Nothing else in the project states a default. Modules: `values` (shared by all), `training` (data, network,
recipes), `method` (switches), `conversion` (activations to methods), `experiment`, `run` (the whole), `reading` (YAML),
`loading` (from files and command line), `faults` (in the user's words) and `json_schema`.
"""

from bsnn.config.conversion import Latency
from bsnn.config.experiment import Experiment, Protocol
from bsnn.config.json_schema import schema
from bsnn.config.loading import POOLING, load, merge, validate, variant_name
from bsnn.config.method import Method
from bsnn.config.run import Compute, Config
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
    Percentile,
    Section,
    Weights,
    check_percentile,
    format_percentile,
    on_grid,
)

__all__ = [
    "POOLING",
    "Augment",
    "Binarize",
    "Checkpoint",
    "Compute",
    "Config",
    "Data",
    "Experiment",
    "Full",
    "Latency",
    "Method",
    "Network",
    "Optimiser",
    "Own",
    "Percentile",
    "Protocol",
    "Schedule",
    "Section",
    "Teacher",
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
