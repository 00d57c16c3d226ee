"""Constant factors and summands go into the operators beside them, where that is the same function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import MIN_AGREEMENT_DB, prepare

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 4, 6, 6)).astype(np.float32)
ROWS = RNG.normal(size=(3, 4)).astype(np.float32)


def prepared_ops(b: Builder, feed: np.ndarray) -> list[str]:
    """The canonical form's operators; it must still be the same function."""
    prepared = prepare(Model(ir=ir.from_proto(b.model())), {"x": feed})
    assert not any("simplification" in note for note in prepared.notes), prepared.notes
    assert prepared.agreement_db is not None and prepared.agreement_db >= max(100, MIN_AGREEMENT_DB)
    assert [v.name for v in prepared.model.ir.graph.outputs] == ["y"]
    return [n.op_type for n in prepared.model.ir.graph]


def behind(make: Callable[[Builder, str], str], *steps: tuple[str, object]) -> Builder:
    """A weighted operator and then ``steps``, each (operator, constant)."""
    b = Builder(seed=3)
    rank2 = make is gemm
    x = make(b, b.input("x", [3, 4] if rank2 else [2, 4, 6, 6]))
    for i, (op, constant) in enumerate(steps):
        x = b.node(op, x, b.const(np.asarray(constant, np.float32)), out="y" if i == len(steps) - 1 else None)
    b.output("y")
    return b


def conv(b: Builder, x: str) -> str:
    return b.node("Conv", x, b.weight(8, 4, 3, 3))


def transposed(b: Builder, x: str) -> str:
    return b.node("ConvTranspose", x, b.weight(4, 8, 2, 2), b.vector(8), strides=[2, 2])


def gemm(b: Builder, x: str) -> str:
    return b.node("Gemm", x, b.weight(8, 4), b.vector(8), transB=1)


CHANNELS = RNG.uniform(0.5, 2, (8, 1, 1))


@pytest.mark.parametrize("make", [conv, transposed], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "steps",
    [
        [("Mul", 0.3), ("Add", -0.7)],
        [("Div", CHANNELS), ("Sub", CHANNELS[None])],
        [("Add", CHANNELS), ("Mul", -2.0)],
    ],
    ids=["scalars", "channels", "order"],
)
def test_behind_a_convolution_all_goes_into_it(
    make: Callable[[Builder, str], str], steps: list[tuple[str, object]]
) -> None:
    assert prepared_ops(behind(make, *steps), IMAGE) == ["Conv" if make is conv else "ConvTranspose"]


def test_behind_a_gemm_too() -> None:
    assert prepared_ops(behind(gemm, ("Mul", RNG.uniform(0.5, 2, 8)), ("Add", [[0.25]])), ROWS) == ["Gemm"]


def test_batch_normalization_behind_a_transposed_convolution_with_an_addition_between() -> None:
    b = behind(transposed, ("Add", CHANNELS))
    b.outputs.clear()
    b.nodes[-1].output[0] = "sum"
    parameters = [b.const(RNG.uniform(0.5, 1.5, 8).astype(np.float32)) for _ in range(4)]
    b.output(b.node("BatchNormalization", "sum", *parameters, out="y"))
    assert prepared_ops(b, IMAGE) == ["ConvTranspose"]


@pytest.mark.parametrize(
    ("pads", "ops"),
    [([0, 0, 0, 0], ["Relu", "Conv"]), ([1, 1, 1, 1], ["Relu", "Add", "Conv"])],
    ids=["unpadded", "padded"],
)
def test_before_a_convolution_the_summand_stays_where_padding_comes_after_it(pads: list[int], ops: list[str]) -> None:
    b = Builder(seed=4)
    x = b.node("Relu", b.input("x", [2, 4, 6, 6]))
    x = b.node("Mul", b.const(np.float32(0.4)), x)
    x = b.node("Add", x, b.const(np.float32(1.5)))
    b.output(b.node("Conv", x, b.weight(8, 2, 3, 3), group=2, pads=pads, out="y"))
    assert prepared_ops(b, IMAGE) == ops


@pytest.mark.parametrize(("third", "factors"), [("Conv", 0), ("Relu", 1)])
def test_several_convolutions_take_a_factor_unless_something_else_reads_it(third: str, factors: int) -> None:
    b = Builder(seed=5)
    x = b.node("Mul", b.node("Tanh", b.input("x", [2, 4, 6, 6])), b.const(np.float32(3.0)))
    both = b.node("Add", b.node("Conv", x, b.weight(4, 4, 1, 1)), b.node("Conv", x, b.weight(4, 4, 1, 1)))
    last = b.node(third, x, *([b.weight(4, 4, 1, 1)] if third == "Conv" else []))
    b.output(b.node("Add", both, last, out="y"))
    assert prepared_ops(b, IMAGE).count("Mul") == factors


@pytest.mark.parametrize("values", [(4,), (4, 1, 1)], ids=["last axis", "channels"])
def test_values_that_do_not_lie_along_the_output_channels_stay(values: tuple[int, ...]) -> None:
    b = Builder(seed=6)
    x = b.node("Conv", b.input("x", [2, 4, 4, 4]), b.weight(4, 4, 1, 1))
    b.output(b.node("Mul", x, b.const(RNG.uniform(0.5, 2, values).astype(np.float32)), out="y"))
    ops = prepared_ops(b, IMAGE[:, :, :4, :4].copy())
    assert ops == (["Conv", "Mul"] if values == (4,) else ["Conv"])


def test_a_weight_that_another_node_reads_stays_as_it_is() -> None:
    b = Builder(seed=7)
    w = b.weight(4, 4, 1, 1)
    first = b.node("Mul", b.node("Conv", b.input("x", [2, 4, 6, 6]), w), b.const(np.float32(0.1)))
    b.output(b.node("Conv", b.node("Tanh", first), w, out="y"))
    assert prepared_ops(b, IMAGE).count("Mul") == 1


