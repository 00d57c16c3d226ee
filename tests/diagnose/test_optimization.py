"""Outputs with and without ONNX Runtime's optimizations: equal within rounding, or a fault that is found."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.all import NETWORKS
from onnx import TensorProto, helper, numpy_helper
from recover import nets

from qconvert.diagnose.optimization import OptimizationEffect, optimization_effect
from qconvert.graph.model import Model
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import Recipe


def effect(model: Model, original: Model, feeds: list[dict[str, np.ndarray]]) -> OptimizationEffect | None:
    return optimization_effect(model, session_of(model), session_of(original), feeds, {"y": 0.1})


@pytest.mark.parametrize("name", ["resnet", "encoder_decomposed", "ssd", "extreme_values"])
def test_sound_models_are_the_same_within_rounding(name: str) -> None:
    net = NETWORKS[name]()
    prepared = nets.prepared(net.proto, net.feeds[0])
    model = nets.quantized(prepared, net.feeds, Recipe(recover=("none",))).model
    found = effect(model, prepared.model, list(net.feeds[:2]))
    assert found is not None
    assert found.outputs == ()
    assert found.sqnr_db > found.error_db


def products(bias_scale: float) -> tuple[Model, Model, list[dict[str, np.ndarray]]]:
    """(quantized, original, feeds) of two Gemms, the bias of the second at ``bias_scale`` times s_x * s_w.

    ONNX Runtime's QGemm takes the bias for s_x * s_w whatever its own scale is, so fusing changes the function.
    """
    rng = np.random.default_rng(0)
    scale, weight_scale = np.float32(0.1), np.float32(0.01)
    nodes, constants = [], []

    def const(name: str, array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    const("s", scale), const("z", np.uint8(128)), const("zw", np.int8(0))
    float_nodes, value, plain = [], "x", "x"
    for i, factor in enumerate((1.0, bias_scale)):
        codes = rng.integers(-100, 100, (8, 8)).astype(np.int8)
        bias = np.full(8, 2000, np.int32)
        s_b = np.float32(scale * weight_scale * factor)
        const(f"w{i}", codes), const(f"s_w{i}", weight_scale), const(f"b{i}", bias), const(f"s_b{i}", s_b)
        nodes += [
            helper.make_node("QuantizeLinear", [value, "s", "z"], [f"q{i}"], f"Q{i}"),
            helper.make_node("DequantizeLinear", [f"q{i}", "s", "z"], [f"dq{i}"], f"DQ{i}"),
            helper.make_node("DequantizeLinear", [f"w{i}", f"s_w{i}", "zw"], [f"wf{i}"], f"W{i}"),
            helper.make_node("DequantizeLinear", [f"b{i}", f"s_b{i}"], [f"bf{i}"], f"B{i}"),
            helper.make_node("Gemm", [f"dq{i}", f"wf{i}", f"bf{i}"], [f"g{i}"], f"gemm{i}"),
        ]
        const(f"f_w{i}", codes.astype(np.float32) * weight_scale), const(f"f_b{i}", bias.astype(np.float32) * s_b)
        float_nodes.append(helper.make_node("Gemm", [plain, f"f_w{i}", f"f_b{i}"], [f"g{i}"], f"gemm{i}"))
        value = plain = f"g{i}"
    nodes += [
        helper.make_node("QuantizeLinear", [value, "s", "z"], ["q2"], "Q2"),
        helper.make_node("DequantizeLinear", ["q2", "s", "z"], ["y"], "DQ2"),
    ]
    float_nodes.append(helper.make_node("Identity", [plain], ["y"], "end"))
    feeds = [{"x": rng.uniform(-3, 3, (4, 8)).astype(np.float32)} for _ in range(2)]
    return _model(nodes, constants), _model(float_nodes, constants), feeds


def _model(nodes: list[onnx.NodeProto], constants: list[TensorProto]) -> Model:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (4, 8)) for n in "xy")
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "net", [x], [y], [c for c in constants if c.name in used])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return Model(ir=ir.from_proto(proto))


def test_a_fusion_that_changes_the_function_is_found() -> None:
    found = effect(*products(bias_scale=3.0))
    assert found is not None
    assert found.outputs == ("y",)
    assert found.begins_at == "gemm1 (Gemm)"
    assert found.steps is not None and found.steps > 10


def test_the_same_with_the_right_scale_is_sound() -> None:
    found = effect(*products(bias_scale=1.0))
    assert found is not None
    assert found.outputs == () and found.begins_at == ""
    assert found.steps is not None and found.steps <= 1.001


def test_random_models_are_not_compared() -> None:
    net = NETWORKS["noise_generator"]()
    prepared = nets.prepared(net.proto, net.feeds[0])
    model = nets.quantized(prepared, net.feeds, Recipe(recover=("none",))).model
    assert effect(model, prepared.model, list(net.feeds[:2])) is None
