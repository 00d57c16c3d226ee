"""Exact least and greatest element, and a tally of what is no ordinary number.

    S(x) = (range and number of near, below and above, #NaN, #+Inf, #-Inf, #sentinels)

    near       |x| < 5000                  below      -1e30 < x <= -5000              above      5000 <= x < 1e30

The unit has empty ranges and zeros; merge takes the least of the minima, the greatest of the maxima and the sums of the
tallies, each of which is associative and commutative.

A sentinel is a finite element with |x| >= 1e30, such as the -3.4e38 of an attention mask: a way to write -Inf, not a
value. Smaller constants serve as masks too (-1e4, -65504, -1e9), bare or with scores added to them, and in float they
look like any other element; so they are told by the company they keep, once everything has been seen. With
r = max |near|, the elements below and above are masks if near is not empty and on each side that is not empty

    min |x| >= 32 r                        a wide gap: in 8 bits, near would be left 4 codes a side at most
    max |x| <= 2.25 min |x|                one constant, or two masks added up, and scores

Both are facts of the merged statistic, so the verdict obeys the law as well. A wide distribution has elements in the
gap, and ordinary outliers lie below 5000. Source: arithmetic; the constants are those of masks in exported models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError

# float32 activations of working networks stay far below; masks use the type's least value (3.4e38) or 1e30 and up.
SENTINEL = 1e30

# Masks start at -1e4; activations of that size exist too, but then something lies in between.
MASK = 5000.0
_GAP, _BAND = 32.0, 2.25


@dataclass(frozen=True, slots=True)
class Span:
    """Least and greatest of ``count`` elements; +inf and -inf while there is none. A monoid."""

    lo: float = np.inf
    hi: float = -np.inf
    count: int = 0

    def __add__(self, other: Span) -> Span:
        return Span(min(self.lo, other.lo), max(self.hi, other.hi), self.count + other.count)

    @property
    def reach(self) -> float:
        """Greatest magnitude, 0 while empty."""
        return max(-self.lo, self.hi, 0.0)


def span_of(values: NDArray[np.float32]) -> Span:
    """Span of ``values`` [any shape], which hold no NaN."""
    if values.size == 0:
        return Span()
    # Adding 0.0 turns -0.0 into 0.0: which zero min() returns depends on the order of the elements.
    return Span(float(values.min()) + 0.0, float(values.max()) + 0.0, values.size)


@dataclass(slots=True, kw_only=True)
class MinMax:
    """Range and tally of a tensor.

    Attributes:
        near, below, above: the finite elements that are no sentinels, by the intervals above.
        nan, posinf, neginf, sentinels: how many of the others there are.
    """

    near: Span = Span()
    below: Span = Span()
    above: Span = Span()
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    sentinels: int = 0

    @property
    def extremes(self) -> MinMax:
        """This, as every statistic has it."""
        return self

    @property
    def far(self) -> Span:
        """The elements that may be masks."""
        return self.below + self.above

    @property
    def masked(self) -> bool:
        """Whether the elements below and above are masks."""
        sides = [(-s.hi, -s.lo) if s is self.below else (s.lo, s.hi) for s in (self.below, self.above) if s.count]
        clear = all(nearest >= _GAP * self.near.reach and farthest <= _BAND * nearest for nearest, farthest in sides)
        return bool(sides) and self.near.count > 0 and clear

    @property
    def values(self) -> Span:
        """The usable elements: finite, no sentinels, no masks."""
        return self.near if self.masked else self.near + self.far

    @property
    def lo(self) -> float:
        """Least usable element; +inf while there is none."""
        return self.values.lo

    @property
    def hi(self) -> float:
        """Greatest usable element; -inf while there is none."""
        return self.values.hi

    @property
    def usable(self) -> int:
        """How many elements are."""
        return self.values.count

    @property
    def masks(self) -> int:
        """How many elements are masks that are smaller than a sentinel."""
        return self.far.count if self.masked else 0

    @property
    def skipped(self) -> int:
        """How many elements are not usable, for whatever reason."""
        return self.nan + self.posinf + self.neginf + self.sentinels + self.masks

    @property
    def total(self) -> int:
        """Elements seen, of every kind."""
        return self.usable + self.skipped

    @property
    def empty(self) -> bool:
        """Whether no usable element has been seen."""
        return self.usable == 0

    def update(self, array: NDArray[np.floating[Any]]) -> None:
        """Take in every element of ``array`` [any shape]."""
        values = single(array)
        if values.size == 0:
            return
        # min and max carry NaN, Inf, sentinels and masks along, so two comparisons clear the array; NaN fails both.
        seen = span_of(values)
        if is_near(seen.lo, seen.hi):
            self.near += seen
        else:
            self.sift(values)

    def update_many(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows`` [n, elements], n samples."""
        self.update(rows)

    def sift(self, array: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Like :meth:`update`, element by element; the elements near, and those below and above, flat."""
        values = array.reshape(-1)
        size = np.abs(values)
        is_close, is_finite = size < MASK, size < SENTINEL
        near, far, rest = values[is_close], values[is_finite & ~is_close], values[~is_finite]
        self.near += span_of(near)
        self.below += span_of(far[far < 0])
        self.above += span_of(far[far > 0])
        self.nan += int(np.count_nonzero(np.isnan(rest)))
        self.posinf += int(np.count_nonzero(np.isposinf(rest)))
        self.neginf += int(np.count_nonzero(np.isneginf(rest)))
        self.sentinels += int(np.count_nonzero(np.isfinite(rest)))
        return near, far

    def merge(self, other: Self) -> Self:
        """The range and tally of both."""
        return type(self)(
            near=self.near + other.near,
            below=self.below + other.below,
            above=self.above + other.above,
            nan=self.nan + other.nan,
            posinf=self.posinf + other.posinf,
            neginf=self.neginf + other.neginf,
            sentinels=self.sentinels + other.sentinels,
        )

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """``range`` [3, 2] float64 (near, below, above) and ``tally`` [7] int64 (their counts, then the others)."""
        spans = (self.near, self.below, self.above)
        tally = [*(s.count for s in spans), self.nan, self.posinf, self.neginf, self.sentinels]
        return {"range": np.array([[s.lo, s.hi] for s in spans], np.float64), "tally": np.array(tally, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of :meth:`to_arrays`.

        Raises:
            DataError: the arrays have other shapes.
        """
        ranges, tally = arrays["range"].astype(np.float64), arrays["tally"].astype(np.int64)
        if ranges.shape != (3, 2) or tally.shape != (7,):
            raise DataError(
                f"a stored range has shapes {ranges.shape} and {tally.shape}, not (3, 2) and (7,)",
                hint="the statistics file is damaged, or of an older version: calibrate again",
            )
        near, below, above = (Span(float(r[0]), float(r[1]), int(n)) for r, n in zip(ranges, tally[:3], strict=True))
        nan, posinf, neginf, sentinels = (int(v) for v in tally[3:])
        return cls(near=near, below=below, above=above, nan=nan, posinf=posinf, neginf=neginf, sentinels=sentinels)


def single(array: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """``array`` in float32, as quantizers read it; a float64 beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def is_near(lo: float, hi: float) -> bool:
    """Whether all elements of an array with these extremes are ordinary numbers below a mask's size; not if NaN."""
    return lo > -MASK and hi < MASK
