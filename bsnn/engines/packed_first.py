"""Compiled loops of the engine `packed` for layers that read the image alone: their current never changes."""

from __future__ import annotations

import numpy as np

from bsnn.engines.compiled import compiled
from bsnn.engines.packed_neurons import scan_constant, scan_constant_signed
from bsnn.engines.packed_vectors import NEURONS


@compiled
def constant(shape, y0, y1, current, neurons, work):  # type: ignore[no-untyped-def]
    """Neurons whose current, float32 [positions, channels], never changes: rows `y0` to `y1`."""
    channels = 8 * shape.out_bytes
    plane = shape.out_height * shape.out_width * shape.steps * shape.out_bytes
    for position in range(y0 * shape.out_width, y1 * shape.out_width):
        for channel in range(0, channels, NEURONS):
            # potentials and currents lie [position, channel], spikes [plane, position, step, byte]
            at = position * channels + channel
            to = shape.out + position * shape.steps * shape.out_bytes + channel // 8
            if shape.out_planes == 1:
                scan_constant(
                    current, neurons.schedule, channel, shape.schedule_stride, neurons.v, neurons.sent, at,
                    neurons.threshold, neurons.lower, channel, shape.steps,
                    work.spikes, to, shape.out_bytes, plane, neurons.counts,
                )  # fmt: skip
            else:
                scan_constant_signed(
                    current, neurons.schedule, channel, shape.schedule_stride, neurons.v, neurons.sent, at,
                    neurons.threshold, neurons.lower, channel, shape.steps,
                    work.spikes, to, shape.out_bytes, plane, neurons.counts,
                )  # fmt: skip


@compiled
def first_current(images, weight, bias, pool, current):  # type: ignore[no-untyped-def]
    """Current of the first layer for one image, as bsnn.conversion.currents has it: exact sums of parts, added up.

    Args:
        images: float64 [channels, height, width], on its grid.
        weight: float64 [channels, 3, 3, parts x stored channels of the output], the largest part first.
        bias: float32 [1 or positions, stored channels], added after rounding.
        pool: 0: none; 1: the sum of 2x2 places; 2: their maximum.
        current: float32 [positions, stored channels].
    """
    inputs, height, width = images.shape
    channels = current.shape[1]
    size = 2 if pool else 1
    # the sums of all parts lie side by side, as do their weights: the innermost loop runs along memory
    sums, found = np.empty(weight.shape[3]), np.empty(channels)
    for y in range(height // size):
        for x in range(width // size):
            for window in range(size * size):
                # an average's four windows are one sum; its parts have two bits fewer, so that it is exact as well
                if window == 0 or pool == 2:
                    sums[:] = 0
                for tap in range(9):
                    # window (w // 2, w % 2) of the pool; tap (t // 3, t % 3) of the kernel, one place of padding around
                    row, column = size * y + window // 2 + tap // 3 - 1, size * x + window % 2 + tap % 3 - 1
                    if 0 <= row < height and 0 <= column < width:
                        for source in range(inputs):
                            value = images[source, row, column]
                            taps = weight[source, tap // 3, tap % 3]
                            # in any order, fused or not: all products and sums are exact in float64
                            for place in range(len(sums)):
                                sums[place] += value * taps[place]
                if pool == 2 or window == size * size - 1:
                    # parts are added up before the maximum, and rounded after it, as in bsnn.conversion.currents
                    total = _together(sums, channels)
                    found[:] = np.maximum(found, total) if pool == 2 and window else total
            place = y * (width // size) + x
            given = bias[place % len(bias)]
            for channel in range(channels):
                current[place, channel] = np.float32(found[channel]) + given[channel]


@compiled
def _together(sums, channels):  # type: ignore[no-untyped-def]
    """Sums of the parts [parts x channels] added up, the smallest first."""
    last = len(sums) - channels
    total = sums[last:].copy()
    while last:
        last -= channels
        total += sums[last : last + channels]
    return total
