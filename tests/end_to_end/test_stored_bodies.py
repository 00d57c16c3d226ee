"""Weights in bodies that nothing calibrates, as a user quantizes them: Loop, Scan, and what is nested in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from end_to_end.command import Command
from networks.builder import BOOL, FLOAT, INT64, Builder, Feed, Network
from onnx import TensorProto, helper

WIDTH, STEPS = 96, 6


def loop(body: Builder, out: str, *, prefix: str, source: str) -> dict[str, object]:
    """The attributes of a Loop that carries [1, WIDTH] from ``source`` to ``out`` of ``body``."""
    value = helper.make_tensor_value_info
    body.inputs = [value(f"{prefix}i", INT64, []), value(f"{prefix}on", BOOL, []), value(source, FLOAT, [1, WIDTH])]
    body.output(body.node("Identity", f"{prefix}on"), [], BOOL)
    body.output(out, [1, WIDTH])
    return {"body": body.graph(f"{prefix}body")}


def in_loop() -> Network:
    """A product, its bias and tanh in a Loop; the same weights once more behind it, read from the main graph."""
    b = Builder(seed=1)
    x, weight = b.input("x", [1, WIDTH]), b.weight(WIDTH, WIDTH, fan_in=WIDTH, name="tied.weight")
    inner = Builder(seed=2, prefix="l_")
    y = inner.node("MatMul", inner.node("Tanh", inner.matmul("carried", WIDTH, WIDTH)), weight)
    y = b.node("Loop", b.const(np.int64(STEPS)), "", x, name="steps", **loop(inner, y, prefix="l_", source="carried"))
    b.output(b.node("MatMul", y, weight), [1, WIDTH])
    return Network(proto=b.model(), feeds=rows(16))


def in_scan() -> Network:
    """A Gemm with transB and a GRU cell's worth of products over the rows of a sequence."""
    b = Builder(seed=3)
    xs, start = b.input("xs", [STEPS, 1, WIDTH]), b.const(np.zeros((1, WIDTH), np.float32))
    inner, value = Builder(seed=4, prefix="s_"), helper.make_tensor_value_info
    inner.inputs = [value("h", FLOAT, [1, WIDTH]), value("row", FLOAT, [1, WIDTH])]
    turned, bias = inner.weight(WIDTH, WIDTH, fan_in=WIDTH), inner.weight(WIDTH, fan_in=9)
    y = inner.node("Add", inner.node("Gemm", "row", turned, bias, transB=1), inner.matmul("h", WIDTH, WIDTH))
    inner.output(inner.node("Tanh", y), [1, WIDTH])
    last = b.node("Scan", start, xs, name="scan", num_scan_inputs=1, body=inner.graph("cell"))
    b.output(b.node("Identity", last, out="y"), [1, WIDTH])
    rng = np.random.default_rng(7)
    feeds: list[Feed] = [{"xs": rng.standard_normal((STEPS, 1, WIDTH)).astype(np.float32)} for _ in range(16)]
    return Network(proto=b.model(), feeds=feeds)


def nested() -> Network:
    """A Loop in a branch that every sample selects, with an If in its body; a branch that none selects."""
    b = Builder(seed=5)
    x, flag = b.input("x", [1, WIDTH]), b.const(np.bool_(True))
    flag = b.node("And", flag, b.node("Greater", b.node("ReduceMax", x, keepdims=0), b.const(np.float32(-99))))
    inner = Builder(seed=6, prefix="n_")
    choice = {}
    for name, seed in (("then_branch", 7), ("else_branch", 8)):
        side = Builder(seed=seed, prefix=f"{name[:1]}_")
        side.output(side.matmul("state", WIDTH, WIDTH))
        choice[name] = side.graph(name)
    even = inner.node("Equal", inner.node("Mod", "n_i", inner.const(np.int64(2))), inner.const(np.int64(0)))
    y = inner.node("Tanh", inner.node("If", even, name="choice", **choice))
    then = Builder(seed=9, prefix="t_")
    count = then.const(np.int64(STEPS))
    then.output(then.node("Loop", count, "", x, name="steps", **loop(inner, y, prefix="n_", source="state")))
    other = Builder(seed=10, prefix="o_")
    other.output(other.matmul(x, WIDTH, WIDTH))
    branches = {"then_branch": then.graph("then"), "else_branch": other.graph("else")}
    b.output(b.node("Identity", b.node("If", flag, name="top", **branches), out="y"), [1, WIDTH])
    return Network(proto=b.model(), feeds=rows(16))


def rows(count: int) -> list[Feed]:
    rng = np.random.default_rng(11)
    return [{"x": rng.standard_normal((1, WIDTH)).astype(np.float32)} for _ in range(count)]


NETS: dict[str, Callable[[], Network]] = {"loop": in_loop, "scan": in_scan, "nested": nested}
PLACES = {
    "loop": {"steps/body"},
    "scan": {"scan/body"},
    "nested": {
        "top/then_branch/t_steps/body/n_choice/then_branch",
        "top/then_branch/t_steps/body/n_choice/else_branch",
        "top/else_branch",
    },
}


def saved(net: Network, folder: Path) -> tuple[Path, Path]:
    """(the model, the folder of its samples)."""
    onnx.save(net.proto, folder / "model.onnx")
    (folder / "calib").mkdir()
    for i, feed in enumerate(net.feeds):
        np.savez(folder / "calib" / f"{i:03}.npz", **feed)
    return folder / "model.onnx", folder / "calib"


