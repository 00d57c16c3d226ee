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
from qconvert.plan.useful import EVERYTHING, Range, floors, slopes_below, useful_range

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


def gelu_by_tanh(b: Builder, x: str) -> str:
    """As JAX writes it: the cube as two products, factors on the left."""
    cube = b.node("Mul", x, b.node("Mul", x, b.node("Mul", b.const(np.float32(0.044715)), x)))
    inner = b.node("Mul", b.const(np.float32((2 / np.pi) ** 0.5)), b.node("Add", x, cube))
    gate = b.node("Add", b.const(np.float32(1)), b.node("Tanh", inner))
    return b.node("Mul", x, b.node("Mul", b.const(np.float32(0.5)), gate))


def gelu_by_pow(b: Builder, x: str) -> str:
    """As PyTorch exports it."""
    cube = b.node("Mul", b.node("Pow", x, b.const(np.float32(3))), b.const(np.float32(0.044715)))
    inner = b.node("Mul", b.node("Add", x, cube), b.const(np.float32((2 / np.pi) ** 0.5)))
    gate = b.node("Add", b.node("Tanh", inner), b.const(np.float32(1)))
    return b.node("Mul", b.node("Mul", x, b.const(np.float32(0.5))), gate)


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
        (gelu_by_tanh, 2e-5),
        (gelu_by_pow, 2e-5),
    ],
    ids=["h-swish", "swish", "Sigmoid", "Tanh", "Gelu", "Gelu by tanh", "Gelu by tanh, with Pow"],
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


def prelu(b: Builder, x: str) -> str:
    return b.node("PRelu", x, b.const(np.linspace(0.1, 0.7, 8, dtype=np.float32).reshape(8, 1, 1)))


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (lambda b, x: b.node("LeakyRelu", x, alpha=0.1), (0.1,)),
        (prelu, (float(np.sqrt(np.mean(np.linspace(0.1, 0.7, 8) ** 2))),)),
        (lambda b, x: b.node("LeakyRelu", x, alpha=1.5), ()),
        (lambda b, x: b.node("Add", b.node("LeakyRelu", x, alpha=0.1), x), ()),
        (lambda b, x: b.node("Add", b.node("LeakyRelu", x, alpha=0.1), prelu(b, x)), None),
        (lambda b, x: b.relu(x), ()),
    ],
    ids=["LeakyRelu", "PRelu", "steep", "read as it is, too", "the steepest counts", "Relu"],
)
def test_how_much_of_an_error_below_zero_is_left(
    tail: Callable[[Builder, str], str], expected: tuple[float, ...] | None
) -> None:
    model, name = made(tail)
    found = slopes_below(view_of(model), [name], [name])
    assert found == pytest.approx(
        slopes_below(view_of(made(prelu)[0]), [name], [name]) if expected is None else expected
    )


def test_the_parts_of_prelu_are_known_on_integers() -> None:
    """max(x, s x): of x what the filter leaves counts, of the filter's result everything."""
    b = Builder(seed=1, opset=14)
    b.output(b.node("Neg", prelu(b, b.conv(b.input("image", [1, 3, 8, 8]), 3, 8))), None)
    model = prepare(Model(ir=ir.from_proto(b.model())), FEED, min_opset=14, rewritten=frozenset({"PRelu"})).model
    view = view_of(model)
    largest = next(n for n in view.nodes.values() if n.op_type == "Max")
    x, scaled = (t or "" for t in largest.inputs)
    found = slopes_below(view, [x, scaled, largest.outputs[0]], [x, scaled])
    assert found == (pytest.approx(np.sqrt(np.mean(np.linspace(0.1, 0.7, 8) ** 2))), 1.0)
