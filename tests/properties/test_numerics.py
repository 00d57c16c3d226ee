"""The laws of affine quantization and of the int32 bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qconvert.errors import InternalError
from qconvert.numerics.affine import MIN_SCALE, dequantize, params_from_range, quantize, weight_params
from qconvert.numerics.bias import BIAS_LIMIT, quantize_bias
from qconvert.numerics.dtypes import INT8, UINT8
from qconvert.numerics.spec import PerAxis, QParams, QuantSpec

law = settings(max_examples=100, deadline=None)

specs = st.builds(QuantSpec, qtype=st.sampled_from([INT8, UINT8]), symmetric=st.booleans(), narrow_range=st.booleans())
magnitude = st.one_of(st.floats(-10, 10, width=32), st.floats(np.float32(-1e25), np.float32(1e25), width=32))
ranges = st.tuples(magnitude, magnitude).map(sorted)
vectors = hnp.arrays(np.float32, st.integers(1, 30), elements=magnitude)
weights = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)), elements=st.floats(-4, 4, width=32)
)


def per_axis(spec: QuantSpec, axis: int) -> QuantSpec:
    return QuantSpec(
        qtype=spec.qtype, symmetric=spec.symmetric, narrow_range=spec.narrow_range, granularity=PerAxis(axis=axis)
    )


@law
@given(bounds=ranges, spec=specs)
def test_codes_survive_a_round_trip(bounds: list, spec: QuantSpec) -> None:
    params = params_from_range(*bounds, spec)
    codes = np.arange(spec.lo, spec.hi + 1).astype(spec.qtype.dtype)
    assert np.array_equal(quantize(dequantize(codes, params), params), codes)


@law
@given(bounds=ranges, spec=specs, fractions=hnp.arrays(np.float64, 20, elements=st.floats(0, 1)))
def test_error_is_at_most_half_a_step_within_the_range(bounds: list, spec: QuantSpec, fractions: np.ndarray) -> None:
    params = params_from_range(*bounds, spec)
    a, b = params.range
    x = (a + (b - a) * fractions).astype(np.float32)
    step = float(params.scale)
    error = np.abs(dequantize(quantize(x, params), params).astype(np.float64) - x)
    # float32 holds x / scale, up to 255, to 1e-5 of a step.
    assert error.max() <= step * (0.5 + 1e-4)


@law
@given(bounds=ranges, spec=specs)
def test_range_is_covered_up_to_half_a_step(bounds: list, spec: QuantSpec) -> None:
    params = params_from_range(*bounds, spec)
    a, b = params.range
    slack = float(params.scale) * (0.5 + 1e-4)
    assert a <= min(bounds[0], 0) + slack
    assert b >= max(bounds[1], 0) - slack
    if spec.symmetric:
        assert int(params.zero_point) == (0 if spec.qtype.signed else 128)


@law
@given(bounds=ranges, spec=specs)
def test_zero_is_exact(bounds: list, spec: QuantSpec) -> None:
    params = params_from_range(*bounds, spec)
    assert spec.lo <= int(params.zero_point) <= spec.hi
    code = quantize(np.zeros(1, np.float32), params)
    assert code[0] == params.zero_point
    assert dequantize(code, params)[0] == 0.0


@law
@given(x=vectors, spec=specs)
def test_codes_stay_in_the_spec_and_keep_the_order(x: np.ndarray, spec: QuantSpec) -> None:
    params = params_from_range(-1.0, 2.0, spec)
    codes = quantize(np.sort(x), params).astype(np.int64)
    assert codes.min() >= spec.lo
    assert codes.max() <= spec.hi
    assert (np.diff(codes) >= 0).all()


@law
@given(x=vectors)
def test_narrow_symmetric_codes_negate_exactly(x: np.ndarray) -> None:
    spec = QuantSpec(qtype=INT8, symmetric=True, narrow_range=True)
    params = params_from_range(x.min(), x.max(), spec)
    assert np.array_equal(quantize(-x, params), -quantize(x, params))


@law
@given(w=weights, spec=specs, axis=st.integers(0, 2))
def test_per_axis_is_per_tensor_of_each_slice(w: np.ndarray, spec: QuantSpec, axis: int) -> None:
    w = np.where(np.abs(w) < 1e-10, np.float32(0.5), w)  # channels of zeros borrow a scale: a law of its own below
    params = weight_params(w, per_axis(spec, axis))
    codes = quantize(w, params)
    real = dequantize(codes, params)
    for i in range(w.shape[axis]):
        part = weight_params(w.take(i, axis), spec)
        assert part.scale == params.scale[i]
        assert part.zero_point == params.zero_point[i]
        assert np.array_equal(quantize(w.take(i, axis), part), codes.take(i, axis))
        assert np.array_equal(dequantize(codes.take(i, axis), part), real.take(i, axis))


@pytest.mark.parametrize("tiny", [0.0, 1e-30])
def test_an_empty_channel_borrows_the_largest_scale(tiny: float) -> None:
    spec = per_axis(QuantSpec(qtype=INT8, symmetric=True), 0)
    params = weight_params(np.array([[1.0], [tiny], [0.25]], np.float32), spec)
    assert params.scale[1] == params.scale[0]
    assert weight_params(np.full((2, 3), tiny, np.float32), spec).scale.max() < 1e-3


@pytest.mark.parametrize("symmetric", [False, True])
def test_parameters_are_arrays_of_shape_nothing(symmetric: bool) -> None:
    params = params_from_range(-1.0, 2.0, QuantSpec(qtype=UINT8, symmetric=symmetric))
    assert isinstance(params.scale, np.ndarray)
    assert isinstance(params.zero_point, np.ndarray)
    assert params.scale.shape == params.zero_point.shape == ()
    assert params_from_range(0.0, 0.0, params.spec).scale == 1.0


@pytest.mark.parametrize("bound", [np.nan, np.inf])
def test_a_range_must_be_finite(bound: float) -> None:
    with pytest.raises(InternalError):
        params_from_range(0.0, bound, QuantSpec(qtype=UINT8, symmetric=False))


biases = hnp.arrays(
    np.float32, 4, elements=st.one_of(st.floats(-10, 10, width=32), st.floats(-(2.0**30), 2.0**30, width=32))
)
scales = st.floats(2.0**-30, 2.0**10, width=32)


@law
@given(bias=biases, input_scale=scales, weight_scale=hnp.arrays(np.float32, 4, elements=scales), channels=st.booleans())
def test_bias_fits_int32_and_the_repair_comes_only_when_needed(
    bias: np.ndarray, input_scale: float, weight_scale: np.ndarray, channels: bool
) -> None:
    plain = QuantSpec(qtype=INT8, symmetric=True)
    spec = per_axis(plain, 0) if channels else plain
    scale = weight_scale if channels else np.asarray(weight_scale[0], np.float32)
    weight = QParams(spec=spec, scale=scale, zero_point=np.zeros(scale.shape, np.int8))
    made = quantize_bias(bias, input_scale, weight)

    assert made.codes.dtype == np.int32
    assert np.abs(made.codes.astype(np.int64)).max() <= BIAS_LIMIT * 1.001
    step = made.scale.astype(np.float64)
    assert np.allclose(step, input_scale * made.weight.scale.astype(np.float64), rtol=1e-6)
    assert (np.abs(made.codes * step - bias) <= step * 0.5000001).all()

    large = np.abs(bias, dtype=np.float64) if channels else np.abs(bias, dtype=np.float64).max()
    needed = large > input_scale * scale.astype(np.float64) * BIAS_LIMIT
    grown = made.weight.scale != scale
    assert np.array_equal(grown, needed)
    assert made.repaired == np.count_nonzero(needed)
    assert (made.weight is weight) == (made.repaired == 0)
    assert (made.weight.scale >= scale).all()


def test_the_least_scale_needs_no_repair() -> None:
    spec = QuantSpec(qtype=INT8, symmetric=True)
    weight = params_from_range(0.0, 127 * MIN_SCALE, spec)
    assert quantize_bias(np.zeros(2, np.float32), 1.0, weight).repaired == 0
