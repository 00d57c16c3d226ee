"""The least cost within a budget of accuracy: the stage behind ``qconvert tune``, ``--max-drop`` and ``--min-sqnr``.

    quantize -> noise of every source -> corners: argmin cost + lambda x noise -> convert, measure -> the best, written

Every model that is tried is made in full, recovery included, and measured on the evaluation samples. Recovery passes
that rewrite FP32 weights are not repeated: what the first conversion made of the weights is where the others start.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from qconvert.calibrate.gather import Gatherer
from qconvert.conversion import Quantized, quantizes
from qconvert.errors import DataError, ModelError, QConvertError, RecipeError
from qconvert.evaluate.fidelity import sqnr_db
from qconvert.evaluate.latency import measure_latency, speedup
from qconvert.forms import DYNAMIC
from qconvert.graph.build_view import view_of
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.ops.recurrent import RECURRENT
from qconvert.pipeline import QuantizeJob, Started, finish, make_quantized, measure_accuracy, start
from qconvert.plan.build import build_plan
from qconvert.plan.forms import without
from qconvert.plan.model import QuantPlan, told_as
from qconvert.plan.tradeoff import Corner
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import DEFAULT_SCHEME, MEASURED, NO_RECOVERY, PINNED, STATIC, Recipe
from qconvert.recover.recovery import RECOVERIES, Stage
from qconvert.recovery import convert_and_recover
from qconvert.report.model import Report
from qconvert.report.output import check_output
from qconvert.schemes.bodies import nodes_with_bytes, stored_nodes
from qconvert.sensitivity.analysis import Analysis, GroupDamage, analyze, damages_of
from qconvert.sensitivity.measure import Measured
from qconvert.sensitivity.reported import with_damages
from qconvert.targets.auto import target_of
from qconvert.tuning.budget import Budget
from qconvert.tuning.front import Front, Point, dominated, reported
from qconvert.tuning.search import Search, corners_of, expected, noise_at

FOR_ACCURACY = "back to float for the accuracy of the outputs"

# Time to spend on the latency of one model.
_LATENCY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """How long to search.

    Attributes:
        points: models to measure for the front, besides those that the search for the budget needs.
        seconds: no further model is begun if it would probably end later than this; None for no limit.
    """

    points: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came of it.

    Attributes:
        report: of the model that was written.
        front: the models that were measured.
        recipe: the job's, with the nodes that went back to float excluded: it gives this model again.
    """

    report: Report
    front: Front
    recipe: Recipe


def tune(job: QuantizeJob, budget: Budget, options: TuneOptions, progress: Progress | None = None) -> Tuned:
    """Write the fastest model that keeps ``budget``, or the best that was found; without limits, that of ``quantize``.

    Raises:
        InputError: the model, the data, the recipe or the output place is unusable; nothing has been written.
    """
    began = time.monotonic()
    if job.recipe.scheme != DEFAULT_SCHEME or job.recipe.mix:
        raise RecipeError("only static int8 is searched", hint="leave --scheme and --mix out, or use qconvert quantize")
    check_output(job.output, force=job.force, inputs=job.inputs)
    started = start(job, progress or Silent())
    if budget.max_drop is not None and started.labels is None:
        raise RecipeError("--max-drop needs labels", hint="give --eval and --labels, or --min-sqnr in place of it")
    trial = _Trial(
        started=started,
        reference=session_of(started.source),
        budget=budget,
        options=options,
        began=began,
        quantized=make_quantized(started.prepared, started.run),
    )
    trial.run()
    report = with_damages(finish(started, trial.best, job.output, trial.reference), trial.damages)
    front = trial.front()
    point = front.point
    floats = f": {', '.join(point.float_nodes)}" if point.float_nodes else ""
    note = f"{front.budget or 'no budget'}: {len(point.float_nodes)} operations went back to float{floats}"
    return Tuned(
        report=replace(report, notes=(*report.notes, note), front=reported(front)),
        front=front,
        recipe=replace(
            _placed_like(job.recipe, trial.quantized),
            exclude=tuple(dict.fromkeys((*job.recipe.exclude, *trial.whole, *point.float_nodes))),
        ),
    )


