"""A Gemm may have one scale for its whole weight: less work behind the sums, where that loses little."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from plan.kernels import Few

from qconvert.conversion import Quantized, convert
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.plan.even import is_even
from qconvert.recipe.recipe import Recipe
from qconvert.run import Run


def net(spread: float = 1.0, *, transposed: bool = False) -> tuple[Prepared, Few]:
    """Three layers; ``spread``: how many times larger one output of the second is than the others."""
    b = Builder(seed=4)
    x = b.input("x", ["n", 24])
    for i in range(3):
        weight = np.random.default_rng(i).normal(0, 0.2, (16 if i else 24, 16)).astype(np.float32)
        weight[:, 5] *= spread if i == 1 else 1
        operands = b.const(weight.T.copy() if transposed else weight), b.vector(16)
        x = b.node("Gemm", x, *operands, out="y" if i == 2 else None, transB=int(transposed))
        x = b.node("Relu", x) if i < 2 else x
    b.output(x)
    feeds = [{"x": np.random.default_rng(i).normal(0, 1, (4, 24)).astype(np.float32)} for i in range(4)]
    return prepare(Model(ir=ir.from_proto(b.model())), feeds[0]), Few(feeds)


def converted(prepared: Prepared, feeds: Few, *forms: str) -> Quantized:
    recipe = Recipe(recover=("none",), placement="static", target="x86-vnni", forms=forms)
    return convert(prepared, Run(recipe=recipe, samples=feeds))  # type: ignore[arg-type]


def scales(made: Quantized) -> list[tuple[int, ...]]:
    """The shapes of the scales of weights."""
    run = optimized_view(made.model)
    products = [n for n in run.nodes.values() if n.op_type == "QGemm"]
    return [run.tensors[n.inputs[4] or ""].shape or () for n in products]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_recipe_asks_for_it(transposed: bool) -> None:
    prepared, feeds = net(transposed=transposed)
    assert scales(converted(prepared, feeds)) == [(16,)] * 3
    made = converted(prepared, feeds, "Gemm=one-scale", "Gemm_2=plain")
    assert sorted(scales(made)) == [(), (), (16,)]
    reasons = [n.decision.reason for n in made.plan.nodes.values() if n.op_type == "Gemm"]
    assert sum("one scale" in r for r in reasons) == 2


@pytest.mark.parametrize("transposed", [False, True])
def test_what_it_loses_is_told_by_the_rows(transposed: bool) -> None:
    even, uneven = (view_of(net(spread, transposed=transposed)[0].model) for spread in (1.0, 300.0))
    names = [n.name for n in even.nodes.values() if n.op_type == "Gemm"]
    assert [is_even(even, n, 34.0) for n in names] == [True, True, True]
    assert [is_even(uneven, n, 25.0) for n in names] == [True, False, True]
