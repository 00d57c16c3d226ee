"""Accuracy recovery around a conversion: each pass is tried on the emitted model, and kept where it helps.

The passes of stage WEIGHTS change the canonical model, and planning, calibration and emission run again on it; those of
stage SOLVED change what the plan is written into. The judge is the SQNR of the outputs against the canonical model's,
through ONNX Runtime, on calibration samples that the pass has not seen (:mod:`qconvert.recover.judge`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from threadpoolctl import threadpool_limits

from qconvert.conversion import Quantized, emit, quantizes
from qconvert.errors import DataError, ModelError, described
from qconvert.graph.build_view import view_of
from qconvert.graph.constants import with_constants
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import MIN_AGREEMENT_DB, Prepared, agreement
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.graph.tails import both_sides
from qconvert.placing import placed
from qconvert.plan.forms import open_products
from qconvert.recipe.recipe import AUTO, DEFAULT_METHOD, NO_RECOVERY, Recipe
from qconvert.recover.effort import LEVELS
from qconvert.recover.judge import Judge, Score
from qconvert.recover.layers import find_layers
from qconvert.recover.recovery import RECOVERIES, Changes, Recovery, RecoveryOutcome, Stage, Subject
from qconvert.recover.samples import Samples, seen_and_judging
from qconvert.recover.work import multiplications
from qconvert.repair import convert_and_repair
from qconvert.run import Run
from qconvert.targets.auto import target_of

# The passes hold several float copies of the weights; beyond this many bytes "auto" does without them.
MOST_BYTES = 1 << 29


def passes_of(recipe: Recipe) -> tuple[Recovery, ...]:
    """The passes that ``recipe`` asks for, in the order in which they run.

    Raises:
        RecipeError: there is no pass of that name.
    """
    if recipe.recover == (AUTO,):
        # whoever names a calibration method wants its ranges
        names = tuple(n for n in LEVELS[recipe.effort].chain if n != "ranges" or recipe.method == DEFAULT_METHOD)
    else:
        names = () if recipe.recover == (NO_RECOVERY,) else recipe.recover
    found = [RECOVERIES.get(n) for n in dict.fromkeys(names)]
    return tuple(sorted(found, key=lambda p: list(Stage).index(p.stage)))


def convert_and_recover(
    prepared: Prepared,
    run: Run,
    *,
    base: Model | None = None,
    kept_float: Mapping[str, str] = MappingProxyType({}),
    required: bool = True,
) -> Quantized:
    """:func:`qconvert.placing.placed`, then every recovery pass of the recipe; arguments are the same.

    Raises:
        RecipeError: there is no pass of that name.
    """
    passes = passes_of(run.recipe)
    start = placed(prepared, run, base=base, kept_float=kept_float, required=required)
    run, result = start.run, start.result
    if not passes or not quantizes(result.plan):
        return result
    if not run.gatherer.collects:
        note = "accuracy recovery was left out: it needs data, and there are ranges only; give --calib, too"
        return replace(result, notes=(*result.notes, note))
    if run.recipe.recover == (AUTO,) and (size := _too_large(prepared.model, run)):
        return replace(result, notes=(*result.notes, f"no recovery by itself for {size}: name passes to run them"))
    with run.watch.stage("recover"):
        seen, judging = seen_and_judging(run.samples)
        reference, sides = both_sides(prepared.model)
        judge = Judge(reference=session_of(reference), samples=judging, held_out=seen != judging, sides=sides)
        if not judge.is_repeatable():
            note = "no recovery: the model gives different results on the same input, which cannot be compared"
            return replace(result, notes=(*result.notes, note))
        state = _State(prepared=prepared, base=base or prepared.model, result=result)
    outcomes: list[RecoveryOutcome] = []
    failures: list[str] = []
    for recovery in passes:
        try:
            with run.watch.stage("recover"):
                changes = _changes(recovery, state, seen, run.recipe)
                if not changes.changed:
                    continue
                before = state.score or judge.score(_judged(state.result.model))
                state = replace(state, score=before)
            if recovery.stage is Stage.WEIGHTS:
                tried = _rewritten(state, changes, seen)
                anew = replace(run, gatherer=run.gatherer.afresh())
                result = convert_and_repair(
                    tried.prepared, anew, base=tried.base, kept_float=kept_float, required=required
                )
                result = replace(result, placement=state.result.placement, costs=state.result.costs)
                tried = replace(tried, result=result)
            else:
                with run.watch.stage("emit"):
                    tried = _emitted(state, changes, run.recipe, last=recovery.stage is Stage.LAST)
            with run.watch.stage("recover"):
                after = judge.score(_judged(tried.result.model))
        except DataError:
            raise
        except Exception as error:  # there is a good result already, whatever goes wrong with a better one
            message = described(error)
            failures.append(f"recovery, {recovery.name}: left out: {message[:300]}")
            continue
        kept = after.better_than(before)
        outcomes.append(
            RecoveryOutcome(
                name=recovery.name,
                kept=kept,
                before_db=before.db,
                after_db=after.db,
                changed=changes.changed,
                held_out=judge.held_out,
            )
        )
        state = replace(tried, score=after) if kept else state
    notes = (*state.result.notes, *(str(o) for o in outcomes), *failures)
    return replace(state.result, notes=notes, recoveries=tuple(outcomes))


def _too_large(model: Model, run: Run) -> str:
    """What of ``model`` is more than recovery that nobody asked for may handle at the effort of ``run``."""
    if model.weight_bytes() > MOST_BYTES:
        return f"{model.weight_bytes() >> 20:,} MB of weights"
    dearest = LEVELS[run.recipe.effort].dearest
    if dearest < math.inf:
        subject = Subject(model=model, graph=view_of(model), samples=Samples(feeds=run.samples, indices=[0]))
        each = multiplications(subject, find_layers(subject.graph))
        if each > dearest:
            return f"{each / 1e6:,.0f} million multiplications a run (effort {run.recipe.effort})"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The best result so far.

    Attributes:
        prepared: its canonical model.
        base: what its plan was written into, without ``changes``.
        result, score: the quantized model and its score, once that is needed.
        changes: of the passes of stage SOLVED that it holds.
    """

    prepared: Prepared
    base: Model
    result: Quantized
    score: Score | None = None
    changes: Changes = field(default_factory=Changes)


