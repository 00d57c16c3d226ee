"""Auto picks, for each scale, among other methods' ranges; the expected error behind it against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qconvert.calibrate.expected_error import ExpectedError
from qconvert.calibrate.method import ALIKE, METHODS, Seen
from qconvert.calibrate.methods.auto import CANDIDATES, Auto
from qconvert.calibrate.outliers import inliers
from qconvert.numerics.affine import dequantize, params_from_range, quantize
from qconvert.numerics.dtypes import INT8, UINT8
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.histogram import Histogram

SPECS = [QuantSpec(qtype=t, symmetric=s) for t in (UINT8, INT8) for s in (False, True)]
DATA = {
    "normal": np.random.default_rng(0).normal(0, 1, 20_000),
    "relu": np.maximum(np.random.default_rng(1).normal(0, 1, 20_000), 0),
    "heavy tails": np.random.default_rng(2).standard_t(3, 20_000),
    "uniform": np.random.default_rng(3).uniform(-1, 3, 20_000),
}


def histogram(x: np.ndarray) -> Histogram:
    made = Histogram(max_elements=None)
    made.update(x.astype(np.float32))
    return made


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.qtype.name}-{'sym' if s.symmetric else 'asym'}")
@pytest.mark.parametrize("name", DATA)
def test_expected_error_is_that_of_quantizing(name: str, spec: QuantSpec) -> None:
    x = DATA[name].astype(np.float32)
    hist = histogram(x)
    for share in (1.0, 0.6):
        lo, hi = share * float(x.min()), share * float(x.max())
        rounding, clipping = ExpectedError(hist, inliers(hist)).parts(lo, hi, spec)
        params = params_from_range(lo, hi, spec)
        found = float(np.sum((dequantize(quantize(x, params), params).astype(np.float64) - x) ** 2))
        assert rounding + clipping == pytest.approx(found, rel=0.03)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.qtype.name}-{'sym' if s.symmetric else 'asym'}")
@pytest.mark.parametrize("name", DATA)
def test_the_best_of_the_candidates_is_picked(name: str, spec: QuantSpec) -> None:
    hist = histogram(DATA[name])
    auto = Auto()
    weighed = auto.weigh(hist, spec)
    assert sorted(o.method for o in weighed) == sorted(CANDIDATES)
    error = ExpectedError(hist, inliers(hist))

    def cost(lo: float, hi: float) -> float:
        rounding, clipping = error.parts(lo, hi, spec)
        return rounding + auto.clipping_weight * clipping

    costs = [cost(*METHODS.get(o.method).range(hist, spec)) for o in weighed]
    assert costs == sorted(costs)
    assert auto.range(hist, spec) == (weighed[0].lo, weighed[0].hi)


def test_nothing_is_clipped_where_clipping_is_dear() -> None:
    hist = histogram(DATA["heavy tails"])
    lo, hi = replace(Auto(), clipping_weight=1e9).range(hist, SPECS[0])
    assert (lo, hi) == METHODS.get("minmax").range(hist, SPECS[0])


def test_nothing_seen_is_no_range() -> None:
    assert Auto().range(Histogram(), SPECS[0]) == (0.0, 0.0)


def test_before_a_slope_the_range_is_the_better_one_for_what_reads_it() -> None:
    """LeakyRelu of 0.1 behind elements of which the negative ones reach three times as far."""
    rng = np.random.default_rng(5)
    x = np.where(rng.random(60_000) < 0.5, rng.exponential(1.0, 60_000), -rng.exponential(3.0, 60_000))
    hist = histogram(x)
    plain, cut = (Auto().weigh(hist, SPECS[0], seen)[0] for seen in (ALIKE, Seen(below=[(hist, 0.1)])))

    def noise(lo: float, hi: float) -> float:
        params = params_from_range(lo, hi, SPECS[0])
        found = dequantize(quantize(x.astype(np.float32), params), params).astype(np.float64)
        return float(np.sum((np.where(found < 0, 0.1 * found, found) - np.where(x < 0, 0.1 * x, x)) ** 2))

    assert cut.lo > 0.9 * plain.lo
    assert noise(cut.lo, cut.hi) < 0.85 * noise(plain.lo, plain.hi)


def test_values_that_make_no_difference_neither_cost_nor_widen_the_range() -> None:
    x = np.concatenate([np.random.default_rng(6).normal(0, 1, 5000), [-200.0] * 50]).astype(np.float32)
    seen = Seen(useful=(-3.0, np.inf))
    found = Auto().weigh(histogram(x), SPECS[0], seen)[0]
    assert -3.0 <= found.lo < -2.0 and found.noise < 1e-4
    # by the range of all there is, the step would be forty times as long
    assert found.hi - found.lo < 0.05 * (max(x) - min(x))
