"""Convolutions that read pixels of a row as channels: the same to the bit, by a kernel that gathers nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.builder import Builder
from plan.kernels import RECIPE, Few, dequantized, made, maker

from qconvert.conversion import Quantized, convert
from qconvert.errors import RecipeError
from qconvert.graph.build_view import view_of
from qconvert.graph.census import take_census
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.signature import session_of
from qconvert.plan.convolutions import convolution_ns, shape_of
from qconvert.plan.folding import fold_of
from qconvert.recipe.recipe import Recipe
from qconvert.run import Run
from qconvert.targets import TARGETS

COSTS = TARGETS.get("x86-vnni").convolutions


@dataclass(frozen=True, kw_only=True)
class Case:
    """A convolution of ``size`` (height, width) images, alone or between others; "" for sizes known when it runs."""

    channels: tuple[int, int] = (3, 16)
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (2, 2)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    size: tuple[int, int] = (32, 32)
    depthwise: bool = False
    groups: int = 1
    varying: bool = False
    bias: bool = True
    within: bool = False

    def prepared(self) -> tuple[Prepared, Few]:
        b = Builder(seed=7)
        (i, o), group = self.channels, self.channels[0] if self.depthwise else self.groups
        shape = ["n", 16 if self.within else i, *(("h", "w") if self.varying else self.size)]
        x = b.input("image", shape)
        if self.within:
            x = b.node("Relu", b.conv(x, 16, i, 1))
        operands = [b.weight(o, i // group, *self.kernel), *([b.vector(o)] if self.bias else [])]
        x = b.node(
            "Conv",
            x,
            *operands,
            out="c",
            kernel_shape=self.kernel,
            strides=self.strides,
            pads=self.pads,
            group=group,
        )
        b.output(b.conv(b.node("Relu", x), o, 8, 1, out="y"))
        rng = np.random.default_rng(1)
        feeds = [{"image": rng.normal(0.3, 1, (2, shape[1], *self.size)).astype(np.float32)} for _ in range(2)]
        return prepare(Model(ir=ir.from_proto(b.model())), feeds[0], min_opset=13), Few(feeds)


CASES = {
    "first of a net": Case(),
    "padded behind only": Case(pads=(0, 0, 1, 1)),
    "one channel, large filter": Case(channels=(1, 32), kernel=(5, 5), strides=(1, 1), pads=(2, 2, 2, 2)),
    "seven taps": Case(channels=(3, 64), kernel=(7, 7), pads=(3, 3, 3, 3)),
    "filter of another shape": Case(channels=(2, 12), kernel=(1, 5), strides=(1, 1), pads=(0, 2, 0, 2)),
    "no padding at all": Case(channels=(3, 8), kernel=(3, 3), strides=(1, 1), pads=(0, 0, 0, 0)),
    "few results": Case(channels=(16, 4), strides=(1, 1), within=True),
    "pixels alone": Case(channels=(6, 8), kernel=(1, 1), strides=(1, 1), pads=(0, 0, 0, 0), within=True),
    "depthwise": Case(channels=(8, 8), strides=(1, 1), depthwise=True, within=True),
    "depthwise, stride 2": Case(channels=(8, 8), depthwise=True, within=True, bias=False),
    "odd rows": Case(size=(20, 33)),
    "odd rows, stride 1": Case(channels=(3, 8), strides=(1, 1), size=(9, 21)),
    "rows of any length": Case(varying=True, size=(19, 29)),
    "rows of any length, within": Case(channels=(5, 8), strides=(1, 1), varying=True, size=(9, 13), within=True),
    "strides that differ": Case(strides=(1, 2), size=(12, 32)),
    "without bias": Case(bias=False),
    "groups as one": Case(channels=(24, 32), groups=4, strides=(1, 1), within=True),
    "groups as one, stride 2, pads that differ": Case(channels=(24, 16), groups=2, pads=(0, 0, 1, 2), within=True),
    "groups, pixels alone": Case(channels=(8, 8), kernel=(1, 1), groups=4, strides=(1, 1), pads=(0,) * 4, within=True),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_to_the_bit(name: str) -> None:
    net, samples = CASES[name].prepared()
    (plain, expected), (folded, found) = made(net, samples, "plain"), made(net, samples, "folded")
    (conv,) = [n for n in folded.plan.nodes.values() if n.form == "folded" and n.node == maker(net, "c")]
    assert conv.fold is not None
    told = "pixels of a row read as channels" if conv.fold.pixels > 1 else "groups as one"
    assert told in conv.decision.reason
    assert not any(n.form for n in plain.plan.nodes.values())
    half = len(samples.feeds)
    for before, after in zip(expected, found, strict=True):
        assert before.shape == after.shape
    for before, after in zip(expected[:half], found[:half], strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("name", ["rows of any length", "rows of any length, within"])
def test_sizes_that_calibration_did_not_see(name: str) -> None:
    net, samples = CASES[name].prepared()
    plain, folded = (session_of(made(net, samples, form)[0].model) for form in ("plain", "folded"))
    channels = samples.feeds[0]["image"].shape[1]
    rng = np.random.default_rng(3)
    for batch, height, width in ((1, 1, 1), (1, 3, 2), (3, 4, 7), (1, 9, 64), (2, 5, 65)):
        feed = {"image": rng.normal(0, 1, (batch, channels, height, width)).astype(np.float32)}
        assert np.array_equal(plain.run(feed)[0], folded.run(feed)[0])


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_nothing_moves_but_the_input(format: str) -> None:
    """Behind ONNX Runtime's fusions: one Transpose of the input, changes of shape, integer kernels, no float ones."""
    net, samples = CASES["first of a net"].prepared()
    folded, _ = made(net, samples, "folded", replace(RECIPE, format=format))
    ops = take_census(folded.model, [n.node for n in folded.plan.nodes.values() if n.op_type == "Conv"]).ops
    assert ops["QLinearConv"] == 2
    assert ops["Transpose"] <= 2
    assert not {"Conv", "Pad", "Tile", "Slice"} & set(ops)
    # any processor: the fused graph before layouts are changed holds the folded weights as constants
    view = optimized_view(folded.model)
    kernels = [n for n in view.nodes.values() if n.op_type == "QLinearConv"]
    assert all(view.is_constant(n.inputs[3]) for n in kernels)


