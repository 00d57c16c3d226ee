"""Mean min-max: the mean over samples of each sample's range.

    lo = 1/n sum_i min x_i,    hi = 1/n sum_i max x_i          over samples i with a usable element

An outlier that few samples have is averaged away; one that all have stays. The sums are exact, so the result does not
depend on the order of the samples. Source: the default of NNCF's post-training quantization.
"""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.mean_range import MeanRange
from qconvert.stats.statistic import Statistic


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanMinMax:
    """The mean range of a sample."""

    name: str = "mean-minmax"

    def needs(self) -> Statistic:
        """Exact sums of ranges."""
        return MeanRange()

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """Mean least and mean greatest element of a sample."""
        return statistic_as(MeanRange, statistic).mean


METHODS.add("mean-minmax", MeanMinMax())
