"""Bias correction: means come back, biases appear where there was none, kernels stay fused, simulation is true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from networks.builder import Builder
from numpy.typing import NDArray
from onnx import numpy_helper
from recover.nets import prepared, quantized, sqnr, subject

from qconvert.conversion import Quantized, emit
from qconvert.graph.build_view import view_of
from qconvert.graph.census import take_census
from qconvert.graph.constants import with_constants
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import Recipe
from qconvert.recover.layers import find_layers
from qconvert.recover.passes.bias_correction import BiasCorrection, waves_of
from qconvert.recover.recovery import Changes, Stage
from qconvert.recover.simulation import simulation


def rounded_up(b: Builder, steps: float = 0.45) -> None:
    """Put every weight ``steps`` of a quantum below the grid of its channel: rounding moves all alike."""
    for i, initializer in enumerate(b.initializers):
        w = numpy_helper.to_array(initializer)
        if w.ndim in (2, 4):
            others = (0,) if w.ndim == 2 and b.nodes[0].op_type == "MatMul" else tuple(range(1, w.ndim))
            top = np.abs(w).max(axis=others, keepdims=True)
            codes = np.clip(np.rint(w / top * 127), -126, 126) - steps
            codes = np.where(np.abs(w) == top, 127 * np.sign(w), codes)
            b.initializers[i].CopyFrom(
                numpy_helper.from_array((codes * top / 127).astype(np.float32), initializer.name)
            )


def positive(b: Builder, n: int = 12) -> list[dict[str, object]]:
    """Samples above zero: a shift of the weights is then a shift of the results."""
    feeds = b.feeds(n)
    return [{k: np.abs(np.asarray(v)) for k, v in feed.items()} for feed in feeds]


def corrected(net: Prepared, result: Quantized, feeds: list[dict[str, object]], recipe: Recipe | None = None) -> Model:
    changes = BiasCorrection().apply(subject(net.model, feeds, result.plan))
    assert changes.changed
    return written(net, result, changes, recipe)


def written(net: Prepared, result: Quantized, changes: Changes, recipe: Recipe | None = None) -> Model:
    base = with_constants(net.model, changes.constants)
    return emit(base, changes.planned(result.plan), recipe or Recipe(), net.source)[0]


def convolutions(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 8, 8, 8]), 8, 16))
    x = b.relu(b.conv(x, 16, 16, group=16))
    return b.conv(x, 16, 8, out="y")


def convolutions_without_bias(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 8, 8, 8]), 8, 16, bias=False))
    return b.conv(x, 16, 8, bias=False, out="y")


def products_without_bias(b: Builder) -> str:
    x = b.relu(b.node("Gemm", b.input("x", [4, 32]), b.weight(48, 32), transB=1))
    return b.node("Gemm", x, b.weight(16, 48), transB=1, out="y")


def perceptron(b: Builder) -> str:
    return b.matmul(b.relu(b.matmul(b.input("x", [2, 5, 32]), 32, 48)), 48, 16, out="y")


def residual(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 8, 8, 8]), 8, 16))
    y = b.conv(b.relu(b.conv(x, 16, 16)), 16, 16)
    return b.conv(b.relu(b.node("Add", y, x)), 16, 8, out="y")


NETS = [convolutions, convolutions_without_bias, products_without_bias, perceptron, residual]


def built(net: Callable[[Builder], str]) -> tuple[Prepared, list[dict[str, object]]]:
    b = Builder(seed=6)
    b.output(net(b))
    rounded_up(b)
    feeds = positive(b)
    return prepared(b.model(), feeds[0]), feeds


def mean_error(net: Prepared, model: Model, feeds: list[dict[str, object]]) -> float:
    """Greatest error of any channel's mean in the output, relative to the output's size; float64."""
    one, two = session_of(net.model), session_of(model)

    def mean(session: object) -> NDArray[np.float64]:
        return np.mean([np.asarray(session.run(f)[0], np.float64) for f in feeds], axis=0)  # type: ignore[attr-defined]

    a, b = mean(one), mean(two)
    if a.ndim == 4:
        a, b = a.mean(axis=(0, 2, 3)), b.mean(axis=(0, 2, 3))
    else:
        a, b = a.reshape(-1, a.shape[-1]).mean(axis=0), b.reshape(-1, b.shape[-1]).mean(axis=0)
    return float(np.abs(a - b).max() / np.abs(a).max())


@pytest.mark.parametrize("net", NETS, ids=lambda n: n.__name__)
def test_the_means_come_back(net: Callable[[Builder], str]) -> None:
    canonical, feeds = built(net)
    result = quantized(canonical, feeds)
    after = corrected(canonical, result, feeds)
    assert mean_error(canonical, after, feeds) < 0.2 * mean_error(canonical, result.model, feeds)
    assert sqnr(canonical.model, after, feeds) > sqnr(canonical.model, result.model, feeds) + 3.0


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("net", NETS, ids=lambda n: n.__name__)
def test_the_kernels_stay_the_same(net: Callable[[Builder], str], form: str) -> None:
    """A new bias joins the int32 accumulator: as many integer kernels as before, and none falls back to float."""
    canonical, feeds = built(net)
    recipe = Recipe(format=form)
    result = quantized(canonical, feeds, recipe)
    weighted = [n.node for n in result.plan.taken() if n.weight is not None and n.activations]
    before = take_census(result.model, weighted)
    after = take_census(corrected(canonical, result, feeds, recipe), weighted)
    assert (after.ops, after.unfused) == (before.ops, before.unfused)
    assert not after.unfused


@pytest.mark.parametrize("net", [convolutions_without_bias, products_without_bias], ids=lambda n: n.__name__)
def test_a_bias_is_added_where_there_is_none(net: Callable[[Builder], str]) -> None:
    canonical, feeds = built(net)
    result = quantized(canonical, feeds)
    changes = BiasCorrection().apply(subject(canonical.model, feeds, result.plan))
    assert {port for _, port in changes.constants} == {2}
    assert all(changes.planned(result.plan).nodes[node].bias == 2 for node, _ in changes.constants)
    assert all(result.plan.nodes[node].bias is None for node, _ in changes.constants)


def test_a_product_without_an_add_is_left_alone() -> None:
    b = Builder(seed=7)
    b.output(b.matmul(b.input("x", [2, 5, 32]), 32, 16, bias=False, out="y"))
    feeds = positive(b)
    net = prepared(b.model(), feeds[0])
    changes = BiasCorrection().apply(subject(net.model, feeds, quantized(net, feeds).plan))
    assert changes.changed == 0


def test_a_dear_net_is_measured_in_fewer_waves() -> None:
    b = Builder(seed=3)
    x = b.input("x", [1, 4, 8, 8])
    b.node("Conv", x, b.weight(4, 4, 1, 1), out="y")
    b.output("y")
    found = subject(prepared(b.model(), b.feeds(1)[0]).model, b.feeds(6))
    correction = BiasCorrection()
    least, operations = correction.options.least, correction.options.operations
    waves = [correction._waves(found, operations / least / n) for n in (100, 6.5, 1e-3)]
    assert waves == [correction.options.waves, 6, correction.options.fewest]


def test_waves_follow_the_graph() -> None:
    b = Builder(seed=8)
    x = b.relu(b.conv(b.input("x", [1, 8, 8, 8]), 8, 8))
    left, right = b.conv(x, 8, 8), b.relu(b.conv(x, 8, 8, 1))
    right = b.conv(right, 8, 8)
    b.output(b.conv(b.node("Add", left, right), 8, 4, out="y"))
    graph = view_of(prepared(b.model(), b.feeds(1)[0]).model)
    layers = find_layers(graph)
    one, two, three, four, five = layers
    assert waves_of(graph, layers) == [[one], [two, three], [four], [five]]


@pytest.mark.parametrize("net", NETS, ids=lambda n: n.__name__)
def test_the_simulation_computes_what_the_kernels_compute(net: Callable[[Builder], str]) -> None:
    """Not to the bit: float and int32 sums fall on different sides of a rounding now and then."""
    canonical, feeds = built(net)
    result = quantized(canonical, feeds)
    model = simulation(subject(canonical.model, feeds, result.plan), result.plan, {})
    apart = sqnr(canonical.model, result.model, feeds)
    assert sqnr(model, result.model, feeds, integers=False) > apart + 15.0


def test_later_passes_see_what_earlier_ones_changed() -> None:
    canonical, feeds = built(convolutions)
    result = quantized(canonical, feeds)
    first = BiasCorrection().apply(subject(canonical.model, feeds, result.plan))
    again = BiasCorrection().apply(subject(canonical.model, feeds, result.plan, first))
    for port, bias in first.constants.items():
        np.testing.assert_allclose(again.constants[port], bias, atol=1e-5)


def test_it_works_on_a_solved_plan() -> None:
    canonical, feeds = built(convolutions)
    assert BiasCorrection().stage is Stage.SOLVED
    assert BiasCorrection().apply(replace(subject(canonical.model, feeds), plan=None)).changed == 0
