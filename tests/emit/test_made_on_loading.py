"""Operators of constants: computed as ONNX Runtime does, or left alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qconvert.emit.made_on_loading import computed
from qconvert.graph.model import Model
from qconvert.graph.signature import session_of

CODES = np.arange(-12, 12, dtype=np.int8).reshape(2, 3, 4)


def node_of(op_type: str, *numbers: list[int], codes: NDArray[np.generic] = CODES, **attributes: object) -> ir.Node:
    values = [ir.Value(name="codes", const_value=ir.tensor(codes, name="codes"))]
    values += [
        ir.Value(name=f"n{i}", const_value=ir.tensor(np.array(n, np.int64), name=f"n{i}"))
        for i, n in enumerate(numbers)
    ]
    for value in values:
        assert value.const_value is not None
        value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(value.const_value.shape.numpy())
    node = ir.node(op_type, values, attributes=attributes, name="made")  # type: ignore[arg-type]
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(values[0].dtype or ir.DataType.INT8)
    return node


@pytest.mark.parametrize(
    "node",
    [
        node_of("Pad", [0, 1, 0, 2, 0, 3], mode="constant"),
        node_of("Pad", [0, 2], codes=np.array([0.5, 2], np.float32), mode="edge"),
        node_of("Tile", [1, 2, 3]),
        node_of("Slice", [1], [3], [2]),
        node_of("Reshape", [4, 6]),
        node_of("Transpose", perm=[2, 0, 1]),
    ],
    ids=lambda n: n.op_type,
)
def test_as_onnx_runtime_does(node: ir.Node) -> None:
    found = computed(node)
    assert found is not None
    constants = [value for value in node.inputs if value is not None]
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=constants, opset_imports={"": 17}, name="g")
    (expected,) = session_of(Model(ir=ir.Model(graph, ir_version=8))).run({})
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "node",
    [
        node_of("Pad", [0, -1, 0, 0, 0, 0], mode="constant"),
        node_of("Pad", [0, 1, 0, 0, 0, 0], mode="wrap"),
        node_of("Pad", [1, 1], [0], [1], mode="constant"),  # pads of some axes
        node_of("Slice", [0], [9], [2]),  # beyond the end
        node_of("Slice", [3], [0], [2], [-1]),  # backwards
        node_of("Reshape", [0, -1]),
        node_of("Gather", [0]),
    ],
)
def test_others_are_left_alone(node: ir.Node) -> None:
    assert computed(node) is None
