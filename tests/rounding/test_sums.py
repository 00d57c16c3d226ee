"""Rounding of filters that keeps the sums of their errors small."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from qconvert.numerics.blocks import BlockSpec, Rows
from qconvert.rounding.method import ROUNDINGS
from qconvert.rounding.sums import in_type, keeping_sums

TAPS, CHANNELS = 9, 32


def filters() -> Rows:
    """Heavy-tailed weights [16, 288]: the largest sets a coarse step for the others."""
    return np.random.default_rng(0).standard_t(3, (16, CHANNELS * TAPS)).astype(np.float32)


def patches(*, positive: bool) -> np.ndarray:
    """Inputs [4096, 288] whose taps are alike, about zero or never negative."""
    rng = np.random.default_rng(1)
    smooth = np.repeat(rng.standard_normal((4096, CHANNELS)), TAPS, axis=1)
    x = smooth + 0.1 * rng.standard_normal(smooth.shape)
    return np.abs(x) if positive else x


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_outputs_become_more_exact(bits: int, positive: bool, symmetric: bool) -> None:
    rows, x = filters(), patches(positive=positive)
    spec = BlockSpec(bits=bits, block=0, symmetric=symmetric)
    found = {
        "nearest": ROUNDINGS.get("rtn").round(rows, spec, None).real(),
        "taps": keeping_sums(rows, spec, TAPS, across=False).real(),
        "all": keeping_sums(rows, spec, TAPS, across=True).real(),
    }
    error = {name: float((((real - rows) @ x.T) ** 2).sum()) for name, real in found.items()}
    assert error["taps"] < error["nearest"] / 3
    if positive:
        assert error["all"] < error["taps"] / 1.5


def test_weights_stay_near_and_zeros_stay_zeros() -> None:
    rows = np.where(np.random.default_rng(2).random((16, 288)) < 0.5, 0, filters()).astype(np.float32)
    codes = keeping_sums(rows, BlockSpec(bits=8, block=0, symmetric=False), TAPS, across=True)
    assert (codes.real()[rows == 0] == 0).all()
    assert (np.abs(codes.real() - rows) <= 1.6 * codes.scale).all()


def test_a_filter_of_one_tap_and_one_of_zeros() -> None:
    spec = BlockSpec(bits=8, block=0, symmetric=False)
    assert (keeping_sums(np.zeros((2, 4), np.float32), spec, 1, across=True).real() == 0).all()
    rows = filters()
    plain = ROUNDINGS.get("rtn").round(rows, spec, None).real()
    assert np.array_equal(keeping_sums(rows, spec, 1, across=False).real(), plain)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_floats_of_16_bits(dtype: type) -> None:
    rows, x = filters(), patches(positive=True)
    rows[0, :2] = 0, 7e4  # beyond float16
    kept = in_type(rows, np.dtype(dtype), TAPS, across=True)
    assert kept.dtype == dtype
    assert kept[0, 0] == 0
    assert np.isfinite(kept.astype(np.float32)).all()
    error = [float((((r.astype(np.float64) - rows) @ x.T)[1:] ** 2).sum()) for r in (rows.astype(dtype), kept)]
    assert error[1] < error[0] / 3
