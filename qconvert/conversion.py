"""From planning to emission for one graph: the main graph of a model, or a branch made a model of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from qconvert.calibrate.method import METHODS, Method
from qconvert.calibrate.solve import requests_for, requests_for_tensors, skipped_values, solve
from qconvert.emit.averages import write_averages
from qconvert.emit.cleanup import clean
from qconvert.emit.forms import write_forms
from qconvert.emit.narrowed import narrow
from qconvert.emit.prelu import write_prelus
from qconvert.emit.qdq import emit_qdq
from qconvert.emit.qoperator import lower_to_qoperator
from qconvert.errors import InternalError, ModelError
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.seams import drop_seams, with_seams
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.ops import OPS
from qconvert.ops.rule import Kind
from qconvert.plan.build import build_plan, weighed
from qconvert.plan.clamps import find_absorbed
from qconvert.plan.costs import Costs
from qconvert.plan.integer_only import float_operators
from qconvert.plan.model import QuantPlan
from qconvert.plan.observable import observable
from qconvert.plan.widths import seams, widths_of
from qconvert.recipe.recipe import MEASURED, PINNED, Recipe
from qconvert.recipe.resolve import mixes_others, static_mix, types_for
from qconvert.recover.recovery import Changes, RecoveryOutcome
from qconvert.report.model import CalibrationReport, PlacementReport
from qconvert.run import Run
from qconvert.stats.statistic import StatRequest, StatsTable
from qconvert.targets.auto import target_of
from qconvert.targets.target import Target

# Operators that people expect to be quantized: their reasons come first when nothing is.
WEIGHTED_OPS = tuple(rule.op_type for rule in OPS if rule.kind is Kind.WEIGHTED)

AT_MASKS = "infinite or mask values pass through it"

# How many nodes may be sent back to float because ONNX Runtime refuses the quantized graph.
MAX_REPAIRS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized model with the plan behind it, loaded and tried.

    Attributes:
        prepared: the canonical model, as weight-changing recovery passes have left it.
        base: what the plan was written into: the same, with branches that are quantized already.
        changes: what recovery has changed on the solved plan.
        stats: what the plan's ranges come from.
        branches: the plans of its If branches, by where they are ("If_12/then_branch").
        warnings: what a person should look at.
        recoveries: the recovery passes that were tried.
        placement: how the placement was measured; None where it was not.
        costs: what nodes and conversions were measured to cost for it; None where they were not.
    """

    model: Model
    plan: QuantPlan
    stats: StatsTable
    session: Session
    calibration: CalibrationReport
    notes: tuple[str, ...]
    prepared: Prepared
    base: Model
    changes: Changes = field(default_factory=Changes)
    branches: Mapping[str, QuantPlan] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    recoveries: tuple[RecoveryOutcome, ...] = ()
    placement: PlacementReport | None = None
    costs: Costs | None = None


def parted(prepared: Prepared, recipe: Recipe) -> Prepared:
    """``prepared`` with seams where nodes of different integer types meet under ``recipe``."""
    found = seams(widths_of(view_of(prepared.model), recipe, target_of(recipe.target)))
    return replace(prepared, model=with_seams(prepared.model, found)) if found else prepared


def quantizes(plan: QuantPlan) -> bool:
    """Whether ``plan`` puts anything on integers."""
    return any(n.weight is not None or n.table is not None or n.activations for n in plan.taken())


def convert(
    prepared: Prepared,
    run: Run,
    *,
    base: Model | None = None,
    kept_float: Mapping[str, str] = MappingProxyType({}),
    required: bool = True,
) -> Quantized:
    """Plan, calibrate, solve and emit. A node that ONNX Runtime refuses in quantized form goes back to float.

    Args:
        prepared: the canonical graph.
        run: the choices and the calibration data.
        base: the model to write the plan into, where branches are quantized already; by default ``prepared.model``.
        kept_float: nodes that must stay float: name -> reason.
        required: refuse a graph in which there is nothing to quantize.

    Raises:
        ModelError: there is nothing to quantize.
        InternalError: ONNX Runtime refuses the result even so.
    """
    view = view_of(prepared.model)
    method = METHODS.get(run.recipe.method)
    notes: list[str] = []
    failure = ""
    kept = dict(kept_float)
    for _ in range(MAX_REPAIRS):
        plan, stats = plan_and_observe(prepared, view, run, kept=kept, required=required)
        with run.watch.stage("solve"):
            known = run.gatherer.weighed.setdefault((run.place, method.name), {})
            plan = solve(plan, stats, method, view.constant, known)
        with run.watch.stage("emit"):
            model, emission_notes = emit(base or prepared.model, plan, run.recipe, prepared.source)
        try:
            session = session_of(model)
            session.run(run.samples.feed(0))
        except ModelError as error:
            failure = error.message
            culprit = next((n.node for n in plan.taken() if n.node and f"'{n.node}'" in failure), None)
            if culprit is None:
                break
            notes.append(f"{culprit} went back to float: {failure}")
            kept[culprit] = "ONNX Runtime refuses its quantized form"
            continue
        calibration = CalibrationReport(
            source=run.source,
            samples=stats.samples,
            method=method.name,
            tensors=len(stats.entries),
            skipped_values=skipped_values(stats),
        )
        return Quantized(
            model=model,
            plan=plan,
            stats=stats,
            session=session,
            calibration=calibration,
            notes=(*masked_notes(kept), *notes, *emission_notes),
            prepared=prepared,
            base=base or prepared.model,
        )
    raise InternalError(
        f"ONNX Runtime refuses the quantized model: {failure}",
        hint="--exclude the operator named above; attach the model, or its graph without weights, to a report",
    )


