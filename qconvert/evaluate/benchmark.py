"""Speed and memory of any models on the same inputs: the stage behind ``qconvert bench``.

latency      interleaved (evaluate/latency.py): median and percentiles over rounds
ratio        median over rounds i of  t_first,i / t_model,i ; above 1 is faster than the first model
throughput   samples of one feed / median latency
load, memory each in a fresh process (evaluate/footprint.py)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qconvert.calibrate.feeds import feeds
from qconvert.calibrate.source import open_source
from qconvert.errors import InternalError, ModelError, RecipeError
from qconvert.evaluate.fidelity import leading_axis
from qconvert.evaluate.footprint import Footprint, measure_footprint
from qconvert.evaluate.gates import Verdict
from qconvert.evaluate.latency import Latency, Speedup, measure_latency, speedup
from qconvert.evaluate.made_inputs import USUAL_SIZES, common_interface, data_feeds, make_feed
from qconvert.evaluate.shown import Shown
from qconvert.graph.model import load
from qconvert.graph.session import Feed, IOSpec, Session, open_session
from qconvert.graph.size import file_bytes
from qconvert.progress import Progress, Silent

# A quick model would fill a time budget with more rounds than say anything new.
_MOST_ROUNDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchJob:
    """What to measure, and how long.

    Attributes:
        models: the files; ratios are relative to the first.
        data: a source of samples; None makes inputs from the signature.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        batch: samples of a feed; None takes samples as they are, or makes one.
        dims: sizes of symbolic dimensions of made inputs.
        seconds: time for all rounds together.
        rounds: an exact number of rounds in place of a time.
    """

    models: tuple[Path, ...]
    data: Path | None = None
    threads: int = 0
    batch: int | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 5.0
    rounds: int | None = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read and must stay as they are."""
        return (*self.models, *([self.data] if self.data is not None else []))

    def __post_init__(self) -> None:
        if not self.models:
            raise RecipeError("no model to measure", hint="name at least one .onnx file")
        if self.data is not None and self.dims:
            raise RecipeError("--dim is for made inputs; --data brings its own sizes", hint="leave one of them out")
        if not 0 < self.seconds < math.inf:
            raise RecipeError(f"--seconds is {self.seconds}", hint="give a positive number")
        for option, value in (("--batch", self.batch), ("--rounds", self.rounds)):
            if value is not None and value < 1:
                raise RecipeError(f"{option} is {value}", hint="give a whole number from 1 on")
        if self.threads < 0:
            raise RecipeError(f"--threads is {self.threads}", hint="give a whole number; 0 is ONNX Runtime's choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class FedInput:
    """An input as it was fed: numpy-style type and shape (of the first feed)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTiming:
    """One model.

    Attributes:
        name: the file's name, with as much of its path as tells it from the others.
        path, bytes: the file; external data count.
        latency: median, 10th and 90th percentile of its runs.
        p95_ms: the 95th percentile.
        spread: (p90 - p10) / median: 0.05 is a quiet machine.
        samples_per_second: at the median latency.
        footprint: load time and memory.
        ratio: how many times faster than the first model, over rounds; 1 for the first.
    """

    name: str
    path: str
    bytes: int
    latency: Latency
    p95_ms: float
    spread: float
    samples_per_second: float
    footprint: Footprint
    ratio: Speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(Shown):
    """All that was measured.

    Attributes:
        models: in the order given.
        rounds: rounds timed; each ran every model once.
        threads: as asked for; 0 is ONNX Runtime's choice.
        samples: of one feed.
        data: where the inputs came from; "" when they were made from the signature.
        feeds: number of different feeds.
        inputs: as fed.
        assumed: sizes of symbolic dimensions that nobody gave.
        warnings: what the source of the data had to say.
        gates: what became of each --fail-if.
    """

    models: tuple[ModelTiming, ...]
    rounds: int
    threads: int
    samples: int
    data: str
    feeds: int
    inputs: tuple[FedInput, ...]
    assumed: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    gates: tuple[Verdict, ...] = ()


def benchmark(job: BenchJob, progress: Progress | None = None) -> Benchmark:
    """Measure every model of ``job``.

    Raises:
        ModelError: a model cannot be loaded or run, or the models take different inputs.
        DataError: the samples do not fit the models.
        RecipeError: a symbolic dimension is unknown.
    """
    progress = progress or Silent()
    sessions, fed, assumed, warnings = open_timed(job)
    names = list(sessions)
    samples = _samples(sessions, fed[0])
    paths = dict(zip(names, job.models, strict=True))
    footprints = {
        name: measure_footprint(paths[name], fed[0], threads=job.threads)
        for name in progress.track(names, label="memory", total=len(names))
    }
    times = (
        measure_latency(sessions, fed, seconds=job.seconds, max_runs=_MOST_ROUNDS)
        if job.rounds is None
        else measure_latency(sessions, fed, seconds=math.inf, min_runs=job.rounds, max_runs=job.rounds)
    )
    first = times[names[0]]
    return Benchmark(
        models=tuple(_timing(n, paths[n], times[n], first, footprints[n], samples) for n in names),
        rounds=first.runs,
        threads=job.threads,
        samples=samples,
        data="" if job.data is None else str(job.data),
        feeds=len(fed),
        inputs=tuple(FedInput(name=n, dtype=v.dtype.name, shape=v.shape) for n, v in fed[0].items()),
        assumed=assumed,
        warnings=warnings,
    )


def open_timed(job: BenchJob) -> tuple[dict[str, Session], list[Feed], Mapping[str, int], tuple[str, ...]]:
    """(sessions by name, feeds that every one runs on, assumed sizes, warnings); each model has run once.

    Raises:
        ModelError, DataError, RecipeError: as :func:`benchmark`.
    """
    sessions = {name: _open(path, job.threads) for name, path in zip(labels(job.models), job.models, strict=True)}
    interface = common_interface({name: s.inputs for name, s in sessions.items()})
    return sessions, *_feeds(job, interface, sessions)


def labels(paths: Sequence[Path]) -> list[str]:
    """A name for each path: the file's name where no other has it, else the path, numbered if that comes twice."""
    files, whole = Counter(p.name for p in paths), Counter(str(p) for p in paths)
    seen: Counter[str] = Counter()
    found = []
    for path in paths:
        name = path.name if files[path.name] == 1 else str(path)
        seen[name] += 1
        found.append(f"{name} #{seen[name]}" if whole[str(path)] > 1 else name)
    return found


def _open(path: Path, threads: int) -> Session:
    load(path)  # says of what is no sound model what is wrong with it
    try:
        return open_session(path, threads=threads)
    except ModelError as error:
        raise ModelError(
            f"{path}: {error.message}", hint="only models that run in ONNX Runtime can be timed"
        ) from error


def _feeds(
    job: BenchJob, interface: tuple[IOSpec, ...], sessions: Mapping[str, Session]
) -> tuple[list[Feed], Mapping[str, int], tuple[str, ...]]:
    """(feeds that every model runs on, assumed sizes, warnings)."""
    if job.data is not None:
        samples = feeds(open_source(job.data, interface), interface)
        fed = data_feeds(samples, batch=job.batch)
        _try(sessions, fed[0], hint="check that the samples are what the models expect")
        return fed, {}, samples.warnings
    refused: ModelError | None = None
    for usual in USUAL_SIZES:
        made = make_feed(interface, batch=job.batch, dims=job.dims, usual=usual)
        try:
            hint = "its inputs may depend on each other: set sizes with --dim, or give real samples with --data"
            _try(sessions, made.feed, hint=hint)
        except ModelError as error:
            refused = refused or error
            continue
        return [made.feed], made.assumed, ()
    raise refused or InternalError("no size was tried")


def _try(sessions: Mapping[str, Session], feed: Feed, *, hint: str) -> None:
    """Run every model once, so that one which cannot be run is named."""
    for name, session in sessions.items():
        try:
            session.run(feed)
        except ModelError as error:
            raise ModelError(f"{name}: {error.message}", hint=hint) from error


def _samples(sessions: Mapping[str, Session], feed: Feed) -> int:
    """How many samples ``feed`` holds: the leading axis that inputs and results have in common, else 1."""
    rows = {value.shape[0] for value in feed.values() if value.ndim}
    rows.update(leading_axis(session.run(feed)) for session in sessions.values())
    return rows.pop() if len(rows) == 1 else 1


def _timing(name: str, path: Path, latency: Latency, first: Latency, footprint: Footprint, samples: int) -> ModelTiming:
    # a run can be shorter than the clock's tick
    median = max(latency.median_ms, 1e-6)
    return ModelTiming(
        name=name,
        path=str(path),
        bytes=file_bytes(path, load(path)),
        latency=latency,
        p95_ms=float(np.percentile(latency.times_ms, 95)),
        spread=(latency.p90_ms - latency.p10_ms) / median,
        samples_per_second=1e3 * samples / median,
        footprint=footprint,
        ratio=speedup(first, latency),
    )
