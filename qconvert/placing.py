"""Placement by measurement: profile both forms of the model, cut, time what comes out, keep the fastest.

    profile(FP32), profile(all on integers) -> costs -> minimum cut -> emit -> profile -> corrected costs -> cut ...
    time FP32, the static plan, all on integers and the cuts in turn -> the choice

The static plan is the rule, and another one replaces it only if it is faster by more than noise, so that runs agree.
Nothing slower than FP32 is chosen while there is something faster: in the end everything computes in float, with
weights stored as integers. Of the fastest, operators are tried in other forms (:mod:`qconvert.measure.forms`). The
choice is a recipe with ``placement: pinned``, from which all later stages work.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from qconvert.conversion import Quantized, emit, quantizes
from qconvert.errors import ModelError, described
from qconvert.evaluate.latency import Latency, measure_latency, speedup, thread_clock
from qconvert.forms import BOUNDED
from qconvert.graph.build_view import view_of
from qconvert.graph.footprint import value_bytes
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.measure.boundary import boundary_costs
from qconvert.measure.costs import MeasuredCosts, measured_costs
from qconvert.measure.forms import Gain, paying, variants
from qconvert.measure.profile import Profile, profile
from qconvert.plan.build import build_plan, weighed
from qconvert.plan.candidates import Candidate
from qconvert.plan.clamps import find_absorbed
from qconvert.plan.forms import able as formable
from qconvert.plan.forms import entries, with_forms
from qconvert.plan.model import QuantPlan, same_plan, told_as
from qconvert.plan.observable import observable
from qconvert.plan.placement import place
from qconvert.recipe.recipe import MEASURED, PINNED, STATIC, Recipe
from qconvert.recipe.resolve import types_for
from qconvert.recover.effort import LEVELS
from qconvert.repair import convert_and_repair
from qconvert.report.model import FormReport, PlacementReport, PlacementTrial
from qconvert.run import Run
from qconvert.targets.auto import detected, target_of

# A placement takes the place of a simpler one only if it is faster by this factor, in the median of paired runs.
HYSTERESIS = 1.02
# Integers that gain less than this over FP32 are not worth the accuracy that they cost.
LEAST_SPEEDUP = 1.02
# Several forms of the model are in memory at once; beyond this many bytes of float weights none is timed.
MOST_BYTES = 1 << 29
# Operators that take a smaller part of the time in float are not tried in other forms: they cannot gain enough.
LEAST_SHARE = 0.04
# How often the cut is profiled itself, and made again with what that tells.
CORRECTIONS = 2

# Times are for an effort of 1; with less, the cut is not corrected.
_PROFILE_RUNS, _PROFILE_SECONDS = 20, 0.5
_TIMING_SECONDS, _TIMING_ROUNDS, _MOST_ROUNDS = 0.8, 15, 2000
# Where there is one placement, and its profile says that it is faster than FP32 by this factor, a few rounds will do.
_CLEAR, _CLEAR_SECONDS, _FEWEST_ROUNDS = 1.5, 0.2, 5

_FP32, _STATIC, _ALL, _CUT, _FORMS, _FLOAT = "fp32", "static", "all", "cut", "forms", "float"
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The chosen placement.

    Attributes:
        run: the run that all later stages go on with: its recipe pins the placement.
        result: the model in that placement.
    """

    run: Run
    result: Quantized


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    name: str
    recipe: Recipe
    result: Quantized

    @property
    def integer(self) -> frozenset[str]:
        return integer_nodes(self.result.plan)


def integer_nodes(plan: QuantPlan) -> frozenset[str]:
    """The nodes of ``plan`` that run on integers; those that only store their weights so do not."""
    return frozenset(n.node for n in plan.taken() if n.activations or n.form or n.absorbed_into or n.table)


