"""Weights that are read inside the bodies of Loop and Scan: in the body, or captured from the graph around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.builder import BOOL, FLOAT, INT64, Network
from networks.contract import measured
from onnx import helper, numpy_helper

from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import prepare
from qconvert.recipe.recipe import Recipe
from qconvert.schemes.application import apply, least_opset

WIDTH = 48
LEAST_DB = {"dynamic": 25, "w8": 30, "w4": 10, "fp16": 45, "fp8": 22, "palette:16": 10, "nf4": 11}


def recurrent(op_type: str) -> Network:
    """h <- tanh(h A + B x), eight times: A is the body's own, B is captured; a Gemm behind the loop reads B, too."""
    rng = np.random.default_rng(0)
    a, b = ((rng.standard_normal((WIDTH, WIDTH)) / 7).astype(np.float32) for _ in range(2))
    value = helper.make_tensor_value_info
    steps = [
        helper.make_node("MatMul", ["h", "A"], ["ha"], name="inner"),
        helper.make_node("MatMul", ["x", "B"], ["xb"], name="captured"),
        helper.make_node("Add", ["ha", "xb"], ["sum"], name="sum"),
        helper.make_node("Tanh", ["sum"], ["next"], name="tanh"),
        helper.make_node("Identity", ["next"], ["seen"], name="seen"),
    ]
    state = [value(n, FLOAT, [1, WIDTH]) for n in ("h", "next", "seen")]
    inner = [numpy_helper.from_array(a, "A")]
    if op_type == "Loop":
        steps[1].input[0] = "first"
        going = helper.make_node("Identity", ["on"], ["on_out"], name="going")
        ends = [value("i", INT64, []), value("on", BOOL, []), state[0]]
        body = helper.make_graph([*steps, going], "body", ends, [value("on_out", BOOL, []), *state[1:]], inner)
        loop = helper.make_node("Loop", ["count", "", "start"], ["last", "all"], body=body, name="loop")
    else:
        body = helper.make_graph(steps, "body", [state[0], value("x", FLOAT, [1, WIDTH])], state[1:], inner)
        loop = helper.make_node("Scan", ["start", "xs"], ["last", "all"], body=body, num_scan_inputs=1, name="scan")
    nodes = [
        helper.make_node("Gather", ["xs", "zero"], ["first"], name="pick", axis=0),
        loop,
        helper.make_node("MatMul", ["last", "B"], ["y"], name="outer"),
    ]
    constants = [
        numpy_helper.from_array(v, n)
        for n, v in (
            ("B", b),
            ("count", np.int64(8)),
            ("zero", np.int64(0)),
            ("start", np.zeros((1, WIDTH), np.float32)),
        )
    ]
    outputs = [value("y", FLOAT, [1, WIDTH]), value("all", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", [value("xs", FLOAT, [8, 1, WIDTH])], outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Network(proto=proto, feeds=[{"xs": rng.standard_normal((8, 1, WIDTH)).astype(np.float32)} for _ in range(2)])


@pytest.mark.parametrize("scheme", LEAST_DB)
@pytest.mark.parametrize("op_type", ["Loop", "Scan"])
def test_weights_read_in_bodies(op_type: str, scheme: str, tmp_path: Path) -> None:
    net = recurrent(op_type)
    path = tmp_path / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    recipe = Recipe(scheme=scheme)
    result = apply(prepare(load(path), net.feeds[0], min_opset=least_opset(recipe)), recipe, trials=net.feeds)
    blob = result.model.to_bytes()
    onnx.checker.check_model(blob)
    taken = {name for name, node in result.nodes.items() if node.decision.taken}
    assert taken >= {"inner", "captured", "outer"}
    assert len(blob) < (0.65 if scheme == "fp16" else 0.45) * path.stat().st_size
    for outputs in measured(net, blob):
        assert min(outputs.values()) > LEAST_DB[scheme]


def test_each_weight_of_a_body_is_decided_by_itself(tmp_path: Path) -> None:
    """A Gemm that has no integer form is stored in bytes, the product beside it runs on integers, in one body."""
    net = recurrent("Loop")
    (body,) = (a.g for n in net.proto.graph.node for a in n.attribute if a.name == "body")
    (captured,) = (n for n in body.node if n.name == "captured")
    captured.op_type, captured.input[0] = "Gemm", "turned"
    captured.attribute.extend([helper.make_attribute("transA", 1), helper.make_attribute("alpha", 0.5)])
    body.node.insert(0, helper.make_node("Transpose", ["first"], ["turned"], perm=[1, 0]))
    path = tmp_path / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    recipe = Recipe(scheme="dynamic")
    result = apply(prepare(load(path), net.feeds[0]), recipe, trials=net.feeds)
    said = {name: node.decision for name, node in result.nodes.items()}
    assert said["inner"].taken and "as the model runs" in said["inner"].reason
    assert said["captured"].taken and "has no integer form: 8-bit weights" in said["captured"].reason
    blob = result.model.to_bytes()
    (body,) = (a.g for n in onnx.load_from_string(blob).graph.node for a in n.attribute if a.name == "body")
    assert [n.op_type for n in body.node].count("MatMulInteger") == 1
    for outputs in measured(net, blob):
        assert min(outputs.values()) > LEAST_DB["dynamic"]
