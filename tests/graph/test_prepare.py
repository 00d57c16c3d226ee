"""Canonical form: what becomes of functions, constants, BatchNormalization, Gemm, opsets, names and the interface."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import chain, interface, structure
from networks.all import NETWORKS
from networks.builder import BOOL, Builder, Feed, Network
from networks.contract import breaches, measured
from onnx import numpy_helper

from qconvert.errors import ModelError
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.recipe.recipe import Recipe

# the newest opset that this version of ONNX Runtime runs; it is released before the runtime knows it
NEWEST = 26


def written(proto: onnx.ModelProto, folder: Path) -> Model:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return load(path)


def prepared(net: Network, folder: Path, **options: int) -> Prepared:
    return prepare(written(net.proto, folder), net.feeds[0], **options)


def types(result: Prepared) -> list[str]:
    return [n.op_type for n in result.model.ir.graph]


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_is_tried_and_nothing_undone(name: str, tmp_path: Path) -> None:
    net = NETWORKS[name]()
    result = prepared(net, tmp_path)
    assert result.agreement_db is not None
    assert result.agreement_db > 60 or name == "random_numbers"
    assert not [n for n in result.notes if "left out" in n or "undone" in n]
    names = [n.name for n in result.model.ir.graph]
    assert all(names) and len(set(names)) == len(names)
    graph = result.model.ir.graph
    for node in graph:
        for value in node.inputs:
            assert value is None or all(u.node.graph is not None for u in value.uses()), "a removed node still reads it"
    after = onnx.load_from_string(result.model.to_bytes()).graph
    weights = {t.name for t in net.proto.graph.initializer}
    assert [v.name for v in after.input] == [v.name for v in net.proto.graph.input if v.name not in weights]
    for a, b in zip(net.proto.graph.output, after.output, strict=True):
        assert a.name == b.name
        assert a.type == b.type or not a.type.tensor_type.HasField("shape")


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
def test_opsets(opset: int, tmp_path: Path) -> None:
    proto = interface.plain_conv_net(opset)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    net = Network(proto=proto, feeds=feeds, quantized=("Conv",))
    for recipe in (Recipe(), Recipe(per_channel=False)):
        result = chain.convert(net, recipe, tmp_path)
        least = 10 if recipe.per_channel is False else 13
        assert result.prepared.model.opset == max(opset, least)
        assert not breaches(net, result)
        assert sum(p.op_type == "Conv" for p in result.plan.taken()) == 2
        for outputs in measured(net, result.blob):
            assert min(outputs.values()) > 20


@pytest.mark.parametrize("opset", [10, 12])
def test_weights_in_constant_nodes_of_an_old_model_are_found(opset: int, tmp_path: Path) -> None:
    """They stay on disk, and ONNX's own converter, which Clip needs before opset 13, forgets the folder."""
    b = Builder(seed=2, opset=opset)
    w = b.constant_node(b.rng.normal(size=(32, 16, 3, 3)).astype(np.float32))
    y = b.node("Conv", b.input("x", [1, 16, 6, 6]), w)
    ends = (b.constant_node(np.float32(0)), b.constant_node(np.float32(6))) if opset > 10 else ()
    b.output(b.node("Clip", y, *ends, out="y", **({} if ends else {"min": 0.0, "max": 6.0})))
    result = prepare(written(b.model(), tmp_path), b.feeds(1)[0], min_opset=13)
    view = view_of(result.model)
    weight = view.constant(next(n for n in view.nodes.values() if n.op_type == "Conv").inputs[1] or "")
    np.testing.assert_array_equal(weight, numpy_helper.to_array(b.nodes[0].attribute[0].t))


def test_newer_opsets_are_left_alone(tmp_path: Path) -> None:
    result = prepared(NETWORKS["resnet"](), tmp_path)
    assert result.model.opset == 17
    assert not result.notes


def test_fused_nodes_keep_the_name_of_what_they_do(tmp_path: Path) -> None:
    net = NETWORKS["resnet"]()
    before = [n.name for n in net.proto.graph.node if n.op_type in ("Conv", "Gemm")]
    result = prepared(net, tmp_path)
    assert [n.name for n in result.model.ir.graph if n.op_type in ("Conv", "Gemm")] == before
    assert "BatchNormalization" not in types(result)


