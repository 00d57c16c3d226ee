"""GPTQ: against a textbook version in float64, against plain rounding, and the moments against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.builder import Builder
from numpy.typing import NDArray
from onnx import numpy_helper
from recover.nets import prepared, quantized, sqnr, subject

from qconvert.conversion import emit
from qconvert.graph.build_view import view_of
from qconvert.graph.constants import with_constants
from qconvert.numerics.affine import dequantize, quantize, weight_params
from qconvert.numerics.dtypes import QType
from qconvert.numerics.spec import PerAxis, QuantSpec
from qconvert.recipe.recipe import Recipe
from qconvert.recover.gram import second_moments
from qconvert.recover.layers import Layer, find_layers
from qconvert.recover.passes.gptq import Gptq, GptqOptions, factor_of_inverse, rounded
from qconvert.recover.recovery import Stage

Matrix = NDArray[np.float64]
FOUR_BITS = QType(name="int8", bits=4, lo=-8, hi=7, onnx_code=3, min_opset=10)  # stored in a byte each


def dense(outputs_first: bool = True) -> Layer:
    return Layer(
        node="g",
        op_type="Gemm",
        source="x",
        result="y",
        out_axis=0 if outputs_first else 1,
        group=1,
        bias=None,
        has_bias=False,
    )


def spec(axis: int) -> QuantSpec:
    return QuantSpec(qtype=FOUR_BITS, symmetric=True, granularity=PerAxis(axis=axis), narrow_range=True)


def correlated(seed: int, inputs: int, samples: int = 512) -> Matrix:
    """H of inputs that a third as many causes make, as features of a trained net are, with a mean above zero."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((samples, max(2, inputs // 3)))
    x = np.maximum(causes @ rng.standard_normal((causes.shape[1], inputs)), 0) + 0.05 * rng.random((samples, inputs))
    return np.asarray(x.T @ x / samples)[None]


def error(weight: NDArray[np.float32], other: NDArray[np.float32], moments: Matrix) -> float:
    """Mean squared error of the layer's outputs."""
    d = weight.astype(np.float64) - other
    return float(np.einsum("ok,kl,ol->", d, moments[0], d))


def textbook(weight: Matrix, scale: Matrix, moments: Matrix, damping: float) -> Matrix:
    """Optimal brain surgeon, one weight at a time, with H^-1 updated by elimination: no Cholesky, no blocks."""
    h = moments[0].copy()
    diagonal = np.diag(h).copy()
    h += np.eye(len(h)) * (damping * diagonal.mean() + 1e-12)
    inverse, w, left = np.linalg.inv(h), weight.astype(np.float64).copy(), list(range(len(h)))
    for k in np.argsort(-diagonal, kind="stable"):
        q = np.clip(np.rint(w[:, k] / scale), -7, 7) * scale
        e = (w[:, k] - q) / inverse[k, k]
        left.remove(k)
        w[:, left] -= e[:, None] * inverse[k, left]
        w[:, k] = q
        inverse -= np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return w


@given(seed=st.integers(0, 10_000), inputs=st.integers(1, 24), block=st.sampled_from([1, 3, 64]), turned=st.booleans())
@settings(max_examples=40, deadline=None)
def test_it_is_what_the_textbook_says(seed: int, inputs: int, block: int, turned: bool) -> None:
    moments = correlated(seed, inputs)
    weight = np.random.default_rng(seed + 1).standard_normal((5, inputs)).astype(np.float32)
    stored = np.ascontiguousarray(weight.T) if turned else weight
    params = weight_params(stored, spec(1 if turned else 0))
    options = GptqOptions(block=block)
    ours = rounded(dense(not turned), stored, params, moments, options)
    expected = textbook(weight.astype(np.float64), params.scale.astype(np.float64), moments, options.damping)
    np.testing.assert_allclose(ours.T if turned else ours, expected, rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 10_000), inputs=st.integers(1, 24))
