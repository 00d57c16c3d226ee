"""The main job under any scheme: static int8 is the pipeline's; every other scheme rewrites the model here.

load, data, prepare          as in qconvert.pipeline
convert                      each scheme of the recipe on the nodes that are its own
verify, accuracy, latency    as in qconvert.pipeline
"""

from __future__ import annotations

from dataclasses import replace

from qconvert.conversion import Quantized
from qconvert.emit.cleanup import clean
from qconvert.emit.sites import node_names
from qconvert.errors import InternalError, ModelError, RecipeError
from qconvert.graph.memory import give_back
from qconvert.graph.model import save
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.signature import session_of
from qconvert.inputs import Data, load_float_model
from qconvert.pipeline import (
    QuantizeJob,
    data_of,
    measure_accuracy,
    measure_speed,
    open_labels,
    verify,
)
from qconvert.pipeline import quantize as quantize_statically
from qconvert.plan.model import Decision, NodePlan, QuantPlan
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import Recipe
from qconvert.recover.samples import Samples
from qconvert.report.build import BuildInputs, build_report
from qconvert.report.model import CalibrationReport, Report
from qconvert.report.output import check_output
from qconvert.run import Stopwatch
from qconvert.schemes.assignment import check_patterns, owner_of
from qconvert.schemes.scheme import SCHEMES, Converted, Work, check_combination

_NO_WEIGHT = "it has no weight that the scheme stores"


def quantize(job: QuantizeJob, progress: Progress | None = None) -> Report:
    """Quantize a model by the recipe's scheme, verify and measure the result, write it, and report.

    Raises:
        InputError: the model, the data, the recipe or the output place is unusable; nothing has been written.
    """
    check_combination(job.recipe)
    if SCHEMES.get(job.recipe.scheme).convert is None:
        return quantize_statically(job, progress)
    return _rewrite(job, progress or Silent())


def _rewrite(job: QuantizeJob, progress: Progress) -> Report:
    watch = Stopwatch()
    check_output(job.output, force=job.force, inputs=job.inputs)
    _check_options(job)
    with watch.stage("load"):
        source = load_float_model(job.model)
        interface = session_of(source, optimize=False).inputs
    with watch.stage("data"):
        data = data_of(job, interface)
        labels = open_labels(job, source, data.evaluation)
    with watch.stage("prepare"):
        prepared = prepare(source, data.calibration.feed(0), min_opset=_least_opset(job.recipe))
        source.release()
        give_back()
    with watch.stage("convert"):
        quantized = _convert(job, prepared, data, progress)
    with watch.stage("verify"):
        reference = session_of(source)
        verification = verify(quantized, reference)
    with watch.stage("accuracy"):
        accuracy = measure_accuracy(data, reference, quantized.session, job.metric, labels, progress)
    with watch.stage("latency"):
        latency = measure_speed(reference, quantized.session, data)
    with watch.stage("write"):
        save(quantized.model, job.output)
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
            calibration=replace(quantized.calibration, skipped_samples=data.skipped),
            accuracy=accuracy,
            latency=latency,
            verification=verification,
            notes=(*prepared.notes, *quantized.notes),
            warnings=(*data.warnings, *quantized.warnings),
            seconds=watch.seconds,
        )
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


def _schemes_of(recipe: Recipe) -> tuple[str, ...]:
    """The schemes in use, the recipe's own last: what it does to all that is left may depend on the others."""
    mixed = [entry.rpartition("=")[2] for entry in recipe.mix]
    others = [name for name in dict.fromkeys(mixed) if name in SCHEMES and name != recipe.scheme]
    return (*others, recipe.scheme)


def _least_opset(recipe: Recipe) -> int:
    return max(SCHEMES.get(name).least_opset(recipe) for name in _schemes_of(recipe))


def _convert(job: QuantizeJob, prepared: Prepared, data: Data, progress: Progress) -> Quantized:
    """Apply the schemes one after the other.

    Raises:
        ModelError: there is nothing to convert.
        InternalError: ONNX Runtime refuses the result.
    """
    names = node_names(prepared.model)
    check_patterns(job.recipe, names)
    samples = Samples(feeds=data.calibration, indices=range(len(data.calibration))) if job.calib is not None else None
    done: list[Converted] = []
    model = prepared.model
    for name in _schemes_of(job.recipe):
        convert = SCHEMES.get(name).convert
        if convert is None:
            raise InternalError(f"{name} cannot be mixed in")
        work = Work(model=model, recipe=job.recipe, owner=owner_of(job.recipe), samples=samples, progress=progress)
        done.append(convert(work))
        model = done[-1].model
    nodes = {n: NodePlan(node=n, op_type=op, decision=Decision(taken=False, reason=_NO_WEIGHT)) for n, op in names}
    for converted in done:
        nodes.update(converted.nodes)
    if not any(n.decision.taken for n in nodes.values()):
        reasons = dict.fromkeys(f"{n.op_type}: {n.decision.reason}" for c in done for n in c.nodes.values())
        listed = "; ".join(list(reasons)[:5]) or "it holds no float weights of 512 numbers or more"
        raise ModelError(
            f"{prepared.source.path}: nothing for {job.recipe.scheme} to convert ({listed})",
            hint="`qconvert inspect MODEL` shows what the model holds",
        )
    model = clean(model, prepared.source)
    try:
        session = session_of(model)
        session.run(data.evaluation.feed(0))
    except ModelError as error:
        raise InternalError(
            f"ONNX Runtime refuses the converted model: {error.message}",
            hint="--exclude the operator named above; attach the model, or its graph without weights, to a report",
        ) from error
    return Quantized(
        model=model,
        plan=QuantPlan(nodes=nodes, groups=()),
        session=session,
        calibration=CalibrationReport(
            source=job.calib.name if job.calib is not None else "",
            samples=max(c.samples for c in done),
            method=next((c.method for c in reversed(done) if c.method), ""),
            tensors=0,
        ),
        notes=tuple(note for c in done for note in c.notes),
    )
