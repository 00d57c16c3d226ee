"""The main job, stage by stage: a small function for each arrow of the data flow (docs/architecture.md)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from qconvert.calibrate.collect import collect
from qconvert.calibrate.feeds import FeedSet, feeds, split
from qconvert.calibrate.labels import Labels, load_labels
from qconvert.calibrate.method import METHODS
from qconvert.calibrate.solve import requests_for, skipped_values, solve
from qconvert.calibrate.source import open_source
from qconvert.emit.cleanup import clean
from qconvert.emit.qdq import emit_qdq
from qconvert.emit.qoperator import lower_to_qoperator
from qconvert.errors import DataError, InternalError, ModelError, RecipeError
from qconvert.evaluate.compare import compare_models
from qconvert.evaluate.fidelity import leading_axis
from qconvert.evaluate.latency import measure_latency, speedup
from qconvert.evaluate.metric import METRICS, infer_metric
from qconvert.graph.build_view import view_of
from qconvert.graph.check import check, interface_differences
from qconvert.graph.model import Model, load, save
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.session import IOSpec, Session, open_session
from qconvert.graph.signature import session_of
from qconvert.graph.census import take_census
from qconvert.report.output import check_output
from qconvert.ops import OPS
from qconvert.ops.rule import Kind
from qconvert.plan.build import build_plan
from qconvert.plan.model import QuantPlan
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import Recipe
from qconvert.report.build import BuildInputs, build_report
from qconvert.report.model import AccuracyReport, CalibrationReport, LatencyReport, Report, Verification
from qconvert.stats.statistic import StatsTable
from qconvert.targets import TARGETS

# Operators that people expect to be quantized: their reasons come first when nothing is.
WEIGHTED_OPS = tuple(rule.op_type for rule in OPS if rule.kind is Kind.WEIGHTED)

# How many nodes may be sent back to float because ONNX Runtime refuses the quantized graph.
MAX_REPAIRS = 6


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
    recipe: Recipe = Recipe()
    eval_data: Path | None = None
    labels: Path | None = None
    metric: str | None = None
    force: bool = False

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read and must stay as they are."""
        return tuple(p for p in (self.model, self.calib, self.eval_data, self.labels) if p is not None)


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Wall time of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized model with the plan behind it, loaded and tried."""

    model: Model
    plan: QuantPlan
    session: Session
    calibration: CalibrationReport
    notes: tuple[str, ...]


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
            output=quantized.model,
            output_path=job.output,
            prepared=prepared,
            plan=quantized.plan,
            recipe=job.recipe,
            calibration=quantized.calibration,
            accuracy=accuracy,
            latency=latency,
            verification=verification,
            notes=(*prepared.notes, *quantized.notes),
            warnings=data.warnings,
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
        return Data(
            calibration=calibration, evaluation=evaluation, held_out=True, evaluation_source=str(job.eval_data)
        )
    kept, held = split(calibration)
    if len(held) == 0:
        return Data(
            calibration=calibration, evaluation=calibration, held_out=False, evaluation_source=str(job.calib)
        )
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
    """Plan, calibrate, solve and emit. A node that ONNX Runtime refuses in quantized form goes back to float.

    Raises:
        ModelError: there is nothing to quantize.
        InternalError: ONNX Runtime refuses the result even so.
    """
    view = view_of(prepared.model)
    target = TARGETS.get(recipe.target)
    method = METHODS.get(recipe.method)
    notes: list[str] = []
    failure = ""
    kept_float: dict[str, str] = {}
    for _ in range(MAX_REPAIRS):
        with watch.stage("plan"):
            plan = build_plan(view, recipe, target, kept_float)
            if not any(n.weight is not None or n.table is not None or n.activations for n in plan.taken()):
                raise nothing_to_quantize(prepared.source, plan)
        with watch.stage("calibrate"):
            stats = collect(
                prepared.model, requests_for(plan, method), samples, total=len(samples), progress=progress
            )
        masked = nodes_at_masks(plan, stats)
        if masked:
            notes.append(f"{len(masked)} operators stay float because infinite or mask values pass through them")
            failure = "infinite or mask values pass through its operators"
            kept_float.update(dict.fromkeys(masked, "infinite or mask values pass through it"))
            continue
        with watch.stage("solve"):
            plan = solve(plan, stats, method, view.constant)
        with watch.stage("emit"):
            emitted = emit_qdq(prepared.model, plan, target)
            model = clean(emitted.model, prepared.source)
            if recipe.format == "qoperator":
                model = clean(lower_to_qoperator(model, plan), prepared.source)
        try:
            session = session_of(model)
            session.run(samples.feed(0))
        except ModelError as error:
            failure = error.message
            culprit = next((n.node for n in plan.taken() if n.node and f"'{n.node}'" in failure), None)
            if culprit is None:
                break
            notes.append(f"{culprit} went back to float: {failure}")
            kept_float[culprit] = "ONNX Runtime refuses its quantized form"
            continue
        calibration = CalibrationReport(
            source=source,
            samples=stats.samples,
            method=method.name,
            tensors=len(stats.entries),
            skipped_values=skipped_values(stats),
        )
        return Quantized(
            model=model,
            plan=plan,
            session=session,
            calibration=calibration,
            notes=(*notes, *emitted.notes),
        )
    raise InternalError(
        f"ONNX Runtime refuses the quantized model: {failure}",
        hint="--exclude the operator named above; attach the model, or its graph without weights, to a report",
    )


def nodes_at_masks(plan: QuantPlan, stats: StatsTable) -> tuple[str, ...]:
    """Integer nodes next to a tensor in which NaN, infinite or mask values were seen: integers cannot hold those."""
    spoiled = {t for t in stats if skipped_values(StatsTable(entries={t: stats[t]}))}
    groups = [set(g.tensors) for g in plan.groups if spoiled & set(g.tensors)]
    touched = set().union(*groups) if groups else set()
    return tuple(n.node for n in plan.taken() if touched & {*n.quantized_outputs, *n.read_tensors})


def nothing_to_quantize(source: Model, plan: QuantPlan) -> ModelError:
    """The error for a model without anything that integers pay for."""
    weighted = [n for n in plan.nodes.values() if n.op_type in WEIGHTED_OPS]
    reasons = dict.fromkeys(f"{n.op_type}: {n.decision.reason}" for n in (*weighted, *plan.nodes.values()))
    listed = "; ".join(list(reasons)[:5])
    return ModelError(
        f"{source.path}: nothing to quantize ({listed})",
        hint="`qconvert inspect MODEL` gives the reason for every operator",
    )


def verify(quantized: Quantized, reference: Session) -> Verification:
    """Check the result: ONNX's checker, the interface, and what ONNX Runtime makes of it."""
    weighted = [n.node for n in quantized.plan.taken() if n.weight is not None]
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
