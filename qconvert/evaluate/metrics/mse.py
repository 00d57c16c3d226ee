"""Mean error per element against labels of the output's shape.

    value = 1/(N W) sum_s sum_w e(y_sw - t_sw)        e(d) = d^2 for mse, |d| for mae

over N samples of W elements, y the output and t the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.evaluate.metric import METRICS, Array, aligned, rows_for, wrong_labels
from qconvert.graph.session import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanError:
    """Mean of ``error`` over all elements; outputs [n, ...] and numeric labels [N, ...] of the same shape.

    Attributes:
        error: the penalty of differences, element by element.
    """

    name: str
    error: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    higher_is_better: bool = False
    unit: str = ""

    def samples_needed(self, labels: Array) -> int:
        """One sample a label."""
        return len(labels)

    def start(self, labels: Array) -> MeanErrorAccumulator:
        """A fresh sum."""
        if labels.dtype.kind not in "fiu" or not labels.size:
            raise wrong_labels(self.name, labels, "numeric labels of the output's shape")
        return MeanErrorAccumulator(self, labels)


class MeanErrorAccumulator:
    """Mean penalty, sample by sample."""

    def __init__(self, metric: MeanError, labels: Array) -> None:
        self._metric = metric
        self._labels = labels
        self._errors: list[NDArray[np.float64]] = []

    def update(self, outputs: Sequence[Array], feed: Feed, first: int) -> None:
        """Add the penalties of the first output, [n, ...]."""
        del feed
        name = self._metric.name
        output, labels = aligned(name, outputs[0], rows_for(name, outputs[0], self._labels, first))
        self._errors.append(self._metric.error(output - labels).mean(axis=1))

    def scores(self) -> NDArray[np.float64]:
        """Mean penalty of each sample, [N]."""
        return np.concatenate(self._errors) if self._errors else np.zeros(0)

    def value(self) -> float:
        """Mean penalty, in the output's unit (mae) or its square (mse); inf when an output is NaN."""
        errors = self.scores()
        mean = float(errors.mean()) if len(errors) else math.inf
        return math.inf if math.isnan(mean) else mean


METRICS.add("mse", MeanError(name="mse", error=np.square))
