"""Min-max: the range of all data.

    lo = min x, hi = max x

Nothing is clipped, so one outlier sets the step of every other value. Source: Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.calibrate.method import METHODS
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.minmax import MinMax
from qconvert.stats.statistic import Statistic


@dataclass(frozen=True, slots=True, kw_only=True)
class MinMaxMethod:
    """The exact range of the data."""

    name: str = "minmax"

    def needs(self) -> Statistic:
        """An exact range."""
        return MinMax()

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """Least and greatest element seen."""
        extremes = statistic.extremes
        return (0.0, 0.0) if extremes.empty else (extremes.lo, extremes.hi)


METHODS.add("minmax", MinMaxMethod())
