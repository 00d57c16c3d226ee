"""The mean over samples of the least and of the greatest element of a tensor.

    S = (sum min x_i, sum max x_i, #i)        over samples i that have a usable element

Sums of floats depend on the order of the summands. A float32 is an integer multiple of 2**-149, so the sums are kept as
Python's integers, in that unit: exact, hence associative. Source: arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qconvert.stats.minmax import MinMax, single
from qconvert.stats.sample_ranges import take_ranges

# The least positive float32 is 2**-149.
_UNIT = 149

# Elements are below 2**100, so 2**64 of them add up to less than 2**(100 + 149 + 64).
_BYTES = 40


@dataclass(slots=True, kw_only=True)
class MeanRange:
    """Sums of the ranges of samples.

    Attributes:
        extremes: exact range and tally over all samples.
        sums: near lo, near hi, all lo, all hi (:mod:`qconvert.stats.sample_ranges`), in units of 2**-149.
        samples: how many have near elements, and how many have finite ones.
    """

    extremes: MinMax = field(default_factory=MinMax)
    sums: tuple[int, int, int, int] = (0, 0, 0, 0)
    samples: tuple[int, int] = (0, 0)

    @property
    def mean(self) -> tuple[float, float]:
        """Mean least and mean greatest usable element, (0, 0) while there is none; correctly rounded."""
        at = 0 if self.extremes.masked else 1
        if self.samples[at] == 0:
            return 0.0, 0.0
        below = self.samples[at] << _UNIT
        return self.sums[2 * at] / below, self.sums[2 * at + 1] / below

    def update(self, array: NDArray[np.floating[Any]]) -> None:
        """Take in ``array`` [any shape], one sample."""
        self.update_many(single(array).reshape(1, -1))

    def update_many(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows`` [n, elements], n samples."""
        ranges = take_ranges(single(rows), self.extremes)
        columns = [[v for v in column if math.isfinite(v)] for column in ranges.T.tolist()]
        a, b, c, d = (total + _exact_sum(column) for total, column in zip(self.sums, columns, strict=True))
        self.sums = a, b, c, d
        self.samples = self.samples[0] + len(columns[0]), self.samples[1] + len(columns[2])

    def merge(self, other: Self) -> Self:
        """The sums of both sets of samples."""
        a, b, c, d = (x + y for x, y in zip(self.sums, other.sums, strict=True))
        return type(self)(
            extremes=self.extremes.merge(other.extremes),
            sums=(a, b, c, d),
            samples=(self.samples[0] + other.samples[0], self.samples[1] + other.samples[1]),
        )

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """``sums`` [4, 40] uint8 (little-endian two's complement), ``samples`` [2] int64, and MinMax's."""
        sums = np.stack([np.frombuffer(v.to_bytes(_BYTES, "little", signed=True), np.uint8) for v in self.sums])
        return {"sums": sums, "samples": np.array(self.samples, np.int64), **self.extremes.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of :meth:`to_arrays`."""
        a, b, c, d = (int.from_bytes(row.tobytes(), "little", signed=True) for row in arrays["sums"].astype(np.uint8))
        near, every = (int(v) for v in arrays["samples"].astype(np.int64))
        return cls(extremes=MinMax.from_arrays(arrays), sums=(a, b, c, d), samples=(near, every))


def _exact_sum(values: list[float]) -> int:
    """Sum of float32 ``values`` in units of 2**-149."""
    return sum(int(math.ldexp(v, _UNIT)) for v in values)
