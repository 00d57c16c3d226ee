"""What a histogram counts of large arrays: an even sub-sample, and every element of the tails.

    stride      each stride-th element counts stride times ...
    tails       ... save beyond low and high, where every element counts once

Few elements decide how much clipping costs, and a sample that misses one outlier of a fixed place (a transformer's
massive activations) would miss it in every array. To find the tails without a second look at everything, the array is
dealt into B blocks (element i to block i mod B), whose extremes also give the range:

    high = the (m + 1)-th greatest maximum of a block, low = the (m + 1)-th least minimum

By construction at most m blocks hold elements above ``high``, all of which are found in them, and there are m such
elements or more unless they tie. What is counted depends on the array alone. Source: arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# 4096 float32 maxima stay in the first-level cache while the array streams by. A block holds 64 elements, more where
# that would make more blocks, but 256 at most, so that there is little to search in m of them.
_FEWEST, _BLOCKS, _SHALLOW, _DEPTH = 256, 4096, 64, 256

# m: at least 16 elements at each end, or 1 of 65 536, more than the percentile method leaves out (1 of 200 000).
_TAIL = 16


def stride(size: int, max_elements: int | None) -> int:
    """Step of the sub-sample of an array of ``size`` elements: 1 where all are counted.

    The least step that brings the sample under ``max_elements`` and has no divisor in common with ``size``: every axis
    length divides ``size``, so the sample visits all indices of every axis evenly instead of, say, one channel of four.
    """
    if max_elements is None or size <= max_elements:
        return 1
    step = -(-size // max_elements)
    while math.gcd(step, size) != 1:
        step += 1
    return step


@dataclass(slots=True, kw_only=True)
class Blocks:
    """Rows [n, elements] dealt into blocks, and the extremes of each block: ``least`` and ``most`` [n, blocks]."""

    rows: NDArray[np.float32]
    least: NDArray[np.float32]
    most: NDArray[np.float32]

    def pick(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Elements, flat, that count ``step`` times, and those of the tails, which count once; no row holds a NaN."""
        blocks = self.least.shape[1]
        m = max(_TAIL, blocks // _DEPTH)
        if m >= blocks:
            return self.rows[:0, 0], self.rows.reshape(-1)
        low = np.partition(self.least, m, axis=1)[:, m : m + 1]
        high = np.partition(self.most, blocks - 1 - m, axis=1)[:, blocks - 1 - m : blocks - m]
        sample = self.rows[:, ::step]
        inside = sample >= low
        inside &= sample <= high
        tails = []
        row, values = self._elements(self.least < low)
        tails.append(values[values < low[row, 0]])
        row, values = self._elements(self.most > high)
        tails.append(values[values > high[row, 0]])
        return sample[inside], np.concatenate(tails)

    def _elements(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Row and value of each element of the ``chosen`` [n, blocks] blocks."""
        blocks = chosen.shape[1]
        row, block = np.divmod(np.flatnonzero(chosen), blocks)
        size = self.rows.shape[1]
        depth = size // blocks
        index = block[:, None] + blocks * np.arange(depth + 1)
        # Only the first blocks have an element in the last, incomplete round of dealing.
        index, row = (a[index < size] for a in (index, np.broadcast_to(row[:, None], index.shape)))
        return row, self.rows[row, index]


def blocks_of(rows: NDArray[np.float32]) -> Blocks:
    """Deal ``rows`` [n, elements], at least one element each, into blocks."""
    size = rows.shape[1]
    blocks = min(size, max(_FEWEST, min(size // _SHALLOW, _BLOCKS), -(-size // _DEPTH)))
    whole = size // blocks * blocks
    dealt = rows[:, :whole].reshape(rows.shape[0], -1, blocks)
    least, most = dealt.min(axis=1), dealt.max(axis=1)
    rest = rows[:, whole:]
    if rest.shape[1]:
        head = np.s_[:, : rest.shape[1]]
        np.minimum(least[head], rest, out=least[head])
        np.maximum(most[head], rest, out=most[head])
    return Blocks(rows=rows, least=least, most=most)
