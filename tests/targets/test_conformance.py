"""What each target promises, held against plans of every network, and against models of some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import chain
from networks.all import NETWORKS
from networks.builder import Network
from networks.contract import measured
from onnx import numpy_helper

from qconvert.emit.integer_io import with_integer_io
from qconvert.graph.build_view import view_of
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.ops import OPS
from qconvert.plan.build import build_plan
from qconvert.plan.integer_only import float_operators
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS
from qconvert.targets.target import Target

pytestmark = pytest.mark.slow

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

# one of each kind: residual, depthwise, dense and U-shaped convolution nets, embeddings, transposed convolutions,
# tables, transformers, detectors, branches, odd interfaces
CONVERTED = (
    "resnet mobilenet_v2 densenet concat_of_concat unet_convtranspose clip_variants byte_classifier autoencoder_matmul "
    "squeeze_excite yolo encoder_layernorm table_variants input_is_output activations_are_outputs if_branches "
    "output_twice"
).split()


def breaches(graph: GraphView, plan: QuantPlan, target: Target) -> Iterator[str]:
    """What ``plan`` does that ``target`` does not want."""
    activations, weights = target.types[0]
    for group in plan.groups:
        if group.spec.qtype.name != activations or group.spec.symmetric != target.symmetric_activations:
            yield f"{group.tensors} are {group.spec}"
    for node in plan.taken():
        held = node.weight or node.table
        if held is not None and held.spec.qtype.name != weights:
            yield f"the weight of {node.node} is {held.spec.qtype.name}"
        if node.absorbed_into is None and node.activations and not target.residuals:
            capability = target.capability(graph.nodes[node.node].op_type)
            if graph.nodes[node.node].op_type == "MatMul" and node.weight is None:
                capability = target.products
            if not capability.integer:
                yield f"{node.node} is on integers: {capability.reason}"
    if target.residuals:
        yield from _not_at_inputs(graph, plan)
    if target.integer_only and not float_operators(graph, plan):
        yield from _scales_apart(graph, plan, target)


def _not_at_inputs(graph: GraphView, plan: QuantPlan) -> Iterator[str]:
    """Tensors that are quantized though no weighted operator reads them, and they are no residual operand."""
    wanted = {n.inputs[0] for n in graph.nodes.values() if n.op_type in WEIGHTED}
    residual = {t for p in plan.taken() if p.op_type == "Add" for t in p.read_tensors}
    for tensor in (t for g in plan.groups for t in g.tensors):
        if tensor not in wanted | residual:
            yield f"{tensor} is quantized"
    for node in plan.taken():
        if node.op_type not in WEIGHTED and (node.op_type != "Add" or len(node.activations) != 1):
            yield f"{node.node} ({node.op_type}) is on integers"


def _scales_apart(graph: GraphView, plan: QuantPlan, target: Target) -> Iterator[str]:
    """Operators with several scales where the target demands one."""
    group_of = plan.group_of()
    for node in plan.taken():
        if target.capability(node.op_type).one_scale and node.absorbed_into is None:
            tensors = [t for t in (*node.read_tensors, *graph.nodes[node.node].outputs) if t in group_of]
            if len({group_of[t] for t in tensors}) > 1:
                yield f"{node.node} has several scales"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("targets")


@pytest.mark.parametrize("name", NETWORKS)
def test_plans_obey(name: str, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(NETWORKS[name]().proto.SerializeToString())
    graph = view_of(prepare(load(path)).model)
    for target in TARGETS:
        plan = build_plan(graph, Recipe(target=target.name), target)
        assert not list(breaches(graph, plan, target)), target.name


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_models_obey(name: str, target: Target, folder: Path) -> None:
    net = NETWORKS[name]()
    result = chain.convert(net, Recipe(target=target.name), folder)
    if target.integer_only and float_operators(view_of(result.prepared.model), result.plan):
        return  # the stage before refuses it: test_pipeline.py
    held = {t.name: numpy_helper.to_array(t) for t in result.proto.graph.initializer}
    nodes = result.proto.graph.node
    for node in nodes:
        if node.op_type == QUANTIZE:
            zero = held[node.input[2]]
            assert zero.dtype.name == target.types[0][0]
            assert not target.only_symmetric or not zero.any()
    if target.float_bias:
        assert not [t for t in held.values() if t.dtype == np.int32]
    if target.capability("Conv").weights_only:
        assert QUANTIZE not in {n.op_type for n in nodes}
    assert "com.microsoft" not in {n.domain for n in nodes} - {n.domain for n in net.proto.graph.node}
    for outputs in measured(net, result.blob):
        for output, db in outputs.items():
            assert net.least_db is None or db >= net.least_db, f"{output}: {db:.1f} dB"
    if target.integer_only:
        _check_integer_ends(net, result, folder)


def _check_integer_ends(net: Network, result: chain.Result, folder: Path) -> None:
    """The model with integers at its ends computes the codes of what the one with floats computes."""
    path = folder / "float_ends.onnx"
    path.write_bytes(result.blob)
    model, ports = with_integer_io(load(path))
    known = {(p.side, p.name): p for p in ports}
    floats = [v.name for v in net.proto.graph.input if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    before, after = session_of(load(path)), session_of(model)
    assert {n for side, n in known if side == "input"} == {i.name for i in before.inputs} & set(floats)
    assert "float32" not in {i.dtype for i in (*after.inputs, *after.outputs)}
    assert [i.name for i in after.outputs] == [i.name for i in before.outputs]
    for feed in net.feeds:
        codes = {
            n: np.clip(np.rint(a / np.float32(p.scale)) + p.zero_point, -128, 127).astype(np.int8)
            if (p := known.get(("input", n))) is not None
            else a
            for n, a in feed.items()
        }
        for spec, real, code in zip(before.outputs, before.run(feed), after.run(codes), strict=True):
            port = known["output", spec.name]
            assert json.loads(model.ir.metadata_props[f"qconvert:output:{spec.name}"])["scale"] == port.scale
            if spec.name not in feed:  # an input that is an output has been rounded on the way
                assert np.array_equal(real, (code.astype(np.float32) - port.zero_point) * np.float32(port.scale))


def test_every_statement_has_a_source() -> None:
    for target in TARGETS:
        assert target.sources
        texts = [target.boundary, target.others, target.products.reason]
        texts += [c.reason for c in target.capabilities.values()]
        cited = {int(part.partition("]")[0][0]) for text in texts for part in text.split("[")[1:]}
        assert cited <= set(range(1, len(target.sources) + 1)), target.name
        assert {op for op in target.capabilities if ":" not in op} <= set(OPS.names()), target.name


def test_an_excluded_addition_is_left_alone(folder: Path) -> None:
    result = chain.convert(NETWORKS["resnet"](), Recipe(target="tensorrt", exclude=("Add",)), folder)
    assert "Add" not in {p.op_type for p in result.plan.taken()}


def test_a_residual_addition_reads_integers_on_one_side(folder: Path) -> None:
    result = chain.convert(NETWORKS["resnet"](), Recipe(target="tensorrt"), folder)
    makes = {o: n for n in result.proto.graph.node for o in n.output}
    additions = [n for n in result.proto.graph.node if n.op_type == "Add"]
    assert len(additions) == 2
    for node in additions:
        kinds = [makes[i].op_type for i in node.input]
        assert sorted(kinds) == ["Conv", DEQUANTIZE]
    assert onnx.checker.check_model(result.proto) is None
