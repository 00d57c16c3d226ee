"""Calibration methods against slow references that try everything, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from qconvert.calibrate.method import METHODS
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.dtypes import INT8, UINT8
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.histogram import Histogram

SPECS = {
    "uint8": QuantSpec(qtype=UINT8, symmetric=False),
    "int8": QuantSpec(qtype=INT8, symmetric=False),
    "uint8 symmetric": QuantSpec(qtype=UINT8, symmetric=True),
    "int8 symmetric": QuantSpec(qtype=INT8, symmetric=True, narrow_range=True),
}
SIZE = 20_000


def _distributions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    made = {
        "normal": rng.normal(size=SIZE),
        "relu": np.maximum(rng.normal(size=SIZE), 0),
        "bimodal": np.concatenate([rng.normal(-3, 0.2, SIZE // 2), rng.normal(5, 0.5, SIZE // 2)]),
        "heavy tails": rng.standard_t(3, SIZE),
        "tiny": rng.laplace(size=SIZE) * 1e-7,
        "huge": rng.laplace(size=SIZE) * 1e3,
        "negative": -rng.exponential(size=SIZE),
        "shifted": rng.normal(10, 0.1, SIZE),
        "silu": (z := rng.normal(0, 3, SIZE)) / (1 + np.exp(-z)),
        "constant": np.full(SIZE, 3.3),
        "negative constant": np.full(SIZE, -0.7),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


DISTRIBUTIONS = _distributions()


def histogram(x: np.ndarray) -> Histogram:
    hist = Histogram(max_elements=None)
    hist.update(x)
    return hist


def candidates(x: np.ndarray, spec: QuantSpec) -> list[tuple[float, float]]:
    """Ranges that shrink the range of the data, each end by itself where the grid allows it."""
    lo, hi = float(x.min()), float(x.max())
    fractions = np.unique(np.concatenate([np.geomspace(0.05, 1, 12), np.linspace(0.3, 1, 36)]))
    if spec.symmetric:
        reach = max(-lo, hi)
        return [(max(-reach * f, lo), min(reach * f, hi)) for f in fractions]
    lower = fractions if lo < 0 else [1.0]
    upper = fractions if hi > 0 else [1.0]
    return [(lo * a, hi * b) for a in lower for b in upper]


def squared_error(x: np.ndarray, bounds: tuple[float, float], spec: QuantSpec) -> float:
    """Mean squared error of every element, in float64."""
    params = params_from_range(*bounds, spec)
    scale, zero = float(params.scale), int(params.zero_point)
    codes = np.clip(np.rint(x.astype(np.float64) / scale) + zero, spec.lo, spec.hi)
    return float(np.mean(((codes - zero) * scale - x) ** 2))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("data", DISTRIBUTIONS)
def test_mse_is_as_good_as_any_range(data: str, spec: QuantSpec) -> None:
    x = DISTRIBUTIONS[data]
    found = squared_error(x, METHODS.get("mse").range(histogram(x), spec), spec)
    best = min(candidates(x, spec), key=lambda bounds: squared_error(x[::9], bounds, spec))
    assert found <= squared_error(x, best, spec) * 1.03 + 1e-15


def divergence(x: np.ndarray, bounds: tuple[float, float], spec: QuantSpec, width: float) -> float:
    """KL(P || Q) of the elements themselves, bin by bin and code by code; P and Q as in the method's formula."""
    params = params_from_range(*bounds, spec)
    scale = float(params.scale)
    index = np.floor(x.astype(np.float64) / width).astype(int)
    first, last = round(min(bounds[0], 0.0) / width), round(max(bounds[1], 0.0) / width)
    inside = index[(index >= first) & (index < last)]
    bins = range(max(first, index.min()), min(last, index.max() + 1))
    inner = dict.fromkeys(bins, 0)
    for i, n in zip(*np.unique(inside, return_counts=True), strict=True):
        inner[int(i)] = int(n)
    if 0 in inner:
        inner[0] = min(inner[0], max(inner.get(-1, 0), inner.get(1, 0)))
    p = dict(inner)
    p[bins[0]] += int(np.count_nonzero(index < bins[0]))
    p[bins[-1]] += int(np.count_nonzero(index > bins[-1]))
    sharing: dict[int, list[int]] = {}
    for i in bins:
        if inner[i] > 0:
            sharing.setdefault(round((i + 0.5) * width / scale), []).append(i)
    q = {i: sum(inner[j] for j in mine) / len(mine) for mine in sharing.values() for i in mine}
    p_all = np.array([p[i] or 1e-4 for i in bins])
    q_all = np.array([q.get(i, 1e-4) for i in bins])
    p_all, q_all = p_all / p_all.sum(), q_all / q_all.sum()
    return float(np.sum(p_all * np.log(p_all / q_all)))


