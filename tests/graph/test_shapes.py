"""Shapes of Reshape that need not be computed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from onnx import numpy_helper

from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of


def reshaped(*parts: int | str) -> Model:
    """x [n, 6, t] in the shape ``parts``: numbers, "n" and "t" from where they stand in x, "n*t" from both."""
    b = Builder(opset=17)
    x = b.node("Relu", b.input("x", ["n", 6, "t"]))
    sizes = {name: b.node("Gather", b.node("Shape", x), b.ints(axis)) for name, axis in (("n", 0), ("t", 2))}
    sizes["n*t"] = b.node("Mul", sizes["n"], sizes["t"])
    shape = b.node("Concat", *(b.ints(p) if isinstance(p, int) else sizes[p] for p in parts), axis=0)
    b.output(b.node("Neg", b.node("Reshape", x, shape), out="y"))
    return Model(ir=ir.from_proto(b.model()))


@pytest.mark.parametrize("marked", [False, True])
def test_heads_are_repeated_by_a_constant(marked: bool) -> None:
    """As PyTorch's expand is written; where -1 may be in the shape, it stays."""
    b = Builder(opset=17)
    x = b.node("Relu", b.input("x", ["n", "t", 4, 1, 8]))
    sizes = [b.node("Gather", b.node("Shape", x), b.ints(i)) for i in (0, 1)]
    first = b.input("first", [1], 7) if marked else sizes[0]
    shape = b.node("Reshape", b.node("Concat", first, sizes[1], b.ints(4, 2, 8), axis=0), b.ints(-1))
    ones = b.node("ConstantOfShape", b.ints(5), value=numpy_helper.from_array(np.ones(1, np.int64)))
    marks = b.node("Mul", ones, b.const(np.int64(-1)))
    by = b.node("Where", b.node("Equal", shape, marks), ones, shape)
    b.output(b.node("Neg", b.node("Reshape", b.node("Expand", x, by), b.ints(0, 0, 8, 8)), out="y"))
    model = Model(ir=ir.from_proto(b.model()))
    feeds: list[Feed] = []
    for n, t in ((2, 5), (1, 1), (3, 2)):
        value = np.random.default_rng(n).normal(size=(n, t, 4, 1, 8)).astype(np.float32)
        feeds += [{"x": value, **({"first": np.array([m])} if marked else {})} for m in ((n, -1) if marked else (n,))]
    made = prepare(model, feeds[0]).model
    for feed in feeds:
        assert np.array_equal(session_of(model).run(feed)[0], session_of(made).run(feed)[0])
    left = {node.op_type for node in made.ir.graph}
    assert ("Where" in left) == marked
    assert marked or left == {"Relu", "Expand", "Reshape", "Neg"}


def test_what_is_known_of_a_shape_is_constant() -> None:
    """As position embeddings are made for the size of an image, which is given, and any batch."""
    b = Builder(opset=17)
    x = b.node("Relu", b.input("x", ["n", 3, 8, 6]))
    shape = b.node("Shape", x)
    rows, columns = (b.node("Div", b.node("Gather", shape, b.ints(i)), b.ints(2)) for i in (2, -1))
    ends = b.node("Shape", x, start=1, end=3)
    both = b.node(
        "Concat", b.node("Gather", shape, b.ints(0)), b.node("Gather", ends, b.ints(0)), rows, columns, axis=0
    )
    b.output(b.node("Neg", b.node("Resize", x, "", "", both, mode="nearest"), out="y"))
    model = Model(ir=ir.from_proto(b.model()))
    made = prepare(model, {"x": np.ones((2, 3, 8, 6), np.float32)}).model
    for n in (2, 5):
        x_value = np.random.default_rng(n).normal(size=(n, 3, 8, 6)).astype(np.float32)
        assert np.array_equal(session_of(model).run({"x": x_value})[0], session_of(made).run({"x": x_value})[0])
    left = [node.op_type for node in made.ir.graph]
    assert left.count("Gather") == 1 and "Div" not in left  # the batch is not known


@pytest.mark.parametrize(
    ("parts", "constant"),
    [
        (("n", 2, 3, "t"), [0, 2, 3, -1]),
        (("n", 6, "t"), None),  # nothing is left of it
        (("n*t", 6), [-1, 6]),
        (("n", "t", 6), [0, -1, 6]),
        (("t", "n", 6), "computed"),  # two that are known only when the model runs
        (("t", 6, "n"), "computed"),
    ],
)
def test_dimensions_that_stay_are_copied(parts: tuple[int | str, ...], constant: list[int] | str | None) -> None:
    model = reshaped(*parts)
    made = prepare(model, {"x": np.ones((2, 6, 5), np.float32)}).model
    for n, t in ((2, 5), (1, 1), (3, 4)):
        x = np.random.default_rng(n).normal(size=(n, 6, t)).astype(np.float32)
        assert np.array_equal(session_of(model).run({"x": x})[0], session_of(made).run({"x": x})[0])
    found = [node for node in made.ir.graph if node.op_type == "Reshape"]
    if constant is None:
        assert not any(node.op_type == "Shape" for node in made.ir.graph)
        return
    shape = found[0].inputs[1]
    assert shape is not None
    known = shape.const_value
    assert (known.numpy().tolist() if known is not None else "computed") == constant


def test_what_may_be_none_at_all_is_not_copied_beside_an_open_dimension() -> None:
    """Of boxes that are found there may be none."""
    b = Builder(opset=17)
    x = b.input("x", ["n", 6])
    rows = b.node(
        "Squeeze",
        b.node("NonZero", b.node("Greater", b.node("ReduceMax", x, axes=[1], keepdims=0), b.const(np.float32(0)))),
        b.ints(0),
    )
    found = b.node("Gather", x, rows)
    count = b.node("Gather", b.node("Shape", found), b.ints(0))
    halves = b.node("Reshape", found, b.node("Concat", count, b.ints(2, 3), axis=0))
    first = b.node("Gather", b.node("Shape", x), b.ints(0))
    b.output(
        b.node(
            "Neg",
            b.node(
                "Reshape",
                halves,
                b.node("Concat", count, b.node("Div", b.node("Mul", first, b.ints(6)), first), axis=0),
            ),
            out="y",
        )
    )
    model = Model(ir=ir.from_proto(b.model()))
    values = [np.ones((2, 6), np.float32), -np.ones((3, 6), np.float32)]
    made = prepare(model, {"x": values[0]}).model
    for value in values:
        assert np.array_equal(session_of(model).run({"x": value})[0], session_of(made).run({"x": value})[0])
