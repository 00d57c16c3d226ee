"""The stages behind ``qconvert calibrate`` and ``qconvert merge``: statistics of a model's activations, in a file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from qconvert import __version__
from qconvert.calibrate.collect import CollectOptions
from qconvert.calibrate.data import DataSpec
from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.gather import Gatherer
from qconvert.calibrate.method import METHODS
from qconvert.calibrate.ranges_file import Origin, Ranges, load_ranges, merge_ranges, ranges_to_bytes
from qconvert.calibrate.solve import requests_for, skipped_values
from qconvert.conversion import plan_and_observe, quantizes
from qconvert.errors import DataError, RecipeError
from qconvert.graph.bodies import weighted_branches
from qconvert.graph.build_view import view_of
from qconvert.graph.deferred import ahead
from qconvert.graph.digest import digest_ahead, graph_digest
from qconvert.graph.footprint import value_bytes
from qconvert.graph.memory import give_back
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.segments import Observer
from qconvert.graph.signature import session_of
from qconvert.inputs import least_opset, load_float_model, open_data
from qconvert.plan.build import build_plan
from qconvert.plan.candidates import rewritten
from qconvert.plan.placement import CUT_LIBRARY
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import Recipe
from qconvert.recipe.resolve import resolve
from qconvert.report.output import check_output, write_bytes
from qconvert.run import Run, Stopwatch
from qconvert.targets.auto import target_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateJob:
    """What to calibrate, with what, to where.

    Attributes:
        model, calib, output: the FP32 model, the data, the statistics file to write.
        recipe: the choices that decide which tensors are observed, and how.
        shard: (i, n): only the i-th of n shares of the samples, i from 1 on.
        options: how the pass is run.
        force: replace an existing output.
    """

    model: Path
    calib: DataSpec
    output: Path
    recipe: Recipe = field(default_factory=Recipe)
    shard: tuple[int, int] = (1, 1)
    options: CollectOptions = field(default_factory=CollectOptions)
    force: bool = False

    def __post_init__(self) -> None:
        share, of = self.shard
        if not 1 <= share <= of:
            raise RecipeError(f"there is no shard {share} of {of}", hint="give --shard i/n with i from 1 to n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What a calibration run did.

    Attributes:
        output, origin: the file, and what it says of its origin.
        source: where the data came from.
        tensors: how many tensors were observed.
        skipped_values: NaN, infinite and mask values.
        held_out: samples that were left out so that a later run can measure on them.
        skipped: bad samples that were passed over, a line each.
        batch, parts, threads: how the model was run.
        warnings: what a person should look at.
        seconds: stage -> wall time.
    """

    output: Path
    origin: Origin
    source: str
    tensors: int
    skipped_values: int
    held_out: int
    skipped: tuple[str, ...]
    batch: int
    parts: int
    threads: int
    warnings: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a pass over the data would do.

    Attributes:
        source, samples, held_out: the data.
        tensors: names of what would be observed.
        seconds: about how long the pass would take.
        held_bytes: activations that are held at once, in all threads.
        parts, threads: how the model would be run.
        operations, integer: how many operations there are, and how many would run on integers.
        warnings: what the data's source had to say.
    """

    source: str
    samples: int
    held_out: int
    tensors: tuple[str, ...]
    seconds: float
    held_bytes: int
    parts: int
    threads: int
    operations: int
    integer: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """Model and data, ready for the pass; ``digest`` gives the model's."""

    prepared: Prepared
    digest: Callable[[], str]
    samples: FeedSet
    held_out: int


def calibrate(job: CalibrateJob, progress: Progress | None = None) -> Calibrated:
    """Collect the statistics that ``job.recipe`` needs, and write them to a file.

    Raises:
        InputError: the model, the data or the output place is unusable; nothing has been written.
    """
    progress = progress or Silent()
    watch = Stopwatch()
    check_output(job.output, force=job.force, inputs=(job.model,))
    job = replace(job, recipe=resolve(job.recipe))
    opened = _open(job, watch)
    gatherer = Gatherer(options=job.options)
    run = Run(recipe=job.recipe, samples=opened.samples, gatherer=gatherer, watch=watch, progress=progress)
    if weighted_branches(opened.prepared.model):
        # a branch is observed where it is quantized, as a model of its own; few models need all that this imports
        from qconvert.branches import quantize_branches

        quantize_branches(opened.prepared, run)
    plan_and_observe(opened.prepared, view_of(opened.prepared.model), run, kept={}, required=False)
    origin = origin_of(opened.prepared, job.recipe.method, gatherer, model_sha256=opened.digest(), shard=job.shard)
    with watch.stage("write"):
        write_bytes(job.output, ranges_to_bytes(Ranges(origin=origin, tables=gatherer.tables)))
    passes = gatherer.passes
    return Calibrated(
        output=job.output,
        origin=origin,
        source=job.calib.name,
        tensors=sum(len(t.entries) for t in gatherer.tables.values()),
        skipped_values=sum(skipped_values(t) for t in gatherer.tables.values()),
        held_out=opened.held_out,
        skipped=opened.samples.skipped,
        batch=max((p.batch for p in passes), default=1),
        parts=max((p.parts for p in passes), default=1),
        threads=job.options.workers,
        warnings=(*opened.samples.warnings, *gatherer.remarks()),
        seconds=watch.seconds,
    )


