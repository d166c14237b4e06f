"""Terms of paths: sums, exact where they are of the image, times the path's scale."""

from __future__ import annotations

from torch import Tensor

from bsnn.conversion.currents import image_term
from bsnn.graphs.description import Path
from bsnn.graphs.forward import per_channel

__all__ = ["image_term", "times_scale"]


def times_scale(path: Path, sums: Tensor) -> Tensor:
    """Sums [N, channels, ...] times the path's scale: each product rounded once to float32."""
    return sums if path.scale is None else sums * per_channel(path.scale, sums.dim() - 1)
