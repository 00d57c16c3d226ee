"""Pools of bytes whose channels ONNX Runtime leaves first are written with channels last: the same to the bit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from plan.kernels import Few, dequantized

from qconvert.conversion import Quantized
from qconvert.diagnose.standing import channels_first
from qconvert.errors import RecipeError
from qconvert.forms import CHANNELS_LAST
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import Recipe
from qconvert.repair import convert_and_repair
from qconvert.run import Run

POOLS = {
    "2x2": {"kernel_shape": (2, 2), "strides": (2, 2)},
    "3x3": {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    "5x5": {"kernel_shape": (5, 5), "strides": (1, 1), "pads": (2, 2, 2, 2)},
    "ceil": {"kernel_shape": (3, 2), "strides": (2, 3), "ceil_mode": 1},
    "dilated": {"kernel_shape": (2, 2), "dilations": (2, 2)},
    "same": {"kernel_shape": (3, 3), "strides": (2, 2), "auto_pad": "SAME_UPPER"},
}


def net(pool: dict[str, object], *, channels_added: int = 8) -> tuple[Prepared, Few]:
    """Residual convolutions, a pool, and channels of zeros behind it, as face detectors for phones have them; or a
    convolution and a pool."""
    b = Builder(seed=3)
    x = b.input("image", ["n", 8, 17, 19])
    for _ in range(2):
        y = b.node("Relu", b.conv(x, 8, 8, 3))
        x = b.node("Relu", b.node("Add", x, y)) if channels_added else y
    x = b.node("MaxPool", x, out="pooled", **pool)
    if channels_added:
        pads = [0] * 8
        pads[5] = channels_added
        x = b.node("Pad", x, b.const(np.array(pads, np.int64)))
    b.output(b.conv(x, 8 + channels_added, 8, 1, out="y"))
    rng = np.random.default_rng(1)
    feeds = [{"image": rng.normal(0.2, 1, (2, 8, 17, 19)).astype(np.float32)} for _ in range(2)]
    return prepare(Model(ir=ir.from_proto(b.model())), feeds[0], min_opset=13), Few(feeds)


def converted(prepared: Prepared, feeds: Few, *forms: str, target: str = "x86-vnni") -> Quantized:
    recipe = Recipe(recover=("none",), placement="static", target=target, forms=forms)
    return convert_and_repair(prepared, Run(recipe=recipe, samples=feeds))


def pools(result: Quantized) -> list[str]:
    return [n.node for n in result.plan.nodes.values() if n.form == CHANNELS_LAST]


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_whose_channels_are_left_first_is_turned_and_exact(name: str) -> None:
    prepared, feeds = net(POOLS[name], channels_added=8)
    plain, turned = (converted(prepared, feeds, *forms) for forms in (("MaxPool=plain",), ()))
    assert channels_first(optimized_view(plain.model, layouts=True)), "the kernel that the form is for"
    assert not channels_first(optimized_view(turned.model, layouts=True))
    assert len(pools(turned)) == 1
    assert not pools(plain)
    for feed in feeds:
        np.testing.assert_array_equal(turned.session.run(feed)[0], plain.session.run(feed)[0])
    assert "channels last" in turned.plan.nodes[pools(turned)[0]].decision.reason


def test_what_onnx_runtime_turns_itself_stays_as_it_is() -> None:
    prepared, feeds = net(POOLS["3x3"], channels_added=0)
    result = converted(prepared, feeds)
    assert not channels_first(optimized_view(result.model, layouts=True))
    assert not pools(result)


def test_not_for_runtimes_without_the_operator() -> None:
    prepared, feeds = net(POOLS["2x2"])
    for target in ("openvino", "tensorrt", "web"):
        assert not pools(converted(prepared, feeds, target=target))


def test_the_float_model_is_made_of_it_again() -> None:
    prepared, feeds = net(POOLS["3x3"])
    back = dequantized(converted(prepared, feeds).model)
    assert not any(n.op_type in ("QuantizeLinear", "DequantizeLinear", "NhwcMaxPool") for n in back.ir.graph)
    for feed in feeds:
        [wanted], [got] = session_of(prepared.model).run(feed), session_of(back).run(feed)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=0.02 * float(np.abs(wanted).max()))


def test_a_recipe_asks_for_it() -> None:
    prepared, feeds = net(POOLS["3x3"], channels_added=0)
    assert len(pools(converted(prepared, feeds, "MaxPool=channels-last"))) == 1
    with pytest.raises(RecipeError, match="has the form 'channels-last'"):
        converted(prepared, feeds, "Conv=channels-last")
