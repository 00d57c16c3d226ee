"""The main job, stage by stage: a small function for each arrow of the data flow (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from qconvert.branches import QuantizedBranches, quantize_branches
from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.labels import Labels
from qconvert.calibrate.ranges_file import Ranges, load_ranges, ranges_to_bytes
from qconvert.calibrate.solve import methods_picked
from qconvert.calibration import origin_of
from qconvert.conversion import Quantized, parted, quantizes
from qconvert.delivery import Delivered, deliver
from qconvert.diagnose.optimization import optimization_effect
from qconvert.errors import InternalError, RecipeError
from qconvert.evaluate.compare import compare_models
from qconvert.evaluate.labelled import LABELS_HINT, labelled
from qconvert.evaluate.labelled import open_labels as labels_in
from qconvert.evaluate.latency import measure_latency, speedup
from qconvert.evaluate.metric import METRICS
from qconvert.gathering import gatherer_of, kept_statistics, source_of
from qconvert.graph.bodies import body_parameters
from qconvert.graph.census import take_census
from qconvert.graph.check import check, interface_differences
from qconvert.graph.deferred import ahead
from qconvert.graph.digest import digest_ahead, model_digest
from qconvert.graph.memory import give_back
from qconvert.graph.model import Model, save
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.session import Feed, IOSpec, Session
from qconvert.graph.signature import session_of
from qconvert.graph.sparsity import sparsity_note
from qconvert.inputs import ConversionJob, Data, load_float_model, open_data
from qconvert.plan.candidates import rewritten
from qconvert.plan.placement import CUT_LIBRARY
from qconvert.plan.widths import of_scheme
from qconvert.progress import Progress
from qconvert.recipe.recipe import STATIC_SCHEMES, Recipe
from qconvert.recipe.resolve import emulated, resolve, static_mix, types_for
from qconvert.recover.effort import LEVELS
from qconvert.recovery import convert_and_recover
from qconvert.report.build import BuildInputs, build_report
from qconvert.report.model import AccuracyReport, LatencyReport, Report, TargetReport, Verification
from qconvert.report.output import write_bytes
from qconvert.run import Run, Stopwatch
from qconvert.schemes.application import least_opset
from qconvert.schemes.bodies import StoredBodies, with_forms_of_bodies, with_stored_bodies
from qconvert.schemes.mixing import branches_of_others
from qconvert.targets import TARGETS
from qconvert.targets.auto import AUTO, detected, target_of
from qconvert.targets.target import Target

# With ranges from a file and no data at all, the model still has to be run on something.
_NO_DATA = DataSpec(sources=("random:4",))

# Samples on which the result is run with and without ONNX Runtime's optimizations, which takes several times as long.
MOST_FEEDS = 2
# Inputs on which values are looked at that 16 bits may not hold.
TRIALS = 8

# Rounds in which the latency of the result is measured: at least, and with an effort of 1.
_FEWEST_ROUNDS, _ROUNDS = 5, 11


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeJob(ConversionJob):
    """A conversion that is written.

    Attributes:
        output: the file to write.
        force: replace an existing output.
        measure: run both models to compare them; static int8 always does.
        shard: most bytes of a data file beside the model, 0 for no limit.
        examine: measure what each operator alone does to the outputs, for a report that shows it; static int8 only.
    """

    output: Path
    force: bool = False
    measure: bool = True
    shard: int = 0
    examine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Everything that is known before the first plan.

    Attributes:
        job: what was asked for, with the target found out.
        asked: the target as it was asked for.
        source: the model as it was read.
        data, labels: the samples, and the labels of those for evaluation.
        prepared: the canonical model.
        run: what the stages of the conversion share.
        kept: the cache's file for the statistics.
        digest: gives the digest of the source.
    """

    job: ConversionJob
    asked: str
    source: Model
    data: Data
    labels: Labels | None
    prepared: Prepared
    run: Run
    kept: Path | None
    digest: Callable[[], str]


def start(job: ConversionJob, progress: Progress, *, mixes: bool = False) -> Started:
    """Read and check model, data and labels, and prepare the model; ``mixes``: other schemes may be mixed in.

    Raises:
        InputError: one of them is unusable.
    """
    watch = Stopwatch()
    ahead(CUT_LIBRARY)
    check_options(job, mixes=mixes)
    asked, job = job.recipe.target, replace(job, recipe=resolve(job.recipe))
    with watch.stage("load"):
        source = load_float_model(job.model)
        ranges = load_ranges(job.ranges) if job.ranges is not None else None
        digest = digest_ahead(source) if ranges is not None or job.cache is not None else lambda: model_digest(source)
        original = session_of(source, optimize=False)
    with watch.stage("data"):
        data = data_of(job, original.inputs)
        labels = open_labels(job, original, data.evaluation)
    with watch.stage("prepare"):
        first = data.calibration.feed(0)
        outputs = original.run(first)
        del original  # its copy of the weights
        otherwise = rewritten(job.recipe, target_of(job.recipe.target))
        prepared = prepare(source, first, min_opset=least_opset(job.recipe), outputs=outputs, rewritten=otherwise)
        prepared = parted(prepared, job.recipe)
        source.release()
        give_back()
        kept = kept_statistics(job, data, prepared, digest)
        gatherer = gatherer_of(job, ranges, prepared, kept, digest)
    samples, name = data.calibration, source_of(job, ranges)
    return Started(
        job=job,
        asked=asked,
        source=source,
        data=data,
        labels=labels,
        prepared=prepared,
        run=Run(recipe=job.recipe, samples=samples, source=name, gatherer=gatherer, watch=watch, progress=progress),
        kept=kept,
        digest=digest,
    )


