"""(plan, stats, method) -> the same plan with parameters for every group.

The range of a group is that of the merged statistics of its observed members; the range of a constant member joins in,
so that no constant is clipped. Values that make no difference to what reads them are left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.method import Method, Seen, options_of
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.spec import QuantSpec
from qconvert.plan.model import Group, QuantPlan, RangeOption
from qconvert.stats.statistic import Statistic, StatRequest, StatsTable


def requests_for(plan: QuantPlan, method: Method) -> tuple[StatRequest, ...]:
    """What ``method`` needs to know to solve ``plan``."""
    return requests_for_tensors(plan.observed(), method)


def requests_for_tensors(tensors: Iterable[str], method: Method) -> tuple[StatRequest, ...]:
    """What ``method`` needs to know to make ranges for ``tensors``."""
    return tuple(StatRequest(tensor=t, make=method.needs, asked_by=method.name) for t in tensors)


Weighed = dict[tuple[tuple[str, ...], QuantSpec, tuple[float, float], tuple[float, ...]], tuple[RangeOption, ...]]
"""The ranges that were weighed, by the tensors whose statistics make them, how these are quantized, and which errors
count (``Group.useful`` and ``Group.below``)."""


def solve(
    plan: QuantPlan,
    stats: StatsTable,
    method: Method,
    constant: Callable[[str], NDArray[np.generic]],
    weighed: Weighed | None = None,
) -> QuantPlan:
    """Give every group of ``plan`` its scale and zero point.

    Args:
        plan: without numbers.
        stats: holds every tensor that the plan observes.
        method: turns a statistic into a range.
        constant: gives the value of a constant tensor.
        weighed: of the same statistics and method, from plans that were solved before; it is added to.
    """
    known = {} if weighed is None else weighed
    return plan.with_groups(tuple(_solve_group(g, stats, method, constant, known) for g in plan.groups))


def _solve_group(
    group: Group, stats: StatsTable, method: Method, constant: Callable[[str], NDArray[np.generic]], weighed: Weighed
) -> Group:
    if group.fixed_range is not None:
        return replace(group, params=params_from_range(*group.fixed_range, group.spec))
    key = group.observed, group.spec, group.useful, group.below
    if key not in weighed:
        weighed[key] = _weigh(group, stats, method)
    options = weighed[key]
    for tensor in group.constants:
        array = constant(tensor)
        if array.size:
            lo, hi = float(array.min()), float(array.max())
            options = tuple(replace(o, lo=min(o.lo, lo), hi=max(o.hi, hi)) for o in options)
    best = options[0]
    params = params_from_range(best.lo, best.hi, group.spec)
    return replace(group, params=params, method=best.method, options=options)


def _weigh(group: Group, stats: StatsTable, method: Method) -> tuple[RangeOption, ...]:
    merged: Statistic | None = None
    for tensor in group.observed:
        merged = stats[tensor] if merged is None else merged.merge(stats[tensor])
    if merged is None:
        return (RangeOption(method=method.name, lo=0.0, hi=0.0),)
    below = [(stats[t], slope) for t, slope in zip(group.observed, group.below, strict=True)] if group.below else []
    seen = Seen(useful=group.useful, below=below)
    options = options_of(method, merged, group.spec, seen)
    return tuple(replace(o, lo=lo, hi=hi) for o in options for lo, hi in [seen.cut(o.lo, o.hi)])


def methods_picked(plan: QuantPlan) -> dict[str, int]:
    """How many scales of a solved ``plan`` come from which method, the most frequent first.

    Scales that need no data are left out.
    """
    counts: dict[str, int] = {}
    for group in plan.groups:
        if group.method:
            counts[group.method] = counts.get(group.method, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def skipped_values(stats: StatsTable) -> int:
    """NaN, infinite and mask values that were seen and kept out of every range."""
    return sum(stats[tensor].extremes.skipped for tensor in stats)
