"""Calibration methods: from a statistic of a tensor to the range [lo, hi] that its codes should cover.

    needs() -> S, filled by the one pass over the data;  range(S, spec) -> (lo, hi),  min x <= lo <= hi <= max x

The range is one of the data: it need not contain 0, :func:`qconvert.numerics.affine.params_from_range` widens it.
NaN, Inf, sentinels and masks never reach a range, since no statistic keeps them. Nothing seen gives (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from qconvert.errors import InternalError
from qconvert.numerics.spec import QuantSpec
from qconvert.plan.model import RangeOption
from qconvert.registry import Registry
from qconvert.stats.minmax import MinMax
from qconvert.stats.statistic import Statistic

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How much errors of elements count to what reads them.

    Attributes:
        useful: beyond these values not at all.
        below: where they count less below 0, the statistics that were merged, each with how much of an error is left
            there by what reads its elements.
    """

    useful: tuple[float, float] = (-math.inf, math.inf)
    below: Sequence[tuple[Statistic, float]] = ()

    @property
    def alike(self) -> bool:
        """Whether all errors count the same."""
        return not self.below and self.useful == (-math.inf, math.inf)

    def cut(self, lo: float, hi: float) -> tuple[float, float]:
        """A range without values that make no difference."""
        return max(lo, self.useful[0]), min(hi, self.useful[1])


ALIKE = Seen()


class Method(Protocol):
    """How to choose a range. Implementations are frozen dataclasses whose other fields are the method's options."""

    @property
    def name(self) -> str:
        """As users write it."""
        ...

    def needs(self) -> Statistic:
        """A new, empty statistic of the kind that :meth:`range` takes."""
        ...

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """The range of the data that codes of ``spec`` should cover, (0, 0) where no usable element was seen."""
        ...


@runtime_checkable
class Chooser(Protocol):
    """A method that chooses among others."""

    def weigh(self, statistic: Statistic, spec: QuantSpec, seen: Seen = ALIKE) -> tuple[RangeOption, ...]:
        """The ranges that others propose, the best one first.

        Args:
            statistic: of all elements.
            spec: how they are quantized.
            seen: how much errors count to what reads the elements.
        """
        ...


def options_of(method: Method, statistic: Statistic, spec: QuantSpec, seen: Seen = ALIKE) -> tuple[RangeOption, ...]:
    """The range that ``method`` chooses, named after the method that it is from; behind it what else was weighed."""
    if isinstance(method, Chooser):
        return method.weigh(statistic, spec, seen)
    lo, hi = method.range(statistic, spec)
    return (RangeOption(method=method.name, lo=lo, hi=hi),)


METHODS: Registry[Method] = Registry("calibration method")
METHODS.discover("qconvert.calibrate.methods")


def statistic_as(kind: type[S], statistic: Statistic) -> S:
    """``statistic``, which must be a ``kind``."""
    if isinstance(statistic, kind):
        return statistic
    raise InternalError(f"this method needs a {kind.__name__}, got {type(statistic).__name__}")


def serves(method: Method, statistic: Statistic) -> bool:
    """Whether ``method`` can make a range of ``statistic``; the exact range is part of every statistic."""
    needed = method.needs()
    return isinstance(statistic, type(needed)) or isinstance(needed, MinMax)
