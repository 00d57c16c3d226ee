"""High-bias absorption: what is always there goes through the next bias, and where that is not the same it stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from networks.builder import Builder
from numpy.typing import NDArray
from recover.nets import prepared, quantized, sqnr, subject

from qconvert.graph.build_view import view_of
from qconvert.graph.constants import with_constants
from qconvert.graph.signature import session_of
from qconvert.recover.layers import find_layers
from qconvert.recover.passes.absorb import Absorb
from qconvert.recover.recovery import Stage

HIGH = np.where(np.arange(8) < 3, 100.0, 0.1).astype(np.float32)
"""Biases: three of eight channels are about 100, and differ by about 1."""


def first(b: Builder, bias: NDArray[np.float32] = HIGH) -> str:
    return b.node("Conv", b.input("x", [1, 4, 8, 8]), b.weight(8, 4, 3, 3), b.const(bias), pads=[1] * 4)


def pointwise(b: Builder) -> str:
    return b.conv(b.relu(first(b)), 8, 5, 1, out="y")


def without_biases_behind(b: Builder) -> str:
    return b.node("Conv", b.relu(first(b)), b.weight(5, 8, 3, 3), out="y")


def in_groups(b: Builder) -> str:
    return b.node("Conv", b.node("LeakyRelu", first(b)), b.weight(6, 4, 3, 3), b.vector(6), group=2, out="y")


def pooled_and_flat(b: Builder) -> str:
    x = b.node("AveragePool", b.relu(first(b)), kernel_shape=[2, 2], strides=[2, 2])
    return b.gemm(b.node("Flatten", x), 8 * 16, 6, out="y")


def perceptron(b: Builder) -> str:
    x = b.node("MatMul", b.input("x", [2, 5, 8]), b.weight(8, 8))
    x = b.relu(b.node("Add", x, b.const(HIGH)))
    return b.matmul(x, 8, 6, out="y")


NETS = [pointwise, without_biases_behind, in_groups, pooled_and_flat, perceptron]


@pytest.mark.parametrize("net", NETS, ids=lambda n: n.__name__)
def test_high_biases_leave_the_range_to_the_rest(net: Callable[[Builder], str]) -> None:
    b = Builder(seed=6)
    b.output(net(b))
    feeds = b.feeds(40)
    plain = prepared(b.model(), feeds[0])
    changes = Absorb().apply(subject(plain.model, feeds[:24]))
    assert changes.changed == 1 and {port for _, port in changes.constants} <= {1, 2}
    absorbed = replace(plain, model=with_constants(plain.model, changes.constants))
    assert (
        sqnr(plain.model, absorbed.model, feeds[24:]) > 60.0
    )  # samples that the pass has not seen, one of which goes lower
    assert len(absorbed.model.ir.graph) == len(plain.model.ir.graph)
    before = varying(plain.model, quantized(plain, feeds).model, feeds)
    assert varying(plain.model, quantized(absorbed, feeds).model, feeds) > before + 4.0


def varying(reference: object, other: object, feeds: list[dict[str, object]]) -> float:
    """SQNR in dB of what differs between samples, in float64: the outputs' constant part says nothing."""
    one, two = (np.stack([s.run(f)[0] for f in feeds]).astype(np.float64) for s in map(session_of, (reference, other)))  # type: ignore[arg-type]
    moving = one - one.mean(axis=0)
    return float(10 * np.log10((moving**2).sum() / ((one - two) ** 2).sum()))


def test_what_falls_below_is_clipped_by_no_more_than_that() -> None:
    b = Builder(seed=6)
    b.output(pointwise(b))
    feeds = b.feeds(24)
    model = prepared(b.model(), feeds[0]).model
    layers = list(find_layers(view_of(model)).values())
    changes = Absorb().apply(subject(model, feeds))
    other = with_constants(model, changes.constants)
    taken = HIGH - changes.constants[layers[0].bias]
    far = {"x": -30.0 * np.abs(np.asarray(feeds[0]["x"]))}
    reads = session_of(model, outputs=[layers[0].result])
    p = np.maximum(np.asarray(reads.run_on(far, [layers[0].result])[0], np.float64), 0.0)
    below = np.maximum(taken.reshape(1, -1, 1, 1) - p, 0.0)
    assert below.max() > 1.0
    w = np.abs(np.asarray(view_of(model).constant(view_of(model).nodes[layers[1].node].inputs[1] or "")))[:, :, 0, 0]
    apart = np.abs(session_of(model).run(far)[0] - session_of(other).run(far)[0])
    assert (apart <= np.einsum("oc,nchw->nohw", w, below) + 1e-3).all()


def padded(b: Builder) -> str:
    return b.conv(b.relu(first(b)), 8, 5, 3, out="y")


def padded_by_a_node(b: Builder) -> str:
    x = b.node("Pad", b.relu(first(b)), b.ints(0, 0, 1, 1, 0, 0, 1, 1))
    return b.node("Conv", x, b.weight(5, 8, 3, 3), b.vector(5), out="y")


def padded_pooling(b: Builder) -> str:
    x = b.node("AveragePool", b.relu(first(b)), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    return b.conv(x, 8, 5, 1, out="y")


def silent_now_and_then(b: Builder) -> str:
    return b.conv(b.relu(first(b, np.zeros(8, np.float32))), 8, 5, 1, out="y")


def with_a_ceiling(b: Builder) -> str:
    return b.conv(b.relu6(first(b, HIGH / 40)), 8, 5, 1, out="y")


def no_place_for_a_bias(b: Builder) -> str:
    x = b.node("MatMul", b.input("x", [2, 5, 8]), b.weight(8, 8))
    return b.matmul(b.relu(b.node("Add", x, b.const(HIGH))), 8, 6, bias=False, out="y")


@pytest.mark.parametrize(
    "net",
    [padded, padded_by_a_node, padded_pooling, silent_now_and_then, with_a_ceiling, no_place_for_a_bias],
    ids=lambda n: n.__name__,
)
def test_what_would_not_come_back_is_left_alone(net: Callable[[Builder], str]) -> None:
    b = Builder(seed=8)
    b.output(net(b))
    feeds = b.feeds(12)
    assert Absorb().apply(subject(prepared(b.model(), feeds[0]).model, feeds)).constants == {}


def test_it_works_before_planning() -> None:
    assert Absorb().stage is Stage.WEIGHTS
