"""Ranges: other ranges of activations, where they bring the quantized outputs nearer to the float ones.

The search is that of :mod:`qconvert.recover.range_search`, the groups that are expected to add most noise first, on a
simulation whose scales and zero points are inputs, so that one session serves all candidates. Outputs are compared
before a last Softmax or Sigmoid (:mod:`qconvert.graph.tails`), of large ones an even sample. Groups whose range is
known beforehand, or that hold constants, are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.graph.simulate import free_names
from qconvert.graph.tails import before_squashing
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.spec import QParams
from qconvert.plan.model import Group, QuantPlan
from qconvert.recover.outputs import energy, mixed, part
from qconvert.recover.range_search import RangeSearch
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.simulation import simulation
from qconvert.recover.work import run_work


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesOptions:
    """Constants of the pass; they bound its cost.

    Attributes:
        least, most: samples to judge a range by.
        held: bytes of samples that are kept in memory.
        operations: work that the search may cost, in multiplications; 1e12 take about 16 s of two cores.
        runs: runs of the model that it may cost, however small the model is.
        a_group: runs a group below which the search is not begun.
    """

    least: int = 8
    most: int = 128
    held: int = 64 << 20
    operations: float = 1.5e12
    runs: int = 2000
    a_group: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The pass."""

    options: RangesOptions = field(default_factory=RangesOptions)
    name: str = "ranges"
    stage: Stage = Stage.SOLVED

    def apply(self, subject: Subject) -> Changes:
        """Better ranges; nothing where the model is too dear to search, or the samples too few."""
        plan = subject.plan
        if plan is None or not len(subject.samples):
            return Changes()
        free = {i: f"range_{i}" for i, g in enumerate(plan.groups) if _is_free(g)}
        size = sum(np.asarray(a).nbytes for a in next(iter(subject.samples)).values())
        count = min(len(subject.samples), self.options.most, self.options.held // max(1, size))
        if not free or count < self.options.least:
            return Changes()
        each = run_work(subject)
        budget = int(subject.work * min(self.options.runs, self.options.operations / max(1.0, each)))
        if budget < self.options.a_group * len(free):
            return Changes()
        outputs = _Outputs.of(subject, plan, free, count)
        search = RangeSearch(groups=plan.groups, evaluate=outputs.error, samples=count, budget=budget)
        noise = {i: max((o.noise for o in plan.groups[i].options[:1]), default=0.0) for i in free}
        chosen = search.run(sorted(free, key=lambda i: (-noise[i], i)), starts=_starts(plan, free))
        return Changes(ranges={plan.groups[i].tensors[0]: p for i, p in chosen.items()}, changed=len(chosen))


def _is_free(group: Group) -> bool:
    return group.fixed_range is None and bool(group.observed) and not group.constants and group.params is not None


def _starts(plan: QuantPlan, free: Mapping[int, str]) -> list[dict[int, QParams]]:
    """For each method that was weighed, the parameters that it alone would give."""
    found: dict[str, dict[int, QParams]] = {}
    for i in free:
        group = plan.groups[i]
        for option in group.options:
            params = params_from_range(option.lo, option.hi, group.spec)
            if group.params is not None and not params.same_as(group.params):
                found.setdefault(option.method, {})[i] = params
    return list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Outputs:
    """Outputs of the float model, and of the quantized one under any ranges.

    Attributes:
        quantized: the simulation.
        feeds: inputs of the model.
        expected: outputs of the float model, by sample.
        power: mean sum of squares of each output.
        given: the plan's ranges, as inputs.
        free: groups, and the stems of their inputs' names.
    """

    quantized: Session
    feeds: Sequence[Feed]
    expected: Sequence[Sequence[NDArray[np.float32]]]
    power: Sequence[float]
    given: Feed
    free: Mapping[int, str]

    @classmethod
    def of(cls, subject: Subject, plan: QuantPlan, free: Mapping[int, str], count: int) -> _Outputs:
        reference = session_of(before_squashing(subject.model))
        quantized = session_of(before_squashing(simulation(subject, plan, {}, free)), integers=False)
        feeds = mixed(list(subject.samples.first(count)))
        expected = [[part(a) for a in reference.run_on(f)] for f in feeds]
        power = [float(np.mean([energy(a) for a in column])) for column in zip(*expected, strict=True)]
        given: dict[str, NDArray[np.generic]] = {}
        for i, stem in free.items():
            params = plan.groups[i].params
            if params is not None:
                given |= _as_inputs(stem, params)
        return cls(
            quantized=quantized,
            feeds=feeds,
            expected=expected,
            power=power,
            given=given,
            free=free,
        )

    def error(self, changed: Mapping[int, QParams], i: int) -> float:
        """Mean over the outputs of squared error to power, on sample ``i``."""
        given = dict(self.given)
        for group, params in changed.items():
            given |= _as_inputs(self.free[group], params)
        results = self.quantized.run_on({**self.feeds[i], **given})
        shares = [
            energy(part(q) - r) / p if p > 0 else 0.0
            for q, r, p in zip(results, self.expected[i], self.power, strict=True)
        ]
        return sum(shares) / max(1, len(shares))


def _as_inputs(stem: str, params: QParams) -> dict[str, NDArray[np.generic]]:
    return dict(zip(free_names(stem), (params.scale, params.zero_point), strict=True))


RECOVERIES.add("ranges", Ranges())
