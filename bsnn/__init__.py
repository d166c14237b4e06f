"""Binary and full-precision networks, converted to spiking networks and simulated exactly.

`pipeline` holds the keys and paths of artifacts; `stages` make them, one function each, from `datasets`, `networks`,
`training`, `conversion`, `engines` and `simulation`; `tables`, `figures`, `report` and `paper` show them; `cli` and the
workflow start the stages. Each module imports only from those below it: pyproject.toml has the order.
"""

import os

__version__ = "0.1.0"

# OpenMP reads it when torch is loaded. Threads that wait for others sleep: spinning ones, its default, slow two jobs on
# the same cores down four times, and are hardly faster for one alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