@dataclass(slots=True, kw_only=True)
class _Trial:
    """A search in progress.

    Attributes:
        started, reference: the run, and the float model.
        budget, options: what is wanted.
        began: when, by the monotonic clock.
        quantized: what ``quantize`` makes: corner 0.
        best, chosen: the best model so far, and its corner.
        points: by corner.
        known: whether a plan keeps the budget, by the nodes that it runs on integers: none is measured twice.
        corners: what there is to try.
        measured, damages: the noise that they were found by, and what each operator has of it.
        complete: the search ended by itself.
        lasting: seconds that the last model took.
        whole: recurrent operators, and nodes of bodies, whose weights went back to float.
        gatherer: the statistics of the canonical model that the trials start from.
        notes: what went wrong.
    """

    started: Started
    reference: Session
    budget: Budget
    options: TuneOptions
    began: float
    quantized: Quantized
    best: Quantized = field(init=False)
    chosen: int = 0
    points: dict[int, Point] = field(default_factory=dict)
    known: dict[frozenset[str], bool] = field(default_factory=dict)
    corners: list[Corner] = field(default_factory=list)
    measured: Measured | None = None
    damages: tuple[GroupDamage, ...] = ()
    complete: bool = True
    lasting: float = 0.0
    whole: tuple[str, ...] = ()
    gatherer: Gatherer = field(init=False)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with ``quantized``."""
        self.best = self.quantized
        same = self.quantized.prepared is self.started.prepared
        given = self.started.run.gatherer
        # other weights, other statistics
        self.gatherer = given if same else Gatherer(options=given.options)

    def run(self) -> None:
        """Try what is worth trying; recurrent operators and bodies, of which no corner knows, with less and less of
        integers."""
        self._search()
        for less in (_stored_states, _float_states):
            if not self.points[self.chosen].shortfall or not self._in_time():
                return
            found = less(self.started, self.quantized)
            if found is None:
                continue
            self.quantized, self.whole, note = found
            self.notes.append(note)
            self.chosen, self.points, self.known, self.corners = 0, {}, {}, []
            self.__post_init__()
            self._search()

    def _search(self) -> None:
        """Try what is worth trying of ``quantized``."""
        first = Corner(price=0.0, integer=_integers(self.quantized.plan), cost=0.0, noise=0.0)
        met = self.known[first.integer] = self._measure(0, first, self.quantized)
        self.lasting = time.monotonic() - self.began
        if (met and not self.options.points) or not quantizes(self.quantized.plan):
            return
        if target_of(self.started.run.recipe.target).integer_only:
            self.notes.append("no other placement was tried: the target has integers only")
            return
        if not self._in_time():
            self.complete = False
            return
        try:
            self._lay_out(analyze(self.started, self.quantized))
        except DataError:
            raise
        except QConvertError as error:  # there is a good model already
            self.notes.append(f"no other placement was tried: {error.message}")
            return
        search = Search(count=len(self.corners), attempt=self._attempt, may_go_on=self._in_time, tried={0: met})
        if not met:
            search.cheapest(self._guess())
        search.picture(self.options.points)
        self.complete = search.complete

    def front(self) -> Front:
        """What has been found, in the order of the corners."""
        points = [self.points[i] for i in sorted(self.points)]
        return Front(
            points=tuple(replace(p, on_front=not dominated(p, points)) for p in points),
            chosen=self.chosen,
            corners=max(1, len(self.corners)),
            budget=str(self.budget),
            met=self.points[self.chosen].shortfall == 0,
            samples=len(self.started.data.evaluation),
            seconds=time.monotonic() - self.began,
            complete=self.complete,
            additivity_db=self.measured.additivity_db if self.measured is not None else 0.0,
            notes=tuple(self.notes),
        )

    def _lay_out(self, found: Analysis) -> None:
        """The corners, without those where nothing is left to quantize."""
        plan = self.quantized.plan
        weighted = {n.node for n in plan.taken() if n.weight is not None or n.table is not None}
        corners = self.corners = corners_of(found.tradeoff, weighted)
        self.measured, self.damages = found.measured, damages_of(found)
        self.points[0] = replace(
            self.points[0],
            estimated_us=corners[0].cost / 1000,
            expected_db=sqnr_db(1.0, corners[0].noise),
        )

    def _guess(self) -> int | None:
        """The corner at which a limit of SQNR should be kept."""
        found, limit = self.points[0].sqnr_db, self.budget.min_sqnr
        if limit is None or not math.isfinite(found):
            return None
        return expected([c.noise for c in self.corners], noise_at(found), noise_at(limit))

    def _in_time(self) -> bool:
        seconds = self.options.seconds
        return seconds is None or time.monotonic() - self.began + self.lasting <= seconds

    def _attempt(self, number: int) -> bool:
        """Make and measure a corner; whether it keeps the budget."""
        begin = time.monotonic()
        corner, base, run = self.corners[number], self.quantized, self.started.run
        back = dict.fromkeys(sorted(self.corners[0].integer - corner.integer), FOR_ACCURACY)
        kept = {n.node: n.decision.reason for n in base.plan.nodes.values() if not n.decision.taken} | back
        run = replace(run, recipe=_recipe_for(run.recipe, base), gatherer=self.gatherer)
        view = view_of(base.prepared.model)
        integer = _integers(build_plan(view, run.recipe, target_of(run.recipe.target), kept))
        if integer in self.known:
            return self.known[integer]
        try:
            made = convert_and_recover(base.prepared, run, base=base.base, kept_float=kept, required=False)
            made = replace(made, plan=told_as(made.plan, base.plan))  # what was measured, and why
            self.known[integer] = self._measure(number, corner, _with_branches(made, base))
        except DataError:
            raise
        except QConvertError as error:  # there is a good model already
            self.notes.append(f"a placement with {len(back)} operations back in float failed: {error.message}")
            self.known[integer] = False
        self.lasting = time.monotonic() - begin
        return self.known[integer]

    def _measure(self, number: int, corner: Corner, made: Quantized) -> bool:
        """Measure a model, and keep it if it is the best; whether it keeps the budget."""
        started, job = self.started, self.started.job
        with started.run.watch.stage("accuracy"):
            found = measure_accuracy(
                started.data, self.reference, made.session, job.metric, started.labels, started.run.progress
            ).comparison
        shortfall = self.budget.shortfall(found)
        with started.run.watch.stage("latency"):
            feed = started.data.evaluation.feed(0)
            times = measure_latency({"fp32": self.reference, "quantized": made.session}, feed, seconds=_LATENCY_SECONDS)
        taken = {n.node for n in made.plan.taken()}
        point = Point(
            corner=number,
            price=corner.price / 1000,
            float_nodes=tuple(n.node for n in self.quantized.plan.taken() if n.node not in taken),
            integer_nodes=len(taken),
            estimated_us=corner.cost / 1000,
            expected_db=sqnr_db(1.0, corner.noise),
            latency_ms=times["quantized"].median_ms,
            speedup=speedup(times["fp32"], times["quantized"]).median,
            sqnr_db=found.fidelity.sqnr_db,
            metric=found.metric,
            weight_bytes=made.model.weight_bytes(),
            shortfall=shortfall,
        )
        self.points[number] = point
        if number == self.chosen or _better(point, self.points[self.chosen]):
            self.best, self.chosen = made, number
        started.run.progress.note(f"point {number}: {len(point.float_nodes)} back in float, {point.sqnr_db:.1f} dB")
        return shortfall == 0


def _stored_states(started: Started, base: Quantized) -> tuple[Quantized, tuple[str, ...], str] | None:
    """``base`` with LSTMs and bodies in float arithmetic, with stored weights, where it was measured that bytes at
    every step are faster, and what to say of it; None where there are none."""
    names = [n.node for n in base.plan.taken() if n.form == DYNAMIC and n.second is not None]
    names += nodes_with_bytes(base.branches)
    if not names or base.placement is None:
        return None
    forms = without(base.placement.pinned_forms, names, DYNAMIC)
    run = replace(started.run, recipe=replace(_placed_like(started.run.recipe, base), forms=forms))
    made = make_quantized(started.prepared, run)
    note = f"computing in float for the budget, with weights stored as integers: {', '.join(names)}"
    return replace(made, placement=replace(base.placement, pinned_forms=forms), costs=base.costs), (), note


def _float_states(started: Started, base: Quantized) -> tuple[Quantized, tuple[str, ...], str] | None:
    """``base`` with the weights of recurrent operators and of bodies in float; likewise."""
    names = tuple(n.node for n in base.plan.taken() if n.op_type in RECURRENT) + stored_nodes(base.branches)
    if not names:
        return None
    recipe = started.run.recipe  # what pays for the rest is measured anew
    run = replace(started.run, recipe=replace(recipe, exclude=(*recipe.exclude, *names)))
    try:
        made = make_quantized(started.prepared, run)
    except ModelError:  # nothing else is quantized
        return None
    return made, names, f"back in float for the budget: {', '.join(names)}"


def _better(one: Point, other: Point) -> bool:
    """Whether ``one`` is the model to write: the cheapest that keeps the budget, else the one that misses it least."""
    if one.shortfall == other.shortfall == 0:
        return one.corner < other.corner
    return (one.shortfall, -one.sqnr_db) < (other.shortfall, -other.sqnr_db)


def _integers(plan: QuantPlan) -> frozenset[str]:
    return frozenset(n.node for n in plan.taken())


def _recipe_for(recipe: Recipe, base: Quantized) -> Recipe:
    """What is left to choose where ``base`` says what stays float, and has its weights rewritten already."""
    solved = tuple(r.name for r in base.recoveries if RECOVERIES.get(r.name).stage is not Stage.WEIGHTS)
    return replace(_placed_like(recipe, base), include=(), exclude=(), recover=solved or (NO_RECOVERY,))


def _placed_like(recipe: Recipe, base: Quantized) -> Recipe:
    """``recipe`` with the placement that was measured for ``base``, or the static one."""
    if base.placement is not None:
        pins, forms = base.placement.pinned_float, base.placement.pinned_forms
        return replace(recipe, placement=PINNED, pinned_float=pins, forms=forms)
    return replace(recipe, placement=STATIC) if recipe.placement == MEASURED else recipe


def _with_branches(made: Quantized, base: Quantized) -> Quantized:
    """``made`` with what ``base`` knows of the branches of If, and of the passes that rewrote weights."""
    rewriting = tuple(r for r in base.recoveries if RECOVERIES.get(r.name).stage is Stage.WEIGHTS)
    told = {str(r) for r in base.recoveries if r not in rewriting}
    before = tuple(n for n in base.notes if n not in told and n not in made.notes)
    return replace(
        made,
        calibration=base.calibration,
        notes=(*before, *made.notes),
        branches=base.branches,
        warnings=base.warnings,
        recoveries=(*rewriting, *made.recoveries),
    )