def finish(started: Started, quantized: Quantized, output: Path, reference: Session) -> Report:
    """Verify and measure ``quantized`` against ``reference``, the original, write it to ``output``, and report."""
    job, data, run = started.job, started.data, started.run
    target, machine = target_of(job.recipe.target), detected()
    with run.watch.stage("verify"):
        delivered = deliver(quantized, target, data.calibration.feed(0))
        seen_here = target.name == machine.target or target.host == machine.processor.architecture
        seen_here &= not types_for(job.recipe, target).wide  # what fuses with 8 bits says nothing about 16
        feeds = tuple(islice(data.calibration, MOST_FEEDS if LEVELS[job.recipe.effort].timing >= 1 else 1))
        verification = verify(quantized, delivered, reference, feeds, census=seen_here)
    with run.watch.stage("accuracy"):
        accuracy = measure_accuracy(data, reference, quantized.session, job.metric, started.labels, run.progress)
    with run.watch.stage("latency"):
        latency = measure_speed(reference, quantized.session, data, LEVELS[job.recipe.effort].timing)
    with run.watch.stage("write"):
        save(delivered.model, output)
        if started.kept is not None and run.gatherer.passes:
            origin = origin_of(started.prepared, job.recipe.method, run.gatherer, model_sha256=started.digest())
            write_bytes(started.kept, ranges_to_bytes(Ranges(origin=origin, tables=run.gatherer.tables)))
    return build_report(
        BuildInputs(
            source=started.source,
            output_path=output,
            prepared=started.prepared,
            plan=quantized.plan,
            stats=quantized.stats,
            branches=quantized.branches,
            recipe=job.recipe,
            target=TargetReport(
                name=target.name,
                title=target.title,
                detected=started.asked == AUTO,
                here=target.name == machine.target,
                machine=str(machine.processor),
            ),
            integer_ports=delivered.ports,
            calibration=replace(
                quantized.calibration, skipped_samples=data.skipped, picked=methods_picked(quantized.plan)
            ),
            accuracy=accuracy,
            latency=latency,
            verification=verification,
            placement=quantized.placement,
            notes=(
                *started.prepared.notes,
                *quantized.notes,
                *sparsity_note(started.prepared.model, quantized.model),
                *_notes_on_types(job.recipe, target),
            ),
            warnings=(*data.warnings, *run.gatherer.remarks(), *quantized.warnings),
            seconds=run.watch.seconds,
        )
    )


def _notes_on_types(recipe: Recipe, target: Target) -> tuple[str, ...]:
    """What to tell of integers that ``target`` has no kernels for."""
    found = []
    for scheme in dict.fromkeys((recipe.scheme, *(s for _, s in static_mix(recipe)))):
        own = of_scheme(recipe, scheme)
        if emulated(own, target):
            able = ", ".join(t.name for t in TARGETS if set(STATIC_SCHEMES[scheme]) & set(t.types))
            found.append(
                f"{target.title} has no kernels for {types_for(own, target).activations} activations: between the "
                f"conversions it computes in float, so accuracy is that of {scheme}, and speed is not; targets that "
                f"run it: {able}"
            )
    return tuple(found)


