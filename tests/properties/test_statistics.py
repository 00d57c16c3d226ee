"""The laws of a statistic: a commutative monoid, and S(A then B) == merge(S(A), S(B)) bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qconvert.stats.histogram import Histogram
from qconvert.stats.mean_range import MeanRange
from qconvert.stats.minmax import MinMax
from qconvert.stats.moving_range import MovingRange

Statistic = MinMax | Histogram | MeanRange | MovingRange
Make = Callable[[], Statistic]

MAKERS: dict[str, Make] = {
    "minmax": MinMax,
    "histogram": lambda: Histogram(bins=32, max_elements=None),
    "sampled histogram": lambda: Histogram(bins=32, max_elements=8),
    "mean range": MeanRange,
    "moving range": MovingRange,
}
UNSAMPLED = ["minmax", "histogram"]

# All floats, the special ones and masks included, and a bulk of ordinary size, in which bins are shared.
special = st.sampled_from([0.0, -0.0, 1.0, -2.0, -3.4e38, -1e4, -9998.0, 2e4, -1e9])
elements = st.one_of(st.floats(width=32), st.floats(-4, 4, width=32), special)
sample = hnp.arrays(np.float32, st.integers(0, 40), elements=elements)
samples = st.lists(sample, max_size=6)
law = settings(max_examples=80, deadline=None)


def seen(make: Make, arrays: Sequence[np.ndarray]) -> Statistic:
    stat = make()
    for array in arrays:
        stat.update(array)
    return stat


def bits(stat: Statistic) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in stat.to_arrays().items()}


@pytest.mark.parametrize("kind", MAKERS)
@law
@given(a=samples, b=samples, c=samples)
def test_merge_is_a_commutative_monoid(kind: str, a: list, b: list, c: list) -> None:
    make = MAKERS[kind]
    x, y, z = seen(make, a), seen(make, b), seen(make, c)
    before = bits(x), bits(y)
    assert bits(x.merge(y).merge(z)) == bits(x.merge(y.merge(z)))
    assert bits(x.merge(y)) == bits(y.merge(x))
    assert bits(x.merge(make())) == bits(make().merge(x)) == bits(x)
    assert (bits(x), bits(y)) == before, "merge changed an operand"


@pytest.mark.parametrize("kind", MAKERS)
@law
@given(arrays=samples, data=st.data())
def test_order_and_split_of_samples_do_not_matter(kind: str, arrays: list, data: st.DataObject) -> None:
    make = MAKERS[kind]
    shuffled = data.draw(st.permutations(arrays))
    cut = data.draw(st.integers(0, len(shuffled)))
    parts = seen(make, shuffled[:cut]).merge(seen(make, shuffled[cut:]))
    assert bits(parts) == bits(seen(make, arrays))
    assert parts == seen(make, arrays)


@pytest.mark.parametrize("kind", MAKERS)
@law
@given(
    rows=hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(0, 40)), elements=elements),
    cuts=st.lists(st.integers(0, 5), max_size=3),
)
def test_many_samples_at_once_are_the_same_as_one_by_one(kind: str, rows: np.ndarray, cuts: list) -> None:
    one_by_one = seen(MAKERS[kind], list(rows))
    at_once = MAKERS[kind]()
    for part in np.split(rows, sorted(min(c, len(rows)) for c in cuts)):
        at_once.update_many(part)
    assert bits(at_once) == bits(one_by_one)


@pytest.mark.parametrize("size", [4097, 9_999, 50_176, 300_000])
def test_sampled_rows_are_the_same_as_one_by_one(size: int) -> None:
    rows = np.random.default_rng(size).standard_t(2, size=(5, size)).astype(np.float32)
    rows[1] = np.maximum(rows[1], 0)
    rows[2, 7], rows[2, -1], rows[3, :9] = np.nan, np.inf, -10_000
    one_by_one, at_once, backwards = Histogram(), Histogram(), Histogram()
    for row in rows:
        one_by_one.update(row)
    at_once.update_many(rows)
    backwards.update_many(rows[::-1])
    assert bits(at_once) == bits(one_by_one) == bits(backwards)


@pytest.mark.parametrize("kind", UNSAMPLED)
@law
@given(array=sample, cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 99))
def test_any_split_of_elements_gives_the_same(kind: str, array: np.ndarray, cuts: list, seed: int) -> None:
    make = MAKERS[kind]
    shuffled = np.random.default_rng(seed).permutation(array)
    assert bits(seen(make, np.split(shuffled, sorted(cuts)))) == bits(seen(make, [array]))


@pytest.mark.parametrize("kind", MAKERS)
@law
@given(arrays=samples)
def test_arrays_hold_all_of_it(kind: str, arrays: list) -> None:
    stat = seen(MAKERS[kind], arrays)
    again = type(stat).from_arrays(stat.to_arrays())
    assert bits(again) == bits(stat)
    more = np.array([1e20, -1e-20], np.float32)
    stat.update(more)
    again.update(more)
    assert bits(again) == bits(stat)


@law
@given(arrays=samples)
def test_counts_sum_to_the_usable_elements(arrays: list) -> None:
    hist = seen(MAKERS["histogram"], arrays)
    assert isinstance(hist, Histogram)
    usable = np.concatenate([np.zeros(0, np.float32), *arrays])
    usable = usable[np.isfinite(usable) & (np.abs(usable) < (5000 if hist.extremes.masked else 1e30))]
    assert hist.counts.sum() == usable.size == hist.extremes.usable
    assert hist.counts.size <= 32
    if usable.size:
        assert (hist.extremes.lo, hist.extremes.hi) == (float(usable.min()), float(usable.max()))
        index = np.floor(usable.astype(np.float64) / hist.width).astype(np.int64) - hist.lo_bin
        assert np.array_equal(np.bincount(index, minlength=hist.counts.size), hist.counts)


@law
@given(array=sample, growth=st.floats(np.float32(1e-3), 4999, width=32))
def test_coarsening_adds_neighbours(array: np.ndarray, growth: float) -> None:
    array = array[np.abs(array) < 5000]
    fine, coarse = seen(MAKERS["histogram"], [array]), seen(MAKERS["histogram"], [array])
    assert isinstance(fine, Histogram)
    assert isinstance(coarse, Histogram)
    coarse.update(np.array([growth], np.float32))
    expected = np.zeros_like(coarse.counts)
    index = np.arange(fine.lo_bin, fine.lo_bin + fine.counts.size)
    np.add.at(expected, (index >> min(coarse.exponent - fine.exponent, 62)) - coarse.lo_bin, fine.counts)
    expected[int(np.float32(growth) / coarse.width) - coarse.lo_bin] += 1
    assert np.array_equal(coarse.counts, expected)


@law
@given(array=sample)
def test_elements_as_large_as_masks_have_the_bins_they_would_have_had(array: np.ndarray) -> None:
    hist = seen(MAKERS["histogram"], [array])
    assert isinstance(hist, Histogram)
    if hist.extremes.far.count and not hist.extremes.masked:
        finite = array[np.abs(array) < 1e30].astype(np.float64)
        index = np.floor(finite / hist.width).astype(np.int64) - hist.lo_bin
        assert np.array_equal(np.bincount(index, minlength=hist.counts.size), hist.counts)
        assert hist.counts.size <= 32
