"""ConvTranspose as a convolution and DepthToSpace: the same values, where nothing is multiplied by zeros for it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import agreement, prepare
from qconvert.graph.signature import session_of
from qconvert.targets import TARGETS

FIT = {
    "half": {"kernel": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "no padding": {"kernel": 4, "strides": [2, 2]},
    "uneven padding": {"kernel": 4, "strides": [2, 2], "pads": [0, 1, 2, 1]},
    "three taps": {"kernel": 6, "strides": [2, 2], "pads": [2, 2, 2, 2]},
    "stride of 3": {"kernel": 6, "strides": [3, 3], "pads": [1, 2, 2, 1]},
    "more at the end": {"kernel": 4, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
}
UNFIT = {
    "the stride": {"kernel": 2, "strides": [2, 2]},
    "no multiple": {"kernel": 3, "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "no stride": {"kernel": 4, "strides": [1, 1]},
    "two strides": {"kernel": 4, "strides": [2, 1]},
    "groups": {"kernel": 4, "strides": [2, 2], "group": 2},
    "dilated": {"kernel": 4, "strides": [2, 2], "dilations": [2, 2]},
    "by its result": {"kernel": 4, "strides": [2, 2], "output_shape": [14, 16]},
    "padded by itself": {"kernel": 4, "strides": [2, 2], "auto_pad": "SAME_UPPER"},
}


def net(kernel: int, *, behind: str = "Relu", bias: bool = True, group: int = 1, **attributes: object) -> Model:
    b = Builder(opset=17, seed=4)
    x = b.node("Tanh", b.input("x", ["n", 8, "h", "w"]))
    weight = b.weight(8, 6 // group, kernel, kernel, fan_in=8 * kernel)
    y = b.node("ConvTranspose", x, weight, *([b.vector(6)] if bias else []), name="up", group=group, **attributes)
    if behind == "Clip":
        y = b.node("Clip", y, b.const(np.float32(-0.5)), b.const(np.float32(0.5)), name="activation")
    elif behind:
        y = b.node(behind, y, name="activation")
    b.output(b.node("Neg", y, out="y"))
    return Model(ir=ir.from_proto(b.model()))


def ops(model: Model, *, rewritten: bool = True) -> Counter[str]:
    """Those of the canonical model, after a look at whether it computes the same for images of any size."""
    sizes = [(1, 7, 8), (2, 5, 3), (1, 1, 1)]
    feeds = [{"x": np.random.default_rng(h).normal(size=(n, 8, h, w)).astype(np.float32)} for n, h, w in sizes]
    made = prepare(model, feeds[0], rewritten=frozenset({"ConvTranspose"} if rewritten else ()))
    for feed in feeds:
        one, other = session_of(model).run(feed), session_of(made.model).run(feed)
        assert one[0].shape == other[0].shape
        assert agreement(one, other) > 110
    return Counter(node.op_type for node in made.model.ir.graph)


@pytest.mark.parametrize("form", FIT.values(), ids=FIT)
@pytest.mark.parametrize("behind", ["Relu", "Clip", "Sigmoid", ""])
def test_a_kernel_of_several_strides(form: dict[str, object], behind: str) -> None:
    found = ops(net(**form, behind=behind, bias=behind != "Clip"))  # type: ignore[arg-type]
    assert found["ConvTranspose"] == 0
    assert found["Conv"] == found["DepthToSpace"] == 1


@pytest.mark.parametrize("form", UNFIT.values(), ids=UNFIT)
def test_others_stay(form: dict[str, object]) -> None:
    if "output_shape" in form:
        made = prepare(net(**form), rewritten=frozenset({"ConvTranspose"})).model  # type: ignore[arg-type]
        assert any(node.op_type == "ConvTranspose" for node in made.ir.graph)
    else:
        assert ops(net(**form))["ConvTranspose"] == 1  # type: ignore[arg-type]


def test_activations_come_first() -> None:
    """So that the convolution takes them in, on integers too."""
    made = prepare(net(4, strides=[2, 2]), rewritten=frozenset({"ConvTranspose"})).model
    assert [n.op_type for n in made.ir.graph] == ["Tanh", "Conv", "Relu", "DepthToSpace", "Neg"]
    assert [n.name for n in made.ir.graph][1:4] == ["up", "activation", "up/part/pixels"]


def test_runtimes_with_a_kernel_for_it_keep_it() -> None:
    assert ops(net(4, strides=[2, 2]), rewritten=False)["ConvTranspose"] == 1
    assert {t.name for t in TARGETS if "ConvTranspose" in t.rewritten} == {"x86-vnni", "x86-avx2", "arm64", "web"}
