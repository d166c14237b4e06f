"""Binary and full-precision networks, converted to spiking networks and simulated exactly.

`pipeline` holds the keys and paths of artifacts; `stages` make them, one function each, from `datasets`, `networks`,
`training`, `conversion`, `engines` and `simulation`; `tables`, `figures`, `report` and `paper` show them; `cli` and the
workflow start the stages. `graphs` and `own` take torch modules of one's own. Each module imports only from those below
it: pyproject.toml has the order.
"""

import os
from typing import Any

__version__ = "0.1.0"

_LAZY = {"from_module": "bsnn.graphs.reading", "to_spiking": "bsnn.own", "simulate": "bsnn.own"}


def __getattr__(name: str) -> Any:
    """`bsnn.from_module`, `to_spiking`, `simulate`: torch is imported where they are used, not by `import bsnn`."""
    if name not in _LAZY:
        raise AttributeError(f"module 'bsnn' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


# GNU's OpenMP reads it when torch is loaded: how often a thread that waits for others looks again before it sleeps.
# Its default takes milliseconds, in which two jobs on the same cores keep each other from running; this takes 0.2 ms.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
