"""Histograms of a report: few bins, no element lost, and what is said to be clipped."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.numerics.affine import params_from_range
from qconvert.numerics.dtypes import UINT8 as CODES
from qconvert.numerics.spec import QuantSpec
from qconvert.plan.model import Group, QuantPlan
from qconvert.report.layers import MOST_BINS, tensor_reports
from qconvert.report.model import TensorReport
from qconvert.stats.histogram import Histogram
from qconvert.stats.minmax import MinMax
from qconvert.stats.statistic import Statistic, StatsTable

UINT8 = QuantSpec(qtype=CODES, symmetric=False)


def reported(statistic: Statistic | None, lo: float = -1.0, hi: float = 1.0) -> TensorReport:
    group = Group(tensors=("x",), spec=UINT8, observed=("x",), params=params_from_range(lo, hi, UINT8), method="mse")
    stats = StatsTable(entries={} if statistic is None else {"x": statistic})
    (found,) = tensor_reports(QuantPlan(nodes={}, groups=(group,)), stats)
    return found


def seen(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.update(values.astype(np.float32))
    return histogram


@given(st.lists(st.floats(-4000, 4000, width=32), min_size=1, max_size=60))
def test_no_element_is_lost_or_moved(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    h = reported(seen(values)).histogram
    assert h is not None
    assert len(h.counts) <= MOST_BINS
    bins = (np.floor(values.astype(np.float64) / h.width) - h.start / h.width).astype(int)
    assert np.array_equal(np.bincount(bins, minlength=len(h.counts)), h.counts)
    assert math.frexp(h.width)[0] == 0.5


def test_there_are_enough_bins_to_see_a_shape() -> None:
    h = reported(seen(np.linspace(-3, 5, 999))).histogram
    assert h is not None and len(h.counts) > MOST_BINS / 4


def test_clipped_is_what_lies_more_than_half_a_step_outside() -> None:
    inside = np.linspace(-1, 1, 900)
    assert reported(seen(inside)).clipped == 0.0
    assert reported(seen(np.append(inside, [1.003] * 100))).clipped == 0.0
    assert reported(seen(np.append(inside, [1.2] * 100))).clipped == pytest.approx(0.1)


def test_without_a_histogram_there_is_the_range_and_without_data_neither() -> None:
    extremes = MinMax()
    extremes.update(np.array([-2.0, 3.0], np.float32))
    only_range, nothing = reported(extremes), reported(None)
    assert (only_range.observed, only_range.histogram, only_range.clipped) == ((-2.0, 3.0), None, None)
    assert (nothing.observed, nothing.histogram) == (None, None)
    assert nothing.range == pytest.approx((-1.0, 1.0), abs=0.01)


def test_tensors_that_share_a_scale_say_so() -> None:
    group = Group(tensors=("a", "b", "c"), spec=UINT8, constants=("c",), params=params_from_range(0, 1, UINT8))
    reports = tensor_reports(QuantPlan(nodes={}, groups=(group,)), StatsTable(), "If_1/then_branch")
    assert [(t.name, t.shared_with) for t in reports] == [
        ("If_1/then_branch/a", None),
        ("If_1/then_branch/b", "If_1/then_branch/a"),
    ]
