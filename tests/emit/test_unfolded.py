"""Convolutions that quantize what they read as the model runs, against float ones on the same rounded numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks.builder import Builder, Feed
from plan.kernels import Few

from qconvert.conversion import Quantized, convert
from qconvert.graph.build_view import view_of
from qconvert.graph.census import take_census
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.numerics.affine import dequantize, quantize, weight_params
from qconvert.plan.dynamic import gaining
from qconvert.plan.forms import entries
from qconvert.recipe.recipe import PINNED, Recipe
from qconvert.run import Run
from qconvert.targets.auto import target_of

RECIPE = Recipe(target="x86-vnni", placement=PINNED, recover=("none",))


def dynamic(proto: onnx.ModelProto, feeds: list[Feed]) -> tuple[Prepared, Quantized]:
    """Every convolution and Gemm off the integers of the plan, in the dynamic form if it can have it."""
    net = prepare(Model(ir=ir.from_proto(proto)), feeds[0], min_opset=13)
    floats = tuple(n for n, node in view_of(net.model).nodes.items() if node.op_type in ("Conv", "Gemm"))
    recipe = replace(RECIPE, pinned_float=floats, forms=entries(dict.fromkeys(floats, "dynamic")))
    return net, convert(net, Run(recipe=recipe, samples=Few(feeds)), required=False)  # type: ignore[arg-type]


def rounded(x: np.ndarray) -> np.ndarray:
    """``x`` as DynamicQuantizeLinear rounds it."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(np.float32(0 - low) / scale), 0, 255)
    return np.asarray((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale, np.float32)


def on_rounded(net: Prepared, result: Quantized, feed: Feed) -> np.ndarray:
    """The model's one convolution in float, of its input and weight as they are rounded."""
    proto = ir.to_proto(net.model.ir)
    (node,) = (n for n in proto.graph.node if n.op_type in ("Conv", "Gemm"))
    spec = next(p.weight.spec for p in result.plan.taken() if p.weight is not None)
    for tensor in proto.graph.initializer:
        if tensor.name == node.input[1]:
            weight = onnx.numpy_helper.to_array(tensor)
            params = weight_params(weight, spec)
            real = np.asarray(dequantize(quantize(weight, params), params), np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(real, tensor.name))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": rounded(feed["x"])})[0])


@pytest.mark.parametrize(
    ("size", "kernel", "attributes"),
    [
        ((2, 8, 30), (5,), {"pads": [2, 2]}),
        ((1, 8, 30), (4,), {"strides": [3], "pads": [1, 0], "dilations": [2]}),
        ((2, 12, 9, 11), (3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 12, 9, 11), (3, 2), {"strides": [2, 3], "pads": [0, 1, 2, 0]}),
        ((1, 12, 14, 12), (3, 3), {"strides": [1, 2], "dilations": [3, 2]}),
        ((1, 32, 6, 6), (1, 1), {}),
        ((1, 32, 7, 6), (1, 1), {"strides": [2, 2]}),
        ((1, 6, 5, 6, 7), (2, 3, 2), {"strides": [2, 1, 1], "pads": [1, 0, 1, 0, 1, 0]}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution_of_rounded_numbers(
    size: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, list[int]], bias: bool
) -> None:
    b = Builder(seed=5)
    x = b.input("x", list(size))
    inputs = [x, b.weight(24, size[1], *kernel), *([b.weight(24)] if bias else [])]
    b.output(b.node("Conv", *inputs, out="y", **attributes))
    feeds = b.feeds(3)
    net, result = dynamic(b.model(), feeds)
    (taken,) = (p for p in result.plan.taken() if p.op_type == "Conv")
    assert taken.form == "dynamic" and taken.multiplies and not taken.activations
    assert take_census(result.model, [taken.node]).ops["MatMulIntegerToFloat"] == 1
    for feed in feeds:
        expected, found = on_rounded(net, result, feed), np.asarray(result.session.run(feed)[0])
        assert found.shape == expected.shape
        assert np.max(np.abs(found - expected)) < 1e-4 * np.max(np.abs(expected))


@pytest.mark.parametrize("transposed", [True, False])
def test_so_is_a_gemm(transposed: bool) -> None:
    b = Builder(seed=5)
    weight = b.weight(40, 24) if transposed else b.weight(24, 40)
    b.output(b.node("Gemm", b.input("x", [3, 24]), weight, b.weight(40), out="y", transB=int(transposed)))
    feeds = b.feeds(3)
    net, result = dynamic(b.model(), feeds)
    assert [p.form for p in result.plan.taken() if p.op_type == "Gemm"] == ["dynamic"]
    for feed in feeds:
        expected, found = on_rounded(net, result, feed), np.asarray(result.session.run(feed)[0])
        assert np.max(np.abs(found - expected)) < 1e-4 * np.max(np.abs(expected))


def test_the_length_may_be_known_only_when_the_model_runs() -> None:
    b = Builder(seed=2)
    x = b.input("x", ["n", 8, "length"])
    b.output(b.node("Conv", x, b.weight(16, 8, 5), out="y", pads=[2, 2], strides=[2]))
    net, result = dynamic(b.model(), b.feeds(2, {"n": 2, "length": 40}))
    for length in (5, 6, 33):
        feed: Feed = {"x": np.random.default_rng(length).normal(size=(3, 8, length)).astype(np.float32)}
        expected, found = on_rounded(net, result, feed), np.asarray(result.session.run(feed)[0])
        assert found.shape == expected.shape
        assert np.max(np.abs(found - expected)) < 1e-4 * np.max(np.abs(expected))


def test_between_two_of_them_channels_stay_last() -> None:
    b = Builder(seed=4)
    x = b.input("x", [1, 16, 12, 12])
    for _ in range(3):
        x = b.relu(b.node("Conv", x, b.weight(16, 16, 3, 3), b.weight(16), pads=[1, 1, 1, 1]))
    b.output(b.node("Identity", x, out="y"))
    _, result = dynamic(b.model(), b.feeds(2))
    ops = take_census(result.model, [p.node for p in result.plan.taken()]).ops
    assert ops["MatMulIntegerToFloat"] == 3
    assert ops["Transpose"] == 2


def test_what_has_groups_stays_float() -> None:
    b = Builder(seed=4)
    x = b.node("Conv", b.input("x", [1, 16, 12, 12]), b.weight(16, 8, 3, 3), group=2)
    b.output(b.node("Conv", x, b.weight(16, 16, 3, 3), out="y"))
    _, result = dynamic(b.model(), b.feeds(2))
    assert [p.form for p in result.plan.nodes.values() if p.op_type == "Conv"] == ["", "dynamic"]


def test_only_what_is_large_enough_is_estimated_to_gain() -> None:
    b = Builder(seed=4)
    small = b.node("Conv", b.input("x", [1, 8, 4, 4]), b.weight(8, 8, 3, 3), pads=[1, 1, 1, 1])
    large = b.node("Conv", b.input("z", [1, 128, 28, 28]), b.weight(128, 128, 3, 3), pads=[1, 1, 1, 1])
    b.output(b.node("Identity", small, out="a"))
    b.output(b.node("Identity", large, out="b"))
    feeds = b.feeds(2)
    net = prepare(Model(ir=ir.from_proto(b.model())), feeds[0], min_opset=13)
    result = convert(net, Run(recipe=RECIPE, samples=Few(feeds)))  # type: ignore[arg-type]
    graph, target = view_of(net.model), target_of("x86-vnni")
    _, second = (n for n, node in graph.nodes.items() if node.op_type == "Conv")
    found = gaining(graph, result.plan, target)
    assert set(found) == {second} and found[second] < 0.7
    assert not gaining(graph, result.plan, target_of("x86-avx2"))
