"""Compare two models on data: each feed is run once through both, and nothing of it is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from qconvert.errors import DataError, ModelError
from qconvert.evaluate.fidelity import Fidelity, FidelityReport, leading_axis
from qconvert.evaluate.interval import Interval, Scores, paired_interval
from qconvert.evaluate.metric import METRICS, Array, infer_metric
from qconvert.evaluate.scoring import Scoring
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
        expected: Sequence[Array] = reference.run(feed, names)
        got: Sequence[Array] = quantized.run(feed, names)
        if labels is not None:
            chosen = METRICS.get(metric or infer_metric(labels, [a.shape for a in expected]))
            score = score or Scoring(chosen, labels, models=2)
            expected, got = score.take(reference, (expected, got), feed)
        rows.append(leading_axis(expected))
        ratios.append(fidelity.update(expected, got, samples=rows[-1]))
    if not rows:
        raise DataError("the evaluation data is empty", hint="give at least one sample")
    return Comparison(
        fidelity=fidelity.report(),
        metric=_result(score) if score else None,
        worst_samples=_worst(ratios, _drops(score, rows) if score else None),
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


def _result(score: Scoring) -> MetricResult:
    reference, quantized = score.values()
    metric, pair = score.metric, _better_first(score)
    worse = reference - quantized if metric.higher_is_better else quantized - reference
    return MetricResult(
        name=metric.name,
        reference=reference,
        quantized=quantized,
        drop=0.0 if reference == quantized else worse,  # inf - inf is no drop, and no NaN to slip past a gate
        unit=metric.unit,
        samples=score.needed,
        higher_is_better=metric.higher_is_better,
        interval=None if pair is None else score.in_unit(paired_interval(*pair)),
    )


def _drops(score: Scoring, rows: Sequence[int]) -> list[float] | None:
    """How much worse each feed is scored, the mean over its samples; None when single samples have no score."""
    pair = _better_first(score)
    if pair is None:
        return None
    with np.errstate(invalid="ignore"):  # two infinite scores are no drop
        drops = np.asarray(pair[0], np.float64) - np.asarray(pair[1], np.float64)
    return score.of_feeds(np.where(np.isnan(drops), 0.0, drops), rows)


def _better_first(score: Scoring) -> tuple[Scores, Scores] | None:
    """The scores of both models, in the order in which first - second is a drop."""
    found = score.scores()
    if found is None:
        return None
    reference, quantized = found
    return (reference, quantized) if score.metric.higher_is_better else (quantized, reference)
