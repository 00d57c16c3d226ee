"""One model on data: the stage behind ``qconvert evaluate``.

path -> session -> samples, labels -> the metric with its interval, what the outputs hold, the samples scored worst
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.labels import Labels
from qconvert.evaluate.comparison import open_named
from qconvert.evaluate.fidelity import leading_axis
from qconvert.evaluate.gates import Verdict
from qconvert.evaluate.interval import Interval, score_interval
from qconvert.evaluate.labelled import Labelled, labelled, open_labels
from qconvert.evaluate.latency import Latency, measure_latency
from qconvert.evaluate.metric import METRICS, infer_metric
from qconvert.evaluate.scoring import Scoring
from qconvert.evaluate.shown import Shown
from qconvert.graph.model import Model, load
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.session import Feed, Session
from qconvert.graph.size import file_bytes
from qconvert.progress import Progress, Silent

# Enough to look at by hand.
_WORST_SAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateJob:
    """What to evaluate, and on what.

    Attributes:
        model: the file.
        data: the samples.
        labels: a file of labels; None takes those of the data, if they have any.
        metric: a name in METRICS; None is guessed from the labels.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
    """

    model: Path
    data: DataSpec
    labels: Path | None = None
    metric: str | None = None
    threads: int = 0

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read and must stay as they are."""
        return tuple(path for path in (self.model, self.labels, *self.data.paths) if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """A metric of one model.

    Attributes:
        name: the metric.
        value: in ``unit``.
        unit: "%" (0..100), "dB" or "".
        samples: samples scored.
        higher_is_better: the metric's direction.
        interval: 95 % confidence interval of the value; None for metrics that are no mean over samples, and for few
            samples.
    """

    name: str
    value: float
    unit: str
    samples: int
    higher_is_better: bool
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSummary:
    """What one output holds over all samples.

    Attributes:
        name, dtype: as ONNX Runtime has it.
        shape: of the first sample.
        range: least and greatest finite number; None where there is none, or it holds no numbers.
        mean: of the finite numbers; None likewise.
        nonfinite: how many values are NaN or infinite.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    range: tuple[float, float] | None
    mean: float | None
    nonfinite: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSample:
    """One sample.

    Attributes:
        number: place of its feed in the evaluation data, from 0.
        name: where it came from.
        score: in the metric's unit: 0 for a miss.
    """

    number: int
    name: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Shown):
    """One model on data.

    Attributes:
        path, bytes: the file; external data count.
        quantized_ops: operators that show it to be quantized; empty for a float model.
        source: where the samples came from.
        samples: how many were used.
        skipped_samples: bad ones that were passed over, a line each.
        metric: None without labels.
        worst_samples: up to 5 samples that are scored worst; empty where single samples have no score, or all are hits.
        outputs: one entry an output.
        latency: run time on the first sample.
        threads: as asked for; 0 is ONNX Runtime's choice.
        seconds: of the whole run.
        warnings: what a person should look at.
        gates: what became of each --fail-if.
    """

    path: str
    bytes: int
    quantized_ops: tuple[str, ...]
    source: str
    samples: int
    skipped_samples: tuple[str, ...]
    metric: MetricValue | None
    worst_samples: tuple[ScoredSample, ...]
    outputs: tuple[OutputSummary, ...]
    latency: Latency
    threads: int
    seconds: float
    warnings: tuple[str, ...] = ()
    gates: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What is to be evaluated, open and checked: the model, its session, samples, their labels."""

    model: Model
    session: Session
    samples: FeedSet
    labels: Labels | None


def open_evaluated(job: EvaluateJob) -> Evaluated:
    """Open all that ``job`` names.

    Raises:
        ModelError, DataError, RecipeError: as :func:`evaluate`.
    """
    if job.metric is not None:
        METRICS.get(job.metric)
    model = load(job.model)
    session = open_named(model, job.model, job.threads)
    samples = open_data_set(job.data, session.inputs)
    known = open_labels(job.labels, job.metric, session, samples, job.data.name)
    return Evaluated(model=model, session=session, samples=samples, labels=known)


def evaluate(job: EvaluateJob, progress: Progress | None = None) -> Evaluation:
    """Run the model of ``job`` on its data.

    Raises:
        ModelError: the model cannot be loaded or run.
        DataError: the samples or labels do not fit it.
        RecipeError: the metric is unknown, or has no labels.
    """
    progress = progress or Silent()
    start = perf_counter()
    opened = open_evaluated(job)
    model, session, samples = opened.model, opened.session, opened.samples
    known = labelled(samples, opened.labels)
    watched = progress.track(iter(samples), label="evaluating", total=len(samples))
    outputs, scoring, rows = _run(session, watched, job.metric, known.labels)
    return Evaluation(
        path=str(job.model),
        bytes=file_bytes(job.model, model),
        quantized_ops=quantized_ops(model),
        source=job.data.name,
        samples=len(known.numbers),
        skipped_samples=samples.skipped,
        metric=_metric(scoring) if scoring is not None else None,
        worst_samples=_worst(scoring, rows, known) if scoring is not None else (),
        outputs=tuple(output.result() for output in outputs),
        latency=measure_latency({"": session}, samples.feed(0))[""],
        threads=job.threads,
        seconds=perf_counter() - start,
        warnings=samples.warnings,
    )


def _run(
    session: Session, feeds: Iterable[Feed], metric: str | None, labels: Labels | None
) -> tuple[list[_Output], Scoring | None, list[int]]:
    """(what each output holds, the metric if there are labels, samples of each feed)."""
    outputs = [_Output(spec.name, spec.dtype) for spec in session.outputs]
    scoring: Scoring | None = None
    rows: list[int] = []
    for feed in feeds:
        got = session.run(feed)
        if labels is not None:
            chosen = METRICS.get(metric or infer_metric(labels, [a.shape for a in got]))
            scoring = scoring or Scoring(chosen, labels, models=1)
            (got,) = ([*one] for one in scoring.take(session, [got], feed))
        rows.append(leading_axis(got))
        for output, value in zip(outputs, got, strict=True):
            output.update(value)
    return outputs, scoring, rows


def _metric(scoring: Scoring) -> MetricValue:
    (value,), scores = scoring.values(), scoring.scores()
    return MetricValue(
        name=scoring.metric.name,
        value=value,
        unit=scoring.metric.unit,
        samples=scoring.needed,
        higher_is_better=scoring.metric.higher_is_better,
        interval=None if scores is None else scoring.in_unit(score_interval(scores[0])),
    )


def _worst(scoring: Scoring, rows: Sequence[int], known: Labelled) -> tuple[ScoredSample, ...]:
    scores = scoring.scores()
    if scores is None:
        return ()
    of_feeds = scoring.of_feeds(scores[0], rows)
    best = 100.0 if scoring.metric.unit == "%" else math.inf
    sign = 1 if scoring.metric.higher_is_better else -1
    order = sorted(range(len(of_feeds)), key=lambda i: sign * of_feeds[i])
    return tuple(
        ScoredSample(number=i, name=known.origin(i), score=of_feeds[i])
        for i in order[:_WORST_SAMPLES]
        if of_feeds[i] < best
    )


class _Output:
    """Range, sum and count of one output."""

    def __init__(self, name: str, dtype: str) -> None:
        self._name, self._dtype = name, dtype
        self._shape: tuple[int, ...] | None = None
        self._low, self._high = math.inf, -math.inf
        self._sum, self._count, self._nonfinite = 0.0, 0, 0

    def update(self, value: object) -> None:
        """Take in one feed's array, or whatever else the output is."""
        if not isinstance(value, np.ndarray):
            return
        self._shape = self._shape if self._shape is not None else value.shape
        if value.dtype.kind not in "fiu" or not value.size:
            return
        finite: NDArray[np.bool_] = np.isfinite(value)
        self._nonfinite += value.size - int(np.count_nonzero(finite))
        numbers = value[finite]
        if numbers.size:
            self._low, self._high = min(self._low, float(numbers.min())), max(self._high, float(numbers.max()))
            self._sum += float(numbers.sum(dtype=np.float64))
            self._count += numbers.size

    def result(self) -> OutputSummary:
        """What was seen."""
        return OutputSummary(
            name=self._name,
            dtype=self._dtype,
            shape=self._shape or (),
            range=(self._low, self._high) if self._count else None,
            mean=self._sum / self._count if self._count else None,
            nonfinite=self._nonfinite,
        )
