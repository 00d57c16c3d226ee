"""Spearman rank correlation of embedding similarity with labels (STS-B and its kind).

    c_i = <e_i, e_{N+i}> / (|e_i| |e_{N+i}|)          rows i and N+i of the evaluation set are a pair, i = 0..N-1
    rho = Pearson(rank(c), rank(labels))              average ranks for ties

Token embeddings [n, T, D] become one vector by the mean over the tokens that the feed's attention mask keeps
(Reimers & Gurevych 2019, Sentence-BERT), or over all tokens when the model has no mask input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError
from qconvert.evaluate.metric import METRICS, Array, show, wrong_labels
from qconvert.graph.session import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Spearman:
    """Rank correlation, -1..1, over embeddings [n, D] or [n, T, D] of 2 N samples and labels [N]."""

    name: str = "spearman"
    higher_is_better: bool = True
    unit: str = ""

    def samples_needed(self, labels: Array) -> int:
        """Two samples a label."""
        return 2 * len(labels)

    def start(self, labels: Array) -> SpearmanAccumulator:
        """No embeddings yet."""
        if labels.dtype.kind not in "fiu" or labels.ndim != 1 or len(labels) < 2 or not np.isfinite(labels).all():
            raise wrong_labels(self.name, labels, "two or more finite scores [N], one for each pair of samples")
        return SpearmanAccumulator(labels)


class SpearmanAccumulator:
    """Unit embeddings, one a sample: [2 N, D] in float64."""

    def __init__(self, labels: Array) -> None:
        self._labels = labels
        self._rows: dict[int, NDArray[np.float64]] = {}

    def update(self, outputs: Sequence[Array], feed: Feed, first: int) -> None:
        """Pool, normalise and keep embeddings [n, D] or [n, T, D]."""
        output, needed = outputs[0], 2 * len(self._labels)
        if output.ndim not in (2, 3):
            raise DataError(
                f"spearman expects a first output of embeddings [n, D] or [n, T, D], got {show(output.shape)}",
                hint=f"choose another --metric ({', '.join(METRICS.names())})",
            )
        if first + len(output) > needed:
            raise DataError(
                f"spearman got at least {first + len(output)} samples, but {len(self._labels)} labels are for {needed}",
                hint="rows i and N+i of the evaluation data are the pair of label i",
            )
        for i, row in enumerate(unit(pooled(output, feed))):
            self._rows[first + i] = row

    def scores(self) -> None:
        """None: a rank correlation is no mean over samples."""

    def value(self) -> float:
        """Rank correlation; 0 when all similarities are alike."""
        count = len(self._labels)
        if len(self._rows) < 2 * count:
            raise DataError(
                f"spearman expects {2 * count} samples for {count} labels, got {len(self._rows)}",
                hint="rows i and N+i of the evaluation data are the pair of label i",
            )
        cosines = np.array([self._rows[i] @ self._rows[count + i] for i in range(count)])
        return rank_correlation(cosines, self._labels.astype(np.float64))


def pooled(output: Array, feed: Feed) -> NDArray[np.float64]:
    """[n, D] as it is; [n, T, D] -> [n, D], the mean over the tokens kept by a 2-D integer mask [n, T] of the feed."""
    tokens = output.astype(np.float64)
    if tokens.ndim == 2:
        return tokens
    keep = np.ones(tokens.shape[:2])
    for name, value in feed.items():
        if "mask" in name.lower() and value.dtype.kind in "iub" and value.shape == tokens.shape[:2]:
            keep = (value != 0).astype(np.float64)
            break
    total: NDArray[np.float64] = np.einsum("ntd,nt->nd", tokens, keep)
    total /= np.maximum(keep.sum(axis=1, keepdims=True), 1)
    return total


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of [n, D] at length 1; rows that are zero or not finite become zero, similar to nothing."""
    vectors = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, ties sharing the average of theirs: [3, 1, 1] -> [2, 0.5, 0.5]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    average: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return average


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's rho of two vectors [N]; 0 when one is constant."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


METRICS.add("spearman", Spearman())
