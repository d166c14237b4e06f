"""A description as JSON and tensors, and back; the digest that both have together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bsnn.graphs.description import Graph, Layer, Path, Pool

FORMAT = 1  # of the JSON; part of the digest
TENSORS = ("weight", "scale", "bias")  # fields that name one


def parts(graph: Graph) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Structure as plain data, and the tensors that it names, on the CPU."""
    tensors: dict[str, Tensor] = {}

    def plain(part: Any, label: str) -> Any:
        """Fields by name; a tensor as the name under which it is kept."""
        if isinstance(part, Tensor):
            tensors[label] = part.detach().cpu().contiguous()
            return label
        if isinstance(part, tuple):
            return [plain(item, f"{label}.{number}") for number, item in enumerate(part)]
        if not is_dataclass(part):
            return part
        return {field.name: plain(getattr(part, field.name), f"{label}.{field.name}") for field in fields(part)}

    layers = [
        {
            **plain(replace(layer, paths=()), str(number)),
            "paths": [plain(path, f"{number}.{place}") for place, path in enumerate(layer.paths)],
        }
        for number, layer in enumerate(graph.layers)
    ]
    return {"format": FORMAT, "input_shape": list(graph.input_shape), "layers": layers}, tensors


def graph_of(structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Graph:
    """The description of `parts`.

    Raises:
        KeyError, TypeError, ValueError: these are not parts of one of this format.
    """
    if structure["format"] != FORMAT:
        raise ValueError(f"format {structure['format']}, expected {FORMAT}")

    def given(said: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a part: tuples, and tensors for their names."""
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        return found | {name: tensors[said[name]] for name in TENSORS if said.get(name) is not None}

    def path(said: Mapping[str, Any]) -> Path:
        return Path(**given({**said, "pool": said["pool"] and Pool(**given(said["pool"]))}))

    layers = [Layer(**given({**said, "paths": [path(each) for each in said["paths"]]})) for said in structure["layers"]]
    return Graph(tuple(layers), tuple(structure["input_shape"]))


def digest(graph: Graph) -> str:
    """SHA-256 of structure and tensors: 64 hex digits, the same for equal descriptions, wherever they come from."""
    structure, tensors = parts(graph)
    found = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
