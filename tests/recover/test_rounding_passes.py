"""Weight clipping and learned rounding: better than what they begin with at 4 bits, never worse, on the grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.builder import Builder
from numpy.typing import NDArray
from recover.nets import prepared, quantized, sqnr, subject
from recover.test_gptq import correlated, dense, error, smooth, spec, two_convolutions

from qconvert.conversion import emit
from qconvert.graph.build_view import view_of
from qconvert.graph.constants import with_constants
from qconvert.numerics.affine import dequantize, quantize, weight_params
from qconvert.numerics.dtypes import QType
from qconvert.numerics.saturation import matmul_order, unsafe_channels
from qconvert.numerics.spec import PerAxis, PerTensor, QuantSpec
from qconvert.recipe.recipe import Recipe
from qconvert.recover.gram import second_moments
from qconvert.recover.layers import find_layers
from qconvert.recover.passes.adaround import AdaRound, AdaRoundOptions, learned
from qconvert.recover.passes.clip_weights import ClipOptions, ClipWeights, clipped
from qconvert.recover.passes.gptq import Gptq, GptqOptions, rounded
from qconvert.recover.recovery import Changes, Stage


def weights(seed: int, inputs: int = 48) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((16, inputs)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_at_four_bits_gptq_beats_clipping_and_clipping_beats_rounding(seed: int) -> None:
    """Output error in float64; a third as many causes as inputs make these correlated."""
    moments, weight = correlated(seed, 48), weights(seed + 100)
    plain = weight_params(weight, spec(0))
    chosen, _ = clipped(dense(), weight, plain, moments, ClipOptions())
    nearest = error(weight, dequantize(quantize(weight, plain), plain), moments)
    clipping = error(weight, dequantize(quantize(weight, chosen), chosen), moments)
    compensated = rounded(dense(), weight, plain, moments, GptqOptions())
    best = learned(dense(), weight, compensated, plain, moments, AdaRoundOptions())
    assert error(weight, compensated, moments) < clipping < nearest
    damped = moments + AdaRoundOptions().damping * np.diag(moments[0]).mean() * np.eye(48)  # what both minimise
    assert error(weight, best, damped) <= error(weight, compensated, damped)


def convolved(x: NDArray[np.float32], weight: NDArray[np.float32], groups: int) -> NDArray[np.float64]:
    """[N, O, h, w] in float64: no padding, a stride of 1."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), weight.shape[2:], axis=(2, 3))
    n, _, height, width = windows.shape[:4]
    windows = windows.reshape(n, groups, -1, height, width, *weight.shape[2:])
    rows = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    return np.asarray(np.einsum("ngchwij,gocij->ngohw", windows, rows)).reshape(n, -1, height, width)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_order_of_the_passes_at_four_bits_in_convolutions(groups: int) -> None:
    """GPTQ < clipping < nearest, and learned rounding below nearest, on samples that no pass has seen: each group has
    inputs, and so moments, of its own."""
    b = Builder(seed=12)
    weight = b.rng.standard_normal((16, 4 // groups, 5, 5)).astype(np.float32)
    b.output(b.node("Conv", b.input("x", [1, 4, 16, 16]), b.const(weight), group=groups, out="y"))
    feeds = smooth(32)
    model = prepared(b.model(), feeds[0]).model
    layers = find_layers(view_of(model))
    (layer,) = layers.values()
    (moments,) = second_moments(subject(model, feeds[:16]), layers, feeds[:16], positions=10**6).values()
    assert moments.shape[0] == groups
    plain = weight_params(weight, spec(0))
    chosen, _ = clipped(layer, weight, plain, moments, ClipOptions())
    unseen = np.concatenate([np.asarray(f["x"]) for f in feeds[16:]])
    exact = convolved(unseen, weight, groups)

    def loss(other: NDArray[np.float32]) -> float:
        return float(np.square(exact - convolved(unseen, other, groups)).sum())

    nearest = loss(dequantize(quantize(weight, plain), plain))
    clipping = loss(dequantize(quantize(weight, chosen), chosen))
    compensated = rounded(layer, weight, plain, moments, GptqOptions())
    alone = learned(layer, weight, weight, plain, moments, AdaRoundOptions())
    assert loss(compensated) < clipping < nearest
    assert loss(alone) < 0.5 * nearest


@given(seed=st.integers(0, 10_000), inputs=st.integers(1, 24))
@settings(max_examples=30, deadline=None)
def test_clipping_takes_the_best_of_the_scales(seed: int, inputs: int) -> None:
    weight, moments = weights(seed, inputs), correlated(seed, inputs)
    plain = weight_params(weight, spec(0))
    chosen, gain = clipped(dense(), weight, plain, moments, ClipOptions(least=0.5, trials=11))
    w = weight.astype(np.float64)

    def loss(scale: NDArray[np.float32]) -> NDArray[np.float64]:
        s = scale.astype(np.float64)[:, None]
        d = w - np.clip(np.rint(w / s), -7, 7) * s
        return np.asarray(np.einsum("ok,kl,ol->o", d, moments[0], d))

    losses = [loss((plain.scale * share).astype(np.float32)) for share in np.linspace(1.0, 0.5, 11)]
    np.testing.assert_allclose(loss(chosen.scale), np.min(losses, axis=0), rtol=1e-6)
    assert gain == pytest.approx(1 - loss(chosen.scale).sum() / losses[0].sum(), abs=1e-9)


def test_one_scale_for_the_whole_weight_is_clipped_as_one() -> None:
    weight = weights(7)
    plain = weight_params(weight, replace(spec(0), granularity=PerTensor()))
    chosen, gain = clipped(dense(), weight, plain, correlated(7, 48), ClipOptions())
    assert chosen.scale.shape == ()
    assert chosen.scale < plain.scale
    assert gain > 0.0


@given(seed=st.integers(0, 10_000), inputs=st.integers(2, 20), turned=st.booleans())
@settings(max_examples=30, deadline=None)
def test_no_single_code_improves_what_was_learned(seed: int, inputs: int, turned: bool) -> None:
    """The damped error of the outputs, in float64, with every code moved by one in both directions."""
    moments, weight = correlated(seed, inputs), weights(seed + 1, inputs)
    stored = np.ascontiguousarray(weight.T) if turned else weight
    params = weight_params(stored, spec(1 if turned else 0))
    options = AdaRoundOptions(sweeps=100)
    result = learned(dense(not turned), stored, stored, params, moments, options)
    np.testing.assert_array_equal(dequantize(quantize(result, params), params), result)
    ours = (result.T if turned else result).astype(np.float64)
    h = moments[0] + np.eye(inputs) * (options.damping * np.diag(moments[0]).mean() + 1e-12)
    d = weight.astype(np.float64) - ours
    scale = params.scale.astype(np.float64)
    loss = np.einsum("ok,kl,ol->o", d, h, d)
    codes = np.rint(ours / scale[:, None])
    for k in range(inputs):
        for step in (-1.0, 1.0):
            moved = d.copy()
            moved[:, k] -= step * scale
            allowed = np.abs(codes[:, k] + step) <= 7
            better = np.einsum("ok,kl,ol->o", moved, h, moved) < loss * (1 - 1e-6) - 1e-9
            assert not (better & allowed).any()


@given(seed=st.integers(0, 10_000), inputs=st.integers(1, 24))
@settings(max_examples=20, deadline=None)
def test_pairs_stay_within_sixteen_bits(seed: int, inputs: int) -> None:
    weight, moments = weights(seed, inputs), correlated(seed, inputs)
    params = weight_params(weight, EIGHT_BITS)
    partners = np.arange(inputs, dtype=np.intp) ^ 1
    partners[partners >= inputs] = -1
    order = matmul_order(weight.shape, transposed=True)
    for result in (
        rounded(dense(), weight, params, moments, GptqOptions(), partners),
        learned(dense(), weight, weight, params, moments, AdaRoundOptions(), partners),
    ):
        assert not unsafe_channels(quantize(result, params), order).any()


EIGHT_BITS = QuantSpec(
    qtype=QType(name="int8", bits=8, lo=-128, hi=127, onnx_code=3, min_opset=10),
    symmetric=True,
    granularity=PerAxis(axis=0),
    narrow_range=True,
)


def test_learned_rounding_in_a_net_beats_plain_rounding_and_keeps_what_gptq_has_gained() -> None:
    b = Builder(seed=12)
    b.output(two_convolutions(b))
    feeds = smooth()
    net = prepared(b.model(), feeds[0])
    result = quantized(net, feeds)
    first = Gptq().apply(subject(net.model, feeds, result.plan))
    alone = AdaRound().apply(subject(net.model, feeds, result.plan))
    both = first.and_then(AdaRound().apply(subject(net.model, feeds, first.planned(result.plan), first)))
    scores = []
    for changes in (Changes(), alone, first, both):
        base = with_constants(net.model, changes.constants)
        model = emit(base, changes.planned(result.plan), Recipe(), net.source)[0]
        scores.append(sqnr(net.model, model, feeds))
    assert scores[1] > scores[0] + 1.0
    assert scores[3] > scores[2] - 0.3  # the damped errors of single layers are no greater, the net's may be a little
    assert both.changed == first.changed + 2


def test_both_work_on_a_solved_plan() -> None:
    b = Builder(seed=12)
    b.output(two_convolutions(b))
    feeds = smooth()
    net = prepared(b.model(), feeds[0])
    for recovery in (AdaRound(), ClipWeights()):
        assert recovery.stage is Stage.SOLVED
        assert recovery.apply(subject(net.model, feeds)) == Changes()


def test_clipping_in_a_net_with_one_far_weight_a_channel() -> None:
    """It lies where the input is nearly silent, so that cutting it costs nothing, and fixes the scale of all others."""
    b = Builder(seed=15)
    x = b.input("x", [4, 24])
    w = b.rng.standard_normal((24, 12)) / 5
    w[0] = 6.0
    b.output(b.node("Gemm", x, b.const(w.astype(np.float32)), b.vector(12), out="y"))
    feeds = [{"x": np.asarray(f["x"]) * np.r_[1e-3, np.ones(23)].astype(np.float32)} for f in b.feeds(16)]
    net = prepared(b.model(), feeds[0])
    result = quantized(net, feeds)
    changes = ClipWeights().apply(subject(net.model, feeds, result.plan))
    assert changes.changed == 1
    after = emit(net.model, changes.planned(result.plan), Recipe(), net.source)[0]
    assert sqnr(net.model, after, feeds) > sqnr(net.model, result.model, feeds) + 3.0
