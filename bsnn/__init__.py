"""Binary and full-precision networks, converted to spiking networks and simulated exactly.

`pipeline` holds the keys and paths of artifacts; `stages` make them, one function each, from `datasets`, `networks`,
`training`, `conversion`, `engines` and `simulation`; `tables`, `figures`, `report` and `paper` show them; `cli` and the
workflow start the stages. Each module imports only from those below it: pyproject.toml has the order.
"""

__version__ = "0.1.0"
