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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from qconvert.conversion import Quantized, all_in_float, emit, quantizes
from qconvert.errors import ModelError, described
from qconvert.evaluate.fidelity import FLOOR_DB
from qconvert.evaluate.latency import Latency, speedup
from qconvert.forms import ACTIVATION, DYNAMIC, ONE_SCALE
from qconvert.graph.footprint import value_bytes
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.signature import session_of
from qconvert.measure.boundary import BoundaryCosts, boundary_costs
from qconvert.measure.costs import MeasuredCosts, measured_costs
from qconvert.measure.forms import Gain, paying, variants
from qconvert.measure.profile import Profile
from qconvert.plan.dynamic import gaining
from qconvert.plan.even import is_even
from qconvert.plan.forms import able as formable
from qconvert.plan.forms import entries, fits_float, parts_of, takers, with_forms
from qconvert.plan.model import told_as
from qconvert.plan.observable import observable
from qconvert.plan.placement import place
from qconvert.recipe.recipe import MEASURED, PINNED, STATIC, Recipe
from qconvert.recover.effort import LEVELS
from qconvert.repair import convert_and_repair
from qconvert.run import Run
from qconvert.targets.auto import detected, target_of
from qconvert.trials import (
    FP32,
    GOOD_DB,
    HYSTERESIS,
    IN_FLOAT,
    STATIC_TRIAL,
    Trial,
    as_fast,
    fastest,
    most_accurate,
    placement_report,
    told,
    told_forms,
)
from qconvert.workbench import Workbench

# Integers that gain less than this over FP32 are not worth the accuracy that they cost.
LEAST_SPEEDUP = 1.02
# Several forms of the model are in memory at once; beyond this many bytes of float weights none is timed.
MOST_BYTES = 1 << 29
# Operators that take a smaller part of the time in float are not tried in other forms: they cannot gain enough.
LEAST_SHARE = 0.04
# One scale for a weight is good enough where outputs are good, or lose no more than so many dB, on a few samples.
_LESS_DB = 2.0
# It costs some accuracy, so it has to gain more than other trials.
_SCALE_SPEEDUP = 1.05
# What weights are to keep with one scale, by themselves: nearly all may have it then, and those that lose very little.
_EVEN_DB = (25.0, 34.0)
# How often the cut is profiled itself, and made again with what that tells; with less effort it is not.
CORRECTIONS = 2

