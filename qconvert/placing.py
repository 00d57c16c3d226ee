"""Placement by measurement: profile both forms of the model, cut, time what comes out, keep the fastest.

    profile(FP32), profile(all on integers) -> costs -> minimum cut -> emit -> profile -> corrected costs -> cut ...
    time FP32, the static plan, all on integers and the cuts in turn -> the choice

The static plan is the rule, and another one replaces it only if it is faster by more than noise, so that runs agree.
Nothing slower than FP32 is chosen while there is something faster: in the end everything computes in float, with weights
stored as integers. The choice is a recipe with ``placement: pinned``, from which all later stages work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qconvert.conversion import Quantized, convert, quantizes
from qconvert.evaluate.latency import Latency, measure_latency, speedup
from qconvert.graph.build_view import view_of
from qconvert.graph.footprint import value_bytes
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.measure.boundary import boundary_costs
from qconvert.measure.costs import MeasuredCosts, measured_costs
from qconvert.measure.profile import Profile, profile
from qconvert.plan.build import weighed
from qconvert.plan.candidates import Candidate
from qconvert.plan.clamps import find_absorbed
from qconvert.plan.model import NodeTimes, QuantPlan
from qconvert.plan.observable import observable
from qconvert.plan.placement import place
from qconvert.recipe.recipe import MEASURED, PINNED, STATIC, Recipe
from qconvert.report.model import PlacementReport, PlacementTrial
from qconvert.run import Run
from qconvert.targets import TARGETS

# A placement takes the place of a simpler one only if it is faster by this factor, in the median of paired runs.
HYSTERESIS = 1.02
# Integers that gain less than this over FP32 are not worth the accuracy that they cost.
LEAST_SPEEDUP = 1.02
# How often the cut is profiled itself, and made again with what that tells.
CORRECTIONS = 2

_PROFILE_RUNS, _PROFILE_SECONDS = 20, 0.5
_TIMING_SECONDS, _TIMING_ROUNDS, _MOST_ROUNDS = 0.8, 15, 2000

_FP32, _STATIC, _ALL, _CUT, _FLOAT = "fp32", "static", "all", "measured", "float"


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
    session: Session

    @property
    def integer(self) -> frozenset[str]:
        return integer_nodes(self.result.plan)


def integer_nodes(plan: QuantPlan) -> frozenset[str]:
    """The nodes of ``plan`` that run on integers; those that only store their weights so do not."""
    return frozenset(n.node for n in plan.taken() if n.activations or n.absorbed_into or n.table)


def placed(
    prepared: Prepared, run: Run, *, base: Model | None, kept_float: Mapping[str, str], required: bool
) -> Placed:
    """Convert in the placement that ``run`` asks for; measured on the first sample, where that is what it asks for.

    The arguments, and the errors, are those of :func:`qconvert.conversion.convert`.
    """

    def converted(recipe: Recipe, times: Mapping[str, NodeTimes] | None = None) -> Placed:
        now = replace(run, recipe=recipe, times=times or {})
        result = convert(prepared, now, base=base, kept_float=kept_float, required=required)
        return Placed(run=now, result=result)

    plain = converted(run.recipe)
    if run.recipe.placement != MEASURED or run.place or not quantizes(plain.result.plan):
        return plain
    started = time.perf_counter()
    with run.watch.stage("place"):
        return _Placing(prepared=prepared, run=run, base=base, kept_float=kept_float, plain=plain).chosen(started)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placing:
    """One search: the arguments of :func:`placed`, and the static plan."""

    prepared: Prepared
    run: Run
    base: Model | None
    kept_float: Mapping[str, str]
    plain: Placed

    def chosen(self, started: float) -> Placed:
        graph = view_of(self.prepared.model)
        static = replace(self.run.recipe, placement=STATIC)
        trials = [self._trial(_STATIC, static, self.plain.result)]
        everything = self._trial(_ALL, replace(static, placement=PINNED))
        trials += [everything] if everything.integer != trials[0].integer else []
        candidates = self._candidates(graph, everything)
        costs = self._cuts(graph, candidates, everything, trials)
        fp32 = session_of(self.prepared.model, threads=1)
        latencies = self._timed(fp32, trials)
        best = _best(trials, latencies)
        if speedup(latencies[_FP32], latencies[best.name]).median < LEAST_SPEEDUP:
            best, latencies = self._in_float(graph, candidates, fp32, trials, best, latencies)
        pinned = _pinned(graph, candidates, best.integer)
        times = {n: t for n in graph.nodes if (t := costs.times(n)) is not None}
        recipe = replace(static, placement=PINNED, pinned_float=pinned)
        run = replace(self.run, recipe=recipe, times=times)
        result = best.result
        if best.recipe != recipe or times:
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
            seconds=time.perf_counter() - started,
        )
        return Placed(run=run, result=replace(result, placement=report))

    def _trial(self, name: str, recipe: Recipe, result: Quantized | None = None) -> _Trial:
        result = result or self._converted(replace(self.run, recipe=recipe))
        return _Trial(name=name, recipe=recipe, result=result, session=session_of(result.model, threads=1))

    def _converted(self, run: Run) -> Quantized:
        return convert(self.prepared, run, base=self.base, kept_float=self.kept_float, required=False)

    def _profile(self, model: Model) -> Profile:
        return profile(model, self.run.samples.feed(0), runs=_PROFILE_RUNS, seconds=_PROFILE_SECONDS)

    def _candidates(self, graph: GraphView, everything: _Trial) -> dict[str, Candidate]:
        """All nodes, with an objection to those that are float even with everything on integers."""
        recipe = everything.recipe
        found = weighed(graph, recipe, TARGETS.get(recipe.target), self.kept_float)
        plan, integer = everything.result.plan, everything.integer
        return {
            name: c if name in integer or c.objection else replace(c, objection=plan.nodes[name].decision.reason)
            for name, c in found.items()
        }

    def _cuts(
        self, graph: GraphView, candidates: Mapping[str, Candidate], everything: _Trial, trials: list[_Trial]
    ) -> MeasuredCosts:
        """Add the minimum cuts to ``trials``; returns the last costs."""
        absorbed = find_absorbed(graph, candidates, everything.recipe)
        tensors = [t for t in observable(graph, candidates, absorbed) if t not in graph.inputs]
        feed = self.run.samples.feed(0)
        sizes = {t: n // 4 for t, n in value_bytes(self.prepared.model, tensors, feed).items()}
        sizes.update({t: feed[t].size for t in graph.inputs if t in feed})
        in_float, boundaries = self._profile(self.prepared.model), boundary_costs()
        profiles = [(everything.integer, self._profile(everything.result.model))]
        while True:
            costs = measured_costs(graph, in_float, profiles, sizes=sizes, boundaries=boundaries)
            integer = place(graph, candidates, absorbed, costs)
            pinned = _pinned(graph, candidates, integer)
            number = len(profiles)
            recipe = replace(everything.recipe, pinned_float=pinned)
            known = next((t for t in trials if t.integer == integer or t.recipe == recipe), None)
            if known is not None:
                return costs
            trial = self._trial(_CUT if number == 1 else f"{_CUT} {number}", recipe)
            trials.append(trial)
            if number > CORRECTIONS:
                return costs
            profiles.append((trial.integer, self._profile(trial.result.model)))

    def _timed(self, fp32: Session, trials: list[_Trial]) -> dict[str, Latency]:
        sessions = {_FP32: fp32, **{t.name: t.session for t in trials}}
        return measure_latency(
            sessions,
            self.run.samples.feed(0),
            seconds=_TIMING_SECONDS,
            min_runs=_TIMING_ROUNDS,
            max_runs=_MOST_ROUNDS,
        )

    def _in_float(
        self,
        graph: GraphView,
        candidates: Mapping[str, Candidate],
        fp32: Session,
        trials: list[_Trial],
        best: _Trial,
        latencies: dict[str, Latency],
    ) -> tuple[_Trial, dict[str, Latency]]:
        """The best of ``trials``, or everything in float with weights stored as integers; and all times anew."""
        tables = {name for name, c in candidates.items() if c.table and not c.objection}
        recipe = replace(best.recipe, placement=PINNED, pinned_float=_pinned(graph, candidates, tables))
        trial = self._trial(_FLOAT, recipe)
        trials.append(trial)
        latencies = self._timed(fp32, trials)
        gain = speedup(latencies[_FP32], latencies[best.name]).median
        return (best if gain >= LEAST_SPEEDUP else trial), latencies


def _best(trials: list[_Trial], latencies: Mapping[str, Latency]) -> _Trial:
    """The fastest; a later one only if it is faster than those before it by more than noise."""
    best = trials[0]
    for other in trials[1:]:
        if speedup(latencies[best.name], latencies[other.name]).median > HYSTERESIS:
            best = other
    return best


def _pinned(graph: GraphView, candidates: Mapping[str, Candidate], integer: set[str] | frozenset[str]) -> tuple[str, ...]:
    """The nodes that could run on integers and do not, in graph order."""
    return tuple(name for name in graph.nodes if not candidates[name].objection and name not in integer)
