"""Switches: off they do nothing, on they are QuantizeLinear and DequantizeLinear, and each half does its half."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.model import Model
from qconvert.graph.signature import session_of
from qconvert.graph.simulate import Rounding, simulated
from qconvert.graph.switches import WeightInput, switch, switched
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.dtypes import INT8, UINT8
from qconvert.numerics.spec import QuantSpec


def net(opset: int = 17) -> tuple[Model, str, str, np.ndarray, list[dict[str, object]]]:
    b = Builder(opset=opset)
    hidden = b.relu(b.gemm(b.input("x", [2, 6]), 6, 5))
    b.output(b.gemm(hidden, 5, 3, out="y"), [2, 3])
    proto = b.model()
    gemm = [n for n in proto.graph.node if n.op_type == "Gemm"][1]
    return Model(ir=ir.from_proto(proto), path=None), hidden, gemm.name, np.zeros((3, 5), np.float32), b.feeds(3)


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("qtype", [UINT8, INT8], ids=lambda t: t.name)
def test_on_is_quantize_dequantize_and_off_is_nothing(qtype: object, opset: int) -> None:
    model, hidden, _, _, feeds = net(opset)
    spec = QuantSpec(qtype=qtype, symmetric=False)  # type: ignore[arg-type]
    params = params_from_range(-0.7, 0.9, spec)
    board = session_of(switched(model, [Rounding(tensor=t, params=params, free=t) for t in ("x", hidden)], []))
    off = {**switch("x", None), **switch(hidden, None)}
    on = {**switch("x", params), **switch(hidden, params)}
    plain = session_of(model)
    for feed in feeds:
        assert np.array_equal(board.run({**feed, **off})[0], plain.run(feed)[0])
        if opset >= 10:  # before, there is no QuantizeLinear to compare with
            pairs = simulated(model, [Rounding(tensor=t, params=params) for t in ("x", hidden)], {})
            (expected,) = session_of(pairs, integers=False).run(feed)
            assert np.array_equal(board.run({**feed, **on})[0], expected)
            assert not np.array_equal(expected, plain.run(feed)[0])


def test_halves() -> None:
    b = Builder()
    b.output(b.node("Identity", b.input("x", [64]), out="y"), [64])
    model = Model(ir=ir.from_proto(b.model()), path=None)
    params = params_from_range(-1.0, 2.0, QuantSpec(qtype=UINT8, symmetric=False))
    board = session_of(switched(model, [Rounding(tensor="x", params=params, free="s")], []))
    x = np.linspace(-3, 3, 64, dtype=np.float32)
    low, high = params.range
    (clipped,) = board.run({"x": x, **switch("s", params, rounds=False)})
    assert np.array_equal(clipped, np.clip(x, np.float32(low), np.float32(high)))
    (rounded,) = board.run({"x": x, **switch("s", params, clips=False)})
    assert np.array_equal(rounded, np.rint(x / params.scale) * params.scale)
    assert np.abs(rounded - x).max() <= float(params.scale) * 0.5001


def test_weights_are_inputs() -> None:
    model, _, gemm, other, feeds = net()
    board = session_of(switched(model, [], [WeightInput(port=(gemm, 1), name="w", shape=other.shape)]))
    assert {i.name for i in board.inputs} == {"x", "w"}
    first, second = (board.run({**feeds[0], "w": w})[0] for w in (other, other + 1))
    assert not np.array_equal(first, second)
    assert np.ptp(first, axis=0).max() == 0.0, "with a weight of zeros the bias is all that is left"