@pytest.mark.parametrize("spec", [SPECS["uint8"], SPECS["int8 symmetric"]], ids=["uint8", "int8 symmetric"])
@pytest.mark.parametrize("data", [d for d in DISTRIBUTIONS if "constant" not in d and d != "shifted"])
def test_entropy_is_as_good_as_any_range(data: str, spec: QuantSpec) -> None:
    x = DISTRIBUTIONS[data]
    hist = histogram(x)
    width = hist.width
    while hist.counted < 8 * np.unique(np.floor(x.astype(np.float64) / width)).size and np.ptp(x) / width > 1024:
        width *= 2
    filled = np.unique(np.floor(x.astype(np.float64) / width)).size
    noise = np.sqrt(filled / 2) / x.size

    def to_edges(bounds: tuple[float, float]) -> tuple[float, float]:
        return np.floor(min(bounds[0], 0) / width) * width, np.ceil(max(bounds[1], 0) / width) * width

    tried = [to_edges(b) for b in candidates(x, spec)[::23]]
    if spec.symmetric:
        tried = [(-max(-a, b), max(-a, b)) for a, b in map(to_edges, candidates(x, spec)[::3])]
    tried = [(a, b) for a, b in tried if b - a >= 256 * width]
    lo, hi = to_edges(METHODS.get("entropy").range(hist, spec))
    if spec.symmetric:
        lo, hi = -max(-lo, hi), max(-lo, hi)
    best = min(divergence(x, bounds, spec, width) for bounds in tried)
    assert divergence(x, (lo, hi), spec, width) <= best + 3 * noise


@pytest.mark.parametrize("name", ["mean-minmax", "moving-average"])
def test_averages_are_those_of_the_samples(name: str) -> None:
    rng = np.random.default_rng(3)
    samples = [rng.normal(size=(4, 5)).astype(np.float32) * 3 for _ in range(400)]
    method = METHODS.get(name)
    statistic = method.needs()
    for sample in samples:
        statistic.update(sample)
    lo, hi = method.range(statistic, SPECS["uint8"])
    lows, highs = (np.array([float(f(s)) for s in samples]) for f in (np.min, np.max))
    if name == "mean-minmax":
        assert (lo, hi) == (pytest.approx(lows.mean(), rel=1e-14), pytest.approx(highs.mean(), rel=1e-14))
    else:
        # an average of the last 200 of 400 in some order is within 5 standard errors of the mean
        assert abs(lo - lows.mean()) < 5 * lows.std() / np.sqrt(200)
        assert abs(hi - highs.mean()) < 5 * highs.std() / np.sqrt(200)


def test_a_moving_average_follows_its_recursion() -> None:
    method = METHODS.get("moving-average")
    statistic = method.needs()
    rng = np.random.default_rng(4)
    for _ in range(9_000):
        statistic.update(rng.normal(size=3).astype(np.float32))
    ranges = statistic.ranges  # type: ignore[attr-defined]
    assert ranges.shape == (4096, 2)
    expected = ranges[0].astype(np.float64)
    for new in ranges[1:]:
        expected += 0.01 * (new - expected)
    assert method.range(statistic, SPECS["uint8"]) == pytest.approx(tuple(expected), rel=1e-12)


@pytest.mark.parametrize("name", ["mean-minmax", "moving-average"])
def test_averages_leave_masks_out_and_know_large_values(name: str) -> None:
    method = METHODS.get(name)
    masked, wide = method.needs(), method.needs()
    for shift in range(8):
        masked.update(np.array([shift, 100, -10_000 + shift], np.float32))
        wide.update(np.array([-20_000, -3_000, shift, 6_000], np.float32))
    lo, hi = method.range(masked, SPECS["uint8"])
    assert 0 <= lo <= 7
    assert hi == pytest.approx(100)
    assert masked.extremes.masks == 8
    assert method.range(wide, SPECS["uint8"]) == pytest.approx((-20_000, 6_000))
