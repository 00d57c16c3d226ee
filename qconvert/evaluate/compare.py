"""Compare two models on data: each feed is run once through both, and nothing of it is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace

import numpy as np

from qconvert.errors import DataError, ModelError
from qconvert.evaluate.fidelity import Fidelity, FidelityReport, leading_axis
from qconvert.evaluate.interval import Interval, Scores, paired_interval
from qconvert.evaluate.metric import METRICS, Array, Metric, infer_metric
from qconvert.graph.session import Feed, Session
from qconvert.progress import Progress, Silent

# Enough to look at by hand; the report is not the place for a whole data set.
_WORST_SAMPLES = 5
# What a user who accepts "half a point" must at least be able to see.
_TELLING_POINTS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """A metric of both models.

    Attributes:
        name: the metric.
        reference, quantized: its values, in ``unit``.
        drop: how much worse the quantized model is, in ``unit``; positive is worse, whatever the metric's direction.
        unit: "%" (then values run 0..100 and the drop is in percentage points), "dB" or "".
        samples: samples scored.
        higher_is_better: the metric's direction.
        interval: 95 % confidence interval of the drop, in ``unit``; None for metrics that are no mean over samples, and
            for few samples. Both models have scored the same samples, and the interval makes use of that.
    """

    name: str
    reference: float
    quantized: float
    drop: float
    unit: str
    samples: int
    higher_is_better: bool = True
    interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleError:
    """One sample on which the two models differ.

    Attributes:
        number: place of its feed in the evaluation data, from 0.
        sqnr_db: SQNR of all its outputs together, dB; -inf where shapes, or NaN and Inf, differ.
        drop: how much worse the quantized model scores it, in the metric's unit, 100 for a hit that is lost; None
            without a metric that scores single samples.
        name: where it came from; "" when nobody asked.
    """

    number: int
    sqnr_db: float
    drop: float | None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparison found.

    Attributes:
        fidelity: outputs against outputs.
        metric: outputs against labels; None without labels.
        worst_samples: up to 5 samples that differ most: by the drop of their score, then by SQNR.
    """

    fidelity: FidelityReport
    metric: MetricResult | None
    worst_samples: tuple[SampleError, ...] = ()


