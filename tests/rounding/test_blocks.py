"""Blocks of few bits: what their codes stand for, and how they are packed."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qconvert.numerics.blocks import BlockSpec, encode, ends_of, pack, parameters

SPECS = st.builds(
    BlockSpec, bits=st.sampled_from([2, 4, 8]), block=st.sampled_from([0, 16, 32]), symmetric=st.booleans()
)


def matrix(seed: int, columns: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((5, columns)) * 10.0 ** rng.integers(-6, 6, (5, 1))).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = 0
    return rows


@settings(max_examples=60, deadline=None)
@given(spec=SPECS, seed=st.integers(0, 10_000), columns=st.integers(1, 70))
def test_every_weight_is_within_half_a_step_and_zeros_stay_zeros(spec: BlockSpec, seed: int, columns: int) -> None:
    rows = matrix(seed, columns)
    scale, zero = parameters(*ends_of(rows, spec), spec)
    stored = encode(rows, scale, zero, spec)
    steps = np.repeat(scale, spec.size(columns), axis=1)[:, :columns]
    # a rounded zero point moves a range by half a step at most, which clips its end by as much
    assert (np.abs(stored.real() - rows) <= steps * 1.001 + 1e-30).all()
    assert (stored.real()[rows == 0] == 0).all()
    assert stored.codes.max() <= spec.top


@pytest.mark.parametrize(("bits", "dtype"), [(2, ml_dtypes.uint2), (4, ml_dtypes.uint4)])
def test_codes_are_packed_as_onnx_packs_them(bits: int, dtype: type) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, (3, 16)).astype(np.uint8)
    assert pack(codes, bits).tobytes() == ir.Tensor(codes.astype(dtype)).tobytes()


def test_a_row_that_ends_within_a_byte_is_filled_up() -> None:
    assert pack(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x21, 0x03]]
