"""Precision of training: bfloat16 where the device multiplies it natively, float32 elsewhere."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from bsnn import config

logger = logging.getLogger(__name__)

Precision = Literal["32-true", "bf16-mixed"]
SLOWDOWN = 26  # of bf16-mixed against 32-true on a CPU with AVX2 alone: VGG-15, 32 x 32, batch 128 (docs/training.md)
CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")  # in torch's words; the last is ARM's


def native(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 without emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name, False)) for name in CPU_FEATURES)


def choose(compute: config.Compute, device: torch.device) -> Precision:
    """Precision of a training on a device, as configured or by what the device can; said in the log.

    bfloat16 on a CPU that emulates it gets a warning.
    """
    fast = native(device)
    if compute.precision == "auto":
        chosen: Precision = "bf16-mixed" if fast else "32-true"
        can = "multiplies" if fast else "does not multiply"
        logger.info("precision %s: this %s %s bfloat16 natively", chosen, device.type.upper(), can)
        return chosen
    if compute.precision == "bf16-mixed" and not fast:
        logger.warning(
            "compute.precision is bf16-mixed, but this %s emulates bfloat16: expect training to be %sslower than with "
            "32-true. Leave compute.precision at auto",
            device.type.upper(),
            f"about {SLOWDOWN} times " if device.type == "cpu" else "",
        )
    else:
        logger.info("precision %s, as configured", compute.precision)
    return compute.precision