def sqnr(model: Path, output: Path, feeds: list[Feed]) -> float:
    """Of the first output over all feeds, in dB."""
    pair = [ort.InferenceSession(p, providers=["CPUExecutionProvider"]) for p in (model, output)]
    results = [(pair[0].run(None, f)[0].astype(np.float64), pair[1].run(None, f)[0]) for f in feeds]
    noise = sum(float(((a - b) ** 2).sum()) for a, b in results)
    return float(10 * np.log10(sum(float((a**2).sum()) for a, _ in results) / noise)) if noise else np.inf


def bodies(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    found = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [*found, *(inner for g in found for inner in bodies(g))]


@pytest.mark.parametrize("placement", ["measured", "static"])
@pytest.mark.parametrize("name", NETS)
def test_weights_in_bodies_are_bytes(name: str, placement: str, qconvert: Command, tmp_path: Path) -> None:
    net = NETS[name]()
    model, calib = saved(net, tmp_path)
    output, recipe = tmp_path / "out.onnx", tmp_path / "recipe.yaml"
    flags = ("--placement", placement, "--save-recipe", recipe, "--json")
    ran = qconvert("quantize", model, "--calib", calib, "-o", output, *flags)
    assert (ran.code, ran.err) == (0, "")
    report = ran.report
    assert (report["verification"]["checker"], report["verification"]["interface"]) == ("", [])
    held = [t for g in bodies(onnx.load(output).graph) for t in g.initializer if len(t.dims) > 1]
    assert held and not [t.name for t in held if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > WIDTH]
    assert report["body_parameters"] <= 3 * WIDTH  # biases
    taken = {d["node"].rpartition("/")[0] for d in report["decisions"] if d["quantized"] and "/" in d["node"]}
    assert PLACES[name] <= taken
    # the loop's net holds codes of the weight that both graphs read twice
    assert output.stat().st_size < model.stat().st_size / (2.2 if name == "loop" else 2.5)
    fresh = [
        {k: np.random.default_rng(i).standard_normal(v.shape).astype(v.dtype) for k, v in net.feeds[0].items()}
        for i in range(6)
    ]
    assert sqnr(model, output, fresh) >= 20
    again = tmp_path / "again.onnx"
    ran = qconvert("quantize", model, "--calib", calib, "-o", again, "--recipe", recipe, "-q")
    assert ran.code == 0
    assert again.read_bytes() == output.read_bytes()


def test_patterns_and_forms_name_nodes_of_bodies(qconvert: Command, tmp_path: Path) -> None:
    model, calib = saved(in_loop(), tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text('placement: static\nforms: ["steps/body/*=dynamic"]\nexclude: ["steps/body/l_MatMul_0"]\n')
    output = tmp_path / "out.onnx"
    ran = qconvert("quantize", model, "--calib", calib, "-o", output, "--recipe", recipe, "--json")
    assert (ran.code, ran.err) == (0, "")
    (body,) = bodies(onnx.load(output).graph)
    assert [n.op_type for n in body.node].count("MatMulInteger") == 1
    whole = {t.name for t in body.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) == WIDTH**2}
    assert len(whole) == 1
    reasons = {d["node"]: d["reason"] for d in ran.report["decisions"]}
    assert "exclude" in reasons["steps/body/l_MatMul_0"]


def test_weights_that_bytes_cannot_hold_stay_float(qconvert: Command, tmp_path: Path) -> None:
    """One weight of each channel is ten thousand times the others, so these would all become zero."""
    net = in_scan()
    (scan,) = (n for n in net.proto.graph.node if n.op_type == "Scan")
    body = scan.attribute[0].g if scan.attribute[0].name == "body" else scan.attribute[1].g
    for tensor in body.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.ndim == 2:
            values[np.arange(WIDTH), np.arange(WIDTH)] *= 0
            values[np.arange(WIDTH), np.arange(WIDTH)] += 1e-4
            values[:] = np.where(np.eye(WIDTH) > 0, 300.0, values)
            tensor.CopyFrom(onnx.numpy_helper.from_array((values / 300).astype(np.float32), tensor.name))
    model, calib = saved(net, tmp_path)
    output = tmp_path / "out.onnx"
    ran = qconvert("quantize", model, "--calib", calib, "-o", output, "--json")
    assert ran.code == 0, ran.err
    assert sqnr(model, output, net.feeds[:4]) >= 20


def test_a_budget_takes_bytes_back(qconvert: Command, tmp_path: Path) -> None:
    net = in_scan()
    model, calib = saved(net, tmp_path)
    output = tmp_path / "out.onnx"
    ran = qconvert("quantize", model, "--calib", calib, "-o", output, "--min-sqnr", "90", "--json")
    assert ran.code == 0, ran.err
    db = ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"]
    assert db is None or db >= 90  # null where all outputs are the same
    held = [t for g in bodies(onnx.load(output).graph) for t in g.initializer if len(t.dims) > 1]
    assert {t.data_type for t in held} == {TensorProto.FLOAT}


def test_targets_that_do_not_unpack_keep_floats(qconvert: Command, tmp_path: Path) -> None:
    model, calib = saved(in_loop(), tmp_path)
    output = tmp_path / "out.onnx"
    ran = qconvert("quantize", model, "--calib", calib, "-o", output, "--target", "tensorrt", "-q")
    assert ran.code == 0, ran.err
    (body,) = bodies(onnx.load(output).graph)
    assert {t.data_type for t in body.initializer if len(t.dims) > 1} == {TensorProto.FLOAT}