def test_the_last_factor_of_a_gelu_stays() -> None:
    b = Builder(seed=8)
    x = b.node("Conv", b.input("x", [2, 4, 6, 6]), b.weight(4, 4, 1, 1))
    one = b.node("Add", b.node("Erf", b.node("Div", x, b.const(np.float32(2**0.5)))), b.const(np.float32(1.0)))
    gelu = b.node("Mul", b.node("Mul", x, one), b.const(np.float32(0.5)))
    b.output(b.node("Conv", gelu, b.weight(4, 4, 1, 1), out="y"))
    assert prepared_ops(b, IMAGE).count("Mul") == 2


def hard(divide: str, *, gate_only: bool, c: float = 3.0, k: float = 6.0, low: float = 0.0) -> Builder:
    b = Builder(seed=9)
    x = b.node("Relu" if gate_only else "Identity", b.input("x", [2, 4, 6, 6]))
    x = b.node("Tanh", x)
    clip = b.node("Clip", b.node("Add", b.const(np.float32(c)), x), b.const(np.float32(low)), b.const(np.float32(k)))
    top = clip if gate_only else b.node("Mul", x, clip)
    by = b.const(np.float32(k if divide == "Div" else 1 / k))
    b.output(b.node(divide, top, by, out="y"))
    return b


@pytest.mark.parametrize("divide", ["Div", "Mul"])
@pytest.mark.parametrize(("c", "k"), [(3.0, 6.0), (0.5, 1.25)])
def test_a_spelled_out_hard_sigmoid_becomes_one_operator(divide: str, c: float, k: float) -> None:
    assert prepared_ops(hard(divide, gate_only=False, c=c, k=k), IMAGE) == ["Tanh", "HardSigmoid", "Mul"]
    assert prepared_ops(hard(divide, gate_only=True, c=c, k=k), IMAGE) == ["Relu", "Tanh", "HardSigmoid"]


def test_what_is_no_hard_sigmoid_stays() -> None:
    assert "HardSigmoid" not in prepared_ops(hard("Div", gate_only=False, low=0.5), IMAGE)
    b = hard("Div", gate_only=False)
    b.nodes[-1].input[1] = b.const(np.float32(5.0))
    assert "HardSigmoid" not in prepared_ops(b, IMAGE)


def test_a_shape_rewrite_does_not_need_an_opset_that_the_model_has_not_got() -> None:
    """A Softmax of opset 11 becomes one of 13 between two shapes, and what onnxscript makes of these came with 14."""
    b = Builder(seed=10, opset=11)
    b.output(b.node("Softmax", b.input("x", ["n", 4, 6, 6]), axis=1, out="y"))
    assert "Softmax" in prepared_ops(b, IMAGE)


def test_a_declared_output_shape_that_is_not_true_costs_no_simplification() -> None:
    """The rewrite of a Reshape believes the declaration: [1, n] for what has three axes."""
    b = Builder(seed=11, opset=13)
    x = b.node("Tanh", b.input("x", ["n", 4, 6, 6]))
    sizes = b.node("Concat", b.node("Gather", b.node("Shape", x), b.ints(0)), b.ints(-1), b.ints(4), axis=0)
    b.output(b.node("Reshape", x, sizes, out="y"), [1, "m"])
    assert "Reshape" in prepared_ops(b, IMAGE)


@pytest.mark.parametrize("turned", [False, True])
def test_a_bias_behind_a_one_dimensional_convolution_of_tensorflow(turned: bool) -> None:
    """Conv2D over [n, c, w, 1], its last axis squeezed, sliced as a whole, perhaps turned, then bias and factor."""
    b = Builder(seed=3)
    x = b.node("Conv", b.input("x", [2, 4, 6, 1]), b.weight(8, 4, 3, 1))
    ends = b.ints(2147483647, 2147483647, 2147483647, 1)
    x = b.node("Slice", x, b.ints(0, 0, 0, 0), ends, b.ints(0, 1, 2, 3))
    x = b.node("Squeeze", x, b.ints(3))
    x = b.node("Transpose", x, perm=[0, 2, 1]) if turned else x
    values = RNG.uniform(0.5, 2, (8,) if turned else (1, 8, 1)).astype(np.float32)
    x = b.node("Add", x, b.const(values))
    b.output(b.node("Mul", x, b.const(values), out="y"))
    found = prepared_ops(b, IMAGE[..., :1])
    assert found == ["Conv", "Squeeze", *(["Transpose"] if turned else [])]


def test_along_another_axis_than_that_of_the_channels_it_stays() -> None:
    b = Builder(seed=3)
    x = b.node("Conv", b.input("x", [2, 4, 8, 1]), b.weight(6, 4, 1, 1))
    x = b.node("Transpose", b.node("Squeeze", x, b.ints(3)), perm=[0, 2, 1])
    b.output(b.node("Add", x, b.const(RNG.uniform(0.5, 2, (8, 1)).astype(np.float32)), out="y"))
    assert prepared_ops(b, RNG.normal(size=(2, 4, 8, 1)).astype(np.float32)) == ["Conv", "Squeeze", "Transpose", "Add"]


def test_a_slice_that_cuts_something_off_stays() -> None:
    b = Builder(seed=3)
    x = b.node("Slice", b.input("x", [2, 4, 6, 6]), b.ints(0), b.ints(5), b.ints(2))
    b.output(b.node("Relu", b.node("Slice", x, b.ints(0), b.ints(6), b.ints(3)), out="y"))
    assert prepared_ops(b, IMAGE) == ["Slice", "Relu"]