def compare_models(
    reference: Session,
    quantized: Session,
    feeds: Iterable[Feed],
    *,
    metric: str | None = None,
    labels: Array | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run every feed through both models and compare their outputs, matched by name.

    Args:
        reference: the original model.
        quantized: the other one; it must have all of the reference's outputs.
        feeds: evaluation data, in the order of the labels.
        metric: a name in METRICS; guessed from labels and outputs when None.
        labels: [N, ...]; None scores fidelity only.
        progress: told of every feed.

    Raises:
        DataError: no data, or labels that do not fit the outputs or the number of samples.
        ModelError: an output is missing, or a model cannot be run.
    """
    progress = progress or Silent()
    if metric is not None and labels is None:
        raise DataError(f"the metric {metric} needs labels", hint="give a label for each sample of the evaluation data")
    if labels is not None and not labels.ndim:
        raise DataError("the labels are a single number", hint="give an array with a label for each sample")
    names = [spec.name for spec in reference.outputs]
    have = [spec.name for spec in quantized.outputs]
    if missing := [name for name in names if name not in have]:
        raise ModelError(
            f"the quantized model has no output {', '.join(map(repr, missing))}",
            hint=f"its outputs are {', '.join(have)}; outputs are matched by name",
        )
    fidelity, score = Fidelity(names), None
    rows: list[int] = []
    ratios: list[float] = []
    for feed in progress.track(feeds, label="comparing", total=len(feeds) if isinstance(feeds, Sized) else None):
        expected, got = reference.run(feed, names), quantized.run(feed, names)
        samples = leading_axis(expected)
        if labels is not None:
            score = score or _Score(METRICS.get(metric or infer_metric(labels, [a.shape for a in expected])), labels)
            kept = min(samples, score.missing)
            if kept < samples:
                _refuse_surplus(reference, score, samples)
                expected, got = [_head(a, samples, kept) for a in expected], [_head(a, samples, kept) for a in got]
                feed = {name: _head(value, samples, kept) for name, value in feed.items()}
                samples = kept
            score.update(expected, got, feed, samples)
        ratios.append(fidelity.update(expected, got, samples=samples))
        rows.append(samples)
    if not rows:
        raise DataError("the evaluation data is empty", hint="give at least one sample")
    return Comparison(
        fidelity=fidelity.report(),
        metric=score.result() if score else None,
        worst_samples=_worst(ratios, score.drops(rows) if score else None),
    )


def too_few(metric: MetricResult) -> str:
    """A warning when the evaluation set cannot tell a drop of one percentage point; "" when it can, or nobody knows."""
    interval = metric.interval
    if metric.unit != "%" or interval is None or interval.half_width <= _TELLING_POINTS:
        return ""
    return (
        f"{metric.samples:,} samples are too few to tell a drop of {_TELLING_POINTS:g} point of {metric.name}: "
        f"it lies between {interval.low:+.1f} and {interval.high:+.1f} points ({interval.confidence:.0%} confidence)"
    )


def _worst(ratios: Sequence[float], drops: Sequence[float] | None) -> tuple[SampleError, ...]:
    """The samples that differ most; none that do not differ at all."""
    found = [
        SampleError(number=i, sqnr_db=ratio, drop=None if drops is None else drops[i])
        for i, ratio in enumerate(ratios)
        if ratio < math.inf
    ]
    return tuple(sorted(found, key=lambda s: (-(s.drop or 0.0), s.sqnr_db))[:_WORST_SAMPLES])


class _Score:
    """One metric's accumulators for both models."""

    def __init__(self, metric: Metric, labels: Array) -> None:
        self._metric = metric
        self._needed = metric.samples_needed(labels)
        self._reference, self._quantized = metric.start(labels), metric.start(labels)
        self._seen = 0
        self.name = metric.name

    @property
    def missing(self) -> int:
        """Samples still to come."""
        return self._needed - self._seen

    def update(self, reference: Sequence[Array], quantized: Sequence[Array], feed: Feed, samples: int) -> None:
        """Score one feed of ``samples`` samples."""
        if leading_axis(quantized) != samples:
            raise ModelError(
                f"the quantized model gives {leading_axis(quantized)} rows where the original gives {samples}",
                hint="compare without labels: only models that answer each sample in one row can be scored",
            )
        self._reference.update(reference, feed, self._seen)
        self._quantized.update(quantized, feed, self._seen)
        self._seen += samples

    def result(self) -> MetricResult:
        """Both values, once all samples that the labels are for have been seen."""
        if self.missing:
            raise DataError(
                f"the labels are for {self._needed} samples ({self.name}), but the evaluation data holds {self._seen}",
                hint="give one label for each sample, or for spearman one for each pair of samples",
            )
        reference, quantized = self._reference.value(), self._quantized.value()
        worse = reference - quantized if self._metric.higher_is_better else quantized - reference
        better_first = self._scores()
        return MetricResult(
            name=self.name,
            reference=reference,
            quantized=quantized,
            drop=0.0 if reference == quantized else worse,  # inf - inf is no drop, and no NaN to slip past a gate
            unit=self._metric.unit,
            samples=self._needed,
            higher_is_better=self._metric.higher_is_better,
            interval=None if better_first is None else in_unit(paired_interval(*better_first), self._metric.unit),
        )

    def drops(self, rows: Sequence[int]) -> list[float] | None:
        """How much worse each feed is scored, the mean over its samples; None when single samples have no score."""
        pair = self._scores()
        if pair is None:
            return None
        factor = 100.0 if self._metric.unit == "%" else 1.0
        with np.errstate(invalid="ignore"):  # two infinite scores are no drop
            drops = np.asarray(pair[0], np.float64) - np.asarray(pair[1], np.float64)
        drops = np.where(np.isnan(drops), 0.0, drops)
        ends = np.cumsum(rows)
        return [factor * float(part.mean()) if part.size else 0.0 for part in np.split(drops, ends[:-1])]

    def _scores(self) -> tuple[Scores, Scores] | None:
        """The scores of both models, in the order in which first - second is a drop."""
        reference, quantized = self._reference.scores(), self._quantized.scores()
        if reference is None or quantized is None:
            return None
        return (reference, quantized) if self._metric.higher_is_better else (quantized, reference)


def in_unit(interval: Interval | None, unit: str) -> Interval | None:
    """An interval of hits, 0..1, in percentage points where that is the metric's unit."""
    if interval is None or unit != "%":
        return interval
    return replace(interval, low=100 * interval.low, high=100 * interval.high)


def _refuse_surplus(session: Session, score: _Score, samples: int) -> None:
    """Surplus rows are padding only in the last feed of a model whose batch size is fixed; else labels are missing."""
    batch = session.inputs[0].shape[0] if session.inputs and session.inputs[0].shape else None
    if score.missing > 0 and isinstance(batch, int) and samples == batch > 1:
        return
    raise DataError(
        f"the evaluation data holds more samples than the labels are for ({score.name})",
        hint="give one label for each sample, or for spearman one for each pair of samples",
    )


def _head(array: Array, rows: int, kept: int) -> Array:
    """The first ``kept`` of ``rows`` samples; an array without that leading axis is left as it is."""
    return array[:kept] if array.ndim and array.shape[0] == rows else array
