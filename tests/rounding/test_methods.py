"""Rounding methods: what each is good for."""

from __future__ import annotations

import numpy as np
import pytest

from qconvert.numerics.blocks import BlockSpec
from qconvert.rounding.method import ROUNDINGS, output_error

SPEC = BlockSpec(bits=4, block=32, symmetric=False)


def layer(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(weight [48, 96], H [96, 96]) of correlated inputs, a few of them large."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((24, 96)) * np.where(rng.random(96) < 0.05, 20.0, 1.0)
    x = rng.standard_normal((512, 24)) @ mixing + 0.1 * rng.standard_normal((512, 96))
    return rng.standard_t(4, (48, 96)).astype(np.float32), x.T @ x / len(x)


def error(method: str, spec: BlockSpec = SPEC, seed: int = 0) -> float:
    rows, moments = layer(seed)
    return output_error(rows, ROUNDINGS.get(method).round(rows, spec, moments).real(), moments)


@pytest.mark.parametrize("bits", [2, 4])
def test_data_make_outputs_more_exact(bits: int) -> None:
    spec = BlockSpec(bits=bits, block=32, symmetric=False)
    plain = np.mean([error("rtn", spec, s) for s in range(3)])
    assert np.mean([error("awq", spec, s) for s in range(3)]) < 0.8 * plain
    assert np.mean([error("gptq", spec, s) for s in range(3)]) < 0.5 * plain


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_clipping_makes_weights_more_exact(bits: int, symmetric: bool) -> None:
    rows, _ = layer()
    spec = BlockSpec(bits=bits, block=32, symmetric=symmetric)
    errors = {m: float(((ROUNDINGS.get(m).round(rows, spec, None).real() - rows) ** 2).sum()) for m in ("rtn", "mse")}
    assert errors["mse"] < errors["rtn"]


def test_hqq_lessens_the_error_that_it_minimises() -> None:
    rows, _ = layer()
    sums = {
        m: float((np.abs(ROUNDINGS.get(m).round(rows, SPEC, None).real() - rows) ** 0.7).sum()) for m in ("rtn", "hqq")
    }
    assert sums["hqq"] <= sums["rtn"] * 1.01


@pytest.mark.parametrize("method", [m.name for m in ROUNDINGS])
def test_zeros_stay_zeros(method: str) -> None:
    rows, moments = layer()
    pruned = np.where(np.random.default_rng(1).random(rows.shape) < 0.5, 0, rows).astype(np.float32)
    real = ROUNDINGS.get(method).round(pruned, SPEC, moments).real()
    assert (real[pruned == 0] == 0).all()


@pytest.mark.parametrize("method", [m.name for m in ROUNDINGS])
def test_every_method_works_without_data_and_on_constants(method: str) -> None:
    rows, _ = layer()
    assert ROUNDINGS.get(method).round(rows, SPEC, None).real().shape == rows.shape
    flat = np.zeros((2, 40), np.float32)
    assert not ROUNDINGS.get(method).round(flat, SPEC, np.eye(40)).real().any()
