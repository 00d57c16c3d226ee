"""Perplexity of a language model; lower is better.

    ppl = exp( - 1/M sum_{s,t} log softmax(z_st)[l_st] )      over the M positions with label l_st >= 0

The labels are the next tokens, already shifted: labels[s, t] is what follows token t of sample s; negative ones are
ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qconvert.errors import DataError
from qconvert.evaluate.metric import METRICS, Array, rows_for, show, wrong_labels
from qconvert.graph.session import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """Perplexity of logits [n, T, V] against next tokens [N, T]."""

    name: str = "perplexity"
    higher_is_better: bool = False
    unit: str = ""

    def samples_needed(self, labels: Array) -> int:
        """One sample a row of labels."""
        return len(labels)

    def start(self, labels: Array) -> PerplexityAccumulator:
        """A fresh sum."""
        if labels.dtype.kind not in "iu" or labels.ndim != 2 or not labels.size or int(labels.max()) < 0:
            raise wrong_labels(self.name, labels, "integer next tokens [N, T], not all of them negative (ignored)")
        return PerplexityAccumulator(labels)


class PerplexityAccumulator:
    """Negative log-likelihood (nats) and tokens so far."""

    def __init__(self, labels: Array) -> None:
        self._labels = labels
        self._nll, self._tokens = 0.0, 0

    def update(self, outputs: Sequence[Array], feed: Feed, first: int) -> None:
        """Add the likelihood of logits [n, T, V]."""
        del feed
        output, length = outputs[0], self._labels.shape[1]
        if output.ndim != 3 or output.shape[1] != length:
            raise DataError(
                f"perplexity expects a first output of logits [n, {length}, V] for labels {show(self._labels.shape)}, "
                f"got {show(output.shape)}",
                hint="labels hold the next token of every position of every sample; negative ones are ignored",
            )
        if int(self._labels.max()) >= output.shape[2]:
            raise DataError(
                f"labels reach token {int(self._labels.max())}, but the model scores {output.shape[2]}: "
                f"0 to {output.shape[2] - 1}",
                hint="check that the labels were made with this model's tokenizer",
            )
        labels = rows_for("perplexity", output, self._labels, first).astype(np.int64)
        # A sample at a time: float64 copies of [T, V], not of [n, T, V].
        for logits, tokens in zip(output, labels, strict=True):
            counted = np.flatnonzero(tokens >= 0)
            with np.errstate(invalid="ignore"):
                z = logits[counted].astype(np.float64)
                z -= z.max(axis=1, keepdims=True, initial=-np.inf)
                own = z[np.arange(len(counted)), tokens[counted]]
                self._nll += float((np.log(np.exp(z).sum(axis=1)) - own).sum())
            self._tokens += len(counted)

    def scores(self) -> None:
        """None: the exponential of a mean over tokens is no mean over samples."""

    def value(self) -> float:
        """Perplexity, 1 or more; inf when logits are NaN."""
        if not self._tokens or math.isnan(self._nll):
            return math.inf
        with np.errstate(over="ignore"):
            return float(np.exp(self._nll / self._tokens))


METRICS.add("perplexity", Perplexity())
