"""Tables of what a simulation costs (bsnn.simulation.accounting): sums up to each step, and energy.

Apart from it, since results are gathered by processes that need no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bsnn.errors import ConfigError

READOUT = "readout"  # as bsnn.graphs.description has it, which needs torch


@dataclass(frozen=True)
class Energy:
    """Energy of one operation, in picojoules."""

    mac: float
    ac: float
    binary_ac: float


ENERGY: dict[str, Energy] = {
    "45nm": Energy(3.7 + 0.9, 0.9, 0.9),
    "45nm-integer": Energy(4.6, 0.9, 0.1),
    "7nm-integer": Energy(1.69, 0.38, 0.03),
}
"""Presets by name. Arithmetic alone: memory and communication, often larger, are not in them.

Each is the energy of single operations as published, a MAC being one product and one sum:
- 45 nm, 0.9 V: Horowitz 2014, "Computing's energy problem (and what we can do about it)", ISSCC, pages 10-14,
  doi:10.1109/ISSCC.2014.6757323, figure 1.1.9, "Rough energy costs for various operations": float32 product 3.7 pJ and
  sum 0.9 pJ, int32 sum 0.1 pJ. 4.6 pJ per MAC and 0.9 pJ per AC are the convention of the literature on spiking
  networks (for example Zhang et al. 2024, "TC-LIF", AAAI).
- 7 nm: Jouppi et al. 2021, "Ten lessons from three generations shaped Google's TPUv4i", ISCA, pages 1-14,
  doi:10.1109/ISCA52012.2021.00010, table 2, which gives Horowitz's operations at 45 nm beside those at 7 nm: float32
  product 1.31 pJ and sum 0.38 pJ, int32 sum 0.03 pJ. Wang et al. 2023 ("BitNet", arXiv:2310.11453, table 2) has the
  same numbers for float32.
"""


def totals(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs of an image from the first step up to each step T, summed over layers.

    Returns:
        one row per step: step, spikes, dense_operations, effective_macs, effective_acs, effective_binary_acs.
    """
    quantities = ["spikes", "dense_operations", "effective_macs", "effective_acs", "effective_binary_acs"]
    shown = costs[(costs["step"] > 0) & costs["quantity"].isin(quantities)]
    wide = shown.pivot_table(index="step", columns="quantity", values="value", aggfunc="sum")
    return wide.reindex(columns=quantities).fillna(0.0).cumsum().rename_axis(columns=None).reset_index()


def energy(operations: pd.DataFrame, preset: str = "45nm") -> pd.Series:
    """Energy in nanojoules of each row of operations (columns as `totals` has them).

    Raises:
        ConfigError: when there is no such preset.
    """
    if preset not in ENERGY:
        raise ConfigError(f"there is no energy preset '{preset}'; presets: {', '.join(ENERGY)}")
    cost = ENERGY[preset]
    picojoules = (
        cost.mac * operations["effective_macs"]
        + cost.ac * operations["effective_acs"]
        + cost.binary_ac * operations["effective_binary_acs"]
    )
    return picojoules / 1000
