"""What a mixed-precision model must reach.

``--max-drop 0.5%`` is in absolute points of the metric: half a point of one that is counted in percent, 0.005 of one
that is a share (Spearman's correlation). A bare number is in the metric's own unit. ``--min-sqnr 25`` is in dB, of all
outputs of all evaluation samples.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from qconvert.errors import RecipeError
from qconvert.evaluate.compare import Comparison, MetricResult

_DROP = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*")
# metrics from -1 or 0 to 1
_SHARES = ("spearman",)
# sums of hits are not exact
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit, or two.

    Attributes:
        max_drop: as the user wrote it ("0.5%"); None is no limit.
        min_sqnr: dB; None is no limit.

    Raises:
        RecipeError: a limit means nothing.
    """

    max_drop: str | None = None
    min_sqnr: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and not _DROP.fullmatch(self.max_drop):
            raise RecipeError(f"--max-drop cannot be {self.max_drop!r}", hint="give a number, such as 0.5%")
        if self.min_sqnr is not None and not math.isfinite(self.min_sqnr):
            raise RecipeError(f"--min-sqnr cannot be {self.min_sqnr}", hint="give a number of dB, such as 25")

    def shortfall(self, found: Comparison) -> float:
        """By how much ``found`` misses the limits, in the unit of the first that is missed; 0 where all are kept.

        Raises:
            RecipeError: "%" means nothing to the metric.
        """
        over = found.metric.drop - self._limit(found.metric) if self.max_drop is not None and found.metric else 0.0
        under = self.min_sqnr - found.fidelity.sqnr_db if self.min_sqnr is not None else 0.0
        return next((miss for miss in (over, under) if not miss <= _TOLERANCE), 0.0)

    def _limit(self, metric: MetricResult) -> float:
        """The largest drop, in the metric's unit."""
        matched = _DROP.fullmatch(self.max_drop or "")
        number, percent = (float(matched[1]), bool(matched[2])) if matched is not None else (0.0, False)
        if percent and metric.unit != "%" and metric.name not in _SHARES:
            raise RecipeError(
                f"--max-drop {self.max_drop}: {metric.name} is not counted in percent",
                hint=f"give a number without %, in {metric.unit or 'its own unit'}",
            )
        return number / 100 if percent and metric.unit != "%" else number

    def __str__(self) -> str:
        limits = (
            f"--max-drop {self.max_drop}" if self.max_drop is not None else "",
            f"--min-sqnr {self.min_sqnr:g}" if self.min_sqnr is not None else "",
        )
        return " ".join(filter(None, limits))
