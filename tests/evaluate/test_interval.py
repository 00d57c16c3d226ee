"""Confidence intervals against published values, and the law that they must obey: how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.evaluate.interval import paired_interval, score_interval


def hits(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """The hits of two models, from the four cells of their table."""
    left = [True] * (both + first) + [False] * (second + neither)
    right = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(left), np.array(right)


def test_a_published_table() -> None:
    # Agresti, Categorical Data Analysis, table of approval ratings: 0.04, Wald 0.021 to 0.059
    found = paired_interval(*hits(794, 150, 86, 570))
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(64 / 1602)
    assert (found.low, found.high) == pytest.approx((0.0212, 0.0587), abs=2e-4)


def test_no_sample_that_changes_sides_is_no_certainty() -> None:
    found = paired_interval(*hits(500, 0, 0, 0))
    assert found is not None
    assert found.low == -found.high
    assert found.high == pytest.approx(1.96 / 502, rel=1e-3)


@pytest.mark.parametrize(
    ("seen", "missed", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 0, 0.7225, 1.0), (81, 182, 0.2553, 0.3662)]
)
def test_wilson(seen: int, missed: int, low: float, high: float) -> None:
    # the last: Newcombe 1998, Statistics in Medicine 17, 857-872, table I
    found = score_interval(np.array([True] * seen + [False] * missed))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("count", "quantile"), [(5, 2.776), (10, 2.262), (100, 1.984)])
def test_real_scores_take_student(count: int, quantile: float) -> None:
    values = np.random.default_rng(count).normal(size=count)
    found = score_interval(values)
    assert found is not None
    assert found.half_width == pytest.approx(quantile * values.std(ddof=1) / math.sqrt(count), rel=3e-3)


def test_what_says_nothing_has_no_interval() -> None:
    few, broken = np.ones(4), np.array([1.0, 2.0, np.inf, 3.0, 4.0])
    assert score_interval(few) is None
    assert score_interval(np.zeros(0, np.bool_)) is None
    assert paired_interval(broken, broken) is None
    assert paired_interval(np.ones(5), broken) is None


@pytest.mark.parametrize(("lost", "won"), [(0.01, 0.01), (0.02, 0.005), (0.1, 0.05)])
@pytest.mark.parametrize("count", [200, 1000])
def test_it_holds_the_truth_as_often_as_it_says(lost: float, won: float, count: int) -> None:
    tables = np.random.default_rng(1).multinomial(count, [0.85 - lost, lost, won, 0.15 - won], size=1000)
    held = 0
    for table in tables:
        found = paired_interval(*hits(*map(int, table)))
        assert found is not None
        held += found.low <= lost - won <= found.high
    assert held >= 935


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_the_models_turns_it_round(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    there, back = paired_interval(first, second), paired_interval(second, first)
    assert there is not None
    assert back is not None
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert -1 <= there.low <= there.high <= 1
