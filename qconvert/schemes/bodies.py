"""Static int8 in control-flow bodies that nothing calibrates: Loop, Scan, and branches that no sample selects.

    bodies with bytes for weights, arithmetic in float -> SQNR of the outputs, on samples kept for judging
    products and LSTMs that run again and again on bytes, too -> SQNR, latency -> the faster one

Stored weights cost no time (:mod:`qconvert.emit.body_weights`), so they are not timed. Bytes at every step are a form
as in :mod:`qconvert.forms`: under measured placement they are tried, taken where they are faster by more than noise,
and named by the recipe that the run saves.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from qconvert.branches import QuantizedBranches
from qconvert.conversion import Quantized
from qconvert.emit.body_weights import BodyNode, Chooser, store_body_weights
from qconvert.errors import ModelError
from qconvert.evaluate.fidelity import FLOOR_DB
from qconvert.evaluate.latency import Latency, measure_latency, speedup, thread_clock
from qconvert.forms import DYNAMIC, PLAIN
from qconvert.graph.bodies import bodies
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.placing import MOST_BYTES
from qconvert.plan.candidates import matches_at
from qconvert.plan.forms import entries
from qconvert.plan.model import Decision, NodePlan, QuantPlan
from qconvert.recipe.recipe import MEASURED, Recipe
from qconvert.recover.effort import LEVELS
from qconvert.recover.judge import Judge
from qconvert.recover.samples import seen_and_judging
from qconvert.report.model import FormReport, PlacementReport, PlacementTrial
from qconvert.run import Run
from qconvert.targets.auto import detected, target_of
from qconvert.trials import HYSTERESIS

# A loss of no more than this is none, where outputs are poor already.
_NOISE_DB = 0.5
_SECONDS, _ROUNDS = 0.8, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBodies:
    """What became of the bodies.

    Attributes:
        inner: with bytes for weights.
        forms: entries of a recipe that name what takes bytes, if that was found out by timing.
        latencies: of the float model and of the two forms; empty where nothing was timed.
        seconds: what the timing took.
    """

    inner: QuantizedBranches
    forms: tuple[str, ...] = ()
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    seconds: float = 0.0


def with_stored_bodies(inner: QuantizedBranches, prepared: Prepared, run: Run) -> StoredBodies:
    """``inner`` with the weights that are float in its bodies as bytes, as far as the outputs bear it."""
    recipe, target = run.recipe, target_of(run.recipe.target)
    if not target.unpacks or not bodies(inner.model):
        return StoredBodies(inner=inner)

    def asked(place: str, name: str, op_type: str) -> bool:
        """Whether the recipe names the form."""
        found = ""
        for entry in recipe.forms:
            pattern, _, form = entry.rpartition("=")
            if form in (DYNAMIC, PLAIN) and matches_at(place, name, op_type, pattern):
                found = form
        return found == DYNAMIC and _has_form(op_type)

    def _has_form(op_type: str) -> bool:
        return DYNAMIC in target.capability("LSTM" if op_type == "LSTM" else "MatMul").forms

    def stored(dynamic: Chooser) -> tuple[Model, tuple[BodyNode, ...]]:
        return store_body_weights(
            inner.model,
            wanted=_wanted(recipe),
            dynamic=dynamic,
            symmetric=bool(recipe.symmetric),
            saturates=target.saturates,
        )

    with run.watch.stage("emit"):
        model, nodes = stored(asked)
    if not any(n.stored for n in nodes):
        return StoredBodies(inner=replace(inner, plans=_plans(inner.plans, nodes)))
    with run.watch.stage("verify"):
        judge = Judge(reference=session_of(prepared.model), samples=seen_and_judging(run.samples)[1], held_out=True)
        before, after = _db(judge, inner.model), _db(judge, model)
    if after < FLOOR_DB and after < before - _NOISE_DB and judge.is_repeatable():
        note = f"weights in control-flow bodies stay float: as bytes they leave {after:.1f} dB, not {before:.1f} dB"
        return StoredBodies(inner=replace(inner, notes=(*inner.notes, note)))
    best = StoredBodies(inner=_with(inner, model, nodes))
    able = {(n.place, n.node) for n in nodes if n.stored and n.able and _has_form(n.op_type)}
    if recipe.placement != MEASURED or target.name != detected().target or not able or any(n.dynamic for n in nodes):
        return best
    if prepared.model.weight_bytes() > MOST_BYTES:
        return best
    with run.watch.stage("emit"):
        tried, decided = stored(lambda place, name, op_type: (place, name) in able)
    began = time.perf_counter()
    with run.watch.stage("place"):
        latencies = _timed({"fp32": prepared.model, "stored": model, "bytes": tried}, judge, run)
    faster = latencies and speedup(latencies["stored"], latencies["bytes"]).median > HYSTERESIS
    if not faster or _db(judge, tried) < FLOOR_DB:
        return best
    forms = entries({f"{n.place}/{n.node}": DYNAMIC for n in decided if n.dynamic})
    return StoredBodies(
        inner=_with(inner, tried, decided), forms=forms, latencies=latencies, seconds=time.perf_counter() - began
    )


def with_forms_of_bodies(outer: Quantized, bodies: StoredBodies) -> Quantized:
    """``outer``, the model around ``bodies``, whose placement says what takes bytes there, too."""
    if not bodies.forms:
        return outer
    placed, timed = outer.placement, bodies.latencies
    if placed is None:  # nothing to place in the main graph
        placed = PlacementReport(
            chosen="forms",
            fp32_ms=timed["fp32"].median_ms,
            trials=tuple(
                PlacementTrial(
                    name=name,
                    integer_nodes=0,
                    median_ms=timed[key].median_ms,
                    speedup=speedup(timed["fp32"], timed[key]),
                )
                for name, key in (("static", "stored"), ("forms", "bytes"))
            ),
            pinned_float=tuple(n.node for n in outer.plan.nodes.values() if not n.decision.taken),
            seconds=0.0,
        )
    gained = FormReport(
        nodes=tuple(entry.rpartition("=")[0] for entry in bodies.forms),
        forms=(DYNAMIC,) * len(bodies.forms),
        plain_ms=timed["stored"].median_ms,
        form_ms=timed["bytes"].median_ms,
    )
    placed = replace(
        placed,
        pinned_forms=(*placed.pinned_forms, *bodies.forms),
        forms=(*placed.forms, gained),
        seconds=placed.seconds + bodies.seconds,
    )
    return replace(outer, placement=placed)


def nodes_with_bytes(plans: Mapping[str, QuantPlan]) -> tuple[str, ...]:
    """Nodes of bodies that take bytes, as recipes name them; ``plans`` by place."""
    return tuple(f"{place}/{n.node}" for place, plan in plans.items() for n in plan.taken() if n.form == DYNAMIC)


def stored_nodes(plans: Mapping[str, QuantPlan]) -> tuple[str, ...]:
    """Nodes of bodies whose weights are bytes for arithmetic in float, likewise."""
    return tuple(
        f"{place}/{n.node}"
        for place, plan in plans.items()
        for n in plan.taken()
        if not (n.form or n.activations or n.absorbed_into or n.table or n.quantized_outputs)
    )


def _wanted(recipe: Recipe) -> Chooser:
    def wanted(place: str, name: str, op_type: str) -> bool:
        def fits(patterns: Sequence[str]) -> bool:
            return any(matches_at(place, name, op_type, p) for p in patterns)

        return not fits(recipe.exclude) and (not recipe.include or fits(recipe.include))

    return wanted


def _db(judge: Judge, model: Model) -> float:
    """The SQNR of the outputs; -inf where ONNX Runtime refuses the model."""
    try:
        score = judge.score(session_of(model))
    except ModelError:
        return -math.inf
    return min(score.mean_db, score.pooled_db)


def _timed(models: Mapping[str, Model], judge: Judge, run: Run) -> dict[str, Latency]:
    """Latencies on one thread; none where ONNX Runtime refuses one of the models."""
    effort = LEVELS[run.recipe.effort].timing
    try:
        sessions: dict[str, Session] = {name: session_of(model, threads=1) for name, model in models.items()}
        return measure_latency(
            sessions,
            run.samples.feed(0),
            seconds=_SECONDS * effort,
            min_runs=max(5, int(_ROUNDS * effort)),
            clock=thread_clock(),
        )
    except ModelError:
        return {}


def _with(inner: QuantizedBranches, model: Model, nodes: Sequence[BodyNode]) -> QuantizedBranches:
    counts = Counter((n.place, n.dynamic) for n in nodes if n.stored)
    told = [
        f"{place}: {count} operators {'take bytes' if dynamic else 'compute in float with weights stored as bytes'}"
        for (place, dynamic), count in counts.items()
    ]
    return replace(inner, model=model, plans=_plans(inner.plans, nodes), notes=(*inner.notes, *told))


def _plans(plans: Mapping[str, QuantPlan], nodes: Sequence[BodyNode]) -> dict[str, QuantPlan]:
    """``plans`` with the decisions about ``nodes``."""
    found = dict(plans)
    for n in nodes:
        plan = found.get(n.place, QuantPlan(nodes={}, groups=()))
        known = plan.nodes.get(n.node)
        if known is not None and (known.decision.taken or not n.stored):
            continue
        decided = NodePlan(
            node=n.node,
            op_type=n.op_type,
            decision=Decision(taken=n.stored, reason=n.reason),
            form=DYNAMIC if n.dynamic else "",
        )
        found[n.place] = replace(plan, nodes={**plan.nodes, n.node: decided})
    return found
