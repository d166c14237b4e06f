"""Columns of the tables that stages read back: names and Arrow types, checked and cast on reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from bsnn.pipeline.stage import Columns

HISTORY = {
    "epoch": "int64",
    "lr": "double",
    "train_loss": "double",
    "train_accuracy": "double",
    "test_accuracy": "double",
    "seconds": "double",
    "images_per_second": "double",
}
SUMMARY = {
    "layer": "string",
    "weights_1bit": "int64",
    "weights_32bit": "int64",
    "memory_bytes": "int64",
    "scale_bytes": "int64",
    "macs": "int64",
    "binary": "bool",
}
ACTIVATIONS = {
    "layer": "string",
    "population": "string",
    "percentile": "double",
    "value": "double",
    "mean": "double",
}
THRESHOLDS = {"layer": "string", "threshold": "double"}
PREDICTIONS = {"image": "int64", "label": "int64", "ann": "int64", "predicted": "list<int16>"}
SPIKES = {"layer": "string", "step": "int64", "spikes": "int64", "images": "int64", "neurons": "int64"}
OPERATIONS = {"layer": "string", "step": "int64", "quantity": "string", "value": "double"}
ERRORS = {
    "layer": "string",
    "time": "int64",
    **dict.fromkeys(("clipping", "quantisation", "unevenness", "total", "activation"), "double"),
}


def schema(columns: Columns) -> pa.Schema:
    """Arrow schema of columns."""
    import pyarrow as pa

    def arrow(name: str) -> pa.DataType:
        inner = name.removeprefix("list<").removesuffix(">")
        return pa.type_for_alias(name) if inner == name else pa.list_(pa.type_for_alias(inner))

    return pa.schema([(column, arrow(kind)) for column, kind in columns.items()])
