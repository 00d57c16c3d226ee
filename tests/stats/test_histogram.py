"""Histogram: where elements are counted, and how the layout follows from the range."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qconvert.errors import DataError, InternalError
from qconvert.stats.histogram import Histogram
from qconvert.stats.sampling import stride


def seen(*arrays: np.ndarray, bins: int = 4096, max_elements: int | None = None) -> Histogram:
    hist = Histogram(bins=bins, max_elements=max_elements)
    for array in arrays:
        hist.update(array)
    return hist


def test_every_element_is_in_its_bin() -> None:
    x = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    hist = seen(x, bins=128)
    expected, _ = np.histogram(x.astype(np.float64), hist.edges())
    assert hist.counts.dtype == np.int64
    assert np.array_equal(hist.counts, expected)


@pytest.mark.parametrize("bins", [2, 3, 7, 64, 4096])
@pytest.mark.parametrize("lo, hi", [(-1, 1), (-1, 0), (3, 8), (-1e-40, 4e3), (-5, 1e-3), (6e3, 1e20), (-1e3, 7e3)])
def test_width_is_the_least_power_of_two_that_fits(lo: float, hi: float, bins: int) -> None:
    hist = seen(np.array([lo, hi], np.float32), bins=bins)
    a, b = min(float(np.float32(lo)), 0.0), max(float(np.float32(hi)), 0.0)

    def needed(width: float) -> int:
        return math.floor(b / width) - math.floor(a / width) + 1

    assert math.frexp(hist.width)[0] == 0.5
    assert hist.counts.size == needed(hist.width) <= bins
    assert hist.exponent == -149 or needed(hist.width / 2) > bins
    assert hist.counts.sum() == 2


def test_powers_of_two_start_their_own_bin() -> None:
    x = np.array([-2, -1, -0.5, 0, 0.5, 1, 2, 4], np.float32)
    hist = seen(x, bins=16)
    assert np.array_equal(hist.edges()[:-1][hist.counts > 0], x)


def test_growth_coarsens_exactly() -> None:
    x = np.random.default_rng(1).laplace(size=3000).astype(np.float32)
    parts = [x * np.float32(1e-6), x, x * np.float32(1e4)]
    assert seen(*parts) == seen(np.concatenate(parts)) == seen(*reversed(parts))


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-45, 1.0, -3.3, 9.9e29])
def test_single_values(value: float) -> None:
    hist = seen(np.full(7, value, np.float32))
    at = int(np.argmax(hist.counts))
    assert hist.counts.sum() == 7 == hist.counts[at]
    assert hist.edges()[at] <= np.float32(value) < hist.edges()[at + 1]


def test_zeros_take_one_bin_until_something_else_comes() -> None:
    hist = seen(np.zeros(10, np.float32))
    assert hist.counts.tolist() == [10]
    hist.update(np.array([4e3, -4e3], np.float32))
    assert hist.counts[-hist.lo_bin] == 10


def test_half_and_double_input() -> None:
    x = np.random.default_rng(2).normal(size=1000).astype(np.float16)
    assert seen(x) == seen(x.astype(np.float32)) == seen(x.astype(np.float64))
    assert seen(np.array([-5e-324, 1e3, 1 - 1e-16])).counts.sum() == 3
    assert seen(np.array([1.0, -1e300])).extremes.neginf == 1


def test_unusable_elements_are_not_counted() -> None:
    hist = seen(np.array([np.nan, np.inf, -3.4e38, 1, 2], np.float32))
    assert (hist.counts.sum(), hist.extremes.lo, hist.extremes.hi, hist.extremes.nan) == (2, 1.0, 2.0, 1)
    assert seen(np.array([np.nan], np.float32)).counts.sum() == 0


@pytest.mark.parametrize("size", [1, 100, 65536, 65537, 64 * 112 * 112, 3 * 224 * 224, 30030 * 64])
def test_stride_shares_no_factor_with_the_size(size: int) -> None:
    step = stride(size, 1 << 16)
    assert math.gcd(step, size) == 1 or step == 1
    assert -(-size // step) <= 1 << 16
    assert stride(size, None) == 1


def test_a_sample_visits_every_channel() -> None:
    x = np.zeros((1, 64, 64, 48), np.float32)
    x += np.arange(48, dtype=np.float32)
    sampled = seen(x, max_elements=1 << 12)
    share = sampled.counts[sampled.counts > 0] / sampled.counts.sum()
    assert share.size == 48
    assert np.allclose(share, 1 / 48, rtol=0.05)


@pytest.mark.parametrize("size", [4_099, 20_000, 100_003, 64 * 112 * 112, 1_500_000])
def test_a_sample_counts_the_tails_exactly(size: int) -> None:
    x = np.random.default_rng(3).normal(size=size).astype(np.float32)
    x[1234], x[-1] = 40.0, -6.0
    sampled, whole = seen(x, max_elements=1 << 12), seen(x)
    assert sampled.extremes == whole.extremes
    assert (sampled.width, sampled.lo_bin) == (whole.width, whole.lo_bin)
    # 16 elements at each end, or 1 of 65 536
    tail = max(16, size // 65_536)
    low, high = np.sort(x)[[tail - 1, -tail]]
    edges = sampled.edges()
    outside = (edges[1:] < low) | (edges[:-1] > high)
    assert np.array_equal(sampled.counts[outside], whole.counts[outside])
    assert sampled.counts[outside].sum() >= tail
    assert abs(int(sampled.counts.sum()) - size) < 0.01 * size


def test_a_sample_shows_the_bulk() -> None:
    x = np.random.default_rng(4).gamma(2.0, size=500_000).astype(np.float32)
    sampled, whole = seen(x, max_elements=1 << 12), seen(x)
    worst = np.abs(np.cumsum(sampled.counts) / sampled.counts.sum() - np.cumsum(whole.counts) / x.size).max()
    # Kolmogorov-Smirnov: above 1.95 / sqrt(n) once in a thousand
    assert worst < 1.95 / np.sqrt(4096)


def test_masks_do_not_coarsen_the_bins() -> None:
    x = np.random.default_rng(5).normal(size=3000).astype(np.float32)
    masked = seen(np.append(x, np.float32([-1e9, -1e9 + 64])))
    assert masked.extremes.masks == 2
    assert (masked.width, masked.counts.sum()) == (seen(x).width, 3000)
    assert np.array_equal(masked.counts, seen(x).counts)


def test_merge_needs_equal_options() -> None:
    with pytest.raises(InternalError, match="cannot be merged"):
        Histogram(bins=64).merge(Histogram(bins=128))
    with pytest.raises(InternalError, match="at least 2"):
        Histogram(bins=1)


def test_damaged_arrays_are_refused() -> None:
    arrays = seen(np.ones(3, np.float32)).to_arrays()
    with pytest.raises(DataError):
        Histogram.from_arrays({**arrays, "near": arrays["near"][:-1]})
