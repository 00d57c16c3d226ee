"""Accuracy bought with speed, at a fixed rate, where a placement loses more than 8 bits have to.

    par      SQNR with the range of each sample, and float results between (:mod:`qconvert.emit.rounded`): what 8 bits
             can have at any speed. The aim is a margin below
    better   of two placements, that with the lower  log(time) + SIZE log(bytes) - worth(SQNR); a dB is worth RATE, from
             GOOD_DB to MOST_DB a part of that, and beyond the aim PAST, for BEYOND_DB at most

Static ranges have to hold for every sample, and every result is rounded: where samples differ in level, or residual
streams are long, a placement that is fast may be 10 dB below par. The corners of cost + lambda x noise say what is to
be had for which time; those that should be the best at this rate are made, measured and timed. Calibration samples
have the say, as for the floor (:mod:`qconvert.tuning.guard`), which comes first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from qconvert.conversion import Quantized, all_in_float, quantizes
from qconvert.emit.rounded import with_sample_ranges
from qconvert.errors import DataError, described
from qconvert.evaluate.fidelity import FLOOR_DB, output_energies
from qconvert.evaluate.latency import Latency, measure_latency, speedup, thread_clock
from qconvert.graph.model import Model
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.graph.tails import squashes
from qconvert.pipeline import Started
from qconvert.plan.dynamic import gaining
from qconvert.plan.tradeoff import Corner, Tradeoff
from qconvert.sensitivity.analysis import Analysis, analyze
from qconvert.sensitivity.measure import MeasureOptions
from qconvert.targets.auto import detected, target_of
from qconvert.trials import HYSTERESIS, integer_nodes
from qconvert.tuning.fallback import Fallback, Measured, looked_at, sqnr_of, too_noisy
from qconvert.tuning.search import corners_of, noise_at

# What a dB is worth, as a logarithm of the time; and beyond GOOD_DB, a hundredth of the amplitude.
RATE, LESS = math.log(1.05), math.log(1.015)
GOOD_DB, MOST_DB = 40.0, 50.0
# What it is worth beyond the aim, and up to where: other samples may be worse than those that are looked at.
PAST, BEYOND_DB = math.log(1.0075), 6.0
# What the logarithm of the bytes of all weights counts beside that of the time: twice the bytes, 7 %.
SIZE = 0.1
# Nobody can tell outputs from par that are so near. A placement that gains less has gained nothing.
MARGIN_DB = 1.0
# What a placement has to be better by, in that unit, to be tried, or taken.
_LEAST = 0.02
# Placements to convert, at most, and when no other one is begun.
_ATTEMPTS, _SECONDS = 4, 45.0
# What looking at samples once may cost in float, and how many are looked at, at most.
_LOOKING_MS, _SAMPLES = 500.0, 64
# A model that takes longer than this in float is left as it is: each placement would cost too much.
_DEAREST_MS = 40.0
_TIMING_SECONDS, _MOST_ROUNDS = 0.8, 2000
# Neighbours whose noise together is so small against the aim are not told apart.
_BUNDLE_SHARE = 0.02
# How far gains of accuracy and losses of speed are from what is expected, at least and at most.
_SLOPES = (0.3, 1.5)
_NO_NOISE = 1e-12


def exchanged(
    started: Started,
    quantized: Quantized,
    reference: Session,
    feeds: Sequence[Feed],
    found_db: float,
    *,
    least_db: float = -math.inf,
    said: tuple[str, ...] = (),
) -> Quantized:
    """``quantized``, or a placement of its model with fewer operators on integers that is better at the rate.

    Args:
        started: the run.
        quantized: its result, in a placement that was measured on this machine.
        reference: the original.
        feeds: samples that are looked at; where runs are short, more of the calibration samples are.
        found_db: the SQNR of ``quantized`` on these.
        least_db: what is aimed at even where par is lower.
        said: notes of ``quantized`` that hold for what is made of it, too.
    """
    run, placed = started.run, quantized.placement
    here = target_of(run.recipe.target).name == detected().target
    if placed is None or not here or placed.fp32_ms > _DEAREST_MS or not found_db < MOST_DB:
        return quantized
    if not any(spec.dtype.startswith("float") for spec in reference.outputs):  # indices are right or wrong
        return quantized
    if (more := int(_LOOKING_MS / max(placed.fp32_ms, 1e-3))) > len(feeds):
        # those that ranges were made of say less of what others lose by them
        feeds = list(looked_at(started.data.calibration, most=min(more, _SAMPLES)))
        found_db = sqnr_of(reference, quantized.session, feeds).db
    try:
        par_db = _db_of(reference, session_of(with_sample_ranges(started.prepared.model)), feeds)
        aim_db = min(max(par_db - MARGIN_DB, least_db), MOST_DB)
        if not found_db < min(aim_db + BEYOND_DB, MOST_DB):
            return quantized
        base_ms, in_float = _times(started, quantized, feeds[0])
        search = _Exchange(
            fallback=Fallback.of(started, quantized),
            reference=reference,
            feeds=feeds,
            aim_db=aim_db,
            first=_Point(made=quantized, db=found_db),
            base_ms=base_ms,
            in_float=in_float,
        )
        best = search.finished(search.best())
    except DataError:
        raise
    except Exception as error:  # there is a good result already, whatever goes wrong with a better one
        note = f"accuracy: {found_db:.1f} dB, and no other placement could be tried: {described(error)[:300]}"
        return replace(quantized, notes=(*quantized.notes, note))
    if best is search.first:
        return quantized
    told = [
        f"{len(names)} operators {what}: {', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"
        for names, what in (
            (best.back, "back in float"),
            (best.running, "with the range of each run"),
            (best.whole, "with weights of 16 bits"),
        )
        if names
    ]
    names = ", ".join(told)
    if not integer_nodes(best.made.plan):
        stored = ", and weights are stored as integers" if quantizes(best.made.plan) else ""
        names = f"everything computes in float{stored}"
    cost = f"{100 * math.expm1(max(0.0, best.log_time)):.0f} % more time"
    able = f", 8 bits being able to have {par_db:.1f} dB" if math.isfinite(par_db) else ""
    note = (
        f"accuracy: {found_db:.1f} -> {best.db:.1f} dB for {cost}{able}: "
        f"{names}; --min-sqnr {FLOOR_DB:g} takes the fastest placement"
    )
    return replace(best.made, notes=(*best.made.notes, *said, note))


def worth(db: float) -> float:
    """What an SQNR of ``db`` is worth, as a logarithm of the time."""
    return RATE * min(db, GOOD_DB) + LESS * max(0.0, min(db, MOST_DB) - GOOD_DB)


def _db_of(reference: Session, other: Session, feeds: Sequence[Feed]) -> float:
    """The SQNR of ``other``; -inf where shapes, or NaN and Inf, differ, which is no better than any noise."""
    energies = output_energies(reference, other, feeds)
    return Measured.of(energies).db if all(math.isfinite(noise) for _, noise in energies) else -math.inf


def _times(started: Started, made: Quantized, feed: Feed) -> tuple[float, float]:
    """What ``made`` takes, in ms; and the logarithm of what everything in float does, as it is prepared, against it."""
    models = {"fp32": all_in_float(started.prepared.model), "made": made.model}
    times = _timed(started, models, feed, seconds=_TIMING_SECONDS / 2)
    return times["made"].median_ms, math.log(speedup(times["fp32"], times["made"]).median)


def _timed(started: Started, models: Mapping[str, Model], feed: Feed, seconds: float) -> dict[str, Latency]:
    with started.run.watch.stage("place"):
        sessions = {name: session_of(model, threads=1) for name, model in models.items()}
        return measure_latency(sessions, feed, seconds=seconds, max_runs=_MOST_ROUNDS, clock=thread_clock())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """A placement that was made: what went ``back`` to float, what is ``running`` on integers with ranges of its own
    instead, what is stored in more than 8 bits as a ``whole``, its SQNR, and the logarithm of its time against that of
    the first."""

    made: Quantized
    back: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    db: float
    log_time: float = 0.0

    @property
    def key(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """(all that left integers, what of it is running, what is whole)."""
        return frozenset((*self.back, *self.running)), frozenset(self.running), frozenset(self.whole)


@dataclass(slots=True, kw_only=True)
class _Exchange:
    """A search in progress.

    Attributes:
        fallback: what is made again.
        reference: the original.
        feeds: samples that are looked at; the first one is timed.
        aim_db: more than this is worth little.
        first: the placement to begin with, perhaps slower than the one that was chosen for its speed.
        base_ms, in_float: what it takes, and the logarithm of what everything in float does against it.
        began: when.
        points: what was made, by what went back to float, and what of that in ranges of its own, or with its weights.
    """

    fallback: Fallback
    reference: Session
    feeds: Sequence[Feed]
    aim_db: float
    first: _Point
    base_ms: float
    in_float: float
    began: float = field(default_factory=time.monotonic)
    points: dict[tuple[frozenset[str], frozenset[str], frozenset[str]], _Point] = field(default_factory=dict)

    def best(self) -> _Point:
        """The first placement, or the best that was tried."""
        best = self.first
        # as the user gets them, outputs say what counts; before a Softmax they say more on few samples
        for squashed in (True, False) if squashes(best.made.prepared.model) else (True,):
            if not squashed and not self._in_time():
                break
            analysis = self._analysis(squashed=squashed)
            start = self.first
            if self._whole(frozenset(), analysis):  # weights that stay stored are in the way at any price
                start = self._point(frozenset(), frozenset(), analysis) or start
                best = self._better(best, start)
            ways = self._ways(analysis, max(start.db, self.first.db))
            while sum(len(way.tried) for way in ways) < _ATTEMPTS * len(ways) and self._in_time():
                offers = [(self._loss_of(*way.at(n)), i, n) for i, way in enumerate(ways) for n in way.untried()]
                loss, which, number = min(offers, default=(math.inf, 0, 0))
                if loss + _LEAST > self._loss(best):
                    break
                way = ways[which]
                way.tried.add(number)
                point = self._point(self._back(way, number), frozenset(way.shares), analysis)
                if point is not None:
                    best = self._better(best, point)
                    way.learn(number, point)
        return best

    def finished(self, best: _Point) -> _Point:
        """``best`` as a recipe that names its placement makes it, which is with all of recovery; the first placement
        where that is better then."""
        if best is self.first or self.fallback.as_trials:
            return best
        return self._better(self.first, self._made(*best.key, anew=True))

    def _ways(self, analysis: Analysis, base_db: float) -> list[_Way]:
        """With what leaves integers in float; and with what can of it on integers in ranges of its own."""
        plan, tradeoff = self.fallback.quantized.plan, analysis.tradeoff
        found: list[_Way] = []
        for shares in ({}, gaining(analysis.graph, plan, tradeoff.target)):
            if shares or not found:
                corners = self._corners(replace(tradeoff, shares=shares))
                found.append(_Way(corners=corners, base_db=base_db, base_ms=self.base_ms, shares=shares))
        return found

    def _back(self, way: _Way, number: int) -> frozenset[str]:
        """What leaves integers at a corner."""
        back = way.corners[0].integer - way.corners[number].integer
        last = number == len(way.corners) - 1
        # of the state of an LSTM no corner knows
        return back | integer_nodes(self.fallback.quantized.plan) if last else back

    def _better(self, best: _Point, point: _Point) -> _Point:
        gained = point.db > best.db + MARGIN_DB and quantizes(point.made.plan)
        return point if gained and self._loss(point) + _LEAST < self._loss(best) else best

    def _in_time(self) -> bool:
        return time.monotonic() - self.began < _SECONDS

    def _loss(self, point: _Point) -> float:
        larger = math.log(max(1, point.made.model.weight_bytes()) / max(1, self.first.made.model.weight_bytes()))
        return self._loss_of(point.db, point.log_time) + SIZE * larger

    def _loss_of(self, db: float, log_time: float) -> float:
        slowest = max(0.0, self.in_float + math.log(HYSTERESIS))
        beyond = PAST * min(max(0.0, min(db, MOST_DB) - self.aim_db), BEYOND_DB)
        return log_time - worth(min(db, self.aim_db)) - beyond if log_time <= slowest else math.inf

    def _analysis(self, *, squashed: bool) -> Analysis:
        run, made = self.fallback.started.run, self.fallback.quantized
        run.progress.note(f"aiming at {self.aim_db:.1f} dB")
        options = MeasureOptions(
            least=4,
            operations=1e11,
            sources_only=True,
            squashed=squashed,
            negligible=_BUNDLE_SHARE * noise_at(self.aim_db),
        )
        return analyze(self.fallback.started, made, options)

    def _corners(self, tradeoff: Tradeoff) -> list[Corner]:
        """Those of the tradeoff, and everything in float."""
        taken = self.fallback.quantized.plan.taken()
        weighted = {n.node for n in taken if n.weight is not None or n.table}
        corners = corners_of(tradeoff, weighted)
        # the costs of its operators add up to more than it takes as a whole
        in_float = corners[0].cost + math.expm1(self.in_float) * self.base_ms * 1e6 - tradeoff.saved(tradeoff.shares)
        return [*corners, Corner(price=math.inf, integer=frozenset(), cost=in_float, noise=0.0)]

    def _whole(self, back: frozenset[str], analysis: Analysis) -> frozenset[str]:
        """What must not have weights of 8 bits with ``back`` in float."""
        plan = self.fallback.quantized.plan
        stored = {n.node for n in plan.taken() if n.weight is not None} - integer_nodes(plan)
        return too_noisy(analysis, back | stored, self.aim_db)

    def _point(self, back: frozenset[str], able: frozenset[str], analysis: Analysis) -> _Point | None:
        """The placement with ``back`` in float, those that are ``able`` in ranges of their own; None where it fails."""
        whole = self._whole(back, analysis) - able
        key = back, back & able, whole
        try:
            if key not in self.points:
                self.points[key] = self._made(*key)
        except DataError:
            raise
        except Exception as error:  # what was found so far is good
            self.fallback.started.run.progress.note(f"a placement failed: {described(error)[:300]}")
            return None
        return self.points[key]

    def _made(
        self, back: frozenset[str], running: frozenset[str], whole: frozenset[str], *, anew: bool = False
    ) -> _Point:
        """``anew``: with recovery as the run has it."""
        started, made = self.fallback.started, self.fallback.made(back, whole, running, trial=not anew)
        db = _db_of(self.reference, made.session, self.feeds)
        models = {"first": self.first.made.model, "made": made.model}
        times = _timed(started, models, self.feeds[0], seconds=_TIMING_SECONDS)
        log_time = -math.log(speedup(times["first"], times["made"]).median)
        where = f"{len(back - running)} operators back in float, {len(running)} with ranges of each run"
        started.run.progress.note(f"{where}: {db:.1f} dB, {math.exp(log_time):.2f} times the time")
        gone, fresh, wide = (
            tuple(n for n in self.fallback.order if n in names) for names in (back - running, running, whole)
        )
        return _Point(made=made, back=gone, running=fresh, whole=wide, db=db, log_time=log_time)


@dataclass(slots=True, kw_only=True)
class _Way:
    """Corners, and what they should give, by their noise and cost, and by what the first and those tried since gave.

    Attributes:
        corners: the first is where it begins.
        base_db, base_ms: its SQNR and time.
        shares: of what need not be in float (:class:`~qconvert.plan.tradeoff.Tradeoff`).
        gain, slowness: how far what was tried is from what noise and cost told.
        tried: corners.
    """

    corners: Sequence[Corner]
    base_db: float
    base_ms: float
    shares: Mapping[str, float]
    gain: float = 1.0
    slowness: float = 1.0
    tried: set[int] = field(default_factory=set)

    def untried(self) -> list[int]:
        """The corners that are left to try."""
        return [n for n in range(1, len(self.corners)) if n not in self.tried]

    def at(self, number: int) -> tuple[float, float]:
        """(SQNR in dB, logarithm of the time) at a corner."""
        more_db, log_time = self._told(number)
        return self.base_db + self.gain * more_db, self.slowness * log_time

    def learn(self, number: int, point: _Point) -> None:
        """Expect of others what that one gave, against what the noise and the cost told."""
        more_db, log_time = self._told(number)
        if more_db > 0:
            self.gain = _within((point.db - self.base_db) / more_db)
        if log_time > 0:
            self.slowness = _within(point.log_time / log_time)

    def _told(self, number: int) -> tuple[float, float]:
        first, corner = self.corners[0], self.corners[number]
        more_db = 10 * math.log10(max(first.noise, _NO_NOISE) / max(corner.noise, _NO_NOISE))
        return more_db, math.log1p(max(0.0, corner.cost - first.cost) / 1e6 / self.base_ms)


def _within(slope: float) -> float:
    low, high = _SLOPES
    return min(high, max(low, slope))