@settings(max_examples=20, deadline=None)
def test_what_it_gives_is_on_the_grid(seed: int, inputs: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((5, inputs)).astype(np.float32)
    params = weight_params(weight, spec(0))
    result = rounded(dense(), weight, params, correlated(seed, inputs), GptqOptions())
    np.testing.assert_array_equal(dequantize(quantize(result, params), params), result)


def test_the_factor_of_the_inverse_is_upper_and_right_where_it_is_made_of_blocks() -> None:
    h = correlated(0, 150, samples=600) + 0.01 * np.eye(150)
    u = factor_of_inverse(h)
    assert np.array_equal(u, np.triu(u))
    np.testing.assert_allclose(u.swapaxes(1, 2) @ u @ h, np.eye(150)[None], atol=1e-8)


CONVOLUTIONS: dict[str, dict[str, object]] = {
    "plain": {"pads": [0, 0, 0, 0]},
    "padded": {"pads": [1, 0, 2, 1]},
    "strided": {"pads": [1, 1, 1, 1], "strides": [2, 3]},
    "dilated": {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
    "grouped": {"pads": [1, 1, 1, 1], "group": 2},
    "depthwise": {"pads": [1, 1, 1, 1], "group": 4},
    "same upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "valid": {"auto_pad": "VALID"},
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_moments_give_the_power_of_the_outputs(case: str) -> None:
    """E[y_o^2] = w_o H w_o^T, with y from ONNX Runtime."""
    attributes = CONVOLUTIONS[case]
    b = Builder(seed=9)
    x = b.input("x", [2, 4, 9, 10])
    weight = b.weight(8, 4 // int(attributes.get("group", 1)), 3, 3)  # type: ignore[call-overload]
    b.node("Conv", x, weight, out="y", **attributes)
    b.output("y")
    feeds = b.feeds(3)
    proto = b.model()
    model = prepared(proto, feeds[0]).model
    layers = find_layers(view_of(model))
    (moments,) = second_moments(subject(model, feeds), layers, feeds, positions=10**6).values()
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    y = np.concatenate([session.run(None, f)[0] for f in feeds]).astype(np.float64)
    power = (y**2).mean(axis=(0, 2, 3))
    w = numpy_helper.to_array(b.initializers[0]).astype(np.float64)
    (layer,) = layers.values()
    rows = layer.by_outputs(w)
    np.testing.assert_allclose(np.einsum("gok,gkl,gol->go", rows, moments, rows).reshape(-1), power, rtol=1e-4)


def test_few_positions_are_enough() -> None:
    b = Builder(seed=10)
    b.output(b.conv(b.input("x", [1, 3, 64, 64]), 3, 8, out="y"))
    feeds = b.feeds(8)
    model = prepared(b.model(), feeds[0]).model
    layers = find_layers(view_of(model))
    (every,) = second_moments(subject(model, feeds), layers, feeds, positions=10**6).values()
    (some,) = second_moments(subject(model, feeds), layers, feeds, positions=256).values()
    assert np.linalg.norm(every - some) < 0.15 * np.linalg.norm(every)


def smooth(n: int = 16) -> list[dict[str, object]]:
    """Images whose neighbouring pixels are alike."""
    rng = np.random.default_rng(11)
    noise = rng.random((n, 4, 20, 20))
    for _ in range(3):
        noise = (noise + np.roll(noise, 1, 2) + np.roll(noise, 1, 3) + np.roll(noise, 1, 1)) / 4
    return [{"x": a[None, :, 2:18, 2:18].astype(np.float32)} for a in noise]


def two_convolutions(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 16, 16]), 4, 16, 5))
    return b.conv(x, 16, 8, 5, out="y")


def grouped_and_dense(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 16, 16]), 4, 16, 5, group=2))
    x = b.node("Flatten", b.node("AveragePool", x, kernel_shape=[8, 8], strides=[8, 8]))
    return b.gemm(x, 64, 10, out="y")


@pytest.mark.parametrize("net", [two_convolutions, grouped_and_dense], ids=lambda n: n.__name__)
def test_a_net_of_correlated_inputs_gains(net: Callable[[Builder], str]) -> None:
    b = Builder(seed=12)
    b.output(net(b))
    feeds = smooth()
    canonical = prepared(b.model(), feeds[0])
    result = quantized(canonical, feeds)
    changes = Gptq().apply(subject(canonical.model, feeds, result.plan))
    assert changes.changed == 2
    plan = changes.planned(result.plan)
    after = emit(with_constants(canonical.model, changes.constants), plan, Recipe(), canonical.source)[0]
    assert sqnr(canonical.model, after, feeds) > sqnr(canonical.model, result.model, feeds) + 1.0
    assert len(after.to_bytes()) == len(result.model.to_bytes())


def test_products_that_quantize_as_the_model_runs_gain_too() -> None:
    b = Builder(seed=12)
    x = b.relu(b.matmul(b.input("x", [1, 4, 16, 16]), 16, 32))
    b.output(b.matmul(x, 32, 8, out="y"))
    feeds = smooth()
    canonical = prepared(b.model(), feeds[0])
    recipe = Recipe(forms=("MatMul=dynamic",))
    result = quantized(canonical, feeds, recipe)
    assert [n.form for n in result.plan.taken() if n.weight is not None] == ["dynamic"] * 2
    changes = Gptq().apply(subject(canonical.model, feeds, result.plan))
    assert changes.changed == 2
    base = with_constants(canonical.model, changes.constants)
    after = emit(base, changes.planned(result.plan), recipe, canonical.source)[0]
    assert sqnr(canonical.model, after, feeds) > sqnr(canonical.model, result.model, feeds) + 1.0
    assert len(after.to_bytes()) == len(result.model.to_bytes())


def test_a_shared_weight_and_a_large_one_are_left_alone() -> None:
    b = Builder(seed=13)
    w = b.weight(4, 4, 3, 3)
    x = b.node("Conv", b.input("x", [1, 4, 16, 16]), w, pads=[1] * 4)
    x = b.node("Conv", b.relu(x), w, pads=[1] * 4)
    b.output(b.conv(b.relu(x), 4, 4, 7, out="y"))
    feeds = smooth()
    net = prepared(b.model(), feeds[0])
    result = quantized(net, feeds)
    assert Gptq().apply(subject(net.model, feeds, result.plan)).changed == 1
    cheap = Gptq(options=GptqOptions(operations=1000.0))
    assert cheap.apply(subject(net.model, feeds, result.plan)).changed == 0


def test_it_works_on_a_solved_plan() -> None:
    assert Gptq().stage is Stage.SOLVED


@pytest.mark.parametrize("net", [two_convolutions, grouped_and_dense], ids=lambda n: n.__name__)
def test_on_a_target_that_saturates_no_pair_can_and_emission_changes_nothing(net: Callable[[Builder], str]) -> None:
    b = Builder(seed=14)
    b.output(net(b))
    feeds = smooth()
    canonical = prepared(b.model(), feeds[0])
    recipe = Recipe(target="x86-avx2")
    result = quantized(canonical, feeds, recipe)
    mindful, careless = (
        Gptq().apply(replace(subject(canonical.model, feeds, result.plan), saturates=s)) for s in (True, False)
    )
    scores = []
    for changes, shrinks in ((mindful, False), (careless, True)):
        base = with_constants(canonical.model, changes.constants)
        after, notes = emit(base, changes.planned(result.plan), recipe, canonical.source)
        assert any("could saturate" in note for note in notes) == shrinks
        scores.append(sqnr(canonical.model, after, feeds))
    assert scores[0] > scores[1] + 1.0
