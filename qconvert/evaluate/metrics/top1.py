"""Top-k accuracy: the share of samples whose label is among the k greatest scores, in percent.

    rank_s = #{c : y_sc > y_sl} + #{c < l : y_sc = y_sl}       l = label of sample s; a hit if rank_s < k

Equal scores, common in quantized outputs, rank by class index, as argmax and a stable sort do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError
from qconvert.evaluate.metric import METRICS, Array, rows_for, show, wrong_labels
from qconvert.graph.session import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Accuracy over scores [n, C] (trailing axes of size 1 allowed) and integer labels [N].

    Attributes:
        k: how many of the greatest scores count.
    """

    name: str
    k: int
    higher_is_better: bool = True
    unit: str = "%"

    def samples_needed(self, labels: Array) -> int:
        """One sample a label."""
        return len(labels)

    def start(self, labels: Array) -> TopKAccumulator:
        """A fresh count."""
        if labels.dtype.kind not in "iu" or not labels.size or labels.size != len(labels):
            raise wrong_labels(self.name, labels, "integer class labels [N]")
        return TopKAccumulator(self, labels.reshape(-1))


class TopKAccumulator:
    """Hit or miss, sample by sample."""

    def __init__(self, metric: TopK, labels: Array) -> None:
        self._metric = metric
        self._labels = labels
        self._hits: list[NDArray[np.bool_]] = []

    def update(self, outputs: Sequence[Array], feed: Feed, first: int) -> None:
        """Count the hits of scores [n, C]."""
        del feed
        output, name = outputs[0], self._metric.name
        if output.ndim < 2 or output.shape[1] < 2 or any(size != 1 for size in output.shape[2:]):
            raise DataError(
                f"{name} expects a first output of class scores [n, C], got {show(output.shape)}",
                hint=f"choose another --metric ({', '.join(METRICS.names())})",
            )
        labels = rows_for(name, output, self._labels, first).astype(np.int64)
        scores = output.reshape(len(output), -1).astype(np.float64)
        low, high, classes = int(self._labels.min()), int(self._labels.max()), scores.shape[1]
        if low < 0 or high >= classes:
            raise DataError(
                f"labels run from {low} to {high}, but the model scores {classes} classes: 0 to {classes - 1}",
                hint="check that the labels count from 0 and that no background class shifts them",
            )
        own = np.take_along_axis(scores, labels[:, None], axis=1)
        # A NaN score ranks above all: comparisons with it are False, which would make a broken model hit every label.
        above = (scores > own) | ((scores == own) & (np.arange(classes) < labels[:, None])) | np.isnan(scores)
        self._hits.append((above.sum(axis=1) < self._metric.k) & ~np.isnan(own[:, 0]))

    def scores(self) -> NDArray[np.bool_]:
        """Whether each sample was hit, [N]."""
        return np.concatenate(self._hits) if self._hits else np.zeros(0, np.bool_)

    def value(self) -> float:
        """Percent of samples hit, 0..100."""
        hits = self.scores()
        return 100 * int(np.count_nonzero(hits)) / len(hits) if len(hits) else 0.0


METRICS.add("top1", TopK(name="top1", k=1))
