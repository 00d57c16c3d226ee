"""Bounds: no input makes a channel leave them, and they are tight where that can be told."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.builder import Builder
from recover.nets import prepared

from qconvert.graph.build_view import view_of
from qconvert.graph.signature import session_of
from qconvert.recover.bounds import channel_bounds
from qconvert.recover.layers import find_layers


def net(seed: int) -> Builder:
    b = Builder(seed=seed)
    x = b.relu6(b.conv(b.input("x", [1, 3, 8, 8]), 3, 8))
    deep = b.relu6(b.conv(x, 8, 8, group=8))
    grouped = b.node("Sigmoid", b.conv(deep, 8, 8, group=2, stride=2))
    side = b.node("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = b.conv(b.node("Add", grouped, b.node("MaxPool", side, kernel_shape=[1, 1])), 8, 6, 1, bias=False)
    x = b.node("Flatten", b.node("GlobalAveragePool", b.relu(x)))
    b.output(b.gemm(x, 6, 4, out="y"))
    return b


@given(seed=st.integers(0, 1000), loud=st.sampled_from([0.01, 1.0, 1000.0]))
@settings(max_examples=25, deadline=None)
def test_no_input_leaves_them(seed: int, loud: float) -> None:
    b = net(seed)
    feeds = [{k: np.asarray(v) * np.float32(loud) for k, v in feed.items()} for feed in b.feeds(3)]
    model = prepared(b.model(), feeds[0]).model
    graph = view_of(model)
    bounds = channel_bounds(graph, find_layers(graph))
    names = [t for t in bounds if np.isfinite(bounds[t].high).any()]
    assert len(names) >= 9
    session = session_of(model, outputs=names)
    for feed in feeds:
        for name, value in zip(names, session.run_on(feed, names), strict=True):
            channels = np.moveaxis(np.asarray(value), 1, 0).reshape(np.shape(value)[1], -1)
            assert (channels.min(axis=1) >= bounds[name].low).all()
            assert (channels.max(axis=1) <= bounds[name].high).all()


def test_they_are_reached_where_one_input_decides_all_taps() -> None:
    """A product of one tap: the input that makes each term largest exists."""
    b = Builder(seed=3)
    w = b.rng.normal(size=(4, 5, 1, 1)).astype(np.float32)
    x = b.relu6(b.input("x", [1, 5, 1, 1]))
    b.output(b.node("Conv", x, b.const(w), out="y"))
    feed = {"x": np.zeros((1, 5, 1, 1), np.float32)}
    model = prepared(b.model(), feed).model
    graph = view_of(model)
    bounds = channel_bounds(graph, find_layers(graph))["y"]
    for sign, found in ((1, bounds.high), (-1, bounds.low)):
        for channel in range(4):
            best = np.where(sign * w[channel] > 0, 6.0, 0.0)[None].astype(np.float32)
            reached = float(session_of(model).run({"x": best})[0].reshape(-1)[channel])
            assert 0 <= sign * (found[channel] - reached) < 2e-3 * max(1.0, abs(reached))


def test_nothing_is_said_where_nothing_is_known() -> None:
    b = Builder(seed=4)
    b.output(b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 3, 4)))
    feeds = b.feeds(1)
    graph = view_of(prepared(b.model(), feeds[0]).model)
    bounds = list(channel_bounds(graph, find_layers(graph)).values())
    assert not any(np.isfinite(x.high).any() for x in bounds)
    assert [float(x.low.min()) for x in bounds] == [-np.inf, 0.0]
