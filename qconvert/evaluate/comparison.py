"""Two models on the same data, end to end and tensor by tensor: the stage behind ``qconvert compare``.

paths -> sessions, common inputs -> samples, labels -> outputs against outputs and labels -> latency -> tensors
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.labels import Labels
from qconvert.errors import ModelError
from qconvert.evaluate.benchmark import labels
from qconvert.evaluate.compare import Comparison, compare_models, too_few
from qconvert.evaluate.gates import Verdict
from qconvert.evaluate.labelled import labelled, open_labels
from qconvert.evaluate.latency import Latency, Speedup, measure_latency, speedup
from qconvert.evaluate.made_inputs import common_interface
from qconvert.evaluate.metric import METRICS
from qconvert.evaluate.shown import Shown
from qconvert.evaluate.tensors import TensorComparison, compare_tensors, unobservable
from qconvert.graph.model import Model, load
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.graph.size import file_bytes
from qconvert.progress import Progress, Silent


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareJob:
    """What to compare, and on what.

    Attributes:
        reference, other: the models.
        data: the samples.
        labels: a file of labels; None takes those of the data, if they have any.
        metric: a name in METRICS; None is guessed from the labels.
        tensors: compare the tensors inside too.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
    """

    reference: Path
    other: Path
    data: DataSpec
    labels: Path | None = None
    metric: str | None = None
    tensors: bool = True
    threads: int = 0

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read and must stay as they are."""
        found = (self.reference, self.other, self.labels, *self.data.paths)
        return tuple(path for path in found if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    """One of the models.

    Attributes:
        path, bytes: the file; external data count.
        quantized_ops: operators that show it to be quantized; empty for a float model.
        latency: run time on the first sample, the two models in turn.
    """

    path: str
    bytes: int
    quantized_ops: tuple[str, ...]
    latency: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison(Shown):
    """Two models on the same data.

    Attributes:
        reference, other: the models.
        source: where the samples came from.
        samples: how many were used.
        skipped_samples: bad ones that were passed over, a line each.
        comparison: outputs against outputs, and against labels.
        tensors: tensors against tensors; None when nobody asked, or they could not be observed.
        speedup: how many times faster the other is than the reference.
        threads: as asked for; 0 is ONNX Runtime's choice.
        seconds: of the whole run.
        notes: what could not be done.
        warnings: what a person should look at.
        gates: what became of each --fail-if.
    """

    reference: ComparedModel
    other: ComparedModel
    source: str
    samples: int
    skipped_samples: tuple[str, ...]
    comparison: Comparison
    tensors: TensorComparison | None
    speedup: Speedup
    threads: int
    seconds: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gates: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What is to be compared, open and checked: models, their sessions by name, samples, their labels."""

    models: tuple[Model, Model]
    sessions: Mapping[str, Session]
    samples: FeedSet
    labels: Labels | None


def open_compared(job: CompareJob) -> Compared:
    """Open all that ``job`` names.

    Raises:
        ModelError, DataError, RecipeError: as :func:`compare`.
    """
    if job.metric is not None:
        METRICS.get(job.metric)
    paths = (job.reference, job.other)
    first, second = (load(path) for path in paths)
    sessions = {
        name: open_named(model, path, job.threads)
        for name, model, path in zip(labels(paths), (first, second), paths, strict=True)
    }
    original = next(iter(sessions.values()))
    samples = open_data_set(job.data, common_interface({name: s.inputs for name, s in sessions.items()}))
    known = open_labels(job.labels, job.metric, original, samples, job.data.name)
    return Compared(models=(first, second), sessions=sessions, samples=samples, labels=known)


def compare(job: CompareJob, progress: Progress | None = None) -> ModelComparison:
    """Compare the two models of ``job``.

    Raises:
        ModelError: a model cannot be loaded or run, the models take different inputs, or an output is missing.
        DataError: the samples or labels do not fit the models.
        RecipeError: the metric is unknown, or has no labels.
    """
    progress = progress or Silent()
    start = perf_counter()
    opened = open_compared(job)
    (first, second), sessions, samples = opened.models, opened.sessions, opened.samples
    original, candidate = sessions.values()
    known = labelled(samples, opened.labels)
    watched = progress.track(iter(samples), label="comparing", total=len(samples))
    found = compare_models(original, candidate, watched, metric=job.metric, labels=known.labels)
    times = measure_latency(sessions, samples.feed(0))
    tensors: TensorComparison | None = None
    notes: tuple[str, ...] = ()
    if job.tensors:
        try:
            tensors = compare_tensors(first, second, samples.take(known.numbers), progress)
        except ModelError as error:
            notes = (unobservable(error),)
    few = too_few(found.metric) if found.metric is not None else ""
    reference, other = (
        ComparedModel(path=str(path), bytes=file_bytes(path, model), quantized_ops=quantized_ops(model), latency=took)
        for path, model, took in zip((job.reference, job.other), (first, second), times.values(), strict=True)
    )
    return ModelComparison(
        reference=reference,
        other=other,
        source=job.data.name,
        samples=len(known.numbers),
        skipped_samples=samples.skipped,
        comparison=known.named(found),
        tensors=tensors,
        speedup=speedup(reference.latency, other.latency),
        threads=job.threads,
        seconds=perf_counter() - start,
        notes=notes,
        warnings=(*samples.warnings, *([few] if few else [])),
    )


def open_named(model: Model, path: Path, threads: int) -> Session:
    """A session of ``model``, which was read from ``path``.

    Raises:
        ModelError: ONNX Runtime refuses it; the message names the file.
    """
    try:
        return session_of(model, threads=threads)
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", hint="only models that run in ONNX Runtime can be run") from error
