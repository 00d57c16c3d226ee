"""Static schemes mixed in one model: 16-bit activations for some nodes, 8-bit ones for the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import chain
from networks.all import NETWORKS
from networks.builder import Builder, Network
from networks.contract import breaches, measured
from onnx import TensorProto
from schemes.runs import made, types_of

from qconvert.conversion import parted
from qconvert.errors import RecipeError
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.plan.build import build_plan
from qconvert.plan.widths import widths_of
from qconvert.recipe.recipe import Recipe
from qconvert.targets.auto import target_of

pytestmark = pytest.mark.slow

STATIC = Recipe(target="x86-vnni", placement="static", recover=("none",))
ALL = Recipe(target="qnn", placement="all", recover=("none",))
CASES = """resnet yolo mobilenet_v2 encoder_layernorm byte_classifier densenet ssd unet_resize_nearest squeeze_excite
    decoder_tied shared_weights concat_of_concat one_value_many_readers""".split()

# with everything on integers, 8 bits of a masked sum of -10000 leave nothing
MASKED = ("encoder_layernorm", "decoder_tied")


def prepared(name: str) -> Prepared:
    net = NETWORKS[name]()
    return prepare(Model(ir=ir.from_proto(net.proto)), net.feeds[0], min_opset=21)  # type: ignore[arg-type]


def every_other(name: str) -> tuple[str, ...]:
    """Entries that give 16 bits to every second node that can run on integers."""
    graph = view_of(prepared(name).model)
    taken = [n.node for n in build_plan(graph, ALL, target_of(ALL.target)).taken() if n.activations]
    return tuple(f"{node}=a16w8" for node in taken[::2])


def zero_points(proto: onnx.ModelProto) -> dict[str, str]:
    """What DequantizeLinear makes -> the type of its codes."""
    held = {t.name: TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer}
    return {n.output[0]: held[n.input[2]] for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[2:]}


@pytest.mark.parametrize("name", CASES)
def test_every_node_reads_codes_of_its_own_type(name: str, tmp_path: Path) -> None:
    recipe = replace(ALL, mix=every_other(name))
    if name in MASKED:
        recipe = replace(recipe, placement="static", target="x86-vnni")
    net, start = NETWORKS[name](), prepared(name)
    parts = parted(start, recipe)
    widths = widths_of(view_of(parts.model), recipe, target_of(recipe.target))
    result = chain.convert(net, recipe, tmp_path)
    # where types meet, codes are made of codes, which no other conversion does
    assert not [b for b in breaches(net, result) if "requantizes" not in b and "_seam" not in b]
    proto = onnx.load_from_string(result.blob)
    assert "Identity" not in {n.op_type for n in proto.graph.node}
    codes, seen = zero_points(proto), set()
    for node in proto.graph.node:
        plan = result.plan.nodes.get(node.name)
        if plan is None or not plan.decision.taken or node.op_type != plan.op_type:
            continue
        wanted = widths.of(node.name).activations.upper()
        for port in plan.activations:
            if node.input[port] in codes:  # operators on codes read no DequantizeLinear
                assert codes[node.input[port]] == wanted, f"{node.name}, port {port}"
                seen.add(wanted)
    assert seen == {"UINT8", "UINT16"}
    held = {t.name: TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer}
    quantizers = [n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in codes]
    assert all(codes[n.input[0]] != held[n.input[2]] for n in quantizers)
    assert quantizers or name not in ("resnet", "yolo", "mobilenet_v2", "densenet")
    for outputs in measured(net, result.blob):
        for output, db in outputs.items():
            assert net.least_db is None or db >= net.least_db, f"{output}: {db:.1f} dB"


def test_where_widths_meet_codes_are_converted_once(tmp_path: Path) -> None:
    """One seam for both readers of a value, none where a clamp is absorbed, one for each input of a narrow Concat."""
    b = Builder(seed=3, opset=21)
    b.node("Conv", b.input("x", [1, 4, 8, 8]), b.weight(4, 4, 3, 3), out="a", name="first")
    b.node("Conv", "a", b.weight(4, 4, 3, 3), out="b", name="wide_1")
    b.node("Conv", "a", b.weight(4, 4, 3, 3), out="c", name="wide_2")
    b.node("Relu", "b", out="d", name="clamp")
    b.node("Concat", "d", "c", axis=1, out="e", name="joined")
    b.output(b.node("Conv", "e", b.weight(4, 8, 3, 3), name="last", out="y"))
    start = prepare(Model(ir=ir.from_proto(b.model())), b.feeds()[0], min_opset=21)  # type: ignore[arg-type]
    recipe = replace(ALL, mix=("wide_*=a16w8",))
    graph = view_of(parted(start, recipe).model)
    seams = {
        n.inputs[0]: len(graph.tensors[n.outputs[0]].consumers) for n in graph.nodes.values() if n.op_type == "Identity"
    }
    assert seams == {"a": 2, "d": 1, "c": 1}
    plan = build_plan(graph, recipe, target_of(recipe.target))
    bits = {t: g.spec.qtype.name for g in plan.groups for t in g.tensors}
    assert plan.nodes["clamp"].absorbed_into == "wide_1"
    assert (bits["a"], bits["d"], bits["c"], bits["y"]) == ("uint8", "uint16", "uint16", "uint8")
    assert len({bits[graph.nodes[n].inputs[0] or ""] for n in ("wide_1", "wide_2")} | {bits["d"]}) == 1


def test_constants_of_both_sides_are_stored_for_both(tmp_path: Path) -> None:
    b = Builder(seed=3, opset=21)
    shared = b.vector(4, name="shared")
    first = b.node("Conv", b.input("x", [1, 8, 8, 4]), b.weight(8, 8, 1, 1))
    b.node("Add", first, shared, out="a", name="narrow")
    b.node("Add", b.node("Conv", "a", b.weight(8, 8, 1, 1)), shared, out="c", name="wide")
    b.output(b.node("Conv", "c", b.weight(8, 8, 1, 1), out="y", name="last"))
    start = prepare(Model(ir=ir.from_proto(b.model())), b.feeds()[0], min_opset=21)  # type: ignore[arg-type]
    recipe = replace(ALL, mix=("wide=a16w8",))
    graph = view_of(parted(start, recipe).model)
    plan = build_plan(graph, recipe, target_of(recipe.target))
    bits = {t: g.spec.qtype.bits for g in plan.groups for t in g.tensors}
    constants = {n: next(t for t in graph.nodes[n].inputs if graph.is_constant(t)) for n in ("narrow", "wide")}
    assert constants["narrow"] != constants["wide"]
    assert {n: bits[t or ""] for n, t in constants.items()} == {"narrow": 8, "wide": 16}


def test_sixteen_bits_where_eight_are_too_few(tmp_path: Path) -> None:
    """One channel is 300 times the others, and is weighed accordingly: 8 bits leave nothing of the others."""
    b = Builder(seed=5, opset=21)
    scale = np.ones((8, 1, 1, 1), np.float32)
    scale[3] = 300.0
    w, v = b.rng.normal(0, 0.3, (8, 4, 3, 3)) * scale, b.rng.normal(0, 0.3, (8, 8, 1, 1)) / scale.reshape(1, 8, 1, 1)
    b.node("Conv", b.input("x", [1, 4, 8, 8]), b.const(w.astype(np.float32)), out="a", name="first")
    b.node("Conv", "a", b.const(v.astype(np.float32)), out="c", name="second")
    b.output(b.node("Conv", "c", b.weight(4, 8, 3, 3), out="y", name="last"))
    net, db = Network(proto=b.model(), feeds=b.feeds()), []
    for mix in ((), ("second=a16w8",), ("first=a16w8", "second=a16w8"), ("*=a16w8",)):
        blob = chain.convert(net, replace(ALL, mix=mix), tmp_path).blob
        db.append(min(value for outputs in measured(net, blob) for value in outputs.values()))
    poor, behind, both, whole = db
    assert abs(behind - poor) < 3, db  # what makes the value has rounded it to 8 bits already
    assert both > poor + 10, db
    assert whole > both - 1, db  # weights have 8 bits all the same
    assert blob == chain.convert(net, replace(ALL, scheme="a16w8"), tmp_path).blob


def test_through_the_pipeline(tmp_path: Path) -> None:
    report, proto = made("resnet", replace(STATIC, mix=("Gemm=a16w8", "Conv_4=float")), tmp_path)
    assert {o.domain: o.version for o in proto.opset_import}[""] == 21
    assert types_of(proto, "QuantizeLinear", 2) == {"UINT8", "UINT16"}
    assert report.verification.census is not None
    assert not report.verification.census.unfused  # of the 8-bit nodes; those of 16 are not meant to be
    assert report.verification.optimizations is not None
    reasons = {d.op_type: d.reason for d in report.decisions}
    assert "computed in float" in reasons["Gemm"] and "another integer type" in reasons["Identity"]
    assert any("no kernels for uint16" in note for note in report.notes)
    assert report.accuracy is not None and report.accuracy.comparison.fidelity.sqnr_db > 25


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (replace(STATIC, format="qoperator", mix=("Gemm=a16w8",)), "one form"),
        (replace(STATIC, target="tensorrt", mix=("Gemm=a16w8",)), "does not run --scheme a16w8"),
    ],
)
def test_what_cannot_be(recipe: Recipe, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        made("resnet", recipe, tmp_path)
