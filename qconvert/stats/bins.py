"""Counts of elements in bins whose width is a power of two that follows from the range.

    w = 2**k            bin width: the least power of two for which floor(hi / w) - floor(lo / w) + 1 <= limit,
                        [lo, hi] = range of all elements so far, widened to contain 0
    bin(x) = floor(x / w)

k is a function of the range, and the range is one of the *set* of elements. When it grows, k grows by d and counts
coarsen exactly, because floor(x / (2**d w)) == floor(x / w) >> d; so counts are what they would be had the final width
been known from the start. x / w is exact, a product with a power of two: in float32 where 1 <= 1 / w <= 2**127, since
the product is at least as large as x and below 2 * limit; in float64 otherwise. Source: arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# The least positive float32 is 2**-149: a narrower bin could not tell more values apart.
_MIN_EXPONENT = -149


def layout(lo: float, hi: float, limit: int) -> tuple[int, int, int]:
    """Exponent of the width, first bin, and number of bins for data in [lo, hi] (an empty range is [0, 0])."""
    a, b = min(lo, 0.0), max(hi, 0.0)
    # With m = max(-a, b) >= 2**(e - 1) and 2**s > limit, the width 2**(e - 1 - s) is too small: start there, go up.
    exponent = max(math.frexp(max(-a, b))[1] - 1 - limit.bit_length(), _MIN_EXPONENT)
    while True:
        first, last = math.floor(math.ldexp(a, -exponent)), math.floor(math.ldexp(b, -exponent))
        if last - first < limit:
            return exponent, first, last - first + 1
        exponent += 1


@dataclass(slots=True, kw_only=True, eq=False)
class Bins:
    """Counts of bins of width 2**exponent, from bin ``lo_bin`` on.

    Attributes:
        limit: most bins there may be, at least 2.
        exponent, lo_bin: bin i of ``counts`` is [(lo_bin + i) * width, (lo_bin + i + 1) * width).
        counts: int64, at most [limit]; bin 0 of the number line is always among them.
    """

    limit: int
    exponent: int = field(default=_MIN_EXPONENT, init=False)
    lo_bin: int = field(default=0, init=False)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64), init=False)
    _fitted: tuple[float, float] | None = field(default=None, init=False, repr=False)

    @property
    def width(self) -> float:
        """Width of a bin, a power of two."""
        return math.ldexp(1.0, self.exponent)

    def fit(self, lo: float, hi: float) -> None:
        """Take the layout for data in [lo, hi], which contains what was counted; coarsen that."""
        if (lo, hi) == self._fitted:
            return
        self._fitted = lo, hi
        exponent, lo_bin, size = layout(lo, hi, self.limit)
        if (exponent, lo_bin, size) == (self.exponent, self.lo_bin, self.counts.size):
            return
        old = self.exponent, self.lo_bin, self.counts
        self.exponent, self.lo_bin, self.counts = exponent, lo_bin, np.zeros(size, np.int64)
        self._absorb(*old)

    def count(self, values: NDArray[np.float32], weight: int) -> None:
        """Count ``values`` [any shape], which lie within the present layout, ``weight`` times each."""
        if values.size == 0:
            return
        if -127 <= self.exponent <= 0:
            scaled = values * np.float32(math.ldexp(1.0, -self.exponent))
            index = np.floor(scaled, out=scaled).astype(np.intp)
        else:
            index = np.floor(values.astype(np.float64) * math.ldexp(1.0, -self.exponent)).astype(np.intp)
        index -= self.lo_bin
        self.counts += np.bincount(index.reshape(-1), minlength=self.counts.size) * weight

    def absorb(self, other: Bins) -> None:
        """Add the counts of ``other``, whose range lies within the present one."""
        self._absorb(other.exponent, other.lo_bin, other.counts)

    def _absorb(self, exponent: int, lo_bin: int, counts: NDArray[np.int64]) -> None:
        # Indices are below 2**62, so a shift by 62 says the same as any longer one, and int64 allows no more than 63.
        doublings = min(self.exponent - exponent, 62)
        if doublings == 0:
            start = lo_bin - self.lo_bin
            self.counts[start : start + counts.size] += counts
            return
        index = (np.arange(lo_bin, lo_bin + counts.size, dtype=np.int64) >> doublings) - self.lo_bin
        np.add.at(self.counts, index, counts)