@pytest.mark.parametrize("name", ["densenet", "preactivation_resnet", "batchnorm_first", "resnet", "keras", "old_ir"])
def test_batchnorm_before_or_after_a_convolution_is_gone(name: str, tmp_path: Path) -> None:
    """What is left stands before the pooling and the last Gemm, where no convolution follows."""
    left = types(prepared(NETWORKS[name](), tmp_path)).count("BatchNormalization")
    assert left == (name in ("densenet", "preactivation_resnet"))


def test_batchnorm_behind_a_rectifier_and_before_a_pad_that_is_computed(tmp_path: Path) -> None:
    """As PyTorch writes F.pad: its widths are computed, from constants by ConstantOfShape."""
    b = Builder(seed=3)
    x = b.node(
        "MaxPool", b.batchnorm(b.relu(b.conv(b.input("x", ["n", 3, 12, 12]), 3, 16, 3)), 16), kernel_shape=[2, 2]
    )
    zeros = b.node("ConstantOfShape", b.ints(4), value=numpy_helper.from_array(np.zeros(1, np.int64)))
    pairs = b.node("Reshape", b.node("Concat", b.ints(1, 1, 2, 0), zeros, axis=0), b.ints(-1, 2))
    turned = b.node("Slice", pairs, b.ints(-1), b.ints(-1000), b.ints(0), b.ints(-1))
    widths = b.node("Reshape", b.node("Transpose", turned, perm=[1, 0]), b.ints(-1))
    b.output(b.conv(b.node("Pad", x, widths), 16, 8, 3, pad=0))
    result = prepare(written(b.model(), tmp_path), b.feeds(1, {"n": 2})[0], min_opset=13)
    assert set(types(result)) <= {"Conv", "Relu", "MaxPool", "Pad"}
    assert types(result).count("Conv") == 3  # one of them the normalization, a channel each


@pytest.mark.parametrize("name", ["weights_behind_nodes", "shared_weights", "stored_transposed", "local_function"])
def test_weights_are_constants(name: str, tmp_path: Path) -> None:
    view = view_of(prepared(NETWORKS[name](), tmp_path).model)
    for node in view.nodes.values():
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            assert view.is_constant(node.inputs[1]), node.name
            assert view.constant(node.inputs[1] or "").shape == view.tensors[node.inputs[1] or ""].shape


def test_tied_weights_stay_one_tensor(tmp_path: Path) -> None:
    view = view_of(prepared(NETWORKS["decoder_tied"](), tmp_path).model)
    (product,) = (n for n in view.nodes.values() if n.outputs == ("logits",))
    assert view.is_constant(product.inputs[1])
    assert not [t for t in view.tensors.values() if t.shape == (32, 64) and t.is_constant and "wte" in t.name]
    assert {n.op_type for n, _ in view.consumers("wte")} == {"Gather", "Transpose"}


def test_gemm_has_no_alpha_or_beta(tmp_path: Path) -> None:
    result = prepared(NETWORKS["gemm_variants"](), tmp_path)
    view = view_of(result.model)
    plain = [
        n
        for n in view.nodes.values()
        if n.op_type == "Gemm" and n.attr_float("alpha", 1) == n.attr_float("beta", 1) == 1
    ]
    assert len(plain) == 8
    ranks = [view.tensors[n.inputs[2] or ""].rank for n in plain if n.input(2) and view.is_constant(n.inputs[2])]
    assert sorted(r or 0 for r in ranks) == [1, 1, 1, 2, 2]


def test_weights_in_bodies_stay_there(tmp_path: Path) -> None:
    result = prepared(NETWORKS["if_branches"](), tmp_path)
    assert view_of(result.model).body_parameters == 2 * (8 * 8 * 3 * 3 + 8)


def test_functions_are_inlined(tmp_path: Path) -> None:
    result = prepared(NETWORKS["local_function"](), tmp_path)
    assert not result.model.ir.functions
    assert set(types(result)) <= {"MatMul", "Relu", "Gemm"}


def test_functions_that_cannot_be_inlined_stay(tmp_path: Path) -> None:
    """A function of another opset than the model's runs in ONNX Runtime, so it is no reason to fail."""
    net = NETWORKS["local_function"]()
    net.proto.functions[0].opset_import[0].version = 16
    for recipe in chain.RECIPES.values():
        result = chain.convert(net, recipe, tmp_path)
        assert any(p.op_type in ("Gemm", "MatMul") for p in result.plan.taken())
        assert not breaches(net, result)
        assert min(measured(net, result.blob)[0].values()) > 20