def check_options(job: ConversionJob, *, mixes: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        RecipeError: which, and what is missing.
    """
    if job.calib is None and job.ranges is None:
        raise RecipeError("there is nothing to calibrate with", hint="give --calib DATA, or --ranges FILE")
    if job.labels is not None and job.eval_data is None:
        raise RecipeError("--labels needs --eval", hint="give the evaluation samples that the labels belong to")
    if job.metric is not None:
        METRICS.get(job.metric)
    if job.recipe.scheme not in STATIC_SCHEMES or (job.recipe.mix and not mixes):
        raise RecipeError("only static int8 is searched", hint="leave --scheme and --mix out, or use qconvert quantize")


def data_of(job: ConversionJob, interface: tuple[IOSpec, ...]) -> Data:
    """The data of the run; where there are ranges and no calibration data, the evaluation data, or random ones.

    Raises:
        DataError: a sample does not fit the model.
    """
    if job.calib is not None:
        return open_data(job.calib, job.eval_data, interface)
    spec = job.eval_data or _NO_DATA
    samples = open_data_set(spec, interface)
    return Data(
        calibration=samples, evaluation=samples, held_out=job.eval_data is not None, evaluation_source=spec.name
    )


def open_labels(job: ConversionJob, original: Session, evaluation: FeedSet) -> Labels | None:
    """Read the labels, and refuse those that could not be scored before any work is done.

    Raises:
        DataError: they are damaged, mean nothing to the metric, or are not for as many samples as there are.
    """
    if job.eval_data is None:
        if job.metric is not None:
            raise RecipeError(f"the metric {job.metric} needs --eval and --labels", hint=LABELS_HINT)
        return None
    return labels_in(job.labels, job.metric, original, evaluation, job.eval_data.name)


def make_quantized(
    prepared: Prepared, run: Run, others: Mapping[str, str] = MappingProxyType({}), *, required: bool = True
) -> Quantized:
    """Quantize the branches of If nodes, store what is float in bodies, then quantize the graph around them, all
    without the nodes ``others``.

    ``required``: refuse a model of which nothing is quantized.

    Raises:
        ModelError: there is nothing to quantize, and no control flow whose bodies could be the reason.
        InternalError: ONNX Runtime refuses the result.
    """
    left, held = branches_of_others(prepared.model, others), body_parameters(prepared.model)
    inner = left or quantize_branches(prepared, run)

    def around(bodies: StoredBodies) -> Quantized:
        recipe, kept_float = bodies.inner.outer_recipe(run.recipe, prepared)
        kept, needed = {**others, **kept_float}, required and not held
        within, base = replace(run, recipe=recipe), bodies.inner.model
        return convert_and_recover(prepared, within, base=base, kept_float=kept, required=needed)

    bodies = StoredBodies(inner=inner) if left else with_stored_bodies(inner, prepared, run)
    try:
        outer = around(bodies)
    except InternalError as error:
        if bodies.inner.model is prepared.model:
            raise
        note = f"nothing in control-flow bodies runs on integers: {error.message}"
        floats = QuantizedBranches(model=prepared.model, notes=(*inner.notes, note))
        bodies = with_stored_bodies(floats, prepared, run)
        outer = around(bodies)
    inner = bodies.inner
    warnings: tuple[str, ...] = ()
    if held and not quantizes(outer.plan) and not any(p.taken() for p in inner.plans.values()):
        warnings = (
            f"nothing was quantized: {held:,} float parameters sit in control-flow bodies, and none of them can be "
            "stored as integers; the model was written in float",
        )
    calibration = replace(
        outer.calibration,
        tensors=outer.calibration.tensors + inner.tensors,
        skipped_values=outer.calibration.skipped_values + inner.skipped_values,
    )
    return replace(
        with_forms_of_bodies(outer, bodies),
        calibration=calibration,
        notes=(*inner.notes, *outer.notes),
        branches=inner.plans,
        warnings=warnings,
    )


def verify(
    quantized: Quantized, delivered: Delivered, reference: Session, feeds: Sequence[Feed] = (), *, census: bool
) -> Verification:
    """Check the result: ONNX's checker, the interface, and what ONNX Runtime makes of it.

    Args:
        quantized: the result.
        delivered: the result as it is handed over.
        reference: the original.
        feeds: what to run with and without ONNX Runtime's optimizations.
        census: ONNX Runtime on this machine is what the model is for, so look at what it makes of it.
    """
    scales = {name: float(p.scale) for name, p in quantized.plan.params_of().items() if p.scale.ndim == 0}
    plans = (quantized.plan, *quantized.branches.values())
    weighted = [n.node for plan in plans for n in plan.taken() if n.multiplies and not plan.is_wide(n)]
    return Verification(
        checker=check(delivered.model),
        loads=True,
        interface=interface_differences(reference, quantized.session),
        census=take_census(quantized.model, weighted) if census else None,
        optimizations=optimization_effect(quantized.model, quantized.session, reference, feeds, scales),
    )


def measure_accuracy(
    data: Data, reference: Session, quantized: Session, metric: str | None, labels: Labels | None, progress: Progress
) -> AccuracyReport:
    """Run the evaluation samples through both models."""
    known = labelled(data.evaluation, labels)
    watched = progress.track(iter(data.evaluation), label="evaluating", total=len(data.evaluation))
    comparison = compare_models(reference, quantized, watched, metric=metric, labels=known.labels)
    return AccuracyReport(
        source=data.evaluation_source,
        samples=len(known.numbers),
        held_out=data.held_out,
        comparison=known.named(comparison),
    )


def measure_speed(reference: Session, quantized: Session, data: Data, effort: float = 1.0) -> LatencyReport:
    """Interleaved latency on the first evaluation sample, with ONNX Runtime's default threads, for ``effort`` s."""
    sessions = {"fp32": reference, "quantized": quantized}
    rounds = max(_FEWEST_ROUNDS, round(_ROUNDS * effort))
    # both have just run the evaluation samples
    times = measure_latency(sessions, data.evaluation.feed(0), seconds=effort, min_runs=rounds, warmup=1)
    return LatencyReport(
        threads=0,
        fp32=times["fp32"],
        quantized=times["quantized"],
        speedup=speedup(times["fp32"], times["quantized"]),
    )
