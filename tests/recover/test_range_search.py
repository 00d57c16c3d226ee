"""The search for ranges by the outputs' error, on an error that is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qconvert.numerics.affine import params_from_range
from qconvert.numerics.dtypes import UINT8
from qconvert.numerics.spec import QParams, QuantSpec
from qconvert.plan.model import Group
from qconvert.recover.range_search import RangeSearch

SPEC = QuantSpec(qtype=UINT8, symmetric=False)
GROUPS = tuple(
    Group(tensors=(name,), spec=SPEC, observed=(name,), params=params_from_range(-1.0, 1.0, SPEC)) for name in "abc"
)
NOISE = np.random.default_rng(0).uniform(0.9, 1.1, 64)


def searched(best: Mapping[int, float], budget: int = 4000) -> tuple[dict[int, QParams], int]:
    """The search's result where group i is best at ``best[i]`` times its width, each sample with a scale of its own."""

    def error(changed: Mapping[int, QParams], sample: int) -> float:
        widths = {i: changed.get(i, g.params).range for i, g in enumerate(GROUPS)}  # type: ignore[union-attr]
        off = sum(((hi - lo) / 2 - best.get(i, 1.0)) ** 2 for i, (lo, hi) in widths.items())
        return float(NOISE[sample] * (0.05 + off))

    search = RangeSearch(groups=GROUPS, evaluate=error, samples=64, budget=budget)
    return search.run([0, 1, 2]), search.runs


def test_ranges_move_towards_what_is_best() -> None:
    found, runs = searched({1: 0.5})
    assert set(found) == {1}
    lo, hi = found[1].range
    assert 0.4 < (hi - lo) / 2 < 0.65
    assert runs <= 4000


def test_nothing_moves_where_nothing_gains() -> None:
    assert searched({})[0] == {}


def test_the_budget_bounds_the_runs() -> None:
    _, runs = searched({0: 0.4, 1: 0.5, 2: 0.6}, budget=200)
    assert runs <= 200


def test_it_is_deterministic() -> None:
    first, second = searched({0: 0.6, 2: 1.3}), searched({0: 0.6, 2: 1.3})
    assert first[1] == second[1]
    assert all(first[0][i].same_as(second[0][i]) for i in first[0])


def test_the_small_end_of_a_lopsided_range_stays() -> None:
    # As behind GELU: half of the elements are above -0.17, and what is above 6 does not matter.
    group = Group(tensors=("x",), spec=SPEC, observed=("x",), params=params_from_range(-0.17, 24.0, SPEC))

    def error(changed: Mapping[int, QParams], sample: int) -> float:
        lo, hi = changed[0].range if changed else (-0.17, 24.0)
        return float(NOISE[sample] * (0.05 + (hi - 6.0) ** 2 + 1e4 * max(0.0, lo + 0.12)))

    found = RangeSearch(groups=(group,), evaluate=error, samples=64, budget=4000).run([0])
    lo, hi = found[0].range
    assert lo < -0.12
    assert 5.0 < hi < 7.5


def test_a_whole_plan_can_be_where_it_starts() -> None:
    start = {0: params_from_range(-0.5, 0.5, SPEC), 2: params_from_range(-0.6, 0.6, SPEC)}

    def error(changed: Mapping[int, QParams], sample: int) -> float:
        # either change alone is worse than none
        return float(NOISE[sample] * {0: 1.0, 1: 2.0, 2: 0.3}[len(changed)])

    search = RangeSearch(groups=GROUPS, evaluate=error, samples=64, budget=4000)
    assert search.run([], starts=[{1: start[0]}, start]) == start


def test_a_gain_on_the_mean_that_few_samples_carry_is_not_believed() -> None:
    def error(changed: Mapping[int, QParams], sample: int) -> float:
        return (50.0 if sample == 0 and not changed else 1.0) * float(NOISE[sample] if changed else 1.0)

    assert RangeSearch(groups=GROUPS, evaluate=error, samples=64, budget=4000).run([0, 1, 2]) == {}