@pytest.mark.parametrize("name", ["first of a net", "depthwise", "odd rows"])
def test_it_can_be_dequantized(name: str) -> None:
    """`qconvert convert --to float`: no codes are left, and the function is that of the model that was not folded."""
    net, samples = CASES[name].prepared()
    plain, folded = (dequantized(made(net, samples, form)[0].model) for form in ("plain", "folded"))
    ops = {n.op_type for n in folded.ir.graph}
    assert not {"QuantizeLinear", "DequantizeLinear"} & ops
    for feed in samples:
        one, other = (session_of(model).run(feed)[0] for model in (plain, folded))
        assert np.allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_weights_are_stored_once() -> None:
    net, samples = CASES["seven taps"].prepared()
    sizes = {form: folded_bytes(made(net, samples, form)[0]) for form in ("plain", "folded")}
    assert sizes["folded"] < sizes["plain"] + 4000 < 2 * sizes["plain"]


def folded_bytes(result: Quantized) -> int:
    return len(ir.to_proto(result.model.ir).SerializeToString())


def test_taken_by_shape_where_it_pays() -> None:
    """Without a word in the recipe: the first convolution of a large image, not that of a small one."""
    for size, form in ((64, "folded"), (8, "")):
        net, samples = Case(size=(size, size)).prepared()
        plan = convert(net, Run(recipe=RECIPE, samples=samples)).plan  # type: ignore[arg-type]
        assert plan.nodes[maker(net, "c")].form == form


@pytest.mark.parametrize(
    ("case", "recipe"),
    [
        (Case(channels=(16, 16), within=True), RECIPE),  # channels enough
        (Case(kernel=(3, 3), pads=(1, 3, 1, 3)), RECIPE),  # a longer result than the input
        (Case(), replace(RECIPE, target="x86-avx2")),
        (Case(), replace(RECIPE, target="arm64")),
        (Case(), replace(RECIPE, activations="int8")),
        (Case(), replace(RECIPE, weights="uint8")),
    ],
)
def test_not_taken(case: Case, recipe: Recipe) -> None:
    net, samples = case.prepared()
    plan = convert(net, Run(recipe=recipe, samples=samples)).plan  # type: ignore[arg-type]
    assert not plan.nodes[maker(net, "c")].form


def test_a_target_without_it_says_so() -> None:
    net, samples = Case().prepared()
    with pytest.raises(RecipeError, match="has the form 'folded'"):
        made(net, samples, "folded", replace(RECIPE, target="openvino"))


@settings(max_examples=200, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 12), st.integers(1, 40)),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 2),
    front=st.integers(0, 3),
    behind=st.integers(0, 3),
    width=st.integers(8, 64),
)
def test_a_fold_reads_what_the_convolution_reads(
    channels: tuple[int, int], kernel: int, stride: int, front: int, behind: int, width: int
) -> None:
    """Geometry, in numpy: taps lie inside the folded filter, and results for every pixel of the row are made."""
    b = Builder(seed=1)
    weight = b.weight(channels[1], channels[0], 1, kernel)
    pads = [0, front, 0, behind]
    b.output(b.node("Conv", b.input("x", [1, channels[0], 1, width]), weight, pads=pads, strides=[1, stride], out="y"))
    view = view_of(prepare(Model(ir=ir.from_proto(b.model()))).model)
    node = view.producer("y")
    fold = fold_of(view, node, COSTS) if node is not None else None
    if fold is None or node is None:
        return
    assert (fold.pixels * channels[0]) % 4 == 0
    assert fold.results * channels[1] >= 16
    assert fold.offset >= 0
    assert fold.offset + stride * (fold.results - 1) + kernel <= fold.taps * fold.pixels
    rows = -(-width // fold.pixels)
    results = (rows + sum(fold.pads) - fold.taps + 1) * fold.results
    expected = (width + front + behind - kernel) // stride + 1
    assert results == rows * fold.results >= expected
    assert fold.filled == (results != expected or rows * fold.pixels != width)
    shape = shape_of(view, node)
    assert shape is not None
    assert COSTS is not None
    assert fold.plain_ns == convolution_ns(shape, COSTS, integer=True)
