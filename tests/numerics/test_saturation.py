"""Saturating products: the bound against every activation, the emulation against its definition, the cure's promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.numerics.affine import quantize, weight_params
from qconvert.numerics.dtypes import INT8, UINT8
from qconvert.numerics.saturation import conv_order, matmul_order, pair_bounds, product, shrink, unsafe_channels
from qconvert.numerics.spec import PerAxis, PerTensor, QuantSpec

ROWS = arrays(np.int8, st.tuples(st.integers(1, 4), st.integers(1, 7)))
FLOATS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-4, 4, width=16))


def by_definition(a: NDArray[np.integer], w: NDArray[np.integer]) -> int:
    """One sum of products, pair by pair in Python's integers."""
    total = 0
    for k in range(0, len(a), 2):
        pair = sum(int(x) * int(y) for x, y in zip(a[k : k + 2], w[k : k + 2], strict=True))
        total += min(max(pair, -32768), 32767)
    return total


@given(
    w=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    span=st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted),
)
def test_the_bound_is_reached_and_never_passed(w: tuple[int, int], span: list[int]) -> None:
    low, high = pair_bounds(np.array([w], np.int8), (span[0], span[1]))
    # a sum of products is greatest and least at the corners
    sums = [a * w[0] + b * w[1] for a, b in itertools.product(span, repeat=2)]
    assert (int(low[0, 0]), int(high[0, 0])) == (min(sums), max(sums))


@given(rows=ROWS, data=st.data())
def test_the_emulation_is_the_definition(rows: NDArray[np.int8], data: st.DataObject) -> None:
    a = data.draw(arrays(np.uint8, (3, rows.shape[1])))
    expected = [[by_definition(x, w) for w in rows] for x in a]
    assert product(a, rows, saturate=True).tolist() == expected
    assert product(a, rows, saturate=False).tolist() == (a.astype(int) @ rows.astype(int).T).tolist()


@given(rows=ROWS, data=st.data())
def test_a_safe_channel_never_saturates_and_an_unsafe_one_can(rows: NDArray[np.int8], data: st.DataObject) -> None:
    unsafe = unsafe_channels(rows, matmul_order(rows.shape, transposed=True))
    a = data.draw(arrays(np.uint8, (2, rows.shape[1])))
    exact = product(a, rows, saturate=False)
    assert (product(a, rows, saturate=True) == exact)[:, ~unsafe].all()
    for w in rows[unsafe].astype(int):
        worst = [np.where(sign * w > 0, 255, 0).astype(np.uint8) for sign in (1, -1)]
        assert any(by_definition(x, w) != int(x.astype(int) @ w.astype(int)) for x in worst)


@given(rows=arrays(np.int8, (2, 6), elements=st.integers(-64, 64)))
def test_seven_bits_are_always_safe(rows: NDArray[np.int8]) -> None:
    assert not unsafe_channels(rows, matmul_order(rows.shape, transposed=True)).any()


def test_neighbours_by_hand() -> None:
    big, small = 127, 1
    # [K, N] = [4, 2]: the first column pairs two large weights, the second a large one with a small one each time
    w = np.array([[big, big], [big, small], [small, big], [small, small]], np.int8)
    assert unsafe_channels(w, matmul_order(w.shape)).tolist() == [True, False]
    assert unsafe_channels(w.T.copy(), matmul_order((2, 4), transposed=True)).tolist() == [True, False]
    assert unsafe_channels(w, matmul_order(w.shape), (0, 128)).tolist() == [False, False]
    # [O, I, k] = [2, 2, 2]: neighbours are the channels of one position
    conv = np.array([[[big, small], [big, small]], [[big, big], [small, small]]], np.int8)
    assert unsafe_channels(conv, conv_order(conv.shape)).tolist() == [True, False]
    # of three channels the last one of a position meets the first one of the next
    odd = np.array([[[small, big], [small, small], [big, small]]], np.int8)
    assert unsafe_channels(odd, conv_order(odd.shape)).tolist() == [True]


def test_signs_decide() -> None:
    w = np.array([[127, -128, 64, 64, -64, -64], [65, 64, 0, 0, 0, 0], [-65, -64, 0, 0, 0, 0]], np.int8)
    assert unsafe_channels(w, matmul_order(w.shape, transposed=True)).tolist() == [False, True, True]


def test_activations_must_be_bytes() -> None:
    with pytest.raises(InternalError):
        pair_bounds(np.zeros((1, 2), np.int8), (-128, 127))


def spec(*, per_channel: bool) -> QuantSpec:
    return QuantSpec(qtype=INT8, symmetric=True, granularity=PerAxis(axis=0) if per_channel else PerTensor())


@given(w=FLOATS, per_channel=st.booleans())
@settings(max_examples=200)
def test_what_is_shrunk_is_safe_and_the_rest_as_it_was(w: NDArray[np.float32], per_channel: bool) -> None:
    order = matmul_order(w.shape, transposed=True)
    params = weight_params(w, spec(per_channel=per_channel))
    before = quantize(w, params)
    unsafe = unsafe_channels(before, order)
    found = shrink(w, params, order)
    after = quantize(found.weight, found.params)
    assert not unsafe_channels(after, order).any()
    assert found.channels == int(unsafe.sum())
    assert (found.params.scale >= params.scale).all()
    if per_channel:
        assert (after == before)[~unsafe].all()
        assert (found.params.scale == params.scale)[~unsafe].all()
    elif not unsafe.any():
        assert found.params.same_as(params)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_shrinking_beats_half_the_range(seed: int) -> None:
    w = np.random.default_rng(seed).standard_normal((8, 64)).astype(np.float32)
    params = weight_params(w, spec(per_channel=True))
    found = shrink(w, params, matmul_order(w.shape, transposed=True))
    after = quantize(found.weight, found.params) * found.params.scale[:, None]
    coarse = np.rint(w / (2 * params.scale[:, None])) * (2 * params.scale[:, None])
    changed = found.params.scale != params.scale
    assert (((after - w) ** 2).sum(axis=1) <= ((coarse - w) ** 2).sum(axis=1) * (1 + 1e-6))[changed].all()


def test_a_convolution_is_shrunk_in_its_own_order() -> None:
    w = np.random.default_rng(0).standard_normal((6, 5, 3, 3)).astype(np.float32)
    order = conv_order(w.shape)
    found = shrink(w, weight_params(w, spec(per_channel=True)), order)
    assert found.weight.shape == w.shape
    assert not unsafe_channels(quantize(found.weight, found.params), order).any()


def test_unsigned_weights_are_refused() -> None:
    unsigned = QuantSpec(qtype=UINT8, symmetric=True)
    w = np.ones((2, 2), np.float32)
    with pytest.raises(InternalError, match="signed"):
        shrink(w, weight_params(w, unsigned), matmul_order(w.shape))
