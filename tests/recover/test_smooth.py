"""SmoothQuant: an outlier channel, against float64; the function stays, and factors go where they can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from networks.builder import Builder
from numpy.typing import NDArray
from recover.nets import prepared, quantized, sqnr, subject

from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.view import GraphView
from qconvert.recipe.recipe import Recipe
from qconvert.recover.passes.smooth import Smooth
from qconvert.recover.recovery import Changes, Stage

CHANNELS = 16
Feeds = list[dict[str, object]]


def gamma(b: Builder) -> NDArray[np.float32]:
    """Scales of a normalization; two channels have 30 times the others' range."""
    values = 1 + 0.1 * b.rng.standard_normal(CHANNELS)
    values[[3, 11]] *= 30.0
    return values.astype(np.float32)


def products(b: Builder, x: str, n: int) -> list[str]:
    """Products that read ``x``; the wide channels do not count for more than the others in what they give."""
    made = []
    for _ in range(n):
        w = b.rng.standard_normal((CHANNELS, 24)) / 4
        w[[3, 11]] /= 30.0
        made.append(b.node("Add", b.node("MatMul", x, b.const(w.astype(np.float32))), b.vector(24)))
    return made


def normalized(b: Builder) -> str:
    x = b.input("x", [1, 40, CHANNELS])
    return b.node("LayerNormalization", x, b.const(gamma(b)), b.vector(CHANNELS))


def three_products(b: Builder) -> None:
    for y in products(b, normalized(b), 3):
        b.output(y)


def written_out(b: Builder) -> None:
    """RMS normalization as exported: the factor goes into the last Mul."""
    x = b.input("x", [1, 40, CHANNELS])
    power = b.node("ReduceMean", b.node("Mul", x, x), axes=[-1])
    x = b.node("Div", x, b.node("Sqrt", b.node("Add", power, b.const(np.float32(1e-5)))))
    for y in products(b, b.node("Mul", x, b.const(gamma(b))), 2):
        b.output(y)


def shifted(b: Builder) -> None:
    """... and a constant added behind."""
    x = b.node("Mul", b.input("x", [1, 40, CHANNELS]), b.const(gamma(b)))
    b.output(products(b, b.node("Add", x, b.vector(CHANNELS)), 1)[0])


def after_a_product(b: Builder) -> None:
    """Columns of a weight take the factor, though two others read what it makes."""
    w = b.rng.standard_normal((CHANNELS, CHANNELS)) / 4 * gamma(b)
    x = b.node("MatMul", b.input("x", [1, 40, CHANNELS]), b.const(w.astype(np.float32)))
    for y in products(b, x, 2):
        b.output(y)


def residual(b: Builder) -> None:
    x = normalized(b)
    y = products(b, x, 1)[0]
    y = b.matmul(b.node("Erf", y), 24, CHANNELS)
    b.output(b.node("Mul", b.node("Add", x, y), b.const((1 / gamma(b)).astype(np.float32))))


def turned_for_some(b: Builder) -> None:
    """Attention and the layer beside it read one normalization, attention with its tokens first."""
    x = normalized(b)
    for y in (*products(b, b.node("Transpose", x, perm=[1, 0, 2]), 2), *products(b, x, 1)):
        b.output(y)


FOLDED = [three_products, written_out, shifted, after_a_product, turned_for_some]


def made(net: Callable[[Builder], None]) -> tuple[Prepared, Feeds]:
    b = Builder(seed=30)
    net(b)
    feeds = b.feeds(12)
    return prepared(b.model(), feeds[0]), feeds


def smoothed(net: Callable[[Builder], None], recipe: Recipe | None = None) -> tuple[Prepared, Prepared, Changes, Feeds]:
    canonical, feeds = made(net)
    changes = Smooth().apply(subject(canonical.model, feeds, quantized(canonical, feeds, recipe).plan))
    return canonical, replace(canonical, model=changes.applied(canonical.model)), changes, feeds


@pytest.mark.parametrize("form", ["plain", "dynamic"])
@pytest.mark.parametrize("net", [*FOLDED, residual], ids=lambda n: n.__name__)
def test_an_outlier_channel_costs_nothing_any_more(net: Callable[[Builder], None], form: str) -> None:
    recipe = Recipe(forms=(f"MatMul={form}",))
    before, after, changes, feeds = smoothed(net, recipe)
    assert changes.changed == 1
    assert sqnr(before.model, after.model, feeds) > 105.0  # the same function
    assert len(after.model.ir.graph) == len(before.model.ir.graph) + (net is residual)
    plain = sqnr(before.model, quantized(before, feeds, recipe).model, feeds)
    assert sqnr(before.model, quantized(after, feeds, recipe).model, feeds) > plain + 6.0


def test_the_error_against_float64() -> None:
    """The products of the net in float64, from its own constants, against both quantized models."""
    before, after, _, feeds = smoothed(three_products)
    view, errors = _view(before), []
    scale, shift = (view.constant(t or "") for t in view.nodes["LayerNormalization_0"].inputs[1:3])
    weight, bias = (view.constant(next(t for t in view.nodes[n].inputs if view.is_constant(t))) for n in _first(view))
    for net in (before, after):
        session = quantized(net, feeds).session
        error = 0.0
        for feed in feeds:
            x = np.asarray(feed["x"], np.float64)
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + shift
            error += float(((session.run(feed)[0] - (x @ weight.astype(np.float64) + bias)) ** 2).sum())
        errors.append(error)
    assert errors[1] < errors[0] / 4


def _first(view: GraphView) -> tuple[str, str]:
    product = next(n for n in view.nodes.values() if n.op_type == "MatMul")
    return product.name, view.consumers(product.outputs[0])[0][0].name


def _view(net: Prepared) -> GraphView:
    return subject(net.model, []).graph


def activated(b: Builder) -> None:
    """Nothing before a nonlinear operator can take a factor."""
    b.output(products(b, b.node("Erf", normalized(b)), 1)[0])


def one_weight_for_two(b: Builder) -> None:
    x, w = normalized(b), b.weight(CHANNELS, CHANNELS)
    b.output(b.node("MatMul", b.node("Erf", b.node("MatMul", x, w)), w))


def even(b: Builder) -> None:
    x = b.node("LayerNormalization", b.input("x", [1, 40, CHANNELS]), b.const(np.ones(CHANNELS, np.float32)))
    b.output(b.node("Add", b.matmul(x, CHANNELS, CHANNELS), x))


@pytest.mark.parametrize("net", [activated, one_weight_for_two, even], ids=lambda n: n.__name__)
def test_what_cannot_be_scaled_or_gains_too_little_is_left_alone(net: Callable[[Builder], None]) -> None:
    canonical, feeds = made(net)
    changes = Smooth().apply(subject(canonical.model, feeds, quantized(canonical, feeds).plan))
    assert changes == Changes()


def test_without_a_plan_nothing_is_done() -> None:
    canonical, feeds = made(three_products)
    assert Smooth().stage is Stage.WEIGHTS
    assert Smooth().apply(subject(canonical.model, feeds)) == Changes()
