"""What a moving average over samples needs, whatever order they come in.

A moving average weighs samples by their place in the order. To obey the law the order must follow from the samples
themselves: they are ordered by a key, 64 bits mixed from the bits of their range (splitmix64's finalizer), which is as
good as a random order. With weight 1 - c = 0.99 for what came before, all but the last 4096 samples have a weight
below 0.99**4096 = 1.3e-18 together, less than float64 resolves; so the 4096 with the greatest keys are all that is
kept. Keeping the k greatest of a multiset is associative and commutative ("bottom-k sketch").

    S = the (near lo, near hi, all lo, all hi) of the 4096 samples with the greatest keys, each as often as it was seen

Source: Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches"; Steele et al. 2014, "Fast splittable
pseudorandom number generators" (the mix).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qconvert.stats.minmax import MinMax, single
from qconvert.stats.sample_ranges import take_ranges

KEPT = 4096


def _mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer, a bijection of 64 bits."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = keys ^ (keys >> np.uint64(31))
    return mixed


def keys_of(ranges: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Keys [n] of ``ranges`` [n, 4]."""
    # Two float32 side by side are one 64-bit number; the additive constants keep zeros from staying zeros.
    near, every = np.ascontiguousarray(ranges, np.float32).view(np.uint64).T
    return _mix(_mix(near + np.uint64(0x9E3779B97F4A7C15)) + every)


def _last(ranges: NDArray[np.float32]) -> NDArray[np.float32]:
    """The KEPT samples of ``ranges`` [n, 4] with the greatest keys, in the order of the keys, then of the ranges."""
    order = np.lexsort((*ranges.T[::-1], keys_of(ranges)))
    return ranges[order[-KEPT:]]


@dataclass(slots=True, kw_only=True, eq=False)
class MovingRange:
    """Ranges of the samples that a moving average depends on.

    Attributes:
        extremes: exact range and tally over all samples.
    """

    extremes: MinMax = field(default_factory=MinMax)
    _parts: list[NDArray[np.float32]] = field(default_factory=list, repr=False)
    _pending: int = field(default=0, repr=False)

    @property
    def ranges(self) -> NDArray[np.float32]:
        """Least and greatest usable element of each sample that has one, [n, 2], in the order of the keys."""
        kept = self._compact()[:, :2] if self.extremes.masked else self._compact()[:, 2:]
        usable: NDArray[np.float32] = kept[kept[:, 0] <= kept[:, 1]]
        return usable

    def update(self, array: NDArray[np.floating[Any]]) -> None:
        """Take in ``array`` [any shape], one sample."""
        self.update_many(single(array).reshape(1, -1))

    def update_many(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows`` [n, elements], n samples."""
        self._add(take_ranges(single(rows), self.extremes))

    def _add(self, ranges: NDArray[np.float32]) -> None:
        self._parts.append(ranges)
        self._pending += len(ranges)
        # Sorting now and then keeps memory bounded, and the cost of an update small.
        if self._pending > 2 * KEPT:
            self._compact()

    def _compact(self) -> NDArray[np.float32]:
        """The samples kept, [n, 4]."""
        kept = _last(np.concatenate([np.empty((0, 4), np.float32), *self._parts]))
        self._parts, self._pending = [kept], len(kept)
        return kept

    def merge(self, other: Self) -> Self:
        """The samples with the greatest keys of both sets."""
        both = type(self)(extremes=self.extremes.merge(other.extremes))
        both._add(self._compact())
        both._add(other._compact())
        return both

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MovingRange):
            return NotImplemented
        return self.extremes == other.extremes and np.array_equal(self._compact(), other._compact())

    __hash__ = None  # type: ignore[assignment]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """``ranges`` [n, 4] float32, n <= 4096, and MinMax's."""
        return {"ranges": self._compact().copy(), **self.extremes.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of :meth:`to_arrays`."""
        made = cls(extremes=MinMax.from_arrays(arrays))
        made._add(arrays["ranges"].astype(np.float32))
        return made
