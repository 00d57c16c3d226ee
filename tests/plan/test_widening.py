"""Channels added between dense convolutions: the results are the same, and the kernels are those of more channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from plan.kernels import RECIPE, Few, dequantized, made, maker

from qconvert.conversion import convert
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.signature import session_of
from qconvert.run import Run

Between = Callable[[Builder, str], str]


def plain(b: Builder, x: str) -> str:
    return b.node("Relu", b.conv(x, 24, 24, group=24, out="depthwise"))


def squeezed(b: Builder, x: str) -> str:
    """As MobileNetV3: hard swish, and channels weighed by what they hold on the mean."""
    x = b.node("HardSwish", b.conv(b.node("HardSwish", x), 24, 24, 5, stride=2, group=24, out="depthwise"))
    gate = b.node("Relu", b.conv(b.node("GlobalAveragePool", x), 24, 8, 1))
    return b.node("Mul", x, b.node("HardSigmoid", b.conv(gate, 8, 24, 1), alpha=1 / 6, beta=0.5))


def twice(b: Builder, x: str) -> str:
    """Two, one behind the other, with a sum around them, and without biases."""
    y = b.node("Relu", b.conv(x, 24, 24, group=24, bias=False, out="depthwise"))
    return b.node("Add", x, b.conv(y, 24, 24, group=24, bias=False))


def pooled(b: Builder, x: str) -> str:
    x = b.conv(x, 24, 24, group=24, out="depthwise")
    return b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])


def net_of(between: Between, size: int | str = 24, last: str = "Conv") -> tuple[Prepared, Few]:
    b = Builder(seed=11)
    x = b.node("Relu", b.conv(b.input("image", ["n", 16, size, size]), 16, 24, 1))
    x = between(b, x)
    b.output(b.conv(x, 24, 32, 1, out="y") if last == "Conv" else b.node(last, x, out="y"))
    rng = np.random.default_rng(2)
    side = size if isinstance(size, int) else 20
    feeds = [{"image": rng.normal(0.2, 1, (2, 16, side, side)).astype(np.float32)} for _ in range(2)]
    return prepare(Model(ir=ir.from_proto(b.model())), feeds[0], min_opset=13), Few(feeds)


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
@pytest.mark.parametrize("between", [plain, squeezed, twice, pooled])
def test_the_same_to_the_bit(between: Between, format: str) -> None:
    net, samples = net_of(between)
    recipe = replace(RECIPE, format=format)
    (before, expected), (after, found) = (made(net, samples, form, recipe) for form in ("plain", "widened"))
    region = after.plan.nodes[maker(net, "depthwise")].wide
    assert region is not None
    assert region.channels == 32
    assert not any(n.form for n in before.plan.nodes.values())
    wide = {n.node for n in after.plan.nodes.values() if n.form == "widened"}
    assert wide == set(region.depthwise)
    for one, other in zip(expected[:2], found[:2], strict=True):
        assert np.array_equal(one, other)
    # the kernels that run have constant weights of 32 channels
    view = optimized_view(after.model)
    groups = [n.attr_int("group", 1) for n in view.nodes.values() if n.op_type == "QLinearConv"]
    assert groups.count(32) == len(region.depthwise)
    assert 24 not in groups
    assert not {"Pad", "Conv"} & {n.op_type for n in view.nodes.values()}


@pytest.mark.parametrize("between", [plain, squeezed])
def test_it_can_be_dequantized(between: Between) -> None:
    net, samples = net_of(between)
    before, after = (dequantized(made(net, samples, form)[0].model) for form in ("plain", "widened"))
    assert not {"QuantizeLinear", "DequantizeLinear", "Pad"} & {n.op_type for n in after.ir.graph}
    for feed in samples:
        one, other = (session_of(model).run(feed)[0] for model in (before, after))
        assert np.allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_taken_where_it_pays() -> None:
    for size, form in ((48, "widened"), ("size", "widened"), (4, "")):
        net, samples = net_of(plain, size)
        plan = convert(net, Run(recipe=RECIPE, samples=samples)).plan  # type: ignore[arg-type]
        assert plan.nodes[maker(net, "depthwise")].form == form


def aligned(b: Builder, x: str) -> str:
    x = b.node("Relu", b.conv(x, 24, 32, 1))
    x = b.node("Relu", b.conv(x, 32, 32, group=32, out="depthwise"))
    return b.conv(x, 32, 24, 1)


def moved(b: Builder, x: str) -> str:
    """Channels are told apart."""
    return b.node("Transpose", b.conv(x, 24, 24, group=24, out="depthwise"), perm=[0, 1, 3, 2])


def scaled(b: Builder, x: str) -> str:
    """By a constant for each channel, behind a clamp that keeps it out of the filters."""
    x = b.node("Relu", b.conv(x, 24, 24, group=24, out="depthwise"))
    return b.node("Add", x, b.const(np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 24, 1, 1)))


def in_groups(b: Builder, x: str) -> str:
    return b.conv(b.node("Relu", b.conv(x, 24, 24, group=24, out="depthwise")), 24, 24, group=4)


@pytest.mark.parametrize("between", [aligned, moved, scaled, in_groups])
def test_not_taken(between: Between) -> None:
    net, samples = net_of(between, 48)
    plan = made(net, samples, "widened")[0].plan
    assert not plan.nodes[maker(net, "depthwise")].form


def test_an_output_keeps_its_channels() -> None:
    net, samples = net_of(plain, 48, last="Relu")
    result, _ = made(net, samples, "widened")
    assert not any(n.form for n in result.plan.nodes.values())


@pytest.mark.parametrize("target", ["x86-avx2", "arm64"])
def test_elsewhere_it_is_not_known_to_pay(target: str) -> None:
    net, samples = net_of(plain, 48)
    plan = convert(net, Run(recipe=replace(RECIPE, target=target), samples=samples)).plan  # type: ignore[arg-type]
    assert not any(n.form for n in plan.nodes.values())


def test_channels_stay_what_they_were_for_whoever_looks() -> None:
    """The plan's tensors are those of the model; only the written graph has more channels."""
    net, samples = net_of(plain)
    before, after = (made(net, samples, form)[0].plan for form in ("plain", "widened"))
    assert [g.tensors for g in before.groups] == [g.tensors for g in after.groups]
    view = view_of(net.model)
    assert view.tensors["depthwise"].shape == ("n", 24, 24, 24)
