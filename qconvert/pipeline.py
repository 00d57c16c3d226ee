"""The main job, stage by stage: a small function for each arrow of the data flow (docs/architecture.md)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from qconvert.branches import QuantizedBranches, quantize_branches
from qconvert.calibrate.feeds import FeedSet, feeds, split
from qconvert.calibrate.labels import Labels, load_labels
from qconvert.calibrate.source import open_source
from qconvert.conversion import Quantized, Stopwatch, quantizes
from qconvert.errors import DataError, InternalError, ModelError, RecipeError
from qconvert.evaluate.compare import compare_models
from qconvert.evaluate.fidelity import leading_axis
from qconvert.evaluate.latency import measure_latency, speedup
from qconvert.evaluate.metric import METRICS, infer_metric
from qconvert.graph.bodies import body_parameters
from qconvert.graph.census import take_census
from qconvert.graph.check import check, interface_differences
from qconvert.graph.model import Model, load, save
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.session import IOSpec, Session, open_session
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import Recipe
from qconvert.recovery import convert_and_recover
from qconvert.report.build import BuildInputs, build_report
from qconvert.report.model import AccuracyReport, LatencyReport, Report, Verification
from qconvert.report.output import check_output


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeJob:
    """What to quantize, with what, to where.

    Attributes:
        model, calib, output: the FP32 model, calibration data, the file to write.
        recipe: the choices.
        eval_data, labels, metric: evaluation data; labels only together with it.
        force: replace an existing output.
    """

    model: Path
    calib: Path
    output: Path
    recipe: Recipe = field(default_factory=Recipe)
    eval_data: Path | None = None
    labels: Path | None = None
    metric: str | None = None
    force: bool = False

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read and must stay as they are."""
        return tuple(p for p in (self.model, self.calib, self.eval_data, self.labels) if p is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Calibration samples, and the samples that the result is judged on."""

    calibration: FeedSet
    evaluation: FeedSet
    held_out: bool
    evaluation_source: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the sources had to say."""
        return tuple(dict.fromkeys((*self.calibration.warnings, *self.evaluation.warnings)))


def quantize(job: QuantizeJob, progress: Progress | None = None) -> Report:
    """Quantize a model, verify and measure the result, write it, and report.

    Raises:
        InputError: the model, the data, the recipe or the output place is unusable; nothing has been written.
    """
    progress = progress or Silent()
    watch = Stopwatch()
    check_output(job.output, force=job.force, inputs=job.inputs)
    if job.labels is not None and job.eval_data is None:
        raise RecipeError("--labels needs --eval", hint="give the evaluation samples that the labels belong to")
    if job.metric is not None:
        METRICS.get(job.metric)
        if job.labels is None:
            raise RecipeError(f"--metric {job.metric} needs --labels", hint="give the file with the expected answers")
    with watch.stage("load"):
        source = load_float_model(job.model)
        reference = open_session(job.model)
    with watch.stage("data"):
        data = open_data(job, reference.inputs)
        labels = open_labels(job, reference, data.evaluation)
    with watch.stage("prepare"):
        prepared = prepare(source, data.calibration.feed(0), min_opset=least_opset(job.recipe))
    quantized = make_quantized(prepared, job.recipe, data.calibration, str(job.calib), watch, progress)
    with watch.stage("verify"):
        verification = verify(quantized, reference)
    with watch.stage("accuracy"):
        accuracy = measure_accuracy(data, reference, quantized.session, job.metric, labels, progress)
    with watch.stage("latency"):
        latency = measure_speed(reference, quantized.session, data)
    with watch.stage("write"):
        save(quantized.model, job.output)
    return build_report(
        BuildInputs(
            source=source,
            output_path=job.output,
            prepared=prepared,
            plan=quantized.plan,
            branches=quantized.branches,
            recipe=job.recipe,
            calibration=quantized.calibration,
            accuracy=accuracy,
            latency=latency,
            verification=verification,
            notes=(*prepared.notes, *quantized.notes),
            warnings=(*data.warnings, *quantized.warnings),
            seconds=watch.seconds,
        )
    )


def load_float_model(path: Path) -> Model:
    """Read the model to quantize.

    Raises:
        ModelError: unreadable, or quantized already.
    """
    model = load(path)
    already = quantized_ops(model)
    if already:
        raise ModelError(
            f"{path} is quantized already: it holds {', '.join(already[:4])}{' ...' if len(already) > 4 else ''}",
            hint="give the FP32 model that it was made from",
        )
    return model


def least_opset(recipe: Recipe) -> int:
    """The least opset whose QuantizeLinear can express ``recipe``: 13 knows scales a channel, 10 scales a tensor."""
    return 13 if recipe.per_channel else 10


def open_data(job: QuantizeJob, interface: tuple[IOSpec, ...]) -> Data:
    """Open calibration and evaluation data; without --eval a part of the calibration samples is held out.

    Raises:
        DataError: a sample does not fit the model.
    """
    calibration = feeds(open_source(job.calib, interface), interface)
    if job.eval_data is not None:
        evaluation = feeds(open_source(job.eval_data, interface), interface)
        return Data(calibration=calibration, evaluation=evaluation, held_out=True, evaluation_source=str(job.eval_data))
    kept, held = split(calibration)
    if len(held) == 0:
        return Data(calibration=calibration, evaluation=calibration, held_out=False, evaluation_source=str(job.calib))
    return Data(calibration=kept, evaluation=held, held_out=True, evaluation_source=f"{job.calib} (held out)")


def open_labels(job: QuantizeJob, reference: Session, evaluation: FeedSet) -> Labels | None:
    """Read the labels, and refuse those that could not be scored before any work is done.

    Raises:
        DataError: they are damaged, mean nothing to the metric, or are not for as many samples as there are.
    """
    if job.labels is None:
        return None
    labels = load_labels(job.labels)
    outputs = reference.run(evaluation.feed(0))
    metric = METRICS.get(job.metric or infer_metric(labels, [a.shape for a in outputs]))
    metric.start(labels)
    needed = metric.samples_needed(labels)
    # feeds of several samples may end in a part of one: only the comparison itself can count those
    if leading_axis(outputs) == 1 and needed != len(evaluation):
        raise DataError(
            f"{job.labels} has {len(labels)} labels, which are for {needed} samples ({metric.name}), "
            f"but {job.eval_data} holds {len(evaluation)}",
            hint="give the labels of exactly these samples, in the same order",
        )
    return labels


def make_quantized(
    prepared: Prepared, recipe: Recipe, samples: FeedSet, source: str, watch: Stopwatch, progress: Progress
) -> Quantized:
    """Quantize the branches of If nodes, then the main graph around them.

    Raises:
        ModelError: there is nothing to quantize, and no control flow whose bodies could be the reason.
        InternalError: ONNX Runtime refuses the result.
    """
    inner = quantize_branches(prepared, recipe, samples, watch, progress)
    held = body_parameters(prepared.model)
    within, kept_float = inner.outer_recipe(recipe, prepared)

    def main_graph(base: Model) -> Quantized:
        return convert_and_recover(
            prepared,
            within,
            samples,
            source,
            watch,
            progress,
            base=base,
            kept_float=kept_float,
            required=not held,
        )

    try:
        outer = main_graph(inner.model)
    except InternalError as error:
        if inner.model is prepared.model:
            raise
        note = f"the branches of If stay float: {error.message}"
        inner = QuantizedBranches(model=prepared.model, notes=(*inner.notes, note))
        outer = main_graph(prepared.model)
    warnings: tuple[str, ...] = ()
    if not quantizes(outer.plan) and not any(quantizes(p) for p in inner.plans.values()):
        warnings = (
            f"nothing was quantized: {held:,} float parameters sit in control-flow bodies that no calibration sample "
            "reached or that qconvert cannot quantize yet; the model was written in float",
        )
    calibration = replace(
        outer.calibration,
        tensors=outer.calibration.tensors + inner.tensors,
        skipped_values=outer.calibration.skipped_values + inner.skipped_values,
    )
    return replace(
        outer,
        calibration=calibration,
        notes=(*inner.notes, *outer.notes),
        branches=inner.plans,
        warnings=warnings,
    )


def verify(quantized: Quantized, reference: Session) -> Verification:
    """Check the result: ONNX's checker, the interface, and what ONNX Runtime makes of it."""
    plans = (quantized.plan, *quantized.branches.values())
    weighted = [n.node for plan in plans for n in plan.taken() if n.weight is not None and n.activations]
    return Verification(
        checker=check(quantized.model),
        loads=True,
        interface=interface_differences(reference, quantized.session),
        census=take_census(quantized.model, weighted),
    )


def measure_accuracy(
    data: Data, reference: Session, quantized: Session, metric: str | None, labels: Labels | None, progress: Progress
) -> AccuracyReport:
    """Run the evaluation samples through both models."""
    watched = progress.track(iter(data.evaluation), label="evaluating", total=len(data.evaluation))
    comparison = compare_models(reference, quantized, watched, metric=metric, labels=labels)
    return AccuracyReport(
        source=data.evaluation_source,
        samples=len(data.evaluation),
        held_out=data.held_out,
        comparison=comparison,
    )


def measure_speed(reference: Session, quantized: Session, data: Data) -> LatencyReport:
    """Interleaved latency on the first evaluation sample, with ONNX Runtime's default threads."""
    times = measure_latency({"fp32": reference, "quantized": quantized}, data.evaluation.feed(0))
    return LatencyReport(
        threads=0,
        fp32=times["fp32"],
        quantized=times["quantized"],
        speedup=speedup(times["fp32"], times["quantized"]),
    )
