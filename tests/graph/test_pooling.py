"""Means over the whole spatial extent become GlobalAveragePool, with the same result; other pooling stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import MIN_AGREEMENT_DB, prepare

SHAPE = [2, 5, 6, 7]


def model(node: onnx.NodeProto, opset: int, axes: list[int] | None = None) -> Model:
    constants = [] if axes is None else [onnx.numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return Model(ir=ir.from_proto(proto))


def ops(m: Model) -> list[str]:
    return [n.op_type for n in m.ir.graph]


FEED = {"x": np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)}

GLOBAL = [
    (helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[6, 7]), 13, None, ["GlobalAveragePool"]),
    (
        helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[6, 7], strides=[6, 7]),
        19,
        None,
        ["GlobalAveragePool"],
    ),
    (helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3]), 13, None, ["GlobalAveragePool"]),
    (helper.make_node("ReduceMean", ["x"], ["y"], axes=[-1, -2]), 13, None, ["GlobalAveragePool"]),
    (helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0), 13, None, ["GlobalAveragePool", "Flatten"]),
    (helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0), 18, [3, 2], ["GlobalAveragePool", "Flatten"]),
]


@pytest.mark.parametrize(("node", "opset", "axes", "expected"), GLOBAL, ids=lambda v: getattr(v, "op_type", None))
def test_a_mean_over_space_becomes_global_pooling(
    node: onnx.NodeProto, opset: int, axes: list[int] | None, expected: list[str]
) -> None:
    prepared = prepare(model(node, opset, axes), FEED)
    assert ops(prepared.model) == expected
    assert prepared.agreement_db is not None and prepared.agreement_db >= MIN_AGREEMENT_DB


OTHER = [
    helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 7]),
    helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[6, 7], pads=[1, 0, 1, 0]),
    helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2]),
    helper.make_node("ReduceMean", ["x"], ["y"], axes=[3]),
    helper.make_node("ReduceMean", ["x"], ["y"]),
]


@pytest.mark.parametrize("node", OTHER, ids=lambda n: n.op_type)
def test_other_means_stay(node: onnx.NodeProto) -> None:
    assert ops(prepare(model(node, 13), FEED).model) == [node.op_type]
