"""Latency of several models, measured interleaved.

Clock speed, caches and other processes drift over seconds. Models timed one after the other meet different machines;
timed in turn (A B, B A, ...) they meet the same one, and the ratio of the two runs of a round is free of slow drift:

    speedup = median over rounds i of  t_reference,i / t_other,i
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import get_clock_info, perf_counter, thread_time

import numpy as np

from qconvert.errors import InternalError
from qconvert.graph.session import Feed, Session

# A model that needs this many times the budget is not timed again once three rounds are in.
_GUARD = 5.0
_FEWEST_ROUNDS = 3
# A clock that is coarser than this many seconds cannot time small models.
_RESOLUTION = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Run time of one model on one feed, in milliseconds.

    Attributes:
        median_ms, p10_ms, p90_ms: median, 10th and 90th percentile.
        runs: how many runs were timed.
        times_ms: every run, by round; what :func:`speedup` pairs.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    times_ms: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How many times faster one model is than another.

    Attributes:
        median, p10, p90: of the ratio over rounds; above 1 is faster.
    """

    median: float
    p10: float
    p90: float


def measure_latency(
    sessions: Mapping[str, Session],
    feed: Feed | Sequence[Feed],
    *,
    seconds: float = 2.0,
    min_runs: int = 11,
    max_runs: int = 300,
    warmup: int = 3,
    clock: Callable[[], float] | None = None,
) -> dict[str, Latency]:
    """Time every session on ``feed``, in turn.

    Args:
        sessions: models by name.
        feed: one feed that all of them take, or several: each goes through every order of the models
            before the next one comes.
        seconds: time to spend on all of them together; the measurement ends once it is spent and ``min_runs`` are in.
        min_runs: fewest rounds, unless five times ``seconds`` have passed; three rounds are always run.
        max_runs: most rounds.
        warmup: untimed rounds beforehand (first runs allocate); fewer, but at least one, if they outlast ``seconds``.
        clock: gives seconds; None: wall time. :func:`thread_clock` is not disturbed by other processes.

    Returns:
        Latency by name, in the order of ``sessions``.
    """
    names = list(sessions)
    if not names:
        return {}
    feeds = [feed] if isinstance(feed, Mapping) else list(feed)
    start = perf_counter()
    for done in range(warmup):
        if done and perf_counter() - start > seconds:
            break
        for name in names:
            sessions[name].run(feeds[done % len(feeds)])
    now = clock or perf_counter
    times: dict[str, list[float]] = {name: [] for name in names}
    start, rounds = perf_counter(), 0
    while rounds < max(max_runs, _FEWEST_ROUNDS):
        for name in turn(names, rounds):
            begin = now()
            sessions[name].run(feeds[rounds // (2 * len(names)) % len(feeds)])
            times[name].append((now() - begin) * 1e3)
        rounds += 1
        spent = perf_counter() - start
        enough = spent >= seconds and rounds >= min_runs
        if rounds >= _FEWEST_ROUNDS and (enough or spent > _GUARD * seconds):
            break
    return {name: _latency(times[name]) for name in names}


def thread_clock() -> Callable[[], float] | None:
    """Processor time of this thread, in which sessions of one thread run; None where it is too coarse (Windows)."""
    return thread_time if get_clock_info("thread_time").resolution <= _RESOLUTION else None


def turn(names: list[str], round_index: int) -> list[str]:
    """The order of one round: ABC, CBA, BCA, ACB, CAB, BAC, ...

    A rotation alone would leave B behind A nearly always, with the cache as A left it, so every other round runs
    backwards.
    """
    shift = (round_index // 2) % len(names)
    order = names[shift:] + names[:shift]
    return order[::-1] if round_index % 2 else order


def speedup(reference: Latency, other: Latency) -> Speedup:
    """How many times faster ``other`` is than ``reference``, from the paired runs of one :func:`measure_latency`."""
    if len(reference.times_ms) != len(other.times_ms) or not other.times_ms:
        raise InternalError("a speedup needs two latencies of the same measurement")
    # A run can be shorter than the clock's tick.
    ratios = np.maximum(reference.times_ms, 1e-6) / np.maximum(other.times_ms, 1e-6)
    p10, median, p90 = (float(v) for v in np.percentile(ratios, (10, 50, 90)))
    return Speedup(median=median, p10=p10, p90=p90)


def _latency(times: list[float]) -> Latency:
    p10, median, p90 = (float(v) for v in np.percentile(times, (10, 50, 90)))
    return Latency(median_ms=median, p10_ms=p10, p90_ms=p90, runs=len(times), times_ms=tuple(times))
