"""Seeds of random choices, one for each purpose."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: str | int) -> int:
    """A seed (63 bits) for one purpose, for example `derived_seed(seed, "binary", epoch, "augment")`.

    Hashed, so that neighbouring seeds, epochs and purposes share no stream of random numbers.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
