"""A histogram whose result does not depend on the order, batching or splitting of the data.

Bins have a power of two as width (:mod:`qconvert.stats.bins`), so counts are exact functions of the set of elements,
and merge is associative and commutative to the bit. Of large arrays a sample and the tails are counted
(:mod:`qconvert.stats.sampling`): what an array adds depends on that array alone, so the law holds over updates; with
``max_elements=None`` it holds over elements. float64 elements are rounded to float32 first, as the quantizer does.

Elements of the size of masks (:mod:`qconvert.stats.minmax`) have bins of their own until it is asked what they are:
masks are left out then, anything else joins the other elements, at the width that fits both, which is where they would
be had they never been apart. So a mask of -1e9 makes nobody's bins coarse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError, InternalError
from qconvert.stats.bins import Bins
from qconvert.stats.minmax import MinMax, Span, is_near, single
from qconvert.stats.sampling import Blocks, stride

# At least 8 bins to a step of an 8-bit grid, as a range takes more than half of the bins.
DEFAULT_BINS = 4096

# Counting an element costs ten times as much as finding the range of one. The tails are exact anyway, and 4096 elements
# a sample show the shape of the rest.
DEFAULT_MAX_ELEMENTS = 1 << 12


@dataclass(slots=True, kw_only=True, eq=False)
class Histogram:
    """Counts of the usable elements.

    Attributes:
        bins: most bins there may be, at least 2.
        max_elements: size above which arrays are sampled; None never samples.
        extremes: exact range and tally of unusable elements.
        counted: how many elements were looked at, of those that are no masks' size: the worth of the counts.
    """

    bins: int = DEFAULT_BINS
    max_elements: int | None = DEFAULT_MAX_ELEMENTS
    extremes: MinMax = field(default_factory=MinMax)
    counted: int = field(default=0, init=False)
    _near: Bins = field(init=False, repr=False)
    _far: Bins = field(init=False, repr=False)
    _joined: Bins | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise InternalError(f"a histogram needs a bin on each side of 0, so at least 2, got {self.bins}")
        if self.max_elements is not None and self.max_elements < 1:
            raise InternalError(f"max_elements must be positive or None, got {self.max_elements}")
        self._near, self._far = Bins(limit=self.bins), Bins(limit=self.bins)
        self._near.fit(self.extremes.near.lo, self.extremes.near.hi)
        self._far.fit(self.extremes.far.lo, self.extremes.far.hi)

    @property
    def exponent(self) -> int:
        """The width of a bin is 2**exponent."""
        return self._usable.exponent

    @property
    def lo_bin(self) -> int:
        """Bin i of :attr:`counts` is [(lo_bin + i) * width, (lo_bin + i + 1) * width)."""
        return self._usable.lo_bin

    @property
    def counts(self) -> NDArray[np.int64]:
        """Of the usable elements, at most [bins]; bin 0 of the number line is always among them."""
        return self._usable.counts

    @property
    def width(self) -> float:
        """Width of a bin, a power of two."""
        return self._usable.width

    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, one more than counts; each is exact."""
        return np.arange(self.lo_bin, self.lo_bin + self.counts.size + 1, dtype=np.float64) * self.width

    @property
    def _usable(self) -> Bins:
        """Bins of the usable elements."""
        if self.extremes.far.count == 0 or self.extremes.masked:
            return self._near
        if self._joined is None:
            self._joined = Bins(limit=self.bins)
            self._joined.fit(self.extremes.lo, self.extremes.hi)
            self._joined.absorb(self._near)
            self._joined.absorb(self._far)
        return self._joined

    def update(self, array: NDArray[np.floating[Any]]) -> None:
        """Take in ``array`` [any shape], one sample: all of it, or of a large one the tails and an even part."""
        self.update_many(single(array).reshape(1, -1))

    def update_many(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows`` [n, elements], n samples: to the bit the same as n updates."""
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.size == 0:
            return
        step = stride(rows.shape[1], self.max_elements)
        blocks = Blocks(rows, step) if step > 1 else None
        lo, hi = (blocks.lo, blocks.hi) if blocks else (float(rows.min()), float(rows.max()))
        if not is_near(lo, hi):
            for row in rows:
                self._sift(row)
            return
        self.extremes.near += Span(lo + 0.0, hi + 0.0, rows.size)
        self._fit()
        self.counted += _count(self._near, blocks or rows, step)

    def _sift(self, row: NDArray[np.float32]) -> None:
        """Take in ``row`` [elements], which may hold anything."""
        near, far = self.extremes.sift(row)
        self._fit()
        for values, bins in ((near, self._near), (far, self._far)):
            if values.size:
                step = stride(values.size, self.max_elements)
                counted = _count(bins, Blocks(values[None], step) if step > 1 else values, step)
                self.counted += counted if bins is self._near else 0

    def _fit(self) -> None:
        """Give the bins the layout of the present ranges, for what is counted next."""
        self._near.fit(self.extremes.near.lo, self.extremes.near.hi)
        if self.extremes.far.count:
            self._far.fit(self.extremes.far.lo, self.extremes.far.hi)
            self._joined = None

    def merge(self, other: Self) -> Self:
        """The histogram of both sets of samples."""
        if (self.bins, self.max_elements) != (other.bins, other.max_elements):
            raise InternalError(
                f"histograms with (bins, max_elements) {(self.bins, self.max_elements)} and "
                f"{(other.bins, other.max_elements)} cannot be merged"
            )
        both = type(self)(bins=self.bins, max_elements=self.max_elements, extremes=self.extremes.merge(other.extremes))
        both.counted = self.counted + other.counted
        for part in (self, other):
            both._near.absorb(part._near)
            both._far.absorb(part._far)
        return both

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        mine, others = self.to_arrays(), other.to_arrays()
        return all(np.array_equal(mine[k], others[k]) for k in mine)

    __hash__ = None  # type: ignore[assignment]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """``near`` and ``far``: counts of the two kinds of bins, whose layout the ranges imply; ``options`` [3] int64
        (bins, max_elements or 0, counted); and MinMax's.
        """
        options = np.array([self.bins, self.max_elements or 0, self.counted], np.int64)
        counts = {"near": self._near.counts.copy(), "far": self._far.counts.copy()}
        return {**counts, "options": options, **self.extremes.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of :meth:`to_arrays`.

        Raises:
            DataError: the counts do not fit the range.
        """
        bins, limit, counted = (int(v) for v in arrays["options"].astype(np.int64))
        made = cls(bins=bins, max_elements=limit or None, extremes=MinMax.from_arrays(arrays))
        for own, counts in ((made._near, arrays["near"]), (made._far, arrays["far"])):
            if counts.shape != own.counts.shape:
                raise DataError(
                    f"a stored histogram has {counts.shape} counts, its range asks for {own.counts.shape}",
                    hint="the statistics file is damaged: calibrate again",
                )
            own.counts = counts.astype(np.int64)
        made.counted = counted
        return made


def _count(bins: Bins, values: Blocks | NDArray[np.float32], step: int) -> int:
    """Count ``values``, which fit the layout of ``bins``: of blocks the tails, and each ``step``-th of the rest.

    Returns:
        How many elements were counted.
    """
    if isinstance(values, Blocks):
        body, tails = values.pick()
        bins.count(body, step)
        bins.count(tails, 1)
        return body.size + tails.size
    bins.count(values, 1)
    return values.size