def merge(files: Sequence[Path], output: Path, *, force: bool = False, write: bool = True) -> Origin:
    """Write the statistics of several files into one, or only find out whether they belong together.

    Raises:
        InputError: a file is unusable, they do not belong together, or the output cannot be written.
    """
    check_output(output, force=force, inputs=files)
    if len(files) < 2:
        raise DataError("there is nothing to merge", hint="give two statistics files or more")
    first: dict[str, Path] = {}
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(path)
        if digest in first:
            raise DataError(
                f"{path} holds the same statistics as {first[digest]}",
                hint="name every shard once: samples that count twice make other ranges",
            )
        first[digest] = path
    merged = merge_ranges([(path, load_ranges(path)) for path in files])
    if write:
        write_bytes(output, ranges_to_bytes(merged))
    return merged.origin


def forecast(job: CalibrateJob) -> Forecast:
    """What a pass over the data would do: a sample is run to see how long it takes; nothing is written.

    Raises:
        InputError: the model or the data are unusable.
    """
    job = replace(job, recipe=resolve(job.recipe))
    opened = _open(job, Stopwatch())
    view = view_of(opened.prepared.model)
    plan = build_plan(view, job.recipe, target_of(job.recipe.target))
    tensors = tuple(dict.fromkeys(r.tensor for r in requests_for(plan, METHODS.get(job.recipe.method))))
    watched = [t for t in tensors if t not in view.inputs]
    first = opened.samples.feed(0)
    sizes = value_bytes(opened.prepared.model, watched, first)
    workers = min(job.options.workers, max(1, len(opened.samples)))
    seconds, parts = 0.0, 1
    if watched and quantizes(plan):
        observer = Observer(opened.prepared.model, watched, sizes=sizes, budget=job.options.budget, threads=1)
        parts = observer.parts
        makers = {r.tensor: r.make() for r in requests_for(plan, METHODS.get(job.recipe.method))}
        for _ in range(2):  # the first run allocates
            start = time.perf_counter()
            for name, value in observer.run(first):
                makers[name].update(np.asarray(value, np.float32))
            seconds = (time.perf_counter() - start) * len(opened.samples) / workers
    taken = len(plan.taken())
    return Forecast(
        source=job.calib.name,
        samples=len(opened.samples),
        held_out=opened.held_out,
        tensors=tensors,
        seconds=seconds,
        held_bytes=workers * min(sum(sizes.values()), max(job.options.budget, *sizes.values(), 0)),
        parts=parts,
        threads=workers,
        operations=len(view.nodes),
        integer=taken,
        warnings=opened.samples.warnings,
    )


def origin_of(
    prepared: Prepared, method: str, gatherer: Gatherer, *, model_sha256: str, shard: tuple[int, int] = (1, 1)
) -> Origin:
    """What a statistics file says of where it comes from."""
    share, of = shard
    witness = gatherer.witness
    path = prepared.source.path
    return Origin(
        model=path.name if path is not None else "",
        model_sha256=model_sha256,
        graph_sha256=graph_digest(view_of(prepared.model)),
        method=method,
        data=witness.digest if witness is not None else f"{0:064x}",
        samples=witness.samples if witness is not None else 0,
        shards=(share,) if of > 1 else (),
        parts=of,
        qconvert=__version__,
        onnxruntime=version("onnxruntime"),
        numpy=version("numpy"),
    )


def _open(job: CalibrateJob, watch: Stopwatch) -> _Opened:
    ahead(CUT_LIBRARY)
    with watch.stage("load"):
        source = load_float_model(job.model)
        digest = digest_ahead(source)
        original = session_of(source, optimize=False)
    with watch.stage("data"):
        data = open_data(job.calib, None, original.inputs)
        first = data.calibration.feed(0)
        share, of = job.shard
        samples = data.calibration.take(range(share - 1, len(data.calibration), of))
        if len(samples) == 0:
            raise DataError(
                f"shard {share} of {of} has no samples: there are {len(data.calibration)} to share out",
                hint="divide the data into fewer shards",
            )
    with watch.stage("prepare"):
        # always on the first sample of all, so that every shard prepares the same graph
        outputs = original.run(first)
        del original
        otherwise = rewritten(job.recipe, target_of(job.recipe.target))
        prepared = prepare(source, first, min_opset=least_opset(job.recipe), outputs=outputs, rewritten=otherwise)
    source.release()
    give_back()
    return _Opened(
        prepared=prepared,
        digest=digest,
        samples=samples,
        held_out=len(data.evaluation) if data.held_out else 0,
    )
