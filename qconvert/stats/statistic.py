"""Statistic, StatRequest and StatsTable: what calibration gathers.

A statistic is a monoid: ``merge`` is associative and commutative with the empty statistic as unit, and

    S(samples A then B) == merge(S(A), S(B))      bit for bit

so the result depends neither on the order of samples nor on how they were split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from qconvert.stats.minmax import MinMax


class Statistic(Protocol):
    """Something that accumulates over arrays."""

    @property
    def extremes(self) -> MinMax:
        """The exact range, and what was no ordinary number."""
        ...

    def update(self, array: NDArray[np.floating]) -> None:
        """Take in ``array`` [any shape, float]: the tensor of one sample."""
        ...

    def update_many(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows`` [n, elements]: the tensor of n samples, flat. The same, to the bit, as n updates."""
        ...

    def merge(self, other: Self) -> Self:
        """The statistic of both sets of samples; neither operand changes."""
        ...

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Plain arrays that hold all of it."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of :meth:`to_arrays`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StatRequest:
    """Who wants which statistic of which tensor.

    Attributes:
        tensor: name of the tensor to observe.
        make: makes an empty statistic ("MinMax", "Histogram").
        asked_by: for the log.
    """

    tensor: str
    make: Callable[[], Statistic]
    asked_by: str


@dataclass(slots=True, kw_only=True)
class StatsTable:
    """Statistics by tensor name, filled by one pass over the data.

    Attributes:
        entries: tensor -> statistic.
        samples: how many samples have been seen.
    """

    entries: dict[str, Statistic] = field(default_factory=dict)
    samples: int = 0

    def __getitem__(self, tensor: str) -> Statistic:
        return self.entries[tensor]

    def __contains__(self, tensor: object) -> bool:
        return tensor in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)
