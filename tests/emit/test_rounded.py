"""What 8 bits can have at any speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from networks.builder import Builder, Feed

from qconvert.emit.rounded import with_sample_ranges
from qconvert.graph.model import load
from qconvert.graph.signature import session_of


def run(proto: onnx.ModelProto, feed: Feed, folder: Path, *, rounded: bool) -> np.ndarray:
    path = folder / "net.onnx"
    onnx.save(proto, path)
    model = load(path)
    return np.asarray(session_of(with_sample_ranges(model) if rounded else model).run(feed)[0], np.float64)


def test_inputs_and_weights_are_rounded_in_their_own_ranges(tmp_path: Path) -> None:
    """Against float64: uint8 codes of a range that holds 0, int8 codes of a weight whose scale is that of a column."""
    b = Builder(seed=2)
    weight = np.random.default_rng(0).normal(0, 1, (32, 24)).astype(np.float32)
    b.output(b.node("MatMul", b.input("x", [1, 32]), b.const(weight), out="y"), [1, 24])
    x = np.random.default_rng(1).normal(0.5, 1, (1, 32)).astype(np.float32)
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / 255
    zero = np.round(-low / step)
    real_x = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step
    scale = np.abs(weight).max(axis=0) / 127
    real_w = np.round(weight / scale) * scale
    found = run(b.model(), {"x": x}, tmp_path, rounded=True)
    np.testing.assert_allclose(found, real_x.astype(np.float64) @ real_w.astype(np.float64), rtol=1e-4, atol=1e-4)


def test_the_range_is_that_of_the_sample(tmp_path: Path) -> None:
    """A quiet sample loses no more than a loud one: powers of two change no code."""
    b = Builder(seed=2)
    x = b.input("x", [1, 3, 8, 8])
    b.output(b.conv(b.relu(b.conv(x, 3, 16)), 16, 16, out="y"), [1, 16, 8, 8])
    proto = b.model()
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == 1:  # biases do not grow with the sample
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    feed = b.feeds(1)[0]
    loud = run(proto, feed, tmp_path, rounded=True)
    quiet = run(proto, {"x": feed["x"] / np.float32(1024)}, tmp_path, rounded=True)
    np.testing.assert_allclose(quiet * 1024, loud, rtol=1e-5, atol=1e-6)
    exact = run(proto, feed, tmp_path, rounded=False)
    error = ((loud - exact) ** 2).sum() / (exact**2).sum()
    assert 1e-6 < error < 1e-3


def test_factors_for_channels_are_not_rounded(tmp_path: Path) -> None:
    b = Builder(seed=2)
    x = b.input("x", [1, 600, 2, 2])
    factors = np.linspace(0.1, 0.9, 600, dtype=np.float32).reshape(600, 1, 1, 1)
    b.output(b.node("Conv", x, b.const(factors), out="y", group=600), [1, 600, 2, 2])
    feed = b.feeds(1)[0]
    expected = run(b.model(), feed, tmp_path, rounded=False)
    np.testing.assert_array_equal(run(b.model(), feed, tmp_path, rounded=True), expected)
