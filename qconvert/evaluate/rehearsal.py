"""What comparing, evaluating or timing would do: everything is opened and checked, and one sample is run.

    seconds = time of one run of every model * number of runs

Nothing is written. What a rehearsal accepts is refused later only for what single samples hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.labels import Labels
from qconvert.evaluate.benchmark import BenchJob, open_timed
from qconvert.evaluate.comparison import CompareJob, open_compared
from qconvert.evaluate.evaluation import EvaluateJob, open_evaluated
from qconvert.evaluate.metric import infer_metric
from qconvert.graph.session import Feed, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What would be done.

    Attributes:
        models: their names.
        inputs: "image: float32 [1, 1, 8, 8]", a text for each, as fed.
        source: where the samples come from; "" where inputs are made.
        samples: how many there are.
        metric: what would be computed from the labels; "" without.
        runs: of every model; 0 where a time decides.
        seconds: about how long they take together; of compare, without the tensors inside.
        assumed: sizes of symbolic dimensions that nobody gave.
        warnings: what the data's source had to say.
    """

    models: tuple[str, ...]
    inputs: tuple[str, ...]
    source: str
    samples: int
    metric: str
    runs: int
    seconds: float
    assumed: Mapping[str, int]
    warnings: tuple[str, ...]


def rehearse(job: CompareJob | EvaluateJob | BenchJob) -> Rehearsal:
    """Open and check all that ``job`` names, and run one sample.

    Raises:
        ModelError, DataError, RecipeError: as the job itself.
    """
    if isinstance(job, BenchJob):
        return _rehearse_timing(job)
    if isinstance(job, CompareJob):
        compared = open_compared(job)
        return _rehearse_scoring(job, compared.sessions, compared.samples, compared.labels)
    evaluated = open_evaluated(job)
    return _rehearse_scoring(job, {job.model.name: evaluated.session}, evaluated.samples, evaluated.labels)


def _rehearse_scoring(
    job: CompareJob | EvaluateJob, sessions: Mapping[str, Session], samples: FeedSet, labels: Labels | None
) -> Rehearsal:
    feed = samples.feed(0)
    shapes = [value.shape for value in next(iter(sessions.values())).run(feed)]
    return Rehearsal(
        models=tuple(sessions),
        inputs=_told(feed),
        source=job.data.name,
        samples=len(samples),
        metric="" if labels is None else job.metric or infer_metric(labels, shapes),
        runs=len(samples),
        seconds=_seconds(sessions, feed) * len(samples),
        assumed={},
        warnings=samples.warnings,
    )


def _rehearse_timing(job: BenchJob) -> Rehearsal:
    sessions, fed, assumed, warnings = open_timed(job)
    return Rehearsal(
        models=tuple(sessions),
        inputs=_told(fed[0]),
        source="" if job.data is None else str(job.data),
        samples=len(fed),
        metric="",
        runs=job.rounds or 0,
        seconds=job.seconds if job.rounds is None else _seconds(sessions, fed[0]) * job.rounds,
        assumed=assumed,
        warnings=warnings,
    )


def _seconds(sessions: Mapping[str, Session], feed: Feed) -> float:
    """One run of every session, after one that allocates."""
    for _ in range(2):
        start = perf_counter()
        for session in sessions.values():
            session.run(feed)
        took = perf_counter() - start
    return took


def _told(feed: Feed) -> tuple[str, ...]:
    return tuple(f"{name}: {value.dtype.name} {list(value.shape)}" for name, value in feed.items())
