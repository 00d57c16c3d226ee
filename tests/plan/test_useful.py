"""Values that nothing can tell apart get no codes, and cutting a range there changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of
from qconvert.plan.useful import EVERYTHING, Range, floors, useful_range

FEED = {"image": np.random.default_rng(3).normal(scale=6, size=(1, 3, 8, 8)).astype(np.float32)}


def hard_swish(b: Builder, x: str) -> str:
    return b.node("Mul", x, b.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def gated_by_another(b: Builder, x: str) -> str:
    return b.node("Mul", x, b.node("HardSigmoid", b.node("Neg", x), alpha=1 / 6, beta=0.5))


def useful(model: Model, name: str) -> Range:
    view = view_of(model)
    return useful_range(view, [name], floors(view))


def gelu(b: Builder, x: str) -> str:
    erf = b.node("Erf", b.node("Div", x, b.const(np.float32(2**0.5))))
    return b.node("Mul", b.node("Mul", x, b.node("Add", erf, b.const(np.float32(1)))), b.const(np.float32(0.5)))


def made(tail: Callable[[Builder, str], str]) -> tuple[Model, str]:
    """A convolution with ``tail`` behind it, and the name of the convolution's result."""
    b = Builder(seed=1, opset=14)
    x = b.conv(b.input("image", [1, 3, 8, 8]), 3, 8)
    b.output(b.node("Neg", tail(b, x)), None)
    model = prepare(Model(ir=ir.from_proto(b.model())), FEED, min_opset=14).model
    (conv,) = (n for n in view_of(model).nodes.values() if n.op_type == "Conv")
    return model, conv.outputs[0]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (lambda b, x: b.node("HardSigmoid", x, alpha=0.25, beta=0.25), (-1.0, 3.0)),
        (hard_swish, (-3.0, math.inf)),
        (lambda b, x: b.node("HardSwish", x), (-3.0, math.inf)),
        (lambda b, x: b.node("Add", hard_swish(b, x), b.relu(x)), (-3.0, math.inf)),
        (lambda b, x: b.node("Add", hard_swish(b, x), x), EVERYTHING),
        (gated_by_another, EVERYTHING),
        (lambda b, x: b.node("Sigmoid", x), (-10.0, 10.0)),
        (lambda b, x: b.node("Mul", x, b.node("Sigmoid", x)), (-10.0, math.inf)),
        (gelu, (-4.5, math.inf)),
        (lambda b, x: b.node("Add", gelu(b, x), x), EVERYTHING),
        (lambda b, x: b.node("Tanh", x), (-5.0, 5.0)),
        (lambda b, x: b.node("Softplus", x), EVERYTHING),
    ],
    ids=[
        *("gate", "h-swish", "HardSwish", "two readers", "read by a sum", "another's gate", "Sigmoid", "swish", "Gelu"),
        *("Gelu and a sum", "Tanh", "Softplus"),
    ],
)
def test_what_readers_tell_apart(tail: Callable[[Builder, str], str], expected: tuple[float, float]) -> None:
    model, name = made(tail)
    assert useful(model, name) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("tail", "least"),
    [
        (hard_swish, 0.0),
        (lambda b, x: b.node("Mul", x, b.node("Sigmoid", x)), 5e-4),
        (lambda b, x: b.node("Sigmoid", x), 5e-5),
        (lambda b, x: b.node("Tanh", x), 1e-4),
        (gelu, 2e-5),
    ],
    ids=["h-swish", "swish", "Sigmoid", "Tanh", "Gelu"],
)
def test_cutting_the_range_changes_next_to_nothing(tail: Callable[[Builder, str], str], least: float) -> None:
    model, name = made(tail)
    lo, hi = useful(model, name)
    cut = model.clone()
    graph = cut.ir.graph
    value = next(v for n in graph for v in n.outputs if v.name == name)
    bounds = [
        ir.Value(name=f"bound{i}", const_value=ir.tensor(np.float32(v))) for i, v in enumerate((lo, min(hi, 1e9)))
    ]
    for bound in bounds:
        graph.register_initializer(bound)
    clip = ir.node("Clip", [value, *bounds], name="cut")
    ir.convenience.replace_all_uses_with(value, clip.outputs[0])
    clip.replace_input_with(0, value)
    graph.append(clip)
    graph.sort()
    before, after = session_of(model).run(FEED)[0], session_of(cut).run(FEED)[0]
    assert np.abs(before).max() > 0.9
    assert np.abs(before - after).max() <= least


def test_an_output_is_seen_by_everyone() -> None:
    b = Builder(seed=1, opset=14)
    x = b.conv(b.input("image", [1, 3, 8, 8]), 3, 8)
    b.output(x, None)
    b.output(hard_swish(b, x), None)
    view = view_of(Model(ir=ir.from_proto(b.model())))
    assert useful_range(view, [x], floors(view)) == EVERYTHING
