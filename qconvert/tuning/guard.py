"""A floor under the accuracy of the default run: what damages the outputs most goes back to float.

    least SQNR, from judging samples, < FLOOR_DB  ->  noise of every source  ->  the cheapest placement that should
    reach it, by the corners of cost + lambda x noise  ->  converted and measured; again, aiming higher, if it does not

It looks at calibration samples only, so that no evaluation sample has a say: those that recovery was judged on, or all
where these are too few to tell how much samples differ. What is held against the floor is what others should reach
(:class:`~qconvert.tuning.fallback.Measured`).
Where none of these reaches it, nothing is left on integers but weights, and from there bisection comes back to the
cheapest that does. A placement that gains nothing over the original by its own timing gives way to that one, too.
The result is a pinned placement: a saved recipe gives the same model without measuring anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from qconvert.conversion import Quantized, quantizes
from qconvert.errors import DataError, described
from qconvert.evaluate.fidelity import FLOOR_DB, sqnr_db
from qconvert.evaluate.latency import measure_latency, speedup, thread_clock
from qconvert.forms import DYNAMIC
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.ops.recurrent import RECURRENT
from qconvert.pipeline import Started
from qconvert.plan.forms import without
from qconvert.recipe.recipe import MEASURED, Recipe
from qconvert.recover.effort import LEVELS
from qconvert.report.model import Report
from qconvert.sensitivity.analysis import analyze
from qconvert.sensitivity.measure import MeasureOptions
from qconvert.targets.auto import detected, target_of
from qconvert.trials import integer_nodes
from qconvert.tuning.exchange import exchanged
from qconvert.tuning.fallback import Fallback, Measured, looked_at, sqnr_of, too_noisy
from qconvert.tuning.search import corners_of, expected, noise_at

# Placements to convert, at most.
_ATTEMPTS = 4
# How much further to aim when a placement has fallen short.
_MARGIN_DB = 1.0
# Of what it is expected to gain, what a placement gains at least; where the last two have gained less, that was chance.
_LEAST_SLOPE = 0.4
# Further below the floor than this, everything goes back to float.
_NEAR_DB = 1.0
# No other placement is begun later than so many times what the conversion took, and so many seconds.
_SHARE, _LEAST_SECONDS = 3.0, 45.0
# Once operators are back in float for the floor, more of that is worth its price, up to here.
_CLEAR_DB = FLOOR_DB + 10.0
# What integers have to gain where outputs are near the floor: with less, float is as fast, nearly, and exact.
_LEAST_SPEEDUP, _TIMING_SECONDS = 1.1, 0.8
# Of the same, what neighbours may make together that are not told apart.
_BUNDLE_SHARE = 0.02
_OPTIONS = MeasureOptions(most=4, operations=1e11, sources_only=True, negligible=_BUNDLE_SHARE * noise_at(FLOOR_DB))


def guarded(
    started: Started, quantized: Quantized, reference: Session, seconds: float, *, timed: bool = True
) -> Quantized:
    """``quantized``, or a placement of its model with fewer operators on integers where its outputs are poor.

    Args:
        started: the run. The guard is for placements that qconvert chose; any other is the user's choice.
        quantized: its result.
        reference: the original.
        seconds: what that took.
        timed: a placement has to be faster than the original, too, where it runs on this machine.
    """
    run, feeds = started.run, list(looked_at(started.run.samples))
    asked = run.recipe.placement == MEASURED and LEVELS[run.recipe.effort].guards
    if not asked or not feeds or not quantizes(quantized.plan) or not run.gatherer.collects:
        return quantized
    found = sqnr_of(reference, quantized.session, feeds)
    if not found.least_db < FLOOR_DB:
        return exchanged(started, quantized, reference, feeds, found.db) if timed else quantized
    low = found.because()
    if target_of(run.recipe.target).integer_only:
        return _warned(quantized, f"{low}, and the target has integers only")
    try:
        best, reached, back = _search(started, quantized, reference, feeds, found, seconds, timed)
    except DataError:
        raise
    except Exception as error:  # there is a good result already, whatever goes wrong with a better one
        message = described(error)
        return _warned(quantized, f"{low}, and no other placement could be tried: {message[:300]}")
    if best is quantized:
        return _warned(quantized, f"{low}, and no placement that was tried does better")
    floats = f"{', '.join(back[:8])}{' and others' if len(back) > 8 else ''}"
    how = f"{len(back)} operators back in float: {floats}" if back else "fixed ranges for inputs of products"
    note = f"accuracy: {found.db:.1f} -> {reached} with {how}"
    best = replace(best, notes=(*best.notes, note))
    if reached.least_db < FLOOR_DB:
        others = f", and on others perhaps {reached.least_db:.1f} dB" if reached.db >= FLOOR_DB else ""
        return _warned(best, f"{low}; the best placement has {reached}{others}")
    return exchanged(started, best, reference, feeds, reached.db, least_db=_CLEAR_DB, said=(note,)) if timed else best


def told(report: Report, recipe: Recipe) -> Report:
    """``report`` of a run by ``recipe``, with a warning if its outputs are poor and its effort left that alone."""
    if LEVELS[recipe.effort].guards or recipe.placement != MEASURED or report.accuracy is None:
        return report
    found = report.accuracy.comparison.fidelity.sqnr_db
    if not found < FLOOR_DB:
        return report
    warning = f"the outputs have an SQNR of {found:.1f} dB; a higher --effort sends operators back to float"
    return replace(report, warnings=(*report.warnings, warning))


def _search(
    started: Started,
    quantized: Quantized,
    reference: Session,
    feeds: Sequence[Feed],
    found: Measured,
    seconds: float,
    timed: bool,
) -> tuple[Quantized, Measured, tuple[str, ...]]:
    """(the best model, its SQNR, what went back to float for it)."""
    began = time.monotonic()
    start = integer_nodes(quantized.plan)
    fallback = Fallback.of(started, quantized)
    best, reached, gone = quantized, found, frozenset[str]()
    again: Callable[[], Quantized] | None = None  # makes the best as a recipe that names it does

    def done() -> tuple[Quantized, Measured, tuple[str, ...]]:
        names = tuple(name for name in fallback.order if name in gone)
        if again is None or fallback.as_trials:
            return best, reached, names
        made = again()
        return made, sqnr_of(reference, made.session, feeds), names

    static = _static_forms(quantized, fallback.forms)
    if static is not None:
        # what these do to the outputs no analysis knows, and the way back costs the least
        quantized = replace(fallback, forms=static).made(frozenset())
        fallback = replace(fallback, quantized=quantized, forms=static)
        found = sqnr_of(reference, quantized.session, feeds)
        if found.least_db > reached.least_db:
            best, reached = quantized, found
        if found.least_db >= FLOOR_DB:
            return done()
    analysis = analyze(started, quantized, _OPTIONS)
    # of these no corner knows: they have no integer kernel, and what they store is rounded at every step
    states = frozenset(n.node for n in quantized.plan.taken() if n.op_type in RECURRENT)
    # in float already, and only their weights are integers
    stored = frozenset(n.node for n in quantized.plan.taken() if n.weight is not None) - start
    weighted = {n.node for n in quantized.plan.taken() if n.node in start and (n.weight is not None or n.table)}
    corners = corners_of(analysis.tradeoff, weighted)

    def attempt(back: frozenset[str]) -> float:
        """The least SQNR with ``back`` in float, and with it what of stored weights makes too much noise; it is the
        best so far where it reaches the floor, after which only what is faster is tried, or comes closer to it."""
        nonlocal best, reached, gone, again
        whole = too_noisy(analysis, back | states | stored, FLOOR_DB)
        started.run.progress.note(f"{found}: trying {len(back | whole)} operators back in float")
        got = found
        for bytes_each in (2, 4) if whole and not start - back else (2,):  # with all of it in float it has to do
            make = partial(fallback.made, back, whole, bytes_each=bytes_each)
            made = make(trial=True)
            got = sqnr_of(reference, made.session, feeds)
            if got.least_db >= FLOOR_DB or got.least_db > reached.least_db:
                gone = back | whole
                best, reached, again = made, got, make
            if got.least_db >= FLOOR_DB:
                break
        return got.least_db

    aim, tried, slope, known = FLOOR_DB + _MARGIN_DB, 0, 1.0, (sqnr_db(1.0, corners[0].noise), found.least_db)
    if too_noisy(analysis, states | stored, FLOOR_DB) and attempt(states & start) >= FLOOR_DB:
        return done()

    def in_time() -> bool:
        return time.monotonic() - began <= max(_SHARE * seconds, _LEAST_SECONDS)

    for _ in range(_ATTEMPTS):
        if tried and not in_time():
            break
        guess = expected([c.noise for c in corners], noise_at(found.least_db), noise_at(aim))
        number = max(tried + 1, len(corners) - 1 if guess is None else guess)
        if number >= len(corners):
            break
        got = attempt(start - corners[number].integer)
        if got >= FLOOR_DB:
            break
        predicted = sqnr_db(1.0, corners[number].noise)
        if predicted > known[0]:
            # before a Softmax noise falls faster than behind it
            slope = min(1.0, max(_LEAST_SLOPE, (got - known[1]) / (predicted - known[0])))
        aim, tried, known = aim + (FLOOR_DB - got + _MARGIN_DB) / slope, number, (predicted, got)
    if reached.least_db < FLOOR_DB - _NEAR_DB and attempt(start) >= FLOOR_DB:
        high = len(corners)
        while high - tried > 1 and in_time():
            middle = (tried + high) // 2
            kept = attempt(start - corners[middle].integer) >= FLOOR_DB
            tried, high = (tried, middle) if kept else (middle, high)
    if timed and gone and start - gone and not _gains(started, best, feeds[0]):
        attempt(start)
    return done()


def _gains(started: Started, made: Quantized, feed: Feed) -> bool:
    """Whether ``made`` is faster than the original by so much that integers are worth it; True on other machines."""
    if target_of(started.run.recipe.target).name != detected().target:
        return True
    with started.run.watch.stage("place"):
        sessions = {"fp32": session_of(started.source, threads=1), "made": session_of(made.model, threads=1)}
        times = measure_latency(sessions, feed, seconds=_TIMING_SECONDS, clock=thread_clock())
    return speedup(times["fp32"], times["made"]).median >= _LEAST_SPEEDUP


def _static_forms(quantized: Quantized, forms: tuple[str, ...]) -> tuple[str, ...] | None:
    """``forms`` without those of products that quantize what they read as the model runs; None where there are none."""
    dynamic = [n.node for n in quantized.plan.taken() if n.form == DYNAMIC and n.second is None]
    left = without(forms, dynamic, DYNAMIC)
    return left if len(left) < len(forms) else None


def _warned(quantized: Quantized, warning: str) -> Quantized:
    return replace(quantized, warnings=(*quantized.warnings, warning))
