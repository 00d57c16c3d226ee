"""Integer operators in numpy, against ONNX Runtime; models cut apart and put together again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from diagnose import nets
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from qconvert.diagnose.emulation import _SplitNet, saturation_damage
from qconvert.diagnose.integer_ops import PORTS, compute, saturable
from qconvert.graph.build_view import view_of
from qconvert.graph.model import load
from qconvert.graph.optimized import named, optimized_model, origin, segment
from qconvert.graph.session import open_session
from qconvert.graph.signature import session_of

F32, U8 = TensorProto.FLOAT, TensorProto.UINT8
RNG = np.random.default_rng(0)
A = RNG.integers(0, 256, (5, 12)).astype(np.uint8)
W = RNG.integers(-60, 61, (12, 7)).astype(np.int8)
IMAGE = RNG.integers(0, 256, (2, 4, 6, 6)).astype(np.uint8)
FILTERS = RNG.integers(-60, 61, (6, 4, 3, 3)).astype(np.int8)
S_A, Z_A, S_Y, Z_Y = np.float32(0.02), np.uint8(17), np.float32(2.5), np.uint8(120)
S_W, Z_W = np.linspace(0.01, 0.03, 7, dtype=np.float32), np.zeros(7, np.int8)
S_F, Z_F = np.linspace(0.01, 0.03, 6, dtype=np.float32), np.zeros(6, np.int8)
CASES: dict[str, tuple[NDArray[Any], list[Any], int]] = {
    "QLinearConv": (IMAGE, [S_A, Z_A, FILTERS, S_F, Z_F, S_Y, Z_Y, np.arange(6, dtype=np.int32) * 50], U8),
    "ConvInteger": (IMAGE, [FILTERS, Z_A], TensorProto.INT32),
    "QLinearMatMul": (A, [S_A, Z_A, W, S_W, Z_W, S_Y, Z_Y], U8),
    "MatMulInteger": (A, [W, Z_A], TensorProto.INT32),
    "QGemm": (A, [S_A, Z_A, W, S_W, Z_W, np.arange(7, dtype=np.int32) * 50, S_Y, Z_Y], U8),
    "MatMulIntegerToFloat": (A, [W, S_A, S_W, Z_A, Z_W, np.arange(7, dtype=np.float32)], F32),
    "DynamicQuantizeMatMul": (
        RNG.standard_normal((5, 12)).astype(np.float32),
        [W, S_W, Z_W, np.arange(7, dtype=np.float32)],
        F32,
    ),
}


def model_of(op: str, **attributes: Any) -> onnx.ModelProto:
    first, rest, result = CASES[op]
    domain = "" if op.startswith(("QLinear", "ConvInteger")) or op == "MatMulInteger" else nets.MS
    names = [f"c{i}" for i in range(len(rest))]
    graph = helper.make_graph(
        [helper.make_node(op, ["a", *names], ["y"], name="node", domain=domain, **attributes)],
        "g",
        [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(first.dtype), first.shape)],
        [helper.make_tensor_value_info("y", result, None)],
        [numpy_helper.from_array(np.asarray(v), n) for v, n in zip(rest, names, strict=True)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(nets.MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        *((op, {}) for op in CASES),
        ("QLinearConv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("QLinearConv", {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
        ("QLinearConv", {"auto_pad": "VALID"}),
        ("QLinearConv", {"pads": [1, 0, 2, 1], "dilations": [2, 1]}),
    ],
)
def test_an_integer_operator_is_what_onnx_runtime_computes(op: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model_of(op, **attributes), path)
    first, rest, _ = CASES[op]
    [expected] = open_session(path, threads=1).run({"a": first})
    view = view_of(load(path))
    for saturate in (False, True):  # the weights are too small to saturate
        found = compute(view.nodes["node"], (first, *map(np.asarray, rest)), saturate=saturate)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        if expected.dtype == np.float32:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        else:
            # a result half way between two codes may go either way: kernels multiply in another order
            assert np.abs(found.astype(int) - expected.astype(int)).max() <= int(op.startswith("Q"))
            assert (found == expected).mean() > 0.99
    known = saturable(view, view.nodes["node"])
    assert (known is None) == (op == "ConvInteger")
    assert known is None or known.unsafe == 0


def test_every_operator_is_covered() -> None:
    assert set(CASES) == set(PORTS)


def feed_of(path: Path) -> dict[str, NDArray[np.generic]]:
    return {
        s.name: np.random.default_rng(1)
        .uniform(-6, 6, [d if isinstance(d, int) else 1 for d in s.shape])
        .astype(np.float32)
        for s in open_session(path).inputs
    }


@pytest.mark.parametrize("make", [nets.sound, nets.islands, nets.residual, nets.symmetric, nets.mostly_float])
def test_a_net_cut_at_every_integer_node_is_the_same_net(make: Any, tmp_path: Path) -> None:
    path = make().save(tmp_path)
    model = optimized_model(path, layouts=False)
    view = view_of(model)
    cut = [n.name for n in view.nodes.values() if n.op_type in PORTS]
    assert cut
    feed = feed_of(path)
    [expected] = open_session(path, threads=1).run(feed)
    [found] = _SplitNet(model, view, cut).run(feed, saturate=False)
    spread = float(np.ptp(expected))
    # a code that is rounded the other way is one step; on VNNI this is a rare tie
    assert np.median(np.abs(found - expected)) <= 1e-5 * spread
    assert np.abs(found - expected).max() <= 0.05 * spread


def test_saturation_does_damage_and_safe_weights_none(tmp_path: Path) -> None:
    path = nets.islands().save(tmp_path)
    found = saturation_damage(path, [feed_of(path)])
    assert found is not None
    assert set(found.layers) == {"n_c1", "n_c2"}
    assert math.isfinite(found.end_to_end.sqnr_db)
    assert saturation_damage(nets.sound().save(tmp_path, "sound.onnx"), [feed_of(path)]) is None


def test_a_segment_starts_where_it_is_told(tmp_path: Path) -> None:
    net = nets.Net(1, 4)
    net.put("k", np.full(4, 2.0))
    net.add("Add", ["x", "k"], "a")
    net.add("Relu", ["a"], "b")
    net.add("Mul", ["b", "a"], "y")
    model = named(load(net.save(tmp_path)))
    part = segment(model, {"b": np.dtype(np.float32), "x": np.dtype(np.float32)}, ["y"])
    assert part is not None
    assert {v.name for v in part.ir.graph.inputs} == {"b", "x"}
    assert [n.op_type for n in part.ir.graph] == ["Add", "Mul"]
    assert segment(model, {"x": np.dtype(np.float32)}, ["x"]) is None


def test_a_segment_may_start_at_an_output(tmp_path: Path) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x)  z = Neg(y) }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    part = segment(named(load(tmp_path / "m.onnx")), {"y": np.dtype(np.float32)}, ["y", "z"])
    assert part is not None
    assert session_of(part).run({"y": np.array([1.0, 2.0], np.float32)})[0].tolist() == [-1.0, -2.0]


def test_a_segment_does_without_a_branch_that_reads_it(tmp_path: Path) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, bool c) => (float[2] y, float[2] z) {
            a = Relu(x)
            z = Exp(a)
            y = If(c) <then_branch = t () => (float[2] p) { p = Neg(a) },
                       else_branch = e () => (float[2] q) { q = Abs(a) }>
        }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    whole = named(load(tmp_path / "m.onnx"))
    start = {"x": np.dtype(np.float32), "c": np.dtype(np.bool_)}
    part, branches = segment(whole, start, ["z"]), segment(whole, {**start, "a": start["x"]}, ["y"])
    assert part is not None
    assert branches is not None
    assert [n.op_type for n in part.ir.graph] == ["Relu", "Exp"]
    assert [n.op_type for n in branches.ir.graph] == ["If"]
    values = {"a": np.array([1.0, -2.0], np.float32), "c": np.array(True)}
    assert session_of(branches).run(values)[0].tolist() == [-1.0, 2.0]


def test_unnamed_nodes_get_names_of_their_own(tmp_path: Path) -> None:
    net = nets.Net(1, 4)
    net.add("Relu", ["x"], "a")
    net.add("Relu", ["a"], "b")
    net.add("Relu", ["b"], "y")
    for node, name in zip(net.nodes, ["same", "same", ""], strict=True):
        node.name = name
    names = [n.name for n in named(load(net.save(tmp_path))).ir.graph]
    assert names == ["same", "Relu of b", "Relu of y"]


def test_names_before_layouts_changed() -> None:
    assert origin("conv_token_12") == "conv"
    assert origin("conv_nchwc") == "conv"
    assert origin("token_2_conv") == "token_2_conv"
