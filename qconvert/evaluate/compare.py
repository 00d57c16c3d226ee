"""Compare two models on data: each feed is run once through both, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass

from qconvert.errors import DataError, ModelError
from qconvert.evaluate.fidelity import Fidelity, FidelityReport, leading_axis
from qconvert.evaluate.metric import METRICS, Array, Metric, infer_metric
from qconvert.graph.session import Feed, Session
from qconvert.progress import Progress, Silent


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
    """

    name: str
    reference: float
    quantized: float
    drop: float
    unit: str
    samples: int
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparison found.

    Attributes:
        fidelity: outputs against outputs.
        metric: outputs against labels; None without labels.
    """

    fidelity: FidelityReport
    metric: MetricResult | None


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
    fidelity, score, empty = Fidelity(names), None, True
    for feed in progress.track(feeds, label="comparing", total=len(feeds) if isinstance(feeds, Sized) else None):
        expected, got = reference.run(feed, names), quantized.run(feed, names)
        samples, empty = leading_axis(expected), False
        if labels is not None:
            score = score or _Score(METRICS.get(metric or infer_metric(labels, [a.shape for a in expected])), labels)
            kept = min(samples, score.missing)
            if kept < samples:
                _refuse_surplus(reference, score, samples)
                expected, got = [_head(a, samples, kept) for a in expected], [_head(a, samples, kept) for a in got]
                feed = {name: _head(value, samples, kept) for name, value in feed.items()}
                samples = kept
            score.update(expected, got, feed, samples)
        fidelity.update(expected, got, samples=samples)
    if empty:
        raise DataError("the evaluation data is empty", hint="give at least one sample")
    return Comparison(fidelity=fidelity.report(), metric=score.result() if score else None)


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
        return MetricResult(
            name=self.name,
            reference=reference,
            quantized=quantized,
            drop=0.0 if reference == quantized else worse,  # inf - inf is no drop, and no NaN to slip past a gate
            unit=self._metric.unit,
            samples=self._needed,
            higher_is_better=self._metric.higher_is_better,
        )


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