def plan_and_observe(
    prepared: Prepared,
    view: GraphView,
    run: Run,
    *,
    kept: dict[str, str],
    required: bool,
) -> tuple[QuantPlan, StatsTable]:
    """A plan without numbers, and the statistics for it; again as long as masks turn up in what it quantizes.

    Args:
        prepared, view: the canonical graph.
        run: the choices and the data.
        kept: nodes that must stay float, with the reason; those at masks are added.
        required: refuse a graph in which there is nothing to quantize.

    Raises:
        ModelError: there is nothing to quantize, or operators stay float on a target that has no float arithmetic.
    """
    target = target_of(run.recipe.target)
    method = METHODS.get(run.recipe.method)
    total = len(run.samples) if isinstance(run.samples, Sized) else None
    while True:
        with run.watch.stage("plan"):
            plan = build_plan(view, run.recipe, target, kept, run.times)
            requests = (*requests_for(plan, method), *_requests_for_any(view, run, kept, method))
            prepared.model.release()  # planning has looked at every weight
            if required and not run.recipe.pinned_float and not quantizes(plan):  # pinned: found to be best so
                raise nothing_to_quantize(prepared.source, plan)
            if target.integer_only:
                refuse_float(view, plan, target, prepared.source)
        with run.watch.stage("calibrate"):
            stats = run.gatherer.table(
                run.place, prepared.model, requests, method.name, run.samples, total=total, progress=run.progress
            )
        masked = [n for n in nodes_at_masks(plan, stats) if n not in kept]
        if not masked:
            return plan, stats
        kept.update(dict.fromkeys(masked, AT_MASKS))


def _requests_for_any(view: GraphView, run: Run, kept: Mapping[str, str], method: Method) -> tuple[StatRequest, ...]:
    """What a placement that is yet to be measured may ask for, and one that was, too.

    What ONNX Runtime fuses depends on what is observed, and the last bit of a value on that: a pinned run observes what
    the run did that pinned it.
    """
    if run.recipe.placement not in (MEASURED, PINNED) or run.place or not run.gatherer.collects:
        return ()
    target = target_of(run.recipe.target)
    recipe = replace(run.recipe, placement=MEASURED, pinned_float=(), exclude=(), forms=())
    candidates = weighed(view, recipe, target, kept)
    tensors = observable(view, candidates, find_absorbed(view, candidates, types_for(recipe, target)))
    return requests_for_tensors(tensors, method)


def masked_notes(kept: Mapping[str, str]) -> tuple[str, ...]:
    """What to tell of the nodes that stay float because of masks."""
    count = sum(reason == AT_MASKS for reason in kept.values())
    return (f"{count} operators stay float because infinite or mask values pass through them",) if count else ()


def emit(base: Model, plan: QuantPlan, recipe: Recipe, source: Model) -> tuple[Model, tuple[str, ...]]:
    """(``plan`` written into a copy of ``base`` in the recipe's format, notes); ``source`` gives the metadata."""
    target = target_of(recipe.target)
    emitted = emit_qdq(base, plan, target)
    if static_mix(recipe):
        drop_seams(emitted.model.ir.graph)
    write_forms(emitted.model, plan)
    if target.capability("AveragePool").as_filter:
        write_averages(emitted.model, base, plan)
    if "PRelu" in target.rewritten:
        write_prelus(emitted.model)
    model = clean(emitted.model, source)
    if recipe.format == "qoperator":
        model = clean(lower_to_qoperator(model, plan), source)
    if not mixes_others(recipe):  # these are still to see its weights
        narrow(model, base, source)
    return model, emitted.notes


def all_in_float(model: Model) -> Model:
    """``model``, which is canonical, as it is written where everything stays in float."""
    copy = model.clone()
    write_prelus(copy)
    return copy


def nodes_at_masks(plan: QuantPlan, stats: StatsTable) -> tuple[str, ...]:
    """Integer nodes next to a tensor in which NaN, infinite or mask values were seen: integers cannot hold those."""
    spoiled = {t for t in stats if skipped_values(StatsTable(entries={t: stats[t]}))}
    groups = [set(g.tensors) for g in plan.groups if spoiled & set(g.tensors)]
    touched = set().union(*groups) if groups else set()
    return tuple(n.node for n in plan.taken() if touched & {*n.quantized_outputs, *n.read_tensors})


def refuse_float(view: GraphView, plan: QuantPlan, target: Target, source: Model) -> None:
    """Refuse a plan that leaves an operator of ``view`` float.

    Raises:
        ModelError: the operators, with their reasons.
    """
    left = float_operators(view, plan)
    if not left:
        return
    reasons: dict[str, list[str]] = {}
    for name, reason in left.items():
        reasons.setdefault(f"{view.nodes[name].op_type}: {reason}", []).append(name)
    listed = "; ".join(f"{what} ({len(n)}: {', '.join(n[:3])})" for what, n in reasons.items())
    raise ModelError(
        f"{source.path}: {len(left)} operators cannot run on {target.title}: {listed}",
        hint=f"`qconvert targets {target.name}` says what runs there; replace these operators, cut them off the "
        "model, or choose another target",
    )


def nothing_to_quantize(source: Model, plan: QuantPlan) -> ModelError:
    """The error for a model without anything that integers pay for."""
    weighted = [n for n in plan.nodes.values() if n.op_type in WEIGHTED_OPS]
    reasons = dict.fromkeys(f"{n.op_type}: {n.decision.reason}" for n in (*weighted, *plan.nodes.values()))
    listed = "; ".join(list(reasons)[:5])
    return ModelError(
        f"{source.path}: nothing to quantize ({listed})",
        hint="`qconvert inspect MODEL` gives the reason for every operator",
    )
