"""A description as JSON and tensors, and back; the digest that both have together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bsnn.graphs.description import Graph, Layer, Path, Pool

FORMAT = 1  # of the JSON; part of the digest


def parts(graph: Graph) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Structure as plain data, and the tensors that it names, on the CPU."""
    tensors: dict[str, Tensor] = {}

    def named(name: str, tensor: Tensor | None) -> str | None:
        if tensor is None:
            return None
        tensors[name] = tensor.detach().cpu().contiguous()
        return name

    layers = []
    for number, layer in enumerate(graph.layers):
        paths = []
        for place, path in enumerate(layer.paths):
            label = f"{number}.{place}"
            paths.append(
                {
                    "source": path.source,
                    "op": path.op,
                    "name": path.name,
                    "weight": named(f"{label}.weight", path.weight),
                    "scale": named(f"{label}.scale", path.scale),
                    "stride": list(path.stride),
                    "padding": list(path.padding),
                    "dilation": list(path.dilation),
                    "groups": path.groups,
                    "pool": None if path.pool is None else _pool(path.pool),
                }
            )
        bias = named(f"{number}.bias", layer.bias)
        layers.append(
            {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape), "bias": bias, "paths": paths}
        )
    return {"format": FORMAT, "input_shape": list(graph.input_shape), "layers": layers}, tensors


def _pool(pool: Pool) -> dict[str, Any]:
    pairs = {name: list(getattr(pool, name)) for name in ("kernel", "stride", "padding")}
    return {"kind": pool.kind, **pairs, "divisor": pool.divisor}


def graph_of(structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Graph:
    """The description of `parts`.

    Raises:
        KeyError, TypeError, ValueError: these are not parts of one of this format.
    """
    if structure["format"] != FORMAT:
        raise ValueError(f"format {structure['format']}, expected {FORMAT}")

    def given(name: str | None) -> Tensor | None:
        return None if name is None else tensors[name]

    layers = []
    for layer in structure["layers"]:
        paths = []
        for path in layer["paths"]:
            pairs = {name: tuple(path[name]) for name in ("stride", "padding", "dilation")}
            pool = path["pool"]
            sizes = {} if pool is None else {name: tuple(pool[name]) for name in ("kernel", "stride", "padding")}
            paths.append(
                Path(
                    path["source"],
                    path["op"],
                    path["name"],
                    given(path["weight"]),
                    given(path["scale"]),
                    **pairs,
                    groups=path["groups"],
                    pool=None if pool is None else Pool(pool["kind"], **sizes, divisor=pool["divisor"]),
                )
            )
        layers.append(Layer(layer["name"], layer["kind"], tuple(paths), given(layer["bias"]), tuple(layer["shape"])))
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
