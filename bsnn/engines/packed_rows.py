"""Weights of the engine `packed` as rows, one for each input at each place of a window: bits, or float32 numbers."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bsnn.engines.packed_shapes import Term
from bsnn.engines.packed_vectors import aligned


def dense(weight: Tensor, groups: int) -> Tensor:
    """Weights [out, in / groups, ...] as [out, in, ...], 0 between groups."""
    if groups == 1:
        return weight
    outputs, inputs = len(weight) // groups, weight.shape[1]
    found = weight.new_zeros(len(weight), inputs * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        found[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return found


def float_rows(weight: Tensor, term: Term, block: int) -> np.ndarray:
    """Real weights [out, in, rows, columns] as rows of `block` float32 numbers, silent channels added; in bytes.

    They are [block, window's row, window's column, input, lane], as bits are.
    """
    inputs, rows = 8 * term.bytes, term.rows * term.columns * 8 * term.bytes * term.planes
    parts = weight.split(block)
    found = aligned(4 * len(parts) * (rows + 1) * block)
    found[:] = 0
    for some, room in zip(parts, found.view(np.float32).reshape(len(parts), rows + 1, block), strict=True):
        taps = some.permute(2, 3, 1, 0).numpy()
        room = room[:-1].reshape(term.rows, term.columns, term.planes, inputs, block)
        for plane, sign in enumerate((1, -1)[: term.planes]):
            np.multiply(taps, sign, out=room[:, :, plane, : taps.shape[2], : taps.shape[3]])
    return found


def bit_rows(weight: Tensor, term: Term, block: int, lanes: int) -> np.ndarray:
    """Weights [out, in, rows, columns] as rows of `lanes` bits, silent channels added.

    They are uint8 [block, half, window's row, window's column, input, lane / 8], with a row of zeros after each block;
    inputs of signed layers come twice, the second time with all signs turned.
    """
    blocks = []
    for some in weight.split(block):
        tap = some.permute(2, 3, 1, 0).numpy()  # [rows, columns, in, out]: bits of a row run over outputs
        for half in range(term.halves):
            # The bit of the weight; for negative spikes, of its opposite. Of two halves the first takes 0 for 1, and
            # the second for 0: +1 is (1, 1), 0 is (1, 0), -1 is (0, 0). P is 2, 1, 0 then, S is 2, and half of 2 P - S
            # is 1, 0, -1.
            signed = [value >= 0 if term.halves == 2 and not half else value > 0 for value in (tap, -tap)]
            # negative inputs come after all stored ones, as entries of lists number them
            silent = ((0, 0), (0, 0), (0, 8 * term.bytes - tap.shape[2]), (0, 0))  # inputs that never spike
            taps = np.concatenate([np.pad(sign, silent) for sign in signed[: term.planes]], 2)
            # taps that a part does not see stay 0, which adds nothing to P; its S counts only the spikes that it sees
            bits = np.zeros((term.rows, term.columns, taps.shape[2], lanes), np.bool_)
            for part in range(term.parts):
                down, right, lane = part // 2, part % 2, part * block
                # part 3, one place down and one to the right, has its 3x3 taps in rows and columns 1 to 3 of the window
                bits[down : down + taps.shape[0], right : right + taps.shape[1], :, lane : lane + len(some)] = taps
            blocks.append(np.packbits(bits, bitorder="little"))
        blocks.append(np.zeros(lanes // 8, np.uint8))  # fills up groups of 8 rows (`_sum` of packed_kernels)
    found = aligned(sum(block.size for block in blocks))
    return np.concatenate(blocks, out=found)