def placed(
    prepared: Prepared, run: Run, *, base: Model | None, kept_float: Mapping[str, str], required: bool
) -> Placed:
    """Convert in the placement that ``run`` asks for; measured on the first sample, where that is what it asks for.

    The arguments, and the errors, are those of :func:`qconvert.repair.convert_and_repair`.
    """
    result = convert_and_repair(prepared, run, base=base, kept_float=kept_float, required=required)
    if run.recipe.placement != MEASURED:
        return Placed(run=run, result=result)
    static = replace(run, recipe=replace(run.recipe, placement=STATIC))
    here = target_of(run.recipe.target).name == detected().target
    if run.place or not here or not quantizes(result.plan):
        return Placed(run=static, result=result)
    if prepared.model.weight_bytes() > MOST_BYTES:
        size = f"{prepared.model.weight_bytes() >> 20:,} MB"
        note = f"placement by the target's table: nothing is timed with {size} of weights"
        return Placed(run=static, result=replace(result, notes=(*result.notes, note)))
    search = _Search(prepared=prepared, run=static, base=base, kept_float=kept_float, plain=result)
    try:
        return search.chosen()
    except Exception as error:  # there is a good result already, whatever goes wrong with a better one
        message = described(error)
        note = f"placement by the target's table, because measuring failed: {message[:300]}"
        return Placed(run=static, result=replace(result, notes=(*result.notes, note)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """The arguments of :func:`placed`, the recipe being static, the model in that placement, and what was made so far:
    for each plan without numbers the model that came of it."""

    prepared: Prepared
    run: Run
    base: Model | None
    kept_float: Mapping[str, str]
    plain: Quantized
    converted: list[tuple[QuantPlan, Quantized]] = field(default_factory=list)

    def chosen(self) -> Placed:
        started = time.perf_counter()
        graph, recipe = view_of(self.prepared.model), self.run.recipe
        able = weighed(graph, recipe, target_of(recipe.target), self.kept_float)
        planned = self._planned(self.run)
        self.converted.append((planned, self.plain))
        static = replace(self.plain, plan=told_as(self.plain.plan, planned))
        trials = [_Trial(name=_STATIC, recipe=recipe, result=static)]
        everything = self._trial(_ALL, replace(recipe, placement=PINNED))
        trials += [everything] if everything.integer != trials[0].integer else []
        sessions = {_FP32: session_of(self.prepared.model, threads=1)}
        costs: MeasuredCosts | None = None
        gains: tuple[Gain, ...] = ()
        best, latencies = trials[0], self._accepted(sessions, trials)
        if latencies is None:
            best, latencies, gains, costs = self._searched(sessions, graph, able, trials)
        pinned = _left_out(graph, able, best.integer)
        run = replace(
            self.run,
            recipe=replace(recipe, placement=PINNED, pinned_float=pinned, forms=best.recipe.forms),
            times={n: t for n in graph.nodes if (t := costs.times(n)) is not None} if costs else {},
        )
        sessions.clear()
        result = self._converted(run)
        report = PlacementReport(
            chosen=best.name,
            fp32_ms=latencies[_FP32].median_ms,
            trials=tuple(
                PlacementTrial(
                    name=t.name,
                    integer_nodes=len(t.integer),
                    median_ms=latencies[t.name].median_ms,
                    speedup=speedup(latencies[_FP32], latencies[t.name]),
                )
                for t in trials
            ),
            pinned_float=pinned,
            pinned_forms=best.recipe.forms,
            forms=tuple(
                FormReport(
                    nodes=tuple(g.forms),
                    forms=tuple(g.forms.values()),
                    plain_ms=g.plain_us / 1e3,
                    form_ms=g.form_us / 1e3,
                )
                for g in gains
            ),
            seconds=time.perf_counter() - started,
        )
        notes = (*result.notes, _told(report, best, len(able)), *_told_forms(gains))
        return Placed(run=run, result=replace(result, placement=report, costs=costs, notes=notes))

    def _accepted(self, sessions: dict[str, Session], trials: list[_Trial]) -> dict[str, Latency] | None:
        """Latencies where the only trial is fast enough for this effort; None: what else there is has to be tried."""
        accepts = LEVELS[self.run.recipe.effort].accepts
        if len(trials) > 1 or not math.isfinite(accepts):
            return None
        with self.run.watch.stage("place"):
            latencies = self._timed(sessions, trials, clear=True)
        return latencies if speedup(latencies[_FP32], latencies[trials[0].name]).median >= accepts else None

    def _searched(
        self, sessions: dict[str, Session], graph: GraphView, able: Mapping[str, Candidate], trials: list[_Trial]
    ) -> tuple[_Trial, dict[str, Latency], tuple[Gain, ...], MeasuredCosts]:
        """(the best of ``trials`` and of those added to them, all latencies, what its forms gain, the costs)."""
        costs, gain = self._cut(graph, able, trials)
        with self.run.watch.stage("place"):
            latencies = self._timed(sessions, trials, clear=len(trials) == 1 and gain > _CLEAR)
        best = _best(trials, latencies)
        gains = self._gains(graph, best, costs)
        if gains:
            trials.append(self._trial(_FORMS, _with_gains(best.recipe, gains)))
            with self.run.watch.stage("place"):
                latencies = self._timed(sessions, trials)
            best = _best(trials, latencies)
            gains = gains if best.name == _FORMS else ()
        in_float = tuple(g for g in gains if set(g.forms.values()) == {BOUNDED})
        if in_float or speedup(latencies[_FP32], latencies[best.name]).median < LEAST_SPEEDUP:
            tables = {name for name, c in able.items() if c.table}
            trials.append(self._pinned(_FLOAT, graph, able, tables, in_float))
            with self.run.watch.stage("place"):
                latencies = self._timed(sessions, trials)
            # what a form gains that float operators have, too, is no gain of integers
            reference = _FLOAT if in_float else _FP32
            if speedup(latencies[reference], latencies[best.name]).median < LEAST_SPEEDUP:
                best, gains = trials[-1], in_float
        return best, latencies, gains, costs

    def _trial(self, name: str, recipe: Recipe) -> _Trial:
        return _Trial(name=name, recipe=recipe, result=self._converted(replace(self.run, recipe=recipe)))

    def _planned(self, run: Run) -> QuantPlan:
        target = target_of(run.recipe.target)
        return build_plan(view_of(self.prepared.model), run.recipe, target, self.kept_float, run.times)

    def _converted(self, run: Run) -> Quantized:
        """The model under the recipe of ``run``; of plans that differ in words only, one is carried out."""
        planned = self._planned(run)
        for plan, result in self.converted:
            if same_plan(plan, planned):
                return replace(result, plan=told_as(result.plan, planned))
        result = convert_and_repair(self.prepared, run, base=self.base, kept_float=self.kept_float, required=False)
        self.converted.append((planned, result))
        return result

    def _pinned(
        self,
        name: str,
        graph: GraphView,
        able: Mapping[str, Candidate],
        integer: Set[str],
        gains: Sequence[Gain] = (),
    ) -> _Trial:
        """The trial in which the nodes ``integer`` alone run on integers."""
        pinned = _left_out(graph, able, integer)
        recipe = replace(self.run.recipe, placement=PINNED, pinned_float=pinned)
        return self._trial(name, _with_gains(recipe, gains))

    def _gains(self, graph: GraphView, best: _Trial, costs: MeasuredCosts) -> tuple[Gain, ...]:
        """What the nodes of ``best`` gain in other forms; nothing is profiled where they take too little to matter."""
        target = target_of(best.recipe.target)
        able = formable(graph, best.result.plan, best.recipe, target)
        worth = {form: names for form, names in able.items() if costs.share(names) >= LEAST_SHARE}
        tried = []
        for forms in variants(worth):
            recipe = replace(best.recipe, forms=(*best.recipe.forms, *entries(forms)))
            plan = with_forms(graph, best.result.plan, recipe, target)
            model, _ = emit(best.result.base, plan, recipe, self.prepared.source)
            try:
                tried.append((forms, self._profile(model)))
            except ModelError:  # this version of ONNX Runtime does not have one of them
                continue
        return paying(graph, self._profile(best.result.model), tried) if tried else ()

    @property
    def _effort(self) -> float:
        return LEVELS[self.run.recipe.effort].timing

    def _profile(self, model: Model) -> Profile:
        with self.run.watch.stage("place"):
            seconds = _PROFILE_SECONDS * self._effort
            return profile(model, self.run.samples.feed(0), runs=_PROFILE_RUNS, seconds=seconds)

    def _cut(
        self, graph: GraphView, able: Mapping[str, Candidate], trials: list[_Trial]
    ) -> tuple[MeasuredCosts, float]:
        """Add the minimum cuts to ``trials``, the last of which has all on integers.

        Returns:
            (the last costs, how many times faster than FP32 that one is)
        """
        everything = trials[-1]
        # what no neighbour or mask lets onto integers now, nothing will
        plan, integer = everything.result.plan, everything.integer
        candidates = {
            name: c if name in integer or c.objection else replace(c, objection=plan.nodes[name].decision.reason)
            for name, c in able.items()
        }
        absorbed = find_absorbed(graph, candidates, types_for(everything.recipe, target_of(everything.recipe.target)))
        sizes = self._sizes(graph, observable(graph, candidates, absorbed))
        in_float = self._profile(self.prepared.model)
        with self.run.watch.stage("place"):
            boundaries = boundary_costs()
        profiles = [(integer, self._profile(everything.result.model))]
        gain = in_float.total_us / max(profiles[0][1].total_us, 1e-3)
        corrections = CORRECTIONS if self._effort >= 1 else 0
        while True:
            with self.run.watch.stage("place"):
                costs = measured_costs(graph, in_float, profiles, sizes=sizes, boundaries=boundaries)
                cut = place(graph, candidates, absorbed, costs)
            if any(t.integer == cut for t in trials):
                return costs, gain
            trial = self._pinned(f"{_CUT} {len(profiles)}", graph, able, cut)
            if any(t.integer == trial.integer for t in trials):
                return costs, gain
            trials.append(trial)
            if len(profiles) > corrections:
                return costs, gain
            profiles.append((trial.integer, self._profile(trial.result.model)))

    def _sizes(self, graph: GraphView, tensors: Sequence[str]) -> dict[str, int]:
        """Tensor -> elements, on the first sample."""
        feed = self.run.samples.feed(0)
        computed = [t for t in tensors if t not in graph.inputs]
        sizes = {t: n // _FLOAT_BYTES for t, n in value_bytes(self.prepared.model, computed, feed).items()}
        return {**sizes, **{t: feed[t].size for t in tensors if t in feed}}

    def _timed(self, sessions: dict[str, Session], trials: list[_Trial], *, clear: bool = False) -> dict[str, Latency]:
        """Latency of ``sessions``, to which those of ``trials`` are added; in short where it is ``clear`` anyway."""
        for trial in trials:
            if trial.name not in sessions:
                sessions[trial.name] = session_of(trial.result.model, threads=1)
        return measure_latency(
            sessions,
            self.run.samples.feed(0),
            seconds=_CLEAR_SECONDS if clear else _TIMING_SECONDS * self._effort,
            min_runs=_FEWEST_ROUNDS if clear else max(_FEWEST_ROUNDS, int(_TIMING_ROUNDS * self._effort)),
            max_runs=_MOST_ROUNDS,
            warmup=1 if clear else 3,
            clock=thread_clock(),
        )


def _best(trials: list[_Trial], latencies: Mapping[str, Latency]) -> _Trial:
    """The fastest; a later one only if it is faster than those before it by more than noise."""
    best = trials[0]
    for other in trials[1:]:
        if speedup(latencies[best.name], latencies[other.name]).median > HYSTERESIS:
            best = other
    return best


def _with_gains(recipe: Recipe, gains: Sequence[Gain]) -> Recipe:
    forms = {name: form for g in gains for name, form in g.forms.items()}
    return replace(recipe, forms=(*recipe.forms, *entries(forms)))


def _left_out(graph: GraphView, able: Mapping[str, Candidate], integer: Set[str]) -> tuple[str, ...]:
    """The nodes that could run on integers and do not, in graph order."""
    return tuple(name for name in graph.nodes if not able[name].objection and name not in integer)


def _told(report: PlacementReport, best: _Trial, operations: int) -> str:
    """The choice in a sentence."""
    found = next(t for t in report.trials if t.name == best.name)
    if best.name == _FLOAT:
        others = max((t.speedup.median for t in report.trials if t.name != _FLOAT), default=0.0)
        return (
            f"integers do not pay for this model on this machine ({others:.2f} times the speed of FP32 at best): it "
            "computes in float, and weights are stored as integers and unpacked when it is loaded"
        )
    return (
        f"placement measured, one thread: {found.integer_nodes} of {operations} operators on integers take "
        f"{found.median_ms:.3g} ms, FP32 takes {report.fp32_ms:.3g} ms"
    )


def _told_forms(gains: Sequence[Gain]) -> tuple[str, ...]:
    """What the forms gain, in a sentence."""
    if not gains:
        return ()
    counts = Counter(form for g in gains for form in g.forms.values())
    listed = ", ".join(f"{n} {form}" for form, n in counts.items())
    before, after = (sum(us) for us in zip(*((g.plain_us, g.form_us) for g in gains), strict=True))
    return (f"operators in other forms, {listed}: with what they are fused with {after:,.0f} us, {before:,.0f} before",)
