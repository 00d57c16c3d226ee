"""The main job under any scheme: static int8 is the pipeline's; every other scheme rewrites the model here.

load, data, prepare          as in qconvert.pipeline
convert                      each scheme of the recipe on the nodes that are its own
verify, accuracy, latency    as in qconvert.pipeline
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice

from qconvert.conversion import Quantized
from qconvert.delivery import Delivered
from qconvert.emit.cleanup import drop_types_of_constants
from qconvert.errors import InternalError, ModelError, RecipeError
from qconvert.graph.check import check_file
from qconvert.graph.memory import give_back
from qconvert.graph.model import PROTO_LIMIT, Model, load, save
from qconvert.graph.prepare.canonical import Prepared, prepare, prepare_large
from qconvert.graph.prepare.widen import half_constants
from qconvert.graph.signature import declared_inputs, session_of
from qconvert.graph.spool import Spool
from qconvert.inputs import Data, load_float_model
from qconvert.pipeline import (
    TRIALS,
    QuantizeJob,
    check_options,
    data_of,
    finish,
    make_quantized,
    measure_accuracy,
    measure_speed,
    open_labels,
    start,
    verify,
)
from qconvert.plan.model import QuantPlan
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import AUTO, PINNED, STATIC_SCHEMES, Recipe
from qconvert.recipe.resolve import resolve
from qconvert.recover.samples import Samples
from qconvert.report.build import SLOWER, BuildInputs, build_report
from qconvert.report.model import CalibrationReport, Report, TargetReport, Verification
from qconvert.report.output import check_output
from qconvert.run import Stopwatch
from qconvert.schemes.application import apply, at_best_opset, schemes_of
from qconvert.schemes.mixing import nodes_of_others, with_others, with_static_first
from qconvert.schemes.scheme import check_combination
from qconvert.schemes.slowdown import slowdown
from qconvert.schemes.unselected import judge_unselected
from qconvert.sensitivity.reported import examined, with_damages
from qconvert.stats.statistic import StatsTable
from qconvert.targets.auto import detected, target_of
from qconvert.tuning.guard import guarded, told

# A model beyond this many bytes that was converted a weight at a time is written so, too: with a data file.
_ONE_FILE = 1 << 28
_NO_LIMIT = 1 << 62


def quantize(job: QuantizeJob, progress: Progress | None = None) -> Report:
    """Quantize a model by the recipe's scheme, verify and measure the result, write it, and report.

    Raises:
        InputError: the model, the data, the recipe or the output place is unusable; nothing has been written.
    """
    check_job(job)
    return (_quantize if _is_static(job.recipe) else _rewrite)(job, progress or Silent())


def check_job(job: QuantizeJob) -> None:
    """Refuse choices and options that do not go together, before anything is read.

    Raises:
        RecipeError: which, and what to do.
    """
    check_combination(job.recipe)
    if not _is_static(job.recipe):
        _check_options(job)
    elif not job.measure or job.shard:
        raise RecipeError(
            "--no-measure and --shard do not go with --scheme int8, which runs the model to calibrate it",
            hint="leave them out, or use --scheme w8, which needs no data",
        )
    else:
        check_options(replace(job, recipe=with_static_first(job.recipe)), mixes=True)


def _is_static(recipe: Recipe) -> bool:
    return any(name in STATIC_SCHEMES for name in schemes_of(recipe))


def _quantize(job: QuantizeJob, progress: Progress) -> Report:
    """Static int8, what makes up for it where it damages the outputs, and the schemes that are mixed in."""
    check_output(job.output, force=job.force, inputs=job.inputs)
    job = replace(job, recipe=with_static_first(job.recipe))
    began = time.monotonic()
    started = start(job, progress, mixes=True)
    others = nodes_of_others(started.prepared.model, started.job.recipe)
    # the recipe of a run that left everything in float, for accuracy, gives that model again
    required = started.job.recipe.placement != PINNED
    quantized = make_quantized(started.prepared, started.run, others, required=required)
    seconds = time.monotonic() - began
    with started.run.watch.stage("verify"):
        reference = session_of(started.source)
    if others:
        feeds = started.data.calibration
        samples = Samples(feeds=feeds, indices=range(len(feeds))) if job.calib is not None else None
        trials = tuple(islice(started.data.evaluation, TRIALS))
        quantized = with_others(quantized, started.job.recipe, samples, trials, progress)
    else:
        quantized = guarded(started, quantized, reference, seconds)
    quantized = _no_larger(quantized, started.source)
    damages, notes = examined(started, quantized) if job.examine and not others else ((), ())
    with started.run.watch.stage("verify"):
        aside = judge_unselected(started.prepared.model, quantized.model, started.data.evaluation)
    quantized = replace(
        quantized, notes=(*quantized.notes, *notes, *aside.notes), warnings=(*quantized.warnings, *aside.warnings)
    )
    report = with_damages(finish(started, quantized, job.output, reference), damages)
    return told(report, started.job.recipe)


def _no_larger(quantized: Quantized, source: Model) -> Quantized:
    """``quantized``, or ``source`` as it was where nothing runs on integers: widening it would only make it larger."""
    plans = (quantized.plan, *quantized.branches.values())
    if any(p.taken() for p in plans) or not half_constants(source) or source.weight_bytes() > PROTO_LIMIT:
        return quantized
    model = source.clone()
    drop_types_of_constants(model)
    if len(quantized.model.to_bytes()) <= len(model.to_bytes()):
        return quantized
    note = "nothing runs on integers: the model was written as it was"
    return replace(quantized, model=model, session=session_of(source), notes=(*quantized.notes, note))


def _rewrite(job: QuantizeJob, progress: Progress) -> Report:
    watch = Stopwatch()
    check_output(job.output, force=job.force, inputs=job.inputs)
    with watch.stage("load"):
        source = load_float_model(job.model)
    has_data = job.calib is not None or job.eval_data is not None
    if not job.measure or (not has_data and source.weight_bytes() > PROTO_LIMIT):
        return _rewrite_unseen(job, source, watch, progress)
    with watch.stage("load"):
        original = session_of(source, optimize=False)
    with watch.stage("data"):
        data = data_of(job, original.inputs)
        labels = open_labels(job, original, data.evaluation)
    with watch.stage("prepare"):
        first = data.calibration.feed(0)
        outputs = original.run(first)
        del original  # its copy of the weights
        prepared = at_best_opset(
            job.recipe, source, lambda opset: prepare(source, first, min_opset=opset, outputs=outputs)
        )
        source.release()
        give_back()
    with watch.stage("convert"):
        quantized = _convert(job, prepared, data, progress)
    with watch.stage("verify"):
        reference = session_of(source)
        verification = verify(quantized, Delivered(model=quantized.model), reference, census=True)
        aside = judge_unselected(prepared.model, quantized.model, data.evaluation)
    with watch.stage("accuracy"):
        accuracy = measure_accuracy(data, reference, quantized.session, job.metric, labels, progress)
    with watch.stage("latency"):
        latency = measure_speed(reference, quantized.session, data)
        slow = latency.speedup.median < SLOWER
        feed = data.evaluation.feed(0)
        slow_kernels = slowdown(prepared.model, quantized.model, feed, job.recipe) if slow else ()
    with watch.stage("write"):
        save(quantized.model, job.output, shard=job.shard)
    if not quantized.calibration.samples:
        accuracy = replace(accuracy, held_out=True)  # nothing was calibrated on anything
    return build_report(
        BuildInputs(
            source=source,
            output_path=job.output,
            prepared=prepared,
            plan=quantized.plan,
            branches={},
            recipe=job.recipe,
            stats=StatsTable(entries={}),
            target=_target(job.recipe),
            integer_ports=(),
            calibration=replace(quantized.calibration, skipped_samples=data.skipped),
            accuracy=accuracy,
            latency=latency,
            verification=verification,
            placement=None,
            notes=(*prepared.notes, *quantized.notes, *aside.notes),
            warnings=(*data.warnings, *quantized.warnings, *aside.warnings),
            seconds=watch.seconds,
            slow_kernels=slow_kernels,
        )
    )


def _rewrite_unseen(job: QuantizeJob, source: Model, watch: Stopwatch, progress: Progress) -> Report:
    """Convert a model that is not run, one weight at a time: memory does not grow with the model."""
    with watch.stage("prepare"):
        prepared = at_best_opset(job.recipe, source, lambda opset: prepare_large(source, min_opset=opset))
    with Spool(parent=job.output.parent) as spool:
        with watch.stage("convert"):
            converted = apply(prepared, job.recipe, spool=spool, progress=progress)
        with watch.stage("write"):
            large = converted.model.weight_bytes() > _ONE_FILE
            save(converted.model, job.output, shard=job.shard or (_NO_LIMIT if large else 0), progress=progress)
    with watch.stage("verify"):
        written = load(job.output)
        names = [[s.name for s in declared_inputs(m)] for m in (source, written)]
        verification = Verification(
            checker=check_file(job.output),
            loads=None,
            interface=() if names[0] == names[1] else (f"inputs are {names[1]}, the original has {names[0]}",),
            census=None,
        )
    return build_report(
        BuildInputs(
            source=source,
            output_path=job.output,
            prepared=prepared,
            plan=QuantPlan(nodes=converted.nodes, groups=()),
            branches={},
            recipe=job.recipe,
            stats=StatsTable(entries={}),
            target=_target(job.recipe),
            integer_ports=(),
            calibration=CalibrationReport(source="", samples=0, method=converted.method, tensors=0),
            accuracy=None,
            latency=None,
            verification=verification,
            placement=None,
            notes=(*prepared.notes, *converted.notes),
            warnings=(),
            seconds=watch.seconds,
        )
    )


def resolved(recipe: Recipe) -> Recipe:
    """``recipe`` with what it leaves to its target filled in, so that it means the same anywhere.

    Raises:
        RecipeError: there is no such target, or it does not run what the recipe asks for.
    """
    if _is_static(recipe):
        return resolve(with_static_first(recipe))
    return replace(recipe, target=target_of(recipe.target).name)


def _target(recipe: Recipe) -> TargetReport:
    target, machine = target_of(recipe.target), detected()
    return TargetReport(
        name=target.name,
        title=target.title,
        detected=recipe.target == AUTO,
        here=target.name == machine.target,
        machine=str(machine.processor),
    )


def _check_options(job: QuantizeJob) -> None:
    """Refuse options that do not go together.

    Raises:
        RecipeError: which, and what to do.
    """
    if job.ranges is not None:
        raise RecipeError(
            f"--ranges are of --scheme int8; {job.recipe.scheme} has no calibrated ranges",
            hint="leave --ranges out, or use --scheme int8",
        )
    if job.labels is not None and job.eval_data is None:
        raise RecipeError("--labels needs --eval", hint="give the evaluation samples that the labels belong to")


def _convert(job: QuantizeJob, prepared: Prepared, data: Data, progress: Progress) -> Quantized:
    """Apply the schemes, load the result and run it.

    Raises:
        ModelError: there is nothing to convert.
        InternalError: ONNX Runtime refuses the result.
    """
    samples = Samples(feeds=data.calibration, indices=range(len(data.calibration))) if job.calib is not None else None
    trials = [data.evaluation.feed(i) for i in range(min(TRIALS, len(data.evaluation)))]
    converted = apply(prepared, job.recipe, samples, trials, progress=progress)
    try:
        session = session_of(converted.model)
        session.run(data.evaluation.feed(0))
    except ModelError as error:
        raise InternalError(
            f"ONNX Runtime refuses the converted model: {error.message}",
            hint="--exclude the operator named above; attach the model, or its graph without weights, to a report",
        ) from error
    return Quantized(
        model=converted.model,
        plan=QuantPlan(nodes=converted.nodes, groups=()),
        stats=StatsTable(entries={}),
        session=session,
        calibration=CalibrationReport(
            source=job.calib.name if job.calib is not None else "",
            samples=converted.samples,
            method=converted.method,
            tensors=0,
        ),
        notes=converted.notes,
        prepared=prepared,
        base=converted.model,
    )