def test_sequences_are_no_tensors(tmp_path: Path) -> None:
    view = view_of(prepared(NETWORKS["sequence_indexed"](), tmp_path).model)
    for node in view.nodes.values():
        if node.op_type in ("SequenceConstruct", "SequenceInsert"):
            assert not view.tensors[node.outputs[0]].is_float
    (at,) = (n for n in view.nodes.values() if n.op_type == "SequenceAt")
    assert view.tensors[at.outputs[0]].is_float


def test_a_failing_rewrite_costs_the_rewrites_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object) -> None:
        raise AttributeError("as a rule does on a graph that it did not expect")

    monkeypatch.setattr("onnxscript.rewriter.rewrite", fail)
    result = prepared(NETWORKS["gemm_variants"](), tmp_path)
    assert any("level 3 was left out" in n for n in result.notes)
    assert not any("level 2" in n for n in result.notes)
    assert types(result).count("Gemm") == 8


def test_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepared(NETWORKS["weight_is_output"](), tmp_path)
        prepared(NETWORKS["old_ir"](), tmp_path)
    assert not caplog.records


def test_overridable_weights_are_told(tmp_path: Path) -> None:
    net = NETWORKS["old_ir"]()
    net.proto.ir_version = 8
    assert any("cannot be overridden" in n for n in prepared(net, tmp_path).notes)


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    for name in ("keras", "if_branches", "old_ir", "decoder_tied"):
        net = NETWORKS[name]()
        source = written(net.proto, tmp_path)
        before = source.to_bytes()
        prepare(source, net.feeds[0])
        assert source.to_bytes() == before, name


def test_operator_that_onnxruntime_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ONNX Runtime .* cannot load the model: .*Whirl") as caught:
        prepared(structure.unknown_operator(), tmp_path)
    assert caught.value.hint


def test_feed_that_does_not_fit(tmp_path: Path) -> None:
    source = written(NETWORKS["resnet"]().proto, tmp_path)
    with pytest.raises(ModelError, match="could not run"):
        prepare(source, {"image": np.zeros((1, 4, 16, 16), np.float32)})


def test_captured_values_are_seen(tmp_path: Path) -> None:
    view = view_of(prepared(NETWORKS["captured_weight"](), tmp_path).model)
    assert view.tensors["shared.weight"].captured
    view = view_of(prepared(NETWORKS["resnet"](), tmp_path).model)
    assert not any(t.captured for t in view.tensors.values())


def test_dead_parts_go(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", [2, 4])
    b.matmul(x, 4, 4)
    b.output(b.matmul(x, 4, 2, out="y"), [2, 2])
    net = Network(proto=b.model(), feeds=b.feeds())
    assert types(prepared(net, tmp_path)) == ["Gemm"]


def test_dead_weights_of_bodies_go(tmp_path: Path) -> None:
    """As LSTMs within If are exported: an If of a known condition slices the weights of the branch around it."""
    b = Builder(opset=17)
    x, flag = b.input("x", [2, 64]), b.input("flag", [], BOOL)
    branches = {}
    for place in ("then", "else"):
        outer = Builder(seed=len(place), prefix=f"{place}_", opset=17)
        weight, known = outer.weight(64, 128, fan_in=64), outer.constant_node(np.asarray(True))
        inner = []
        for first in (0, 64):
            body = Builder(prefix=f"{place}{first}_", opset=17)
            part = body.node("Slice", weight, body.ints(first), body.ints(first + 64), body.ints(1))
            body.output(body.node("MatMul", x, part))
            inner.append(body.graph(f"{place}{first}"))
        outer.output(outer.node("If", known, then_branch=inner[0], else_branch=inner[1]))
        branches[f"{place}_branch"] = outer.graph(place)
    b.output(b.node("If", flag, out="y", **branches), [2, 64])
    feed: Feed = {"x": np.ones((2, 64), np.float32), "flag": np.asarray(False)}
    result = prepare(written(b.model(), tmp_path), feed)
    assert view_of(result.model).body_parameters == 2 * 64 * 64
