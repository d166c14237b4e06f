"""The JSON schema of config.yaml, for editors."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from bsnn.config.run import Config


def schema() -> str:
    """JSON schema of config.yaml, for editors; `extends` is resolved before validation and added here by hand."""
    document = Config.model_json_schema(schema_generator=_Untitled)
    experiment = document["$defs"]["Experiment"]
    experiment["properties"]["extends"] = {
        "type": "string",
        "description": "Experiment whose settings to start from.",
    }
    experiment.pop("required")
    _loosen_sections(document["$defs"])
    for key in ("run", "percentile", "time", "seeds", "weights"):
        listed = document["properties"][key]
        document["properties"][key] = {
            "description": listed.get("description", ""),
            "anyOf": [{k: v for k, v in listed.items() if k != "description"}, listed["items"]],
        }
    return _lines(document) + "\n"


class _Untitled(GenerateJsonSchema):
    """Without titles of fields, which repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _lines(value: Any, depth: int = 4, indent: str = "") -> str:
    """JSON with one line per setting: objects this many levels down, and all lists, stand on one."""
    if not isinstance(value, dict) or not depth:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + "  "
    members = [f"{inner}{json.dumps(name)}: {_lines(one, depth - 1, inner)}" for name, one in value.items()]
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def _loosen_sections(definitions: dict[str, Any]) -> None:
    """An experiment that extends another may give a part of a section: nothing is required for an editor."""
    for name in ("Data", "Network", "Optimiser", "SmallImages", "Full", "Binarize", "Simulation"):
        definitions[name].pop("required", None)
