"""From planning to emission for one graph: the main graph of a model, or a branch made a model of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from qconvert.calibrate.gather import Gatherer
from qconvert.calibrate.method import METHODS
from qconvert.calibrate.solve import requests_for, skipped_values, solve
from qconvert.emit.cleanup import clean
from qconvert.emit.qdq import emit_qdq
from qconvert.emit.qoperator import lower_to_qoperator
from qconvert.errors import InternalError, ModelError
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.ops import OPS
from qconvert.ops.rule import Kind
from qconvert.plan.build import build_plan
from qconvert.plan.model import QuantPlan
from qconvert.progress import Progress
from qconvert.recipe.recipe import Recipe
from qconvert.recover.recovery import RecoveryOutcome
from qconvert.report.model import CalibrationReport
from qconvert.stats.statistic import StatsTable
from qconvert.targets import TARGETS

# Operators that people expect to be quantized: their reasons come first when nothing is.
WEIGHTED_OPS = tuple(rule.op_type for rule in OPS if rule.kind is Kind.WEIGHTED)

AT_MASKS = "infinite or mask values pass through it"

# How many nodes may be sent back to float because ONNX Runtime refuses the quantized graph.
MAX_REPAIRS = 6


class Feeds(Protocol):
    """Inputs of one graph, one sample each, read when asked for; they can be gone through again and again."""

    def __iter__(self) -> Iterator[Feed]:
        """All of them, in order."""
        ...

    def feed(self, i: int) -> Feed:
        """The i-th; IndexError when there is none."""
        ...


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
class Quantized:
    """A quantized model with the plan behind it, loaded and tried.

    Attributes:
        branches: the plans of its If branches, by where they are ("If_12/then_branch").
        warnings: what a person should look at.
        recoveries: the recovery passes that were tried.
    """

    model: Model
    plan: QuantPlan
    session: Session
    calibration: CalibrationReport
    notes: tuple[str, ...]
    branches: Mapping[str, QuantPlan] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    recoveries: tuple[RecoveryOutcome, ...] = ()


def quantizes(plan: QuantPlan) -> bool:
    """Whether ``plan`` puts anything on integers."""
    return any(n.weight is not None or n.table is not None or n.activations for n in plan.taken())


def convert(
    prepared: Prepared,
    recipe: Recipe,
    samples: Feeds,
    source: str,
    watch: Stopwatch,
    progress: Progress,
    *,
    base: Model | None = None,
    kept_float: Mapping[str, str] = MappingProxyType({}),
    required: bool = True,
    gatherer: Gatherer | None = None,
    place: str = "",
) -> Quantized:
    """Plan, calibrate, solve and emit. A node that ONNX Runtime refuses in quantized form goes back to float.

    Args:
        prepared: the canonical graph.
        recipe, samples, source: the choices, the calibration data, and where these come from.
        watch, progress: told what goes on.
        base: the model to write the plan into, where branches are quantized already; by default ``prepared.model``.
        kept_float: nodes that must stay float: name -> reason.
        required: refuse a graph in which there is nothing to quantize.
        gatherer: gives the statistics; by default all are collected from ``samples``.
        place: which graph it is: "" the main one, "If_12/then_branch" a branch.

    Raises:
        ModelError: there is nothing to quantize.
        InternalError: ONNX Runtime refuses the result even so.
    """
    view = view_of(prepared.model)
    method = METHODS.get(recipe.method)
    gatherer = gatherer or Gatherer()
    notes: list[str] = []
    failure = ""
    kept = dict(kept_float)
    for _ in range(MAX_REPAIRS):
        plan, stats = plan_and_observe(
            prepared,
            view,
            recipe,
            samples,
            watch,
            progress,
            kept=kept,
            required=required,
            gatherer=gatherer,
            place=place,
        )
        with watch.stage("solve"):
            plan = solve(plan, stats, method, view.constant)
        with watch.stage("emit"):
            model, emission_notes = emit(base or prepared.model, plan, recipe, prepared.source)
        try:
            session = session_of(model)
            session.run(samples.feed(0))
        except ModelError as error:
            failure = error.message
            culprit = next((n.node for n in plan.taken() if n.node and f"'{n.node}'" in failure), None)
            if culprit is None:
                break
            notes.append(f"{culprit} went back to float: {failure}")
            kept[culprit] = "ONNX Runtime refuses its quantized form"
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
            notes=(*masked_notes(kept), *notes, *emission_notes),
        )
    raise InternalError(
        f"ONNX Runtime refuses the quantized model: {failure}",
        hint="--exclude the operator named above; attach the model, or its graph without weights, to a report",
    )


def plan_and_observe(
    prepared: Prepared,
    view: GraphView,
    recipe: Recipe,
    samples: Feeds,
    watch: Stopwatch,
    progress: Progress,
    *,
    kept: dict[str, str],
    required: bool,
    gatherer: Gatherer,
    place: str,
) -> tuple[QuantPlan, StatsTable]:
    """A plan without numbers, and the statistics for it; again as long as masks turn up in what it quantizes.

    Args:
        prepared, view: the canonical graph.
        recipe, samples: the choices and the data.
        watch, progress: told what goes on.
        kept: nodes that must stay float, with the reason; those at masks are added.
        required: refuse a graph in which there is nothing to quantize.
        gatherer, place: where statistics come from, and which graph it is.

    Raises:
        ModelError: there is nothing to quantize.
    """
    target = TARGETS.get(recipe.target)
    method = METHODS.get(recipe.method)
    total = len(samples) if isinstance(samples, Sized) else None
    while True:
        with watch.stage("plan"):
            plan = build_plan(view, recipe, target, kept)
            prepared.model.release()
            if required and not quantizes(plan):
                raise nothing_to_quantize(prepared.source, plan)
        with watch.stage("calibrate"):
            requests = requests_for(plan, method)
            stats = gatherer.table(
                place, prepared.model, requests, recipe.method, samples, total=total, progress=progress
            )
        masked = [n for n in nodes_at_masks(plan, stats) if n not in kept]
        if not masked:
            return plan, stats
        kept.update(dict.fromkeys(masked, AT_MASKS))


def masked_notes(kept: Mapping[str, str]) -> tuple[str, ...]:
    """What to tell of the nodes that stay float because of masks."""
    count = sum(reason == AT_MASKS for reason in kept.values())
    return (f"{count} operators stay float because infinite or mask values pass through them",) if count else ()


def emit(base: Model, plan: QuantPlan, recipe: Recipe, source: Model) -> tuple[Model, tuple[str, ...]]:
    """(``plan`` written into a copy of ``base`` in the recipe's format, notes); ``source`` gives the metadata."""
    emitted = emit_qdq(base, plan, TARGETS.get(recipe.target))
    model = clean(emitted.model, source)
    if recipe.format == "qoperator":
        model = clean(lower_to_qoperator(model, plan), source)
    return model, emitted.notes


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
