"""Exact least and greatest element, and a tally of what is no ordinary number.

    S(x) = (min x, max x, #x, #NaN, #+Inf, #-Inf, #sentinels)      min and max over the usable elements only

A sentinel is a finite element with |x| >= 1e30, such as the -3.4e38 of an attention mask: a way to write -Inf, not a
value. The unit is (+inf, -inf, 0, ...); merge takes the least of the minima, the greatest of the maxima and the sums of
the tallies, each of which is associative and commutative. Source: arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# float32 activations of working networks stay far below; masks use the type's least value (3.4e38) or 1e30 and up.
SENTINEL = 1e30


@dataclass(slots=True, kw_only=True)
class MinMax:
    """Range and tally of a tensor.

    Attributes:
        lo, hi: least and greatest usable element; +inf and -inf while there is none.
        total: elements seen, of every kind.
        nan, posinf, neginf, sentinels: how many of them were not usable, and why.
    """

    lo: float = np.inf
    hi: float = -np.inf
    total: int = 0
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    sentinels: int = 0

    @property
    def usable(self) -> int:
        """How many elements are finite and no sentinel."""
        return self.total - self.nan - self.posinf - self.neginf - self.sentinels

    @property
    def empty(self) -> bool:
        """Whether no usable element has been seen."""
        return self.lo > self.hi

    def update(self, array: NDArray[np.floating[Any]]) -> None:
        """Take in every element of ``array`` [any shape]."""
        self.take(array)

    def take(self, array: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Like :meth:`update`, and hand back the usable elements, flat (a view where there is nothing to leave out)."""
        values = np.asarray(array).reshape(-1)
        self.total += values.size
        if values.size == 0:
            return values
        lo, hi = float(values.min()), float(values.max())
        # min and max carry NaN, Inf and sentinels along, so two comparisons clear the whole array; NaN fails both.
        if not (lo > -SENTINEL and hi < SENTINEL):
            values = self._sift(values)
            if values.size == 0:
                return values
            lo, hi = float(values.min()), float(values.max())
        # Adding 0.0 turns -0.0 into 0.0: which zero min() returns depends on the order of the elements.
        self.lo = min(self.lo, lo) + 0.0
        self.hi = max(self.hi, hi) + 0.0
        return values

    def _sift(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Tally the unusable elements of flat ``values``; the rest."""
        nan = np.isnan(values)
        posinf, neginf = np.isposinf(values), np.isneginf(values)
        # In float64, because 1e30 is infinite in float16.
        sentinel = (np.abs(values, dtype=np.float64) >= SENTINEL) & ~posinf & ~neginf
        self.nan += int(np.count_nonzero(nan))
        self.posinf += int(np.count_nonzero(posinf))
        self.neginf += int(np.count_nonzero(neginf))
        self.sentinels += int(np.count_nonzero(sentinel))
        kept: NDArray[np.floating[Any]] = values[~(nan | posinf | neginf | sentinel)]
        return kept

    def update_many(self, rows: NDArray[np.floating[Any]]) -> None:
        """Take in several samples, one a row of ``rows`` [n, elements]."""
        for row in rows:
            self.update(row)

    def merge(self, other: Self) -> Self:
        """The range and tally of both."""
        return type(self)(
            lo=min(self.lo, other.lo),
            hi=max(self.hi, other.hi),
            total=self.total + other.total,
            nan=self.nan + other.nan,
            posinf=self.posinf + other.posinf,
            neginf=self.neginf + other.neginf,
            sentinels=self.sentinels + other.sentinels,
        )

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """``range`` [2] float64 and ``tally`` [5] int64."""
        tally = [self.total, self.nan, self.posinf, self.neginf, self.sentinels]
        return {"range": np.array([self.lo, self.hi], np.float64), "tally": np.array(tally, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of :meth:`to_arrays`."""
        lo, hi = (float(v) for v in arrays["range"].astype(np.float64))
        total, nan, posinf, neginf, sentinels = (int(v) for v in arrays["tally"].astype(np.int64))
        return cls(lo=lo, hi=hi, total=total, nan=nan, posinf=posinf, neginf=neginf, sentinels=sentinels)
