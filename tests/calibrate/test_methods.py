"""Calibration methods: what ranges they choose, and what they may never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qconvert.calibrate.method import METHODS
from qconvert.calibrate.methods.percentile import Percentile
from qconvert.errors import InternalError, RecipeError
from qconvert.numerics.affine import dequantize, params_from_range, quantize
from qconvert.numerics.dtypes import INT8, INT32, UINT8
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.histogram import Histogram
from qconvert.stats.minmax import MinMax

SPECS = {
    "uint8": QuantSpec(qtype=UINT8, symmetric=False),
    "uint8 symmetric": QuantSpec(qtype=UINT8, symmetric=True),
    "int8": QuantSpec(qtype=INT8, symmetric=False),
    "int8 symmetric": QuantSpec(qtype=INT8, symmetric=True, narrow_range=True),
}
NAMES = ("entropy", "mean-minmax", "minmax", "moving-average", "mse", "percentile")
CLIPPING = ("entropy", "mse", "percentile")
AVERAGING = ("mean-minmax", "moving-average")
SIZE = 300_000
law = settings(max_examples=50, deadline=None)


def normal(size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def _distributions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    size = 60_000
    two_humps = np.concatenate([rng.normal(-3, 0.2, size // 2), rng.normal(5, 0.5, size // 2)])
    made = {
        "normal": rng.normal(size=size),
        "laplace": rng.laplace(size=size),
        "uniform": rng.uniform(-1, 1, size),
        "relu": np.maximum(rng.normal(size=size), 0),
        "relu6": np.clip(rng.normal(2, 3, size), 0, 6),
        "bimodal": two_humps,
        "negative": -np.abs(rng.normal(size=size)),
        "shifted": rng.normal(10, 0.1, size),
        "heavy tails": rng.standard_t(3, size),
        "outliers": np.append(rng.normal(size=size), [40, 60, 41]),
        "integers": rng.integers(0, 9, size),
        "constant": np.full(size, 3.3),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


DISTRIBUTIONS = _distributions()


def chosen(name: str, spec: QuantSpec, *arrays: np.ndarray) -> tuple[float, float]:
    method = METHODS.get(name)
    statistic = method.needs()
    for array in arrays:
        statistic.update(array)
    return method.range(statistic, spec)


def squared_error(x: np.ndarray, bounds: tuple[float, float], spec: QuantSpec) -> float:
    params = params_from_range(*bounds, spec)
    return float(np.mean(np.square(dequantize(quantize(x, params), params).astype(np.float64) - x)))


def test_all_methods_are_found() -> None:
    assert set(NAMES) <= set(METHODS.names())
    assert all(METHODS.get(name).name == name for name in METHODS.names())


@pytest.mark.parametrize("size", [2_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_one_outlier_is_clipped(spec: QuantSpec, size: int) -> None:
    x = np.append(normal(size), np.float32(40))
    for samples in ([x], np.array_split(x, max(size // 5000, 1))):
        for name in CLIPPING:
            lo, hi = chosen(name, spec, *samples)
            assert 2.5 < hi < 8.0, name
            assert -8.0 < lo < -2.5, name
        assert chosen("minmax", spec, *samples)[1] == 40.0


@pytest.mark.parametrize("name", CLIPPING)
def test_an_outlier_at_each_end_is_clipped(name: str) -> None:
    lo, hi = chosen(name, SPECS["uint8"], normal(5_000), np.array([40, -60], np.float32))
    assert -8.0 < lo < -2.5
    assert 2.5 < hi < 8.0


@pytest.mark.parametrize("name", CLIPPING)
def test_what_each_sample_has_is_no_outlier(name: str) -> None:
    samples = [np.append(normal(1_000, seed), np.float32(40 + seed / 10)) for seed in range(20)]
    hi = chosen(name, SPECS["uint8"], *samples)[1]
    # entropy looks at shares of mass alone: 0.1 % may go
    assert hi > 35.0 or name == "entropy"


@pytest.mark.parametrize("draw", ["normal", "exponential", "laplace", "uniform", "logistic"])
def test_ordinary_small_samples_keep_their_extremes(draw: str) -> None:
    for seed in range(200):
        x = getattr(np.random.default_rng(seed), draw)(size=1_000 + seed).astype(np.float32)
        assert chosen("percentile", SPECS["uint8"], x) == (x.min(), x.max())


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("data", DISTRIBUTIONS)
@pytest.mark.parametrize("limit", [None, 1 << 13], ids=["all", "sampled"])
def test_mse_is_never_worse_than_minmax(data: str, spec: QuantSpec, limit: int | None) -> None:
    x = DISTRIBUTIONS[data]
    hist = Histogram(max_elements=limit)
    hist.update(x)
    whole = squared_error(x, METHODS.get("minmax").range(hist, spec), spec)
    found = squared_error(x, METHODS.get("mse").range(hist, spec), spec)
    # Integers and constants sit where a bin has no inner shape to offer: rounding to 1e-3 of a step is no loss.
    assert found <= whole * 1.01 + 1e-9


def test_mse_finds_the_optimum_of_a_normal_distribution() -> None:
    # The optimum of an 8-bit grid for N(0, 1) is 3.92 (Banner et al. 2019).
    lo, hi = chosen("mse", SPECS["uint8"], normal())
    assert -4.2 < lo < -3.6
    assert 3.6 < hi < 4.2


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", NAMES)
@law
@given(
    x=hnp.arrays(
        np.float32,
        st.integers(1, 60),
        elements=st.one_of(st.floats(-3, 3, width=32), st.floats(width=32), st.just(-3.4e38)),
    )
)
def test_ranges_stay_within_the_data(name: str, spec: QuantSpec, x: np.ndarray) -> None:
    usable = x[np.isfinite(x) & (np.abs(x) < 1e30)]
    lo, hi = chosen(name, spec, x)
    if usable.size == 0:
        assert (lo, hi) == (0.0, 0.0)
    else:
        assert usable.min() <= lo <= hi <= usable.max()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", NAMES)
def test_sentinels_and_non_numbers_do_not_move_the_range(name: str, spec: QuantSpec) -> None:
    odd = np.array([-3.4e38, np.nan, np.inf, -np.inf, 1e30], np.float32)
    x = normal(30_000)
    assert chosen(name, spec, np.concatenate([x, odd])) == chosen(name, spec, x)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", NAMES)
def test_relu_data_start_at_zero(name: str, spec: QuantSpec) -> None:
    lo, hi = chosen(name, spec, np.maximum(normal(), 0))
    assert lo == 0.0
    assert 3.0 < hi < 6.0


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_statistic_gives_zero(name: str) -> None:
    assert METHODS.get(name).range(METHODS.get(name).needs(), SPECS["uint8"]) == (0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_wide_integers_are_not_clipped(name: str) -> None:
    x = normal(10_000)
    lo, hi = chosen(name, QuantSpec(qtype=INT32, symmetric=True), x)
    assert (lo, hi) == (float(x.min()), float(x.max()))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("percentile", [95.0, 99.0, 99.9, 99.99])
def test_percentile_is_exact_within_one_bin(percentile: float, symmetric: bool) -> None:
    x = np.random.default_rng(5).gamma(2.0, size=50_000).astype(np.float32) - np.float32(1.5)
    hist = Histogram(max_elements=None)
    hist.update(x)
    lo, hi = Percentile(percentile=percentile).range(hist, QuantSpec(qtype=INT8, symmetric=symmetric))
    left_out = x.size * (1 - percentile / 100)
    if symmetric:
        limit = max(-lo, hi)
        assert np.count_nonzero(np.abs(x) > limit) <= left_out < np.count_nonzero(np.abs(x) >= limit - hist.width)
        assert (lo, hi) == (max(-limit, x.min()), min(limit, x.max()))
    else:
        assert np.count_nonzero(x > hi) <= left_out / 2 < np.count_nonzero(x >= hi - hist.width)
        assert np.count_nonzero(x < lo) <= left_out / 2 < np.count_nonzero(x <= lo + hist.width)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("data", DISTRIBUTIONS)
def test_percentile_is_that_of_all_elements_though_most_are_not_counted(data: str, symmetric: bool) -> None:
    x = DISTRIBUTIONS[data]
    hist = Histogram()
    for part in np.array_split(x, 5):
        hist.update(part)
    lo, hi = Percentile(percentile=99.99).range(hist, QuantSpec(qtype=INT8, symmetric=symmetric))
    if symmetric:
        limit = np.sort(np.abs(x))[-1 - int(x.size * 1e-4 + 1e-9)]
        assert limit - 1e-6 <= max(-lo, hi) <= limit + hist.width
    else:
        ordered, cut = np.sort(x), int(x.size * 0.5e-4 + 1e-9)
        assert ordered[cut] - hist.width <= lo <= ordered[cut] + 1e-6
        assert ordered[-1 - cut] - 1e-6 <= hi <= ordered[-1 - cut] + hist.width


def test_percentile_never_cuts_a_small_tensor() -> None:
    x = np.array([-9.0, 0.1, 0.2, 50.0], np.float32)
    assert chosen("percentile", SPECS["uint8"], x) == (-9.0, 50.0)


@pytest.mark.parametrize("percentile", [50.0, 100.5, float("nan")])
def test_percentile_must_be_one(percentile: float) -> None:
    with pytest.raises(RecipeError, match="percentile"):
        Percentile(percentile=percentile)


def test_a_method_refuses_a_statistic_without_a_histogram() -> None:
    with pytest.raises(InternalError, match="Histogram"):
        METHODS.get("mse").range(MinMax(), SPECS["uint8"])
