"""Models that compute in float16 become float32 inside, and stay what they were outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.all import NETWORKS
from networks.branches import voice
from networks.builder import BOOL, FLOAT, Builder, Network
from networks.halves import halved
from onnx import TensorProto, helper, numpy_helper

from qconvert.evaluate.fidelity import sqnr_db
from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import Prepared, prepare, prepare_large
from qconvert.graph.signature import session_of

HALF = TensorProto.FLOAT16


def written(proto: onnx.ModelProto, folder: Path) -> Model:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return load(path)


def widened(net: Network, folder: Path) -> Prepared:
    return prepare(written(net.proto, folder), net.feeds[0])


def told(result: Prepared) -> bool:
    return any("computes in float16" in note for note in result.notes)


def half_values(model: Model) -> set[str]:
    """Values in float16, of any graph, that are no input or output of the model."""
    main = model.ir.graph
    ports = {*main.inputs, *main.outputs}
    every = [
        v for g in model.ir.graphs() for v in (*g.inputs, *g.initializers.values(), *(o for n in g for o in n.outputs))
    ]
    return {v.name or "" for v in every if v.type is not None and v.type.dtype.name == "FLOAT16" and v not in ports}


def ports(model: Model) -> list[tuple[str | None, str]]:
    graph = model.ir.graph
    return [(v.name, str(v.type)) for v in (*graph.inputs, *graph.outputs)]


def quality(net: Network, result: Prepared) -> float:
    """SQNR of the float outputs against those of ``net`` as ONNX Runtime computes it."""
    before, after = session_of(result.source), session_of(result.model)
    signal = noise = 0.0
    for feed in net.feeds:
        for a, b in zip(before.run(feed), after.run(feed), strict=True):
            assert a.dtype == b.dtype
            x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
            assert np.array_equal(np.isfinite(x), np.isfinite(y))
            signal += float((x[np.isfinite(x)] ** 2).sum())
            noise += float(((x - y)[np.isfinite(x)] ** 2).sum())
    return sqnr_db(signal, noise)


@pytest.mark.parametrize("keep_io", [False, True])
@pytest.mark.parametrize(
    "name",
    """resnet encoder_decomposed decoder_tied lstm_streaming if_branches captured_weight loop scan sequence_inside
    unet_upsample_opset8 microsoft_domain half_precision""".split(),
)
def test_everything_inside_is_float32(name: str, keep_io: bool, tmp_path: Path) -> None:
    net = halved(NETWORKS[name](), keep_io=keep_io)
    result = widened(net, tmp_path)
    assert told(result)
    assert not [note for note in result.notes if "left out" in note or "undone" in note or "stays in" in note]
    assert half_values(result.model) == set()
    assert ports(result.model) == ports(result.source)
    assert quality(net, result) > 45


def test_an_output_that_is_there_twice(tmp_path: Path) -> None:
    net = halved(NETWORKS["output_twice"]())
    result = widened(net, tmp_path)
    assert told(result)
    assert ports(result.model) == ports(result.source)


def test_a_mixed_model_becomes_float32_without_casts(tmp_path: Path) -> None:
    net = halved(NETWORKS["encoder_layernorm"](), keep_io=True, blocked=["Softmax", "LayerNormalization", "Erf"])
    assert sum(n.op_type == "Cast" for n in net.proto.graph.node) > 10
    plain = prepare(written(NETWORKS["encoder_layernorm"]().proto, tmp_path)).model.ir.graph
    result = widened(net, tmp_path)
    assert told(result)
    assert half_values(result.model) == set()
    assert sorted(n.op_type for n in result.model.ir.graph) == sorted(n.op_type for n in plain)
    assert quality(net, result) > 45


def test_branches_with_casts_inside(tmp_path: Path) -> None:
    net = halved(voice(), keep_io=True)
    result = widened(net, tmp_path)
    assert told(result)
    assert half_values(result.model) == set()
    assert quality(net, result) > 45


def test_types_in_attributes_follow(tmp_path: Path) -> None:
    b = Builder(seed=3)
    x = b.input("x", [4, 4], HALF)
    shape = b.node("Shape", x)
    ones = b.node("ConstantOfShape", shape, value=numpy_helper.from_array(np.ones(1, np.float16)))
    like = b.node("CastLike", b.node("Cast", x, to=TensorProto.DOUBLE), ones)
    part = b.constant_node(np.float16(0.5))
    y = b.node("Add", b.node("MatMul", b.node("Add", ones, x), like), part)
    b.output(b.node("Identity", y, out="y"), [4, 4], HALF)
    net = Network(proto=b.model(), feeds=b.feeds())
    result = widened(net, tmp_path)
    assert told(result)
    assert half_values(result.model) == set()
    assert quality(net, result) > 50


def test_constants_of_masks_mean_the_same(tmp_path: Path) -> None:
    b = Builder(seed=4)
    x = b.input("x", [2, 8], HALF)
    least = b.const(np.float16(-65504))
    scores = b.node("Where", b.input("seen", [2, 8], BOOL), x, least)
    scores = b.node("Add", scores, b.const(np.array([0, 0, 0, -65504, 0, 0, 0, -np.inf], np.float16)))
    b.output(b.node("Softmax", scores, out="y"), [2, 8], HALF)
    net = Network(proto=b.model(), feeds=b.feeds())
    result = widened(net, tmp_path)
    assert told(result)
    assert quality(net, result) > 55


def test_rounding_on_purpose_stays(tmp_path: Path) -> None:
    """Casts to float16 and back in a model that computes in float32 are its own business."""
    b = Builder(seed=5)
    x = b.input("x", [1, 64])
    y = b.node("Cast", b.node("Cast", b.matmul(x, 64, 64), to=HALF), to=FLOAT)
    b.output(b.node("Relu", y, out="y"), [1, 64])
    net = Network(proto=b.model(), feeds=b.feeds())
    result = widened(net, tmp_path)
    assert not told(result)
    for feed in net.feeds:
        (y_,) = session_of(result.model).run(feed)
        assert np.array_equal(y_, y_.astype(np.float16))


def test_a_model_that_lives_on_overflow_stays_as_it_is(tmp_path: Path) -> None:
    b = Builder(seed=6)
    big = b.node("Cast", b.node("Mul", b.input("x", [1, 16], HALF), b.const(np.float16(60000))), to=HALF)
    infinite = b.node("IsInf", b.node("Cast", b.node("Identity", big), to=FLOAT))
    b.output(b.node("Cast", infinite, out="y", to=FLOAT), [1, 16])
    net = Network(proto=b.model(), feeds=b.feeds())
    result = widened(net, tmp_path)
    before, after = session_of(result.source), session_of(result.model)
    for feed in net.feeds:
        assert np.array_equal(before.run(feed)[0], after.run(feed)[0])


@pytest.mark.parametrize("kind", [HALF, TensorProto.BFLOAT16])
def test_a_model_that_is_not_run_is_widened_a_weight_at_a_time(kind: int, tmp_path: Path) -> None:
    w = np.random.default_rng(7).standard_normal((64, 64)).astype(np.float16)
    tensor = helper.make_tensor("w", kind, w.shape, w.astype(np.float32).reshape(-1).tolist())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "net",
        [helper.make_tensor_value_info("x", kind, [1, 64])],
        [helper.make_tensor_value_info("y", kind, [1, 64])],
        [tensor],
    )
    result = prepare_large(written(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path))
    (weight,) = result.model.ir.graph.initializers.values()
    assert weight.const_value is not None and weight.const_value.dtype.name == "FLOAT"
    np.testing.assert_allclose(weight.const_value.numpy(), w.astype(np.float32), rtol=2**-8 if kind != HALF else 0)
    assert ports(result.model) == ports(result.source)
    assert [n.op_type for n in result.model.ir.graph] == ["Cast", "MatMul", "Cast"]
