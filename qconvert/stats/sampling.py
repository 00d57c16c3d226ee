"""What a histogram counts of large arrays: an even sub-sample, and every element of the tails.

    stride      each stride-th element counts stride times ...
    tails       ... save beyond low and high, where every element counts once

Few elements decide how much clipping costs, and a sample that misses one outlier of a fixed place (a transformer's
massive activations) would miss it in every array. To find the tails without a second look at everything, the array is
dealt into B blocks (element i to block i mod B), whose extremes also give the range:

    high = the (m + 1)-th greatest maximum of a block, low = the (m + 1)-th least minimum

By construction at most m blocks hold elements above ``high``, all of which are found in them, and there are m such
elements or more unless they tie. What is counted depends on the array alone. Source: arithmetic.

After a Relu most blocks hold the least element. Where the sub-sample shows it in m + 1 blocks, ``low`` is known to be
that element, nothing lies below it, and the minima of blocks need not be found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# 4096 float32 maxima stay in the first-level cache while the array streams by. A block holds 64 elements, more where
# that would make more blocks, but 256 at most, so that there is little to search in m of them.
_FEWEST, _BLOCKS, _SHALLOW, _DEPTH = 256, 4096, 64, 256

# m: at least 16 elements at each end, or 1 of 65 536, more than the percentile method leaves out (1 of 200 000).
_TAIL = 16

# so many times m of the least elements of a sub-sample are looked at for m + 1 in different blocks
_TIES = 3


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


class Blocks:
    """Rows dealt into blocks, with the extremes of each block.

    Args:
        rows: [n, elements], contiguous, at least one element each.
        step: of the sub-sample, see :func:`stride`.

    Attributes:
        lo, hi: least and greatest element; NaN if there is one among them.
    """

    def __init__(self, rows: NDArray[np.float32], step: int) -> None:
        size = rows.shape[1]
        self._rows, self._step = rows, step
        self._sample = np.ascontiguousarray(rows[:, ::step])
        self._count = min(size, max(_FEWEST, min(size // _SHALLOW, _BLOCKS), -(-size // _DEPTH)))
        self._m = max(_TAIL, self._count // _DEPTH)
        self._floor = self._tied_least()
        self._least: NDArray[np.float32] | None = None
        self._most = self._extremes(np.maximum)
        if (known := self._floor) is None:
            known = self._least = self._extremes(np.minimum)
        self.lo, self.hi = float(known.min()), float(self._most.max())

    def pick(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Elements, flat, that count ``step`` times, and those of the tails, which count once; no row holds a NaN."""
        last = self._count - 1 - self._m
        if last < 0:
            return self._rows[:0, 0], self._rows.reshape(-1)
        high = np.partition(self._most, last, axis=1)[:, last : last + 1]
        inside = self._sample <= high
        tails = [values[values > limit] for values, limit in self._blocks(self._most > high, high)]
        if self._least is not None:
            low = np.partition(self._least, self._m, axis=1)[:, self._m : self._m + 1]
            inside &= self._sample >= low
            tails += [values[values < limit] for values, limit in self._blocks(self._least < low, low)]
        return self._sample[inside], np.concatenate(tails)

    def _tied_least(self) -> NDArray[np.float32] | None:
        """The least element of each row [n, 1], where m + 1 blocks of each row are seen to hold it."""
        least = self._sample.min(axis=1, keepdims=True)
        for tied in self._sample == least:
            index = tied.nonzero()[0][: _TIES * self._m] * self._step
            if len(set((index % self._count).tolist())) <= self._m:
                return None
        return least if np.array_equal(self._rows.min(axis=1, keepdims=True), least) else None

    def _extremes(self, extreme: np.ufunc) -> NDArray[np.float32]:
        """Of each block of each row [n, blocks]."""
        whole = self._rows.shape[1] // self._count * self._count
        dealt = self._rows[:, :whole].reshape(self._rows.shape[0], -1, self._count)
        found: NDArray[np.float32] = extreme.reduce(dealt, axis=1)
        rest = self._rows[:, whole:]
        if rest.shape[1]:
            head = found[:, : rest.shape[1]]
            extreme(head, rest, out=head)
        return found

    def _blocks(
        self, chosen: NDArray[np.bool_], limits: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.float32], np.float32]]:
        """For each row, the elements of its ``chosen`` [n, blocks] blocks, and its limit of ``limits`` [n, 1]."""
        size = self._rows.shape[1]
        whole = size // self._count * self._count
        for row, mask, limit in zip(self._rows, chosen, limits[:, 0], strict=True):
            index = mask.nonzero()[0]
            yield row[:whole].reshape(-1, self._count).take(index, axis=1), limit
            if whole < size:  # only the first blocks have an element in the last, incomplete round of dealing
                yield row[whole:].take(index[: np.searchsorted(index, size - whole)]), limit
