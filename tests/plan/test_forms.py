"""Other forms of nodes: what takes them, what a plan then holds, and that the written model computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from networks.sequence import encoder_layernorm, lstm_streaming
from numpy.typing import NDArray
from plan.kernels import Few

from qconvert.conversion import Quantized, convert
from qconvert.errors import RecipeError
from qconvert.graph.build_view import view_of
from qconvert.graph.census import take_census
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.signature import session_of
from qconvert.plan.forms import able, entries, open_products
from qconvert.recipe.recipe import PINNED, STATIC, Recipe
from qconvert.run import Run
from qconvert.targets.auto import target_of

RECIPE = Recipe(target="x86-vnni", placement=STATIC)


NET = encoder_layernorm()
FEEDS = Few(NET.feeds)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(Model(ir=ir.from_proto(NET.proto)), FEEDS.feed(0), min_opset=13)


@pytest.fixture(scope="module")
def plain(prepared: Prepared) -> Quantized:
    return convert(prepared, Run(recipe=RECIPE, samples=FEEDS))


def formed(prepared: Prepared, *forms: str, recipe: Recipe = RECIPE) -> Quantized:
    return convert(prepared, Run(recipe=replace(recipe, forms=forms), samples=FEEDS))


def results(result: Quantized) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(result.session.run(feed)[0]) for feed in FEEDS])


def db(reference: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - found) ** 2)))


def test_fused_is_the_same_model_with_the_bias_inside(prepared: Prepared, plain: Quantized) -> None:
    fused = formed(prepared, "MatMul=fused")
    took = [n for n in fused.plan.nodes.values() if n.form == "fused"]
    assert len(took) == 8  # those of keys and values have lost their bias (graph/prepare/attention.py)
    assert all(n.multiplies and "bias inside" in n.decision.reason for n in took)
    assert [g.tensors for g in fused.plan.groups] == [g.tensors for g in plain.plan.groups]
    # the order of the sum differs, nothing else
    assert np.max(np.abs(results(fused) - results(plain))) < 1e-4 * np.max(np.abs(results(plain)))
    before, after = (take_census(r.model, [n.node for n in took]) for r in (plain, fused))
    assert after.ops["MatMulIntegerToFloat"] == before.ops["MatMulIntegerToFloat"] == 12
    assert after.ops["Add"] < before.ops["Add"]
    assert "BiasGelu" not in after.ops
    assert not after.unfused


def test_dynamic_needs_no_range(prepared: Prepared, plain: Quantized) -> None:
    dynamic = formed(prepared, "MatMul=dynamic")
    took = [n for n in dynamic.plan.nodes.values() if n.form == "dynamic"]
    # the input of the product behind the heads is codes, which Reshape and Transpose pass on
    assert len(took) == 10
    assert all(n.multiplies and not n.activations for n in took)
    observed = set(dynamic.plan.observed())
    assert observed < set(plain.plan.observed())
    assert not {view_of(prepared.model).nodes[n.node].inputs[0] for n in took} & observed
    ops = take_census(dynamic.model, [n.node for n in took]).ops
    assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == 12
    assert ops["DynamicQuantizeLinear"] == 2  # one for the three products that read the same
    assert "MatMulInteger" not in ops
    reference = np.concatenate([np.ravel(session_of(prepared.model).run(feed)[0]) for feed in FEEDS])
    assert db(reference, results(dynamic)) > db(reference, results(plain)) - 1


def test_the_last_pattern_decides(prepared: Prepared) -> None:
    first = next(n for n, p in view_of(prepared.model).nodes.items() if p.op_type == "MatMul")
    result = formed(prepared, "MatMul=fused", *entries({first: "plain"}))
    assert not result.plan.nodes[first].form
    assert sum(n.form == "fused" for n in result.plan.nodes.values()) == 7


def test_what_a_recipe_decides_is_not_searched(prepared: Prepared, plain: Quantized) -> None:
    graph, target = view_of(prepared.model), target_of("x86-vnni")
    found = able(graph, plain.plan, RECIPE, target)
    assert {form: len(names) for form, names in found.items()} == {"fused": 8, "dynamic": 10, "bounded": 2}
    assert set(able(graph, plain.plan, replace(RECIPE, forms=("MatMul=plain",)), target)) == {"bounded"}
    for elsewhere in ("tensorrt", "openvino", "qnn"):  # they have no operators of com.microsoft
        assert not able(graph, plain.plan, RECIPE, target_of(elsewhere))


def test_products_that_want_nothing_but_a_bias() -> None:
    b = Builder(seed=1)
    x = b.node("Sin", b.matmul(b.input("x", [1, 2, 16]), 16, 16, bias=False))
    b.output(b.matmul(b.relu(b.matmul(x, 16, 16)), 16, 4, bias=False, out="y"))
    net = prepare(Model(ir=ir.from_proto(b.model())), b.feeds(1)[0], min_opset=13)
    result = convert(net, Run(recipe=replace(RECIPE, placement="all"), samples=Few(b.feeds(4))))  # type: ignore[arg-type]
    graph, target = view_of(net.model), target_of("x86-vnni")
    first, _, last = (n for n, node in graph.nodes.items() if node.op_type == "MatMul")
    assert not open_products(graph, result.plan, RECIPE, target)  # a static placement has operators of ONNX only
    pinned = replace(RECIPE, placement=PINNED)
    assert open_products(graph, result.plan, pinned, target) == {first, last}
    said = replace(pinned, forms=entries({first: "plain"}))
    assert open_products(graph, result.plan, said, target) == {last}
    assert not open_products(graph, result.plan, pinned, target_of("openvino"))


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_every_form_on_every_host(format: str, prepared: Prepared, plain: Quantized) -> None:
    for target in ("x86-avx2", "arm64"):
        recipe = replace(RECIPE, target=target, format=format)
        result = formed(prepared, "MatMul=fused", "MatMul_1*=dynamic", "Softmax=bounded", recipe=recipe)
        assert {n.form for n in result.plan.nodes.values()} == {"", "fused", "dynamic", "bounded"}
        assert db(results(plain), results(result)) > 20


@pytest.mark.parametrize(
    ("forms", "target", "says"),
    [
        (("no_such=fused",), "x86-vnni", "matches no node"),
        (("Softmax=fused",), "x86-vnni", "no operator that 'Softmax' matches has the form 'fused'"),
        (("MatMul=fused",), "tensorrt", "has the form 'fused' on"),
    ],
)
def test_what_no_node_can_take_is_refused(forms: tuple[str, ...], target: str, says: str, prepared: Prepared) -> None:
    with pytest.raises(RecipeError, match=says):
        formed(prepared, *forms, recipe=replace(RECIPE, target=target))


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(RecipeError, match="forms cannot hold 'MatMul=quick'"):
        Recipe(forms=("MatMul=quick",))


@pytest.fixture(scope="module")
def lstm() -> Prepared:
    net = lstm_streaming()
    return prepare(Model(ir=ir.from_proto(net.proto)), net.feeds[0], min_opset=13)  # type: ignore[arg-type]


def recurrent(lstm: Prepared, recipe: Recipe) -> Quantized:
    return convert(lstm, Run(recipe=recipe, samples=Few(lstm_streaming().feeds)))  # type: ignore[arg-type]


def test_an_lstm_takes_bytes_at_every_step(lstm: Prepared) -> None:
    stored, dynamic = recurrent(lstm, RECIPE), recurrent(lstm, replace(RECIPE, forms=("LSTM=dynamic",)))
    kernels = [take_census(r.model, [n.node for n in r.plan.taken() if n.multiplies]).ops for r in (stored, dynamic)]
    assert [("LSTM" in k, "DynamicQuantizeLSTM" in k) for k in kernels] == [(True, False), (False, True)]
    for result in (stored, dynamic):
        (node,) = (n for n in result.plan.nodes.values() if n.op_type == "LSTM")
        assert node.decision.taken and len(node.constants) == 2
        floats = [t for t in result.model.ir.graph.initializers.values() if t.dtype == ir.DataType.FLOAT]
        assert all(np.prod(t.shape) < 24 * 16 for t in floats if t.shape is not None), "a weight is left in float"
        pairs = [(session_of(lstm.model).run(f), result.session.run(f)) for f in lstm_streaming().feeds]
        exact, found = (np.concatenate([np.ravel(a) for p in pairs for a in p[i]]) for i in (0, 1))
        assert db(exact, found) > 30


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pinned_float": ("LSTM",)}, "its weights are pinned"),
        ({"weights": "uint8", "activations": "uint8"}, "DynamicQuantizeLSTM gets signed bytes here"),
        ({"exclude": ("LSTM",)}, "excluded"),
    ],
)
def test_an_lstm_stays_as_it_is(lstm: Prepared, change: dict[str, object], why: str) -> None:
    (name,) = (n for n, node in view_of(lstm.model).nodes.items() if node.op_type == "LSTM")
    change = {k: (name,) if v == ("LSTM",) else v for k, v in change.items()}
    result = recurrent(lstm, replace(RECIPE, forms=("LSTM=dynamic",), placement="pinned", **change))  # type: ignore[arg-type]
    assert not result.plan.nodes[name].form, why
    assert "LSTM" in {n.op_type for n in result.model.ir.graph}


@pytest.mark.parametrize("target", ["tensorrt", "openvino", "qnn"])
def test_elsewhere_an_lstm_stays_float(lstm: Prepared, target: str) -> None:
    model = recurrent(lstm, replace(RECIPE, target=target)).model
    assert {n.domain for n in model.ir.graph} == {""}
    (node,) = (n for n in model.ir.graph if n.op_type == "LSTM")
    assert all(v is not None and v.dtype == ir.DataType.FLOAT and v.const_value is not None for v in node.inputs[1:3])


@pytest.mark.parametrize("opset", [13, 18])
def test_a_bounded_softmax_is_the_same(opset: int) -> None:
    b = Builder(opset=opset)
    x = b.node("Add", b.node("MatMul", b.input("x", [1, 4, 8]), b.weight(8, 8)), b.input("mask", [4, 8]))
    b.output(b.node("Softmax", x, axis=-1, out="y"), [1, 4, 8])
    rng = np.random.default_rng(0)
    masks = [np.zeros((4, 8)), np.triu(np.full((4, 8), -1e4), 1), np.triu(np.full((4, 8), -np.inf), 1)]
    # a row without anything but masks, and scores that are far apart by themselves
    masks += [np.full((4, 8), -3e38), 100 * rng.normal(size=(4, 8))]
    feeds = [{"x": rng.normal(size=(1, 4, 8)).astype(np.float32), "mask": m.astype(np.float32)} for m in masks]
    ready = prepare(Model(ir=ir.from_proto(b.model())), feeds[0], min_opset=13)
    run = Run(recipe=replace(RECIPE, exclude=("MatMul",), forms=("Softmax=bounded",)), samples=Few(feeds))
    bounded = session_of(convert(ready, run, required=False).model)
    for feed in feeds:
        exact, found = session_of(ready.model).run(feed)[0], bounded.run(feed)[0]
        np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-27)
    assert bounded.run(feeds[1])[0].min() > np.finfo(np.float32).tiny