def _judged(model: Model) -> Session:
    return session_of(both_sides(model)[0])


def _changes(recovery: Recovery, state: _State, samples: Samples, recipe: Recipe) -> Changes:
    graph, plan, target = view_of(state.prepared.model), state.result.plan, target_of(recipe.target)
    subject = Subject(
        model=state.prepared.model,
        graph=graph,
        samples=samples,
        plan=plan,
        changes=state.changes,
        saturates=target.saturates,
        open_products=open_products(graph, plan, recipe, target),
        work=LEVELS[recipe.effort].work,
    )
    with threadpool_limits(limits=1, user_api="blas"):  # sums, and so the bytes, depend on the number of threads
        return recovery.apply(subject)


def _rewritten(state: _State, changes: Changes, samples: Samples) -> _State:
    """``state`` with changed FP32 weights.

    Raises:
        ModelError: they make another function.
    """
    model = changes.applied(state.prepared.model)
    base = model
    if state.base is not state.prepared.model:
        base = changes.applied(state.base)
    feed = next(iter(samples))
    db = agreement(session_of(state.prepared.model).run(feed), session_of(model).run(feed))
    if db < MIN_AGREEMENT_DB:
        raise ModelError(f"the outputs change ({db:.1f} dB)")
    return replace(state, prepared=replace(state.prepared, model=model), base=base)


def _emitted(state: _State, changes: Changes, recipe: Recipe, *, last: bool) -> _State:
    """``state`` emitted anew, with changed weights, scales and biases; if these come ``last``, nobody is told of them.

    Raises:
        ModelError: ONNX Runtime refuses it.
    """
    together = state.changes.and_then(changes)
    plan = together.planned(state.result.plan)
    model, _ = emit(with_constants(state.base, together.constants), plan, recipe, state.prepared.source)
    told = state.changes if last else together
    result = replace(state.result, model=model, plan=plan, session=session_of(model), changes=told)
    return replace(state, result=result, changes=together)
