"""Equalization: the function stays, the ranges become even, and what must not be scaled is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.builder import Builder
from onnx import numpy_helper
from recover.nets import prepared, quantized, sqnr, subject

from qconvert.graph.build_view import view_of
from qconvert.graph.constants import with_constants
from qconvert.recover.layers import find_layers, find_links
from qconvert.recover.link_noise import LinkNoise
from qconvert.recover.passes.equalize import Equalize, EqualizeOptions, best
from qconvert.recover.recovery import Stage

ALWAYS = Equalize(options=EqualizeOptions(least_gain_db=-100.0))


def uneven(builder: Builder, spread: float = 2.0) -> None:
    """Scale the output channels of the first layer by 10^-spread .. 1, and undo it in the last layer."""
    places = [i for i, t in enumerate(builder.initializers) if len(t.dims) in (2, 4)]
    first, last = places[0], places[-1]
    product = builder.nodes[0].op_type == "MatMul"
    for place, axis, sign in ((first, 1 if product else 0, -1), (last, 0 if product else 1, 1)):
        w = numpy_helper.to_array(builder.initializers[place])
        channels = numpy_helper.to_array(builder.initializers[first]).shape[1 if product else 0]
        sizes = np.repeat(10.0 ** (sign * spread * np.linspace(0, 1, channels)), max(1, w.shape[axis] // channels))
        sizes = sizes[: w.shape[axis]].reshape([-1 if d == axis else 1 for d in range(w.ndim)])
        scaled = numpy_helper.from_array((w * sizes).astype(np.float32), builder.initializers[place].name)
        builder.initializers[place].CopyFrom(scaled)


def relu_pair(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 8, 8]), 4, 8))
    return b.conv(x, 8, 5, out="y")


def depthwise_triple(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 8, 8]), 4, 8, 1))
    x = b.relu(b.conv(x, 8, 8, group=8))
    return b.conv(x, 8, 6, 1, out="y")


def grouped(b: Builder) -> str:
    x = b.node("LeakyRelu", b.conv(b.input("x", [1, 4, 8, 8]), 4, 12, bias=False), alpha=0.1)
    x = b.relu(b.conv(x, 12, 8, group=4))
    return b.conv(x, 8, 4, group=2, out="y")


def pools_and_padding(b: Builder) -> str:
    x = b.node("PRelu", b.conv(b.input("x", [1, 3, 12, 12]), 3, 6), b.const(np.full((6, 1, 1), 0.2, np.float32)))
    x = b.node("Pad", b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), b.ints(0, 0, 1, 1, 0, 0, 1, 1))
    return b.conv(b.node("AveragePool", x, kernel_shape=[3, 3]), 6, 4, out="y")


def flattened(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 3, 4, 4]), 3, 5))
    return b.gemm(b.node("Flatten", x), 5 * 16, 7, out="y")


def head(b: Builder) -> str:
    return b.head(b.relu(b.conv(b.input("x", [1, 3, 6, 6]), 3, 5)), 5, 7, out="y")


def perceptron(b: Builder) -> str:
    x = b.relu(b.matmul(b.input("x", [2, 5, 8]), 8, 16))
    return b.matmul(x, 16, 6, out="y")


LINKED: dict[Callable[[Builder], str], int] = {
    relu_pair: 1,
    depthwise_triple: 2,
    grouped: 2,
    pools_and_padding: 1,
    flattened: 1,
    head: 1,
    perceptron: 1,
}


@pytest.mark.parametrize("net", LINKED, ids=lambda n: n.__name__)
def test_the_function_stays(net: Callable[[Builder], str]) -> None:
    b = Builder(seed=3)
    b.output(net(b))
    uneven(b)
    feeds = b.feeds(8)
    canonical = prepared(b.model(), feeds[0]).model
    changes = ALWAYS.apply(subject(canonical, feeds))
    assert changes.changed == LINKED[net]
    scaled = with_constants(canonical, changes.constants)
    assert sqnr(canonical, scaled, feeds) > 110.0
    assert len(scaled.ir.graph) == len(canonical.ir.graph)
    assert len(scaled.ir.graph.initializers) == len(canonical.ir.graph.initializers)


@pytest.mark.parametrize("net", [relu_pair, depthwise_triple, perceptron, head], ids=lambda n: n.__name__)
def test_uneven_channels_quantize_better(net: Callable[[Builder], str]) -> None:
    b = Builder(seed=4)
    b.output(net(b))
    uneven(b)
    feeds = b.feeds(16)
    net_before = prepared(b.model(), feeds[0])
    changes = Equalize().apply(subject(net_before.model, feeds))
    net_after = replace(net_before, model=with_constants(net_before.model, changes.constants))
    before = sqnr(net_before.model, quantized(net_before, feeds).model, feeds)
    after = sqnr(net_before.model, quantized(net_after, feeds).model, feeds)
    assert after > before + 6.0


def with_silent_channels(b: Builder) -> str:
    """Channels 4 to 7 of the depthwise convolution are ten to a hundred times softer than the others,
    and read as much louder: none of them can come to 6, because what it reads is 6 at most."""
    x = b.relu6(b.conv(b.input("x", [1, 4, 8, 8]), 4, 8))
    soft = np.where(np.arange(8) < 4, 1.0, np.array([1, 1, 1, 1, 0.1, 0.05, 0.02, 0.01]))
    w = b.rng.normal(0, 0.5, (8, 1, 3, 3)) * soft.reshape(-1, 1, 1, 1)
    x = b.relu6(b.node("Conv", x, b.const(w.astype(np.float32)), b.vector(8, 0.002), group=8, pads=[1] * 4))
    loud = b.rng.normal(0, 0.5, (5, 8, 1, 1)) / soft.reshape(1, -1, 1, 1)
    return b.node("Conv", x, b.const(loud.astype(np.float32)), b.vector(5), out="y")


def test_channels_that_never_come_to_the_ceiling_are_scaled_through_it() -> None:
    b = Builder(seed=11)
    b.output(with_silent_channels(b))
    feeds = b.feeds(16)
    net = prepared(b.model(), feeds[0])
    graph = view_of(net.model)
    _, middle, last = find_layers(graph).values()
    changes = ALWAYS.apply(subject(net.model, feeds))
    assert changes.changed == 1
    factors = graph.constant(graph.nodes[middle.node].inputs[1] or "") / changes.constants[middle.weight]
    factors = factors.reshape(8, -1)[:, 0]
    assert (factors[:4] == 1.0).all() and (factors[4:] < 0.5).all()
    scaled = with_constants(net.model, changes.constants)
    far = [{k: 100.0 * np.asarray(v) for k, v in feed.items()} for feed in feeds]  # what no sample has shown
    assert sqnr(net.model, scaled, far) > 110.0
    after = quantized(replace(net, model=scaled), feeds)
    assert sqnr(net.model, after.model, feeds) > sqnr(net.model, quantized(net, feeds).model, feeds) + 6.0
    assert last.weight in changes.constants


def clip_at_six(b: Builder) -> str:
    """Any of its channels may come to 6: the input is not bounded."""
    return b.conv(b.relu6(b.conv(b.input("x", [1, 4, 8, 8]), 4, 8)), 8, 5, out="y")


def clip_above_zero(b: Builder) -> str:
    x = b.conv(b.input("x", [1, 4, 8, 8]), 4, 8)
    return b.conv(b.node("Clip", x, b.const(np.float32(-1)), b.const(np.float32(6))), 8, 5, out="y")


def test_a_ceiling_that_may_be_reached_stays_where_it_is() -> None:
    for net, links in ((clip_at_six, 1), (clip_above_zero, 0)):
        b = Builder(seed=5)
        b.output(net(b))
        feeds = b.feeds(4)
        model = prepared(b.model(), feeds[0]).model
        graph = view_of(model)
        assert len(find_links(graph, find_layers(graph))) == links
        assert ALWAYS.apply(subject(model, feeds)).constants == {}


def two_readers(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 8, 8]), 4, 8))
    return b.node("Add", b.conv(x, 8, 8), x, out="y")


def seen_outside(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 8, 8]), 4, 8))
    b.output(x)
    return b.conv(x, 8, 5, out="y")


def one_weight_for_two(b: Builder) -> str:
    w = b.weight(4, 4, 3, 3)
    x = b.relu(b.node("Conv", b.input("x", [1, 4, 8, 8]), w, pads=[1] * 4))
    return b.node("Conv", x, w, pads=[1] * 4, out="y")


def padded_with_ones(b: Builder) -> str:
    x = b.conv(b.input("x", [1, 4, 8, 8]), 4, 8)
    x = b.node("Pad", x, b.ints(0, 0, 1, 1, 0, 0, 1, 1), b.const(np.float32(1.0)))
    return b.conv(b.relu(x), 8, 5, out="y")


def not_homogeneous(b: Builder) -> str:
    return b.conv(b.node("Sigmoid", b.conv(b.input("x", [1, 4, 8, 8]), 4, 8)), 8, 5, out="y")


def product_on_another_axis(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 8, 8]), 4, 8))  # channels on axis 1, the product over axis 3
    return b.matmul(x, 8, 6, bias=False, out="y")


@pytest.mark.parametrize(
    "net",
    [
        two_readers,
        seen_outside,
        one_weight_for_two,
        padded_with_ones,
        not_homogeneous,
        product_on_another_axis,
    ],
    ids=lambda n: n.__name__,
)
def test_what_would_change_the_function_is_left_alone(net: Callable[[Builder], str]) -> None:
    b = Builder(seed=5)
    b.output(net(b))
    feeds = b.feeds(4)
    graph = view_of(prepared(b.model(), feeds[0]).model)
    assert find_links(graph, find_layers(graph)) == []
    assert ALWAYS.apply(subject(prepared(b.model(), feeds[0]).model, feeds)).constants == {}


def cost(seed: int, groups: int) -> LinkNoise:
    rng = np.random.default_rng(seed)
    peak = 10.0 ** rng.uniform(-1, 1, 4 * groups)
    weight = rng.standard_normal((groups, 4, 3)) * 10.0 ** rng.uniform(-1, 0, (groups, 4, 1))
    return LinkNoise(
        peak=peak,
        power=(peak * 0.3) ** 2,
        energy=(weight**2).sum(axis=2).reshape(-1),
        widest=np.log(np.abs(weight)),
        taps=9,
    )


@given(seed=st.integers(0, 10_000), groups=st.sampled_from([1, 2, 5]))
@settings(max_examples=30, deadline=None)
def test_the_gradient_is_that_of_the_cost(seed: int, groups: int) -> None:
    """At an exponent so high that the softmax is a maximum; a tie of two channels has no gradient."""
    c = cost(seed, groups)
    log_s = np.random.default_rng(seed + 1).uniform(-0.5, 0.5, c.peak.size)
    near = c.widest_near(log_s, 4)
    _, slope = c.value(log_s, near, 1e5)
    for i in range(c.peak.size):
        up, down = log_s.copy(), log_s.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric = (np.log(c.value(up, near, 1e5)[0]) - np.log(c.value(down, near, 1e5)[0])) / 2e-6
        assert slope[i] == pytest.approx(numeric, abs=2e-3)


@given(seed=st.integers(0, 10_000), groups=st.sampled_from([1, 2, 5]))
@settings(max_examples=20, deadline=None)
def test_the_choice_is_never_worse_than_none_by_much(seed: int, groups: int) -> None:
    c = cost(seed, groups)
    factors, gain = best(c, EqualizeOptions())
    assert gain >= -0.01
    assert np.log(factors).mean() == pytest.approx(0.0, abs=1e-9)


def test_it_works_before_planning() -> None:
    assert Equalize().stage is Stage.WEIGHTS
