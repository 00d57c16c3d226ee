"""Weights in memory are read by ONNX Runtime where they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qconvert.graph.model import Model
from qconvert.graph.signature import session_of

ONES = np.ones((1, 64), np.float32)


def weight(seed: int, dtype: type = np.float32) -> NDArray[np.generic]:
    return np.random.default_rng(seed).integers(-100, 100, (64, 64)).astype(dtype)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.generic]],
    outputs: tuple[str, ...] = ("y",),
    inputs: tuple[str, ...] = (),
) -> Model:
    """In memory; the weights called ``inputs`` are inputs of the graph, too, which a feed may replace."""
    declared = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])]
    declared += [helper.make_tensor_value_info(n, TensorProto.FLOAT, [64, 64]) for n in inputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [*declared, helper.make_tensor_value_info("yes", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return Model(ir=ir.from_proto(proto))


def result(made: Model, *, yes: bool = True, **more: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return session_of(made).run({"x": ONES, "yes": np.array(yes), **more})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64])
def test_outputs_are_those_of_the_weights(dtype: type) -> None:
    w = weight(0, dtype) if dtype is not np.uint8 else np.abs(weight(0, np.int32)).astype(np.uint8)
    cast = helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT)
    made = model([cast, helper.make_node("MatMul", ["x", "f"], ["y"])], {"w": w})
    np.testing.assert_array_equal(result(made)[0], ONES @ w.astype(np.float32))


def test_what_is_serialised_holds_no_large_weight_and_the_model_keeps_its_own() -> None:
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight(1)})
    message, lent = made.to_skeleton()
    assert len(message) < 2000 < weight(1).nbytes
    np.testing.assert_array_equal(lent["w"], weight(1))
    again = onnx.load_from_string(made.to_bytes())
    np.testing.assert_array_equal(numpy_helper.to_array(again.graph.initializer[0]), weight(1))


def test_weights_of_bodies_unused_ones_outputs_and_inputs_are_what_they_were() -> None:
    body = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["x", read], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64])],
            [numpy_helper.from_array(weight(5), "inner")] if read == "inner" else [],
        )
        for name, read in (("then", "outer"), ("else", "inner"))
    }
    branch = helper.make_node("If", ["yes"], ["z"], then_branch=body["then"], else_branch=body["else"])
    product = helper.make_node("MatMul", ["x", "given"], ["y"])
    weights = {"outer": weight(2), "unused": weight(3), "shown": weight(4), "given": weight(6)}
    made = model([branch, product], weights, outputs=("z", "shown", "y"), inputs=("given",))
    z, shown, y = result(made)
    np.testing.assert_array_equal(z, ONES @ weight(2))
    np.testing.assert_array_equal(shown, weight(4))
    np.testing.assert_array_equal(y, ONES @ weight(6))
    z, _, y = result(made, yes=False, given=weight(7))
    np.testing.assert_array_equal(z, ONES @ weight(5))
    np.testing.assert_array_equal(y, ONES @ weight(7))
