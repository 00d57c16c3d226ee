"""Ranges by the error of the outputs: coordinate descent over scale groups.

    e_i(R)   squared error of the outputs on sample i under the ranges R, as a share of the outputs' mean power
    R -> R'  if  t = mean(d) / (std(d) / sqrt(n)) > 1.5,  d_i = log(e_i(R) / e_i(R')),   and  sum e_i(R') < sum e_i(R)

A method sees the error of one tensor; what that does to the outputs depends on what reads it. all-MiniLM-L6-v2 gains
from cutting a few ranges to a third, which costs those tensors 20 dB: their outliers sit on tokens that matter little.
Such things show in the outputs alone.

Samples differ in their errors by powers of ten, so logarithms are compared, pair by pair, and only what is beyond one
and a half standard errors is believed; whether the search as a whole has helped is for other samples to say. A move is
raced: it is dropped after 8 samples if it does not help on them, and again each time they have doubled, so most moves
cost 8 runs. Moves are the ranges that were weighed, and cuts and extensions of the present one, each repeated while it
helps; all groups are gone through again as long as that brings something. Everything is deterministic; the work is
bounded by a number of runs, and a round ends early where one group after the other has nothing to gain. Source: ours;
the paired test is Student's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.spec import QParams
from qconvert.plan.model import Group

Errors = NDArray[np.float64]

Evaluate = Callable[[Mapping[int, QParams], int], float]
"""Error of the outputs on sample i, given the parameters of groups that differ from the plan's."""

# Factors of both ends, then of one. Strong cuts first: they say at once whether a tensor can be cut at all.
_BOTH = (0.7, 0.85)
_ONE = (0.85,)
_FINE = (0.95, 1.1)

# An end this much nearer to zero than the other stays where it is: GELU's -0.17 holds half of the elements.
_LOPSIDED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Constants of the search.

    Attributes:
        significance: t beyond which a gain is believed.
        least_gain: of the summed error, for which a change is worth making.
        first: samples after which a move may be dropped.
        patience: groups in a row without a gain after which a round ends.
    """

    significance: float = 1.5
    least_gain: float = 1e-3
    first: int = 8
    patience: int = 12


@dataclass(slots=True, kw_only=True)
class RangeSearch:
    """A search in progress.

    Attributes:
        groups: of the plan, solved.
        evaluate: runs one sample.
        samples: how many there are, at least 2.
        budget: how many runs there may be.
        options: constants.
        chosen: groups with other parameters than the plan's.
        runs: how many there were.
    """

    groups: Sequence[Group]
    evaluate: Evaluate
    samples: int
    budget: int
    options: SearchOptions = field(default_factory=SearchOptions)
    chosen: dict[int, QParams] = field(default_factory=dict)
    runs: int = 0
    _errors: Errors = field(default_factory=lambda: np.zeros(0))

    def run(self, order: Sequence[int], starts: Sequence[Mapping[int, QParams]] = ()) -> Mapping[int, QParams]:
        """Parameters that are better than the plan's, of the groups in ``order``, which are searched in this order.

        ``starts`` are whole plans, as far as they differ from the present one; the best of them is where it begins.
        """
        self._errors = self._measure({}, 0, self.samples)
        for start in starts:
            if self._affordable():
                self._accept(start)
        while self._round(order):
            pass
        return self.chosen

    def _round(self, order: Sequence[int]) -> bool:
        """Whether going through all groups once has brought anything."""
        idle = 0
        start = self.chosen
        for index in order:
            before = self._present(index)
            if idle < self.options.patience and self._affordable():
                self._improve(index)
            idle = idle + 1 if self._present(index) is before else 0
        return self.chosen is not start

    def _improve(self, index: int) -> None:
        group = self.groups[index]
        tried: set[tuple[float, int]] = set()
        self._is_new(self._present(index), tried)
        for option in group.options[1:]:
            self._try(index, option.lo, option.hi, tried)
        for factors in self._moves(index):
            while True:
                lo, hi = self._present(index).range
                if not self._try(index, lo * factors[0], hi * factors[1], tried):
                    break

    def _moves(self, index: int) -> list[tuple[float, float]]:
        """Factors of the lower and the upper end, one move after the other."""
        lo, hi = self._present(index).range
        both = [(f, f) for f in (*_BOTH, *_FINE)]
        if self.groups[index].spec.symmetric:
            return both
        if -lo < _LOPSIDED * hi:
            return [(1.0, f) for f, _ in both]
        if hi < -_LOPSIDED * lo:
            return [(f, 1.0) for f, _ in both]
        each = [pair for f in _ONE for pair in ((1.0, f), (f, 1.0))]
        return [*both[: len(_BOTH)], *each, *both[len(_BOTH) :]]

    def _present(self, index: int) -> QParams:
        params = self.chosen.get(index, self.groups[index].params)
        if params is None:
            raise InternalError(f"the group of {self.groups[index].tensors[0]} has no parameters to search from")
        return params

    def _try(self, index: int, lo: float, hi: float, tried: set[tuple[float, int]]) -> bool:
        """Whether the range is better, in which case it is taken."""
        params = params_from_range(lo, hi, self.groups[index].spec)
        if not self._is_new(params, tried) or not self._affordable():
            return False
        return self._accept({**self.chosen, index: params})

    @staticmethod
    def _is_new(params: QParams, tried: set[tuple[float, int]]) -> bool:
        key = float(params.scale), int(params.zero_point)
        known = key in tried
        tried.add(key)
        return not known

    def _accept(self, plan: Mapping[int, QParams]) -> bool:
        """Race ``plan`` against the present one."""
        errors = np.zeros(0)
        count = self.options.first
        while True:
            count = min(count, self.samples)
            errors = np.concatenate([errors, self._measure(plan, errors.size, count)])
            t, gain = _compare(self._errors[:count], errors)
            if t < 0 or gain < 0:
                return False
            if count == self.samples:
                break
            count *= 2
        if t <= self.options.significance or gain <= self.options.least_gain:
            return False
        self.chosen, self._errors = dict(plan), errors
        return True

    def _affordable(self) -> bool:
        """Whether one more move, raced to the end, stays within the budget."""
        return self.runs + self.samples <= self.budget

    def _measure(self, plan: Mapping[int, QParams], start: int, stop: int) -> Errors:
        self.runs += stop - start
        return np.array([self.evaluate(plan, i) for i in range(start, stop)])


def _compare(before: Errors, after: Errors) -> tuple[float, float]:
    """(t of the mean log ratio, share of the summed error that is gone); NaN of either side is no gain."""
    if not (np.isfinite(after).all() and before.sum() > 0):
        return -math.inf, -math.inf
    logs = np.log(np.maximum(before, 1e-300) / np.maximum(after, 1e-300))
    spread = logs.std(ddof=1) / math.sqrt(logs.size) if logs.size > 1 else math.inf
    mean = float(logs.mean())
    t = mean / spread if spread > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return t, 1.0 - float(after.sum() / before.sum())