# Where there is one placement, and its profile says that it is faster than FP32 by this factor, a few rounds will do.
_CLEAR = 1.5
_ALL, _ACTIVATION, _CUT, _FORMS, _ONE_SCALE, _FRESH = (
    "all",
    "activation",
    "cut",
    "forms",
    "one scale",
    "ranges of each run",
)
_PRODUCTS = ("Gemm", "MatMul")
# ONNX Runtime's operators that activation functions are taken apart into.
_PARTS_OF_ACTIVATIONS = ("QLinearSigmoid", "Sigmoid", "Erf", "Tanh")
_FLOAT_BYTES = 4
# Of a short model a boundary is estimated to a third, at best. Where that leaves the first placement as it is, the next
# one is made as if they were cheaper, and timed.
_SHORT_US, _HOPE = 1000.0, 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The chosen placement.

    Attributes:
        run: the run that all later stages go on with: its recipe pins the placement.
        result: the model in that placement.
    """

    run: Run
    result: Quantized


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
    try:
        in_float = all_in_float(prepared.model)
        bench = Workbench.of(prepared, static, base, kept_float)
        return _Search(bench=bench, plain=result, in_float=in_float).chosen()
    except Exception as error:  # there is a good result already, whatever goes wrong with a better one
        message = described(error)
        note = f"placement by the target's table, because measuring failed: {message[:300]}"
        return Placed(run=static, result=replace(result, notes=(*result.notes, note)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Where trials are made, the model in the static placement, and the float model as it is written."""

    bench: Workbench
    plain: Quantized
    in_float: Model

    def chosen(self) -> Placed:
        started = time.perf_counter()
        bench, graph, recipe = self.bench, self.bench.graph, self.bench.run.recipe
        planned = bench.plan(bench.run)
        bench.converted.append((planned, self.plain))
        static = replace(self.plain, plan=told_as(self.plain.plan, planned))
        trials = [Trial(name=STATIC_TRIAL, recipe=recipe, result=static)]
        everything = bench.trial(_ALL, replace(recipe, placement=PINNED))
        trials += [everything] if everything.integer != trials[0].integer else []
        bench.sessions[FP32] = session_of(self.in_float, threads=1)
        costs: MeasuredCosts | None = None
        gains: tuple[Gain, ...] = ()
        best, latencies = trials[0], self._accepted(trials)
        if latencies is None:
            best, latencies, gains, costs = self._searched(trials)
        # what has ranges of each run is pinned to float, as its neighbours are
        pinned = best.recipe.pinned_float if best.name == _FRESH else bench.left_out(best.integer)
        run = replace(
            bench.run,
            recipe=replace(recipe, placement=PINNED, pinned_float=pinned, forms=best.recipe.forms),
            times={n: t for n in graph.nodes if (t := costs.times(n)) is not None} if costs else {},
        )
        bench.sessions.clear()
        result = bench.convert(run)
        report = placement_report(best, trials, latencies, gains, pinned=pinned, seconds=time.perf_counter() - started)
        notes = (*result.notes, told(report, best, len(bench.able)), *told_forms(result.plan, gains))
        return Placed(run=run, result=replace(result, placement=report, costs=costs, notes=notes))

    def _accepted(self, trials: list[Trial]) -> dict[str, Latency] | None:
        """Latencies where the only trial is fast enough for this effort; None: what else there is has to be tried."""
        accepts = LEVELS[self.bench.run.recipe.effort].accepts
        if len(trials) > 1 or not math.isfinite(accepts):
            return None
        latencies = self.bench.timed(trials, clear=True)
        return latencies if speedup(latencies[FP32], latencies[trials[0].name]).median >= accepts else None

    def _searched(self, trials: list[Trial]) -> tuple[Trial, dict[str, Latency], tuple[Gain, ...], MeasuredCosts]:
        """(the best of ``trials`` and of those added to them, all latencies, what its forms gain, the costs)."""
        bench = self.bench
        profiles = {t.name: bench.profile(t.result.model) for t in reversed(trials)}
        plain = bench.profile(self.in_float)
        # operators beside float ones may do better in float, too: that shows in the static form only
        worse = profiles[trials[-1].name].total_us > HYSTERESIS * profiles[STATIC_TRIAL].total_us
        bases = [trials[-1], *(trials[:1] if worse else [])]
        fast = trials[0] if worse else trials[-1]
        joined = self._with_activations(fast, profiles[fast.name])
        if joined is not None:
            profiles[_ACTIVATION] = bench.profile(joined.result.model)
            trials.append(joined)
            bases = [joined] if profiles[_ACTIVATION].total_us < profiles[fast.name].total_us else [*bases, joined]
        costs_of: dict[str, MeasuredCosts] = {}
        for base in bases:
            cuts, costs = self._cut(trials, base, (plain, profiles[base.name]))
            costs_of.update({t.name: costs for t in (base, *cuts)})
            trials += cuts
        clear = len(trials) == 1 and plain.total_us > _CLEAR * profiles[STATIC_TRIAL].total_us
        latencies = bench.timed(trials, clear=clear)
        best = fastest(trials, latencies)
        costs = costs_of.get(best.name, costs_of[bases[0].name])
        equals = as_fast(best, trials, latencies)
        best = most_accurate(best, equals, bench.sqnr(*equals)) if len(equals) > 1 else best
        costs = costs_of.get(best.name, costs)
        gains = self._gains(best, costs)
        if gains:
            trials.append(bench.trial(_FORMS, _with_gains(best.recipe, gains)))
            latencies = bench.timed(trials)
            best = fastest([best, trials[-1]], latencies)  # not of all of them: ``best`` may be the most accurate one
            gains = gains if best.name == _FORMS else ()
        base = best
        if speedup(latencies[FP32], latencies[best.name]).median < LEAST_SPEEDUP:
            base = max(trials, key=lambda t: len(t.integer))
        for single in self._with_one_scale(base, costs):
            trials.append(single)
            latencies = bench.timed(trials)
            if speedup(latencies[best.name], latencies[single.name]).median < _SCALE_SPEEDUP:
                break
            if self._keeps(base, single):
                best, gains = single, gains if base is best else ()
                break
        fresh = self._with_fresh_ranges(best)
        if fresh is not None:
            trials.append(fresh)
            latencies = bench.timed(trials)
            before, after = bench.sqnr(best, fresh)
            if speedup(latencies[best.name], latencies[fresh.name]).median * HYSTERESIS >= 1 and after > before:
                best, gains = fresh, ()
        in_float = tuple(g for g in gains if all(fits_float(self.bench.graph, n, f) for n, f in g.forms.items()))
        if in_float or speedup(latencies[FP32], latencies[best.name]).median < LEAST_SPEEDUP:
            tables = {name for name, c in bench.able.items() if c.table}
            trials.append(bench.pinned(IN_FLOAT, tables, _with_gains(bench.run.recipe, in_float).forms))
            latencies = bench.timed(trials)
            # what a form gains that float operators have, too, is no gain of integers
            reference = IN_FLOAT if in_float else FP32
            if speedup(latencies[reference], latencies[best.name]).median < LEAST_SPEEDUP:
                best, gains = trials[-1], in_float
        return best, latencies, gains, costs

    def _with_activations(self, most: Trial, seen: Profile) -> Trial | None:
        """``most`` with every activation function that can be in one float operator, for cuts from there."""
        target = target_of(most.recipe.target)
        names = formable(self.bench.graph, most.result.plan, most.recipe, target).get(ACTIVATION, ())
        gates = sum(us for name, us in seen.us.items() if seen.run.nodes[name].op_type in _PARTS_OF_ACTIVATIONS)
        if not names or gates < LEAST_SHARE / 2 * seen.total_us:
            return None
        forms = entries(dict.fromkeys(names, ACTIVATION))
        return self.bench.trial(_ACTIVATION, replace(most.recipe, forms=(*most.recipe.forms, *forms)))

    def _with_one_scale(self, base: Trial, costs: MeasuredCosts) -> Iterator[Trial]:
        """``base`` with one scale for every weight that loses little by it; then for fewer."""
        graph = self.bench.graph
        able = takers(graph, base.result.plan, base.recipe, target_of(base.recipe.target), ONE_SCALE)
        tried: list[str] = []
        for least_db in _EVEN_DB if costs.share(able) >= LEAST_SHARE else ():
            names = [n for n in able if is_even(graph, n, least_db)]
            if names and names != tried:
                forms = entries(dict.fromkeys(names, ONE_SCALE))
                name = f"{_ONE_SCALE} {len(names)}"
                yield self.bench.trial(name, replace(base.recipe, forms=(*base.recipe.forms, *forms)))
            tried = names

    def _with_fresh_ranges(self, best: Trial) -> Trial | None:
        """Every product with the range of each run, and all else in float, where nothing else has a weight on integers:
        that takes no conversions, and may be as fast as ``best``."""
        plan, target = best.result.plan, target_of(best.recipe.target)
        able = gaining(self.bench.graph, plan, target)
        weighted = [n for n in plan.taken() if n.multiplies and n.activations]
        if not able or any(n.op_type not in _PRODUCTS for n in weighted):
            return None
        tables = {name for name, c in self.bench.able.items() if c.table}
        dynamic = {*able, *(n.node for n in plan.taken() if n.form == DYNAMIC)}
        forms = entries(dict.fromkeys((n for n in self.bench.graph.nodes if n in dynamic), DYNAMIC))
        return self.bench.pinned(_FRESH, tables, (*best.recipe.forms, *forms))

    def _keeps(self, base: Trial, single: Trial) -> bool:
        """Whether the outputs of ``single`` are good, or nearly as good as those of ``base``."""
        before, after = self.bench.sqnr(base, single)
        return after >= min(GOOD_DB, max(before, FLOOR_DB + 2 * _LESS_DB) - _LESS_DB)

    def _gains(self, best: Trial, costs: MeasuredCosts) -> tuple[Gain, ...]:
        """What the nodes of ``best`` gain in other forms; nothing is profiled where they take too little to matter."""
        bench, graph = self.bench, self.bench.graph
        target = target_of(best.recipe.target)
        able = formable(graph, best.result.plan, best.recipe, target)
        worth = {
            form: names
            for form, names in able.items()
            if costs.share({*names, *(n for name in names for n in parts_of(graph, name, form))}) >= LEAST_SHARE
        }
        tried = []
        for forms in variants(worth):
            recipe = replace(best.recipe, forms=(*best.recipe.forms, *entries(forms)))
            plan = with_forms(graph, best.result.plan, recipe, target)
            model, _ = emit(best.result.base, plan, recipe, bench.prepared.source)
            try:
                tried.append((forms, bench.profile(model)))
            except ModelError:  # this version of ONNX Runtime does not have one of them
                continue
        return paying(graph, bench.profile(best.result.model), tried) if tried else ()

    def _cut(
        self, trials: Sequence[Trial], most: Trial, ends: tuple[Profile, Profile]
    ) -> tuple[list[Trial], MeasuredCosts]:
        """(the minimum cuts of what runs on integers in ``most`` that are none of ``trials``, the last costs);
        ``ends``: profiles of the float model and of ``most``."""
        bench, graph = self.bench, self.bench.graph
        candidates, absorbed = bench.within(most)
        free = {name for name, c in candidates.items() if not c.objection and not c.is_clamp}
        sizes = self._sizes(observable(graph, candidates, absorbed))
        with bench.run.watch.stage("place"):
            boundaries = boundary_costs()
        in_float, profiles = ends[0], [(most.integer, ends[1])]
        cuts: list[Trial] = []
        corrections = CORRECTIONS if bench.effort >= 1 else 0

        def placed_by(boundaries: BoundaryCosts) -> tuple[set[str], MeasuredCosts]:
            with bench.run.watch.stage("place"):
                costs = measured_costs(graph, in_float, profiles, sizes=sizes, boundaries=boundaries, placed=free)
                return place(graph, candidates, absorbed, costs), costs

        while True:
            cut, costs = placed_by(boundaries)
            known = [t.integer for t in (*trials, *cuts)]
            if cut in known and not cuts and in_float.total_us < _SHORT_US:
                cut, _ = placed_by(boundaries.times(_HOPE))
            if cut in known:
                return cuts, costs
            trial = bench.pinned(f"{_CUT} {len(known)}", cut, most.recipe.forms)
            if trial.integer in known:
                return cuts, costs
            cuts.append(trial)
            if len(profiles) > corrections:
                return cuts, costs
            profiles.append((trial.integer, bench.profile(trial.result.model)))

    def _sizes(self, tensors: Sequence[str]) -> dict[str, int]:
        """Tensor -> elements, on the first sample."""
        bench = self.bench
        feed = bench.run.samples.feed(0)
        computed = [t for t in tensors if t not in bench.graph.inputs]
        sizes = {t: n // _FLOAT_BYTES for t, n in value_bytes(bench.prepared.model, computed, feed).items()}
        return {**sizes, **{t: feed[t].size for t in tensors if t in feed}}


def _with_gains(recipe: Recipe, gains: Sequence[Gain]) -> Recipe:
    forms = {name: form for g in gains for name, form in g.forms.items()}
    return replace(recipe, forms=(*recipe.forms, *entries(forms)))
