"""A simulation whose scales are inputs computes what one with the same scales as constants does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.model import Model
from qconvert.graph.signature import session_of
from qconvert.graph.simulate import Rounding, free_names, simulated
from qconvert.numerics.affine import dequantize, params_from_range, quantize
from qconvert.numerics.dtypes import INT8, UINT8
from qconvert.numerics.spec import QuantSpec


@pytest.mark.parametrize("qtype", [UINT8, INT8], ids=lambda t: t.name)
def test_free_scales_are_inputs(qtype: object) -> None:
    b = Builder()
    hidden = b.relu(b.gemm(b.input("x", [2, 6]), 6, 5))
    b.output(b.gemm(hidden, 5, 3, out="y"), [2, 3])
    net = Model(ir=ir.from_proto(b.model()), path=None)
    spec = QuantSpec(qtype=qtype, symmetric=False)  # type: ignore[arg-type]
    first = params_from_range(-1.0, 1.0, spec)
    # one stem for two tensors: they share scale and zero point
    free = [Rounding(tensor=t, params=first, free="g") for t in ("x", hidden)]
    session = session_of(simulated(net, free, {}), integers=False)
    scale, zero = free_names("g")
    assert {i.name for i in session.inputs} == {"x", scale, zero}
    feed = b.feeds(1)[0]
    for reach in (0.5, 1.0, 4.0):
        params = params_from_range(-reach, 2 * reach, spec)
        fixed = simulated(net, [Rounding(tensor=t, params=params) for t in ("x", hidden)], {})
        (expected,) = session_of(fixed, integers=False).run(feed)
        (found,) = session.run({**feed, scale: params.scale, zero: params.zero_point})
        assert np.array_equal(found, expected)
    x = np.asarray(feed["x"], np.float32)
    assert not np.array_equal(dequantize(quantize(x, first), first), x), "nothing was rounded in this test"
