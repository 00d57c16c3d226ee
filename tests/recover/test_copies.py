"""Dead channels that carry copies of others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks.builder import Builder, Feed
from numpy.typing import NDArray
from recover.nets import prepared, quantized, run, sqnr, subject

from qconvert.graph.constants import Port, with_constants
from qconvert.graph.simulate import Rounding, simulated
from qconvert.numerics.affine import dequantize, quantize
from qconvert.recipe.recipe import Recipe
from qconvert.recover.layers import find_layers
from qconvert.recover.passes.copies import Copies, shares
from qconvert.recover.recovery import Subject
from qconvert.recover.simulation import parameters_of
from qconvert.recovery import convert_and_recover, passes_of

DEAD = np.where(np.arange(8) % 2 == 0, -1000.0, 20.0).astype(np.float32)
"""Biases: every other one of eight channels is 0 behind a Relu, whatever the range of the input."""


def pointwise(b: Builder, bias: NDArray[np.float32] = DEAD, clip: str = "relu") -> str:
    x = b.node("Conv", b.input("x", [1, 4, 12, 12]), b.weight(8, 4, 3, 3), b.const(bias), pads=[1] * 4)
    return b.conv(getattr(b, clip)(x), 8, 6, 1, out="y")


def with_a_depthwise_layer(b: Builder, constant: float = 0.0) -> str:
    small = b.const((b.rng.standard_normal((8, 4, 3, 3)) * 0.05).astype(np.float32))
    bias = np.where(DEAD < 0, -100.0, 3.0).astype(np.float32)
    x = b.relu6(b.node("Conv", b.input("x", [1, 4, 12, 12]), small, b.const(bias), pads=[1] * 4))
    weight = b.const((b.rng.standard_normal((8, 1, 3, 3)) * 0.1).astype(np.float32))
    behind = b.const(np.where(DEAD < 0, constant, 2.5).astype(np.float32))
    x = b.relu6(b.node("Conv", x, weight, behind, group=8, pads=[1] * 4))
    return b.conv(x, 8, 6, 1, out="y")


def perceptron(b: Builder) -> str:
    hidden = b.relu(b.node("Gemm", b.input("x", [1, 16]), b.weight(16, 8), b.const(DEAD)))
    return b.gemm(hidden, 8, 6, out="y")


@pytest.mark.parametrize("net", [pointwise, with_a_depthwise_layer, perceptron], ids=lambda n: n.__name__)
def test_copies_are_worth_a_bit(net: Callable[[Builder], str]) -> None:
    """What rounding the tensors between does to the result: 6 dB less with every channel there twice.

    Of two tensors in a row the first is rounded apart only where the filter between sums to little.
    """
    before, feeds = subject_of(net, seed=9, samples=100)
    assert before.plan is not None
    after = replace(before, changes=Copies().apply(before))
    between = {layer.source for layer in list(find_layers(before.graph).values())[1:]}
    roundings = [
        Rounding(tensor=next(t for t in g.tensors if t in between), params=g.params)
        for g in before.plan.groups
        if g.params is not None and between & set(g.tensors)
    ]
    exact, alone, copied = (
        simulated(with_constants(one.model, _stored(one)), rounded, {})
        for one, rounded in ((before, []), (before, roundings), (after, roundings))
    )
    gain = sqnr(exact, copied, feeds, integers=False) - sqnr(exact, alone, feeds, integers=False)
    assert 4.0 < gain < 7.0


def _stored(one: Subject) -> dict[Port, NDArray[np.float32]]:
    """Weights as their codes stand for them, and biases."""
    found: dict[Port, NDArray[np.float32]] = {}
    assert one.plan is not None
    for layer in find_layers(one.graph).values():
        params = parameters_of(one, one.plan, layer.node, one.weight(layer))
        found[layer.weight] = dequantize(quantize(one.weight(layer), params), params)
        bias = one.bias(layer)
        if layer.bias is not None and bias is not None:
            found[layer.bias] = bias
    return found


def test_a_model_with_copies_is_no_larger_and_no_different_to_who_looks_at_weights() -> None:
    b = Builder(seed=8)
    b.output(with_a_depthwise_layer(b))
    feeds = b.feeds(64)
    plain = prepared(b.model(), feeds[0])
    before = quantized(plain, feeds)
    after = convert_and_recover(plain, run(feeds, Recipe(recover=("copies",))))
    (outcome,) = after.recoveries
    assert outcome.kept and outcome.changed == 1
    assert [n.op_type for n in after.model.ir.graph] == [n.op_type for n in before.model.ir.graph]
    assert after.model.weight_bytes() <= before.model.weight_bytes()
    assert not after.changes.constants


def test_a_channel_that_is_constant_leaves_what_it_was_worth_behind() -> None:
    """Dead in front of the depthwise layer, 2 behind it."""
    one, feeds = subject_of(lambda b: with_a_depthwise_layer(b, 2.0), seed=9)
    changes = Copies().apply(one)
    assert changes.changed == 1
    before, after = (with_constants(one.model, _stored(x)) for x in (one, replace(one, changes=changes)))
    assert sqnr(before, after, feeds) > 50.0


def subject_of(net: Callable[[Builder], str], seed: int = 8, samples: int = 8) -> tuple[Subject, list[Feed]]:
    b = Builder(seed=seed)
    b.output(net(b))
    feeds = b.feeds(samples)
    plain = prepared(b.model(), feeds[0])
    return subject(plain.model, feeds, quantized(plain, feeds).plan), feeds


def test_what_only_samples_show_to_be_dead_is_left_alone() -> None:
    """No sample reaches the bias of these, but what their filters may sum up to does."""

    def nearly(b: Builder) -> str:
        return pointwise(b, np.where(np.arange(8) % 2 == 0, -12.0, 0.1).astype(np.float32))

    assert Copies().apply(subject_of(nearly)[0]).changed == 0


def test_where_sums_saturate_weights_stay_where_they_are() -> None:
    one, _ = subject_of(pointwise)
    assert Copies().apply(one).changed == 1
    assert Copies().apply(replace(one, saturates=True)).changed == 0


def test_nothing_is_there_to_change_where_no_channel_is_dead() -> None:
    assert Copies().apply(subject_of(lambda b: pointwise(b, np.full(8, 0.1, np.float32)))[0]).changed == 0


@given(noise=st.lists(st.just(0.0) | st.floats(1e-9, 10.0), min_size=1, max_size=4), dead=st.integers(0, 4))
def test_dead_channels_go_where_they_save_most(noise: list[float], dead: int) -> None:
    """No other way to spread them leaves less noise."""
    values = np.array(noise)
    copies = shares(values, dead)
    assert copies.min() >= 1 and copies.sum() <= values.size + dead
    assert copies.sum() == values.size + dead or not values.any()
    spread = itertools.product(range(dead + 1), repeat=values.size)
    least = min((values / (1.0 + np.array(more)) ** 2).sum() for more in spread if sum(more) <= dead)
    assert (values / copies**2).sum() <= least * (1 + 1e-9) + 1e-12


@given(code=st.integers(-127, 127), count=st.integers(1, 5))
def test_codes_that_are_spread_add_up(code: int, count: int) -> None:
    parts = [(code + j) // count for j in range(count)]
    assert sum(parts) == code and max(parts) - min(parts) <= 1


def test_copies_come_last_in_whatever_order_passes_are_named() -> None:
    """A bias that is corrected behind them would take their offsets back."""
    names = [p.name for p in passes_of(Recipe(recover=("copies", "bias-correction", "equalize")))]
    assert names == ["equalize", "bias-correction", "copies"]
