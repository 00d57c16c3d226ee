"""A histogram whose result does not depend on the order, batching or splitting of the data.

    w = 2**k            bin width: the least power of two for which floor(hi / w) - floor(lo / w) + 1 <= bins,
                        [lo, hi] = range of all usable elements so far, widened to contain 0
    bin(x) = floor(x / w)

k is a function of the range, and the range is one of the *set* of elements. When it grows, k grows by d and counts
coarsen exactly, because floor(x / (2**d w)) == floor(x / w) >> d; so counts are what they would be had the final width
been known from the start, and merge is associative and commutative to the bit. x / w is exact: a product of a float32
with a power of two, in float64. float64 elements are rounded to float32 first, as the quantizer does.

Large arrays are sampled: each ``stride``-th element counts ``stride`` times, save in the tails. Elements beyond the
sample's outer 256ths are counted exactly, since few of them decide how much clipping costs, and a sample that misses
one outlier of a fixed place (a transformer's massive activations) would miss it in every array. What an array adds
depends on that array alone, so the law above holds over updates; with ``max_elements=None`` it holds over elements.
Source: arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError, InternalError
from qconvert.stats.minmax import MinMax

# At least 8 bins to a step of an 8-bit grid, as a range takes more than half of the bins.
DEFAULT_BINS = 4096

# Of an array [1, 64, 112, 112], counting all elements takes three times as long as range, tails and a 64k sample do.
DEFAULT_MAX_ELEMENTS = 1 << 16

# Share of the sample beyond which, at each end, elements are counted exactly: 1 / 256.
_TAIL = 256

# The least positive float32 is 2**-149: a narrower bin could not tell more values apart.
_MIN_EXPONENT = -149


def _layout(lo: float, hi: float, bins: int) -> tuple[int, int, int]:
    """Exponent of the width, first bin, and number of bins for data in [lo, hi] (an empty range is [0, 0])."""
    # Rounding to float32 is monotone, so rounded elements stay within the rounded range.
    a, b = float(np.float32(min(lo, 0.0))), float(np.float32(max(hi, 0.0)))
    # With m = max(-a, b) >= 2**(e - 1) and 2**s > bins, the width 2**(e - 1 - s) is too small: start there, go up.
    exponent = max(math.frexp(max(-a, b))[1] - 1 - bins.bit_length(), _MIN_EXPONENT)
    while True:
        first, last = math.floor(math.ldexp(a, -exponent)), math.floor(math.ldexp(b, -exponent))
        if last - first < bins:
            return exponent, first, last - first + 1
        exponent += 1


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


def _tails(sample: NDArray[np.floating[Any]]) -> tuple[np.floating[Any], np.floating[Any]]:
    """Bounds with about 1 / 256 of ``sample`` beyond each; rough, as they only say what is counted exactly."""
    # Sorting is what costs here, hence a sample of the sample; an odd step falls in with fewer axis lengths.
    thin = sample[::17]
    cut = thin.size // _TAIL
    parted = np.partition(thin, (cut, thin.size - 1 - cut))
    return parted[cut], parted[thin.size - 1 - cut]


@dataclass(slots=True, kw_only=True, eq=False)
class Histogram:
    """Counts of bins of width 2**exponent, from bin ``lo_bin`` on.

    Attributes:
        bins: most bins there may be, at least 2.
        max_elements: size above which arrays are sampled; None never samples.
        extremes: exact range and tally of unusable elements.
        exponent, lo_bin: bin i of ``counts`` is [(lo_bin + i) * width, (lo_bin + i + 1) * width).
        counts: int64, at most [bins]; bin 0 of the number line is always among them.
    """

    bins: int = DEFAULT_BINS
    max_elements: int | None = DEFAULT_MAX_ELEMENTS
    extremes: MinMax = field(default_factory=MinMax)
    exponent: int = field(default=_MIN_EXPONENT, init=False)
    lo_bin: int = field(default=0, init=False)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64), init=False)

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise InternalError(f"a histogram needs a bin on each side of 0, so at least 2, got {self.bins}")
        if self.max_elements is not None and self.max_elements < 1:
            raise InternalError(f"max_elements must be positive or None, got {self.max_elements}")
        self._refit()

    @property
    def width(self) -> float:
        """Width of a bin, a power of two."""
        return math.ldexp(1.0, self.exponent)

    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, one more than counts; each is exact."""
        return np.arange(self.lo_bin, self.lo_bin + self.counts.size + 1, dtype=np.float64) * self.width

    def update(self, array: NDArray[np.floating[Any]]) -> None:
        """Take in every element of ``array`` [any shape]; of large ones a sample and the tails."""
        values = self.extremes.take(array)
        if values.size == 0:
            return
        self._refit()
        step = stride(np.size(array), self.max_elements)
        if step == 1:
            self._count(values, 1)
            return
        sample = values[::step]
        low, high = _tails(sample)
        self._count(values[(values < low) | (values > high)], 1)
        self._count(sample[(sample >= low) & (sample <= high)], step)

    def _count(self, values: NDArray[np.floating[Any]], weight: int) -> None:
        """Count flat ``values``, which lie within the present range, ``weight`` times each."""
        exact = values.astype(np.float32, copy=False).astype(np.float64)
        index = np.floor(exact * math.ldexp(1.0, -self.exponent)).astype(np.int64) - self.lo_bin
        self.counts += np.bincount(index, minlength=self.counts.size) * weight

    def update_many(self, rows: NDArray[np.floating[Any]]) -> None:
        """Take in several samples, one a row of ``rows`` [n, elements]."""
        for row in rows:
            self.update(row)

    def merge(self, other: Self) -> Self:
        """The histogram of both sets of samples."""
        if (self.bins, self.max_elements) != (other.bins, other.max_elements):
            raise InternalError(
                f"histograms with (bins, max_elements) {(self.bins, self.max_elements)} and "
                f"{(other.bins, other.max_elements)} cannot be merged"
            )
        both = type(self)(bins=self.bins, max_elements=self.max_elements, extremes=self.extremes.merge(other.extremes))
        both._absorb(self.exponent, self.lo_bin, self.counts)
        both._absorb(other.exponent, other.lo_bin, other.counts)
        return both

    def _refit(self) -> None:
        """Give the bins the layout of the present range, coarsening what has been counted."""
        exponent, lo_bin, size = _layout(self.extremes.lo, self.extremes.hi, self.bins)
        if (exponent, lo_bin, size) == (self.exponent, self.lo_bin, self.counts.size):
            return
        old = self.exponent, self.lo_bin, self.counts
        self.exponent, self.lo_bin, self.counts = exponent, lo_bin, np.zeros(size, np.int64)
        self._absorb(*old)

    def _absorb(self, exponent: int, lo_bin: int, counts: NDArray[np.int64]) -> None:
        """Add ``counts`` of a layout that is at most as wide and as coarse as this one."""
        # Indices are below 2**62, so a shift by 62 says the same as any longer one, and int64 allows no more than 63.
        doublings = min(self.exponent - exponent, 62)
        index = (np.arange(lo_bin, lo_bin + counts.size, dtype=np.int64) >> doublings) - self.lo_bin
        np.add.at(self.counts, index, counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        mine, others = self.to_arrays(), other.to_arrays()
        return all(np.array_equal(mine[k], others[k]) for k in mine)

    __hash__ = None  # type: ignore[assignment]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """``counts``, ``options`` [2] int64 (bins, max_elements or 0) and MinMax's; the range implies the layout."""
        options = np.array([self.bins, self.max_elements or 0], np.int64)
        return {"counts": self.counts.copy(), "options": options, **self.extremes.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of :meth:`to_arrays`.

        Raises:
            DataError: the counts do not fit the range.
        """
        bins, limit = (int(v) for v in arrays["options"].astype(np.int64))
        made = cls(bins=bins, max_elements=limit or None, extremes=MinMax.from_arrays(arrays))
        counts = arrays["counts"]
        if counts.shape != made.counts.shape:
            raise DataError(
                f"a stored histogram has {counts.shape} counts, its range asks for {made.counts.shape}",
                hint="the statistics file is damaged: calibrate again",
            )
        made.counts = counts.astype(np.int64)
        return made
