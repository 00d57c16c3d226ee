"""Activation functions as one float operator between integers: where they can be, what the plan then holds, what is
written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.conversion import Quantized, convert
from qconvert.graph.build_view import view_of
from qconvert.graph.census import take_census
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.measure.forms import paying
from qconvert.measure.profile import profile
from qconvert.plan.forms import able
from qconvert.recipe.recipe import PINNED, STATIC, Recipe
from qconvert.run import Run
from qconvert.targets.auto import target_of

RECIPE = Recipe(target="x86-vnni", placement=STATIC)
FEED = {"image": np.random.default_rng(5).normal(size=(1, 3, 16, 16)).astype(np.float32)}


class One:
    """One sample."""

    def __iter__(self) -> Iterator[Feed]:
        return iter([FEED])

    def feed(self, i: int) -> Feed:
        return [FEED][i]


def silu(b: Builder, x: str) -> str:
    return b.node("Mul", x, b.node("Sigmoid", x))


def net(tail: Callable[[Builder, str], str] = silu) -> Prepared:
    b = Builder(seed=4)
    x = silu(b, b.conv(b.input("image", [1, 3, 16, 16]), 3, 16))
    x = tail(b, b.conv(x, 16, 16))
    b.output(b.head(b.conv(x, 16, 16), 16))
    return prepare(Model(ir=ir.from_proto(b.model())), FEED, min_opset=13)


def made(prepared: Prepared, recipe: Recipe = RECIPE) -> Quantized:
    return convert(prepared, Run(recipe=recipe, samples=One()))


def swishes(prepared: Prepared, result: Quantized) -> tuple[str, ...]:
    return able(view_of(prepared.model), result.plan, RECIPE, target_of("x86-vnni")).get("activation", ())


def test_one_float_operator_between_two_conversions() -> None:
    prepared = net()
    plain = made(prepared)
    names = swishes(prepared, plain)
    assert len(names) == 2
    formed = made(prepared, replace(RECIPE, forms=("Sigmoid=activation",)))
    nodes = [n for n in formed.plan.nodes.values() if n.op_type in ("Sigmoid", "Mul")]
    assert not any(n.decision.taken for n in nodes)
    assert all("QuickGelu" in n.decision.reason for n in nodes)
    # neither the gate nor anything else is quantized that was not before, and the products still are
    gates = {prepared.model.ir.graph.node(n).outputs[0].name for n in names}
    before, after = ({t for g in r.plan.groups for t in g.tensors} for r in (plain, formed))
    assert before - after == gates
    assert not after - before
    census = take_census(formed.model, [n.node for n in formed.plan.taken()])
    assert census.ops["QuickGelu"] == 2
    assert (census.quantize, census.dequantize) == (3, 2)  # two each, and the input
    assert "QLinearSigmoid" not in census.ops


def test_it_is_nearer_to_the_float_model() -> None:
    prepared = net()
    reference = session_of(prepared.model).run(FEED)[0]
    error = [
        np.square(made(prepared, recipe).session.run(FEED)[0] - reference).sum()
        for recipe in (RECIPE, replace(RECIPE, forms=("Sigmoid=activation",)))
    ]
    assert error[1] < error[0]


def test_a_pinned_recipe_gives_the_same_model() -> None:
    prepared = net()
    formed = made(prepared, replace(RECIPE, forms=("Sigmoid=activation",)))
    floats = tuple(n.node for n in formed.plan.nodes.values() if not n.decision.taken)
    again = made(prepared, replace(RECIPE, placement=PINNED, pinned_float=floats, forms=("Sigmoid=activation",)))
    assert ir.to_proto(again.model.ir).SerializeToString() == ir.to_proto(formed.model.ir).SerializeToString()


@pytest.mark.parametrize(
    "tail",
    [
        lambda b, x: b.node("Mul", b.node("Sigmoid", x), b.node("Tanh", x)),
        lambda b, x: b.node("Add", x, b.node("Sigmoid", x)),
        lambda b, x: (lambda gate: b.node("Add", b.node("Mul", x, gate), gate))(b.node("Sigmoid", x)),
        lambda b, x: silu(b, b.node("Tanh", x)),
    ],
    ids=["of something else", "a sum", "a gate that is read twice", "of a float operator's result"],
)
def test_what_is_no_swish_of_integers_is_left_alone(tail: Callable[[Builder, str], str]) -> None:
    prepared = net(tail)
    assert len(swishes(prepared, made(prepared))) == 1


def test_conversions_count_against_it() -> None:
    """Times are made up: the operator itself is faster, but not by what its two conversions take."""
    prepared = net()
    graph = view_of(prepared.model)
    plain = made(prepared)
    names = swishes(prepared, plain)
    formed = made(prepared, replace(RECIPE, forms=("Sigmoid=activation",)))
    profiles = [profile(r.model, FEED, runs=2, seconds=0.5) for r in (plain, formed)]

    def timed(i: int, **us: float) -> object:
        run = profiles[i].run
        return replace(profiles[i], us={n: us.get(node.op_type, 10.0) for n, node in run.nodes.items()})

    forms = dict.fromkeys(names, "activation")
    both = {"QLinearSigmoid": 40.0, "QLinearMul": 40.0}
    for conversion, expected in ((10.0, 1), (35.0, 0)):
        after = timed(1, QuickGelu=30.0, QuantizeLinear=conversion, DequantizeLinear=conversion)
        found = paying(graph, timed(0, **both), [(forms, after)])  # type: ignore[arg-type]
        assert len(found) == expected


def erf_of(b: Builder, x: str, *, multiplied: bool) -> str:
    scale = b.const(np.float32(0.5**0.5 if multiplied else 2**0.5))
    return b.node("Erf", b.node("Mul" if multiplied else "Div", x, scale))


def plus_one(b: Builder, x: str) -> str:
    return b.node("Add", x, b.const(np.float32(1)))


def half(b: Builder, x: str) -> str:
    return b.node("Mul", x, b.const(np.float32(0.5)))


GELUS = {
    "torch": lambda b, x: half(b, b.node("Mul", x, plus_one(b, erf_of(b, x, multiplied=False)))),
    "tensorflow": lambda b, x: b.node("Mul", half(b, x), plus_one(b, erf_of(b, x, multiplied=True))),
    "half inside": lambda b, x: b.node("Mul", x, half(b, plus_one(b, erf_of(b, x, multiplied=True)))),
}


@pytest.mark.parametrize("order", list(GELUS))
def test_gelu_in_any_order_is_one_operator(order: str) -> None:
    prepared = net(GELUS[order])
    plain, formed = made(prepared), made(prepared, replace(RECIPE, forms=("Erf=activation",)))
    reference = session_of(prepared.model).run(FEED)[0]
    census = take_census(formed.model, [n.node for n in formed.plan.taken()])
    assert census.ops["Gelu"] == 1
    assert "Erf" not in census.ops
    errors = [np.abs(r.session.run(FEED)[0] - reference).max() for r in (plain, formed)]
    assert errors[1] < 1.5 * errors[0]
    # the operator computes the same: what differs is where it is rounded
    assert np.abs(formed.session.run(FEED)[0] - plain.session.run(FEED)[0]).max() < 0.1 * np.abs(reference).max()


@pytest.mark.parametrize(
    "tail",
    [
        lambda b, x: b.node("Mul", x, plus_one(b, erf_of(b, x, multiplied=False))),  # without the half
        lambda b, x: half(b, b.node("Mul", b.node("Tanh", x), plus_one(b, erf_of(b, x, multiplied=False)))),
        lambda b, x: half(b, b.node("Mul", x, plus_one(b, b.node("Erf", x)))),
        lambda b, x: (lambda e: b.node("Add", half(b, b.node("Mul", x, plus_one(b, e))), e))(
            erf_of(b, x, multiplied=False)
        ),
    ],
    ids=["without the half", "of something else", "another slope", "an inner value that is read twice"],
)
def test_what_is_no_gelu_is_left_alone(tail: Callable[[Builder, str], str]) -> None:
    prepared = net(tail)
    found = able(view_of(prepared.model), made(prepared).plan, RECIPE, target_of("x86-vnni")).get("activation", ())
    assert not [n for n in found if prepared.model.ir.graph.node(n).op_type == "Erf"]


def gelu_by_tanh(b: Builder, x: str) -> str:
    cube = b.node("Mul", b.node("Pow", x, b.const(np.float32(3))), b.const(np.float32(0.044715)))
    inner = b.node("Mul", b.node("Add", x, cube), b.const(np.float32((2 / np.pi) ** 0.5)))
    gate = b.node("Add", b.node("Tanh", inner), b.const(np.float32(1)))
    return b.node("Mul", b.node("Mul", x, b.const(np.float32(0.5))), gate)


@pytest.mark.parametrize("floats", [False, True])
def test_a_gelu_by_tanh_becomes_one_operator_also_between_floats(floats: bool) -> None:
    prepared = net(gelu_by_tanh)
    pinned = tuple(n.name or "" for n in prepared.model.ir.graph) if floats else ()
    recipe = replace(RECIPE, placement=PINNED, pinned_float=pinned)
    plain, formed = (made(prepared, replace(recipe, forms=f)) for f in ((), ("Tanh=activation",)))
    assert take_census(formed.model, []).ops["FastGelu"] == 1
    assert not {"Tanh", "Pow"} & {n.op_type for n in formed.model.ir.graph}
    (a,), (b,) = (r.session.run(FEED) for r in (plain, formed))
    assert np.abs(a).max() > 0.1
    assert np.abs(a - b).max() <= (1e-5 if floats else 0.02) * np.abs(a).max()
