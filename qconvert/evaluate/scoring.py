"""A metric over the feeds of one or more models that see the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qconvert.errors import DataError, ModelError
from qconvert.evaluate.fidelity import leading_axis
from qconvert.evaluate.interval import Interval, Scores
from qconvert.evaluate.metric import Array, Metric
from qconvert.graph.session import Feed, Session

Outputs = Sequence[Array]


class Scoring:
    """One metric's accumulators, one a model.

    Args:
        metric: what to compute.
        labels: [N, ...].
        models: how many models are scored.
    """

    def __init__(self, metric: Metric, labels: Array, models: int) -> None:
        self.metric = metric
        self.needed = metric.samples_needed(labels)
        self._accumulators = [metric.start(labels) for _ in range(models)]
        self._seen = 0

    def take(self, session: Session, outputs: Sequence[Outputs], feed: Feed) -> list[Outputs]:
        """Score one feed.

        Args:
            session: the first model, whose inputs tell whether its batch is fixed.
            outputs: what each model made of the feed.
            feed: the inputs.

        Returns:
            The outputs without the rows that are padding.

        Raises:
            DataError: the labels do not fit the outputs, or there are fewer than samples.
            ModelError: a model does not answer each sample in one row.
        """
        samples = leading_axis(outputs[0])
        kept = min(samples, self.needed - self._seen)
        if kept < samples:
            self._refuse_surplus(session, samples)
            outputs = [[_head(array, samples, kept) for array in one] for one in outputs]
            feed = {name: _head(value, samples, kept) for name, value in feed.items()}
        for accumulator, one in zip(self._accumulators, outputs, strict=True):
            if leading_axis(one) != kept:
                raise ModelError(
                    f"the quantized model gives {leading_axis(one)} rows where the original gives {kept}",
                    hint="compare without labels: only models that answer each sample in one row can be scored",
                )
            accumulator.update(one, feed, self._seen)
        self._seen += kept
        return list(outputs)

    def values(self) -> list[float]:
        """The metric of each model, once all samples that the labels are for have been seen.

        Raises:
            DataError: samples are missing.
        """
        if self._seen < self.needed:
            raise DataError(
                f"the labels are for {self.needed} samples ({self.metric.name}), but the evaluation data holds "
                f"{self._seen}",
                hint="give one label for each sample, or for spearman one for each pair of samples",
            )
        return [accumulator.value() for accumulator in self._accumulators]

    def scores(self) -> list[Scores] | None:
        """A score for each sample and model, [N] each; None for a metric that is no mean over samples."""
        found = [accumulator.scores() for accumulator in self._accumulators]
        known = [scores for scores in found if scores is not None]
        return known if len(known) == len(found) else None

    def of_feeds(self, scores: Scores, rows: Sequence[int]) -> list[float]:
        """Scores of samples [N] as means over the samples of each feed, in the metric's unit.

        Args:
            scores: one a sample.
            rows: how many samples each feed held.
        """
        factor = 100.0 if self.metric.unit == "%" else 1.0
        parts = np.split(np.asarray(scores, np.float64), np.cumsum(rows)[:-1])
        return [factor * float(part.mean()) if part.size else 0.0 for part in parts]

    def in_unit(self, interval: Interval | None) -> Interval | None:
        """An interval of scores in the metric's unit: of hits, 0..1, in percentage points."""
        if interval is None or self.metric.unit != "%":
            return interval
        return replace(interval, low=100 * interval.low, high=100 * interval.high)

    def _refuse_surplus(self, session: Session, samples: int) -> None:
        """Surplus rows are padding only in the last feed of a model of a fixed batch size; else labels are missing."""
        batch = session.inputs[0].shape[0] if session.inputs and session.inputs[0].shape else None
        if self._seen < self.needed and isinstance(batch, int) and samples == batch > 1:
            return
        raise DataError(
            f"the evaluation data holds more samples than the labels are for ({self.metric.name})",
            hint="give one label for each sample, or for spearman one for each pair of samples",
        )


def _head(array: Array, rows: int, kept: int) -> Array:
    """The first ``kept`` of ``rows`` samples; an array without that leading axis is left as it is."""
    return array[:kept] if array.ndim and array.shape[0] == rows else array
