"""Outputs are compared before what squashes them, and at the same place in a model and in its simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from qconvert.graph.model import Model
from qconvert.graph.signature import session_of
from qconvert.graph.simulate import Rounding, simulated
from qconvert.graph.tails import as_squashed, before_squashing, both_sides
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.dtypes import UINT8
from qconvert.numerics.spec import QuantSpec

DOUBLE = TensorProto.DOUBLE
SPEC = QuantSpec(qtype=UINT8, symmetric=False)
FEED = {"x": np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)}


def model(*nodes: str, outputs: dict[str, int]) -> Model:
    """Nodes as "op in1,in2 out"; x [2, 5] is the input."""
    made = [
        helper.make_node(op, ins.split(","), [out], name=out, **({"to": TensorProto.FLOAT} if op == "Cast" else {}))
        for op, ins, out in (n.split() for n in nodes)
    ]
    shape = numpy_helper.from_array(np.array([10], np.int64), "ten")
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 5])],
        [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()],
        [shape, numpy_helper.from_array(np.array([-1], np.int64), "last")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Model(ir=ir.from_proto(proto), path=None)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "ArgMax"])
def test_the_output_moves_before_a_squashing_operator(op: str) -> None:
    dtype = TensorProto.INT64 if op == "ArgMax" else TensorProto.FLOAT
    squashed = before_squashing(model("Tanh x a", f"{op} a y", outputs={"y": dtype}))
    (found,) = session_of(squashed).run(FEED)
    assert np.allclose(found, np.tanh(FEED["x"]), atol=1e-6)


def test_shapes_and_casts_may_stand_behind_it() -> None:
    made = model("Tanh x a", "ArgMax a b", "Cast b c", "Identity c y", outputs={"y": TensorProto.FLOAT})
    assert np.allclose(session_of(before_squashing(made)).run(FEED)[0], np.tanh(FEED["x"]), atol=1e-6)
    made = model("Tanh x a", "Softmax a b", "Reshape b,ten y", outputs={"y": TensorProto.FLOAT})
    assert session_of(before_squashing(made)).run(FEED)[0].shape == (2, 5)


def test_other_outputs_stay_and_indices_go() -> None:
    outputs = {"a": TensorProto.FLOAT, "y": TensorProto.FLOAT, "n": TensorProto.INT64, "z": TensorProto.FLOAT}
    made = model("Tanh x a", "Softmax a y", "Shape x n", "Exp x z", outputs=outputs)
    found = session_of(before_squashing(made)).run(FEED)
    # a is both an output and what Softmax reads, and is compared once
    assert [f.shape for f in found] == [(2, 5), (2, 5)]
    assert np.allclose(found[1], np.exp(FEED["x"]), rtol=1e-5)


def test_a_simulation_shows_what_the_squashing_operator_reads() -> None:
    made = model("Tanh x a", "Softmax a y", outputs={"y": TensorProto.FLOAT})
    coarse = params_from_range(-1.0, 1.0, SPEC)
    rounded = simulated(made, [Rounding(tensor="a", params=coarse)], {})
    (found,) = session_of(before_squashing(rounded), integers=False).run(FEED)
    codes = found / float(coarse.scale)
    assert np.allclose(codes, np.rint(codes), atol=1e-3)
    assert np.abs(found - np.tanh(FEED["x"])).max() <= float(coarse.scale) / 2 + 1e-6


def test_a_float16_output_is_compared_as_what_it_is_made_of() -> None:
    made = model("Tanh x a", "Relu a b", "Cast b y", outputs={"y": TensorProto.FLOAT16})
    for node in made.ir.graph:
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", TensorProto.FLOAT16)
    (found,) = session_of(before_squashing(made)).run(FEED)
    assert found.dtype == np.float32
    assert np.allclose(found, np.maximum(np.tanh(FEED["x"]), 0), atol=1e-6)


@pytest.mark.parametrize("taken", [before_squashing, as_squashed])
def test_a_double_output_is_compared_as_the_float32_that_it_is_made_of(taken: Callable[[Model], Model]) -> None:
    made = model("Tanh x a", "Cast a y", "Shape x n", "Cast n z", outputs={"y": DOUBLE, "z": DOUBLE})
    for node in made.ir.graph:
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", DOUBLE)
    made.ir.graph[2].outputs[0].type = ir.TensorType(ir.DataType.INT64)
    (found,) = session_of(taken(made)).run(FEED)
    assert found.dtype == np.float32
    assert np.allclose(found, np.tanh(FEED["x"]), atol=1e-6)


@pytest.mark.parametrize("taken", [before_squashing, as_squashed])
def test_without_float_outputs_the_last_floats_are_compared(taken: Callable[[Model], Model]) -> None:
    made = model("Tanh x a", "Sign a b", "IsNaN b c", "Not c y", outputs={"y": TensorProto.BOOL})
    made.ir.graph[2].outputs[0].type = ir.TensorType(ir.DataType.BOOL)
    (found,) = session_of(taken(made)).run(FEED)
    assert np.array_equal(found, np.sign(FEED["x"]))


def test_both_sides_of_a_squashing_operator() -> None:
    made = model("Tanh x a", "Softmax a y", "Exp x z", outputs={"y": TensorProto.FLOAT, "z": TensorProto.FLOAT})
    both, sides = both_sides(made)
    found = session_of(both).run(FEED)
    for numbers, taken in zip(sides, (before_squashing, as_squashed), strict=True):
        for number, expected in zip(numbers, session_of(taken(made)).run(FEED), strict=True):
            assert np.array_equal(found[number], expected)
    assert len(found) == 3  # the output that nothing squashes is there once
    _, sides = both_sides(model("Tanh x y", outputs={"y": TensorProto.FLOAT}))
    assert sides == ((0,),)


def test_a_softmax_of_several_operators() -> None:
    made = model("Tanh x a", "Exp a b", "ReduceSum b,last c", "Div b,c y", outputs={"y": TensorProto.FLOAT})
    (found,) = session_of(before_squashing(made)).run(FEED)
    assert np.allclose(found, np.tanh(FEED["x"]), atol=1e-6)
