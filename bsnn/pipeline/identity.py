"""Keys: 12 hex digits of SHA-256 over the canonical form of what an artifact depends on.

What that is, every stage declares (bsnn.pipeline.declarations). A changed setting is a new key, hence a new path, a
missing file, and a job; nothing depends on file times or on Snakemake's records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

KEY_LENGTH = 12


def canonical(section: BaseModel) -> dict[str, Any]:
    """Settings that differ from their defaults, so that a new optional setting leaves old keys alone.

    A default that changes in bsnn.config changes no key: raise the version of the stages that read it.
    """
    return section.model_dump(mode="json", exclude_defaults=True)


def key(identity: Mapping[str, Any]) -> str:
    """12 hex digits over the sorted JSON of an identity."""
    # One text for equal settings, in whatever order a file has them.
    text = json.dumps(dict(identity), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
