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
            reader = next(n for n in b.nodes if initializer.name in n.input)
            axis = int(reader.op_type in ("MatMul", "ConvTranspose"))
            whole = any(a.name == "group" and a.i > 1 for a in reader.attribute) and axis  # one scale in all
            others = tuple(a for a in range(w.ndim) if a != axis or whole)
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


def bare_product(b: Builder) -> str:
    return b.matmul(b.input("x", [2, 5, 32]), 32, 16, bias=False, out="y")


def bare_products(b: Builder) -> str:
    """The first result is read by a float operator, the second is an output."""
    x = b.node("Sin", b.matmul(b.input("x", [2, 5, 32]), 32, 48, bias=False))
    return b.matmul(x, 48, 16, bias=False, out="y")


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("net", [bare_product, bare_products], ids=lambda n: n.__name__)
def test_a_product_without_an_add_gets_a_bias_that_its_kernel_adds(net: Callable[[Builder], str], form: str) -> None:
    """No node more than before: MatMulIntegerToFloat takes the bias in."""
    canonical, feeds = built(net)
    recipe = Recipe(format=form, target="x86-vnni", placement="all")
    result = quantized(canonical, feeds, recipe)
    changes = BiasCorrection().apply(subject(canonical.model, feeds, result.plan))
    after = written(canonical, result, changes, recipe)
    weighted = [n.node for n in result.plan.taken() if n.weight is not None]
    assert changes.changed == len(weighted)
    assert mean_error(canonical, after, feeds) < 0.2 * mean_error(canonical, result.model, feeds)
    assert sqnr(canonical.model, after, feeds) > sqnr(canonical.model, result.model, feeds) + 3.0
    assert take_census(after, weighted).ops == take_census(result.model, weighted).ops


def test_a_bias_that_the_pass_has_added_is_corrected_like_any_other() -> None:
    canonical, feeds = built(bare_products)
    result = quantized(canonical, feeds, Recipe(target="x86-vnni", placement="all"))
    first = BiasCorrection().apply(subject(canonical.model, feeds, result.plan))
    again = BiasCorrection().apply(subject(canonical.model, feeds, first.planned(result.plan), first))
    assert again.constants.keys() == first.constants.keys()
    for port, bias in first.constants.items():
        np.testing.assert_allclose(again.constants[port], bias, atol=1e-5)


def product_between_integers(b: Builder) -> str:
    """Its result is quantized: QLinearMatMul adds no bias."""
    return b.matmul(b.matmul(b.input("x", [2, 5, 32]), 32, 48, bias=False), 48, 16, out="y")


def test_no_bias_where_it_would_be_another_node() -> None:
    canonical, feeds = built(product_between_integers)
    result = quantized(canonical, feeds, Recipe(target="x86-vnni", placement="all"))
    first, _ = find_layers(view_of(canonical.model))
    changes = BiasCorrection().apply(subject(canonical.model, feeds, result.plan))
    assert changes.changed == 1 and (first, 2) not in changes.constants
    canonical, feeds = built(bare_product)
    result = quantized(canonical, feeds, Recipe(target="openvino"))
    assert BiasCorrection().apply(subject(canonical.model, feeds, result.plan, target="openvino")).changed == 0


def transposed(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 8, 6, 6]), 8, 8))
    x = b.relu(b.node("ConvTranspose", x, b.weight(8, 12, 2, 2), strides=[2, 2]))
    return b.node("ConvTranspose", x, b.weight(12, 4, 3, 3), b.vector(4), strides=[2, 2], pads=[1, 1, 1, 1], out="y")


def transposed_in_groups(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 8, 6, 6]), 8, 8))
    return b.node("ConvTranspose", x, b.weight(8, 3, 3, 3), strides=[2, 2], group=4, out="y")


@pytest.mark.parametrize("target", ["x86-vnni", "qnn"])
@pytest.mark.parametrize("net", [transposed, transposed_in_groups], ids=lambda n: n.__name__)
def test_transposed_convolutions_are_corrected(net: Callable[[Builder], str], target: str) -> None:
    """On a processor they compute in float with weights stored as integers, elsewhere on integers."""
    canonical, feeds = built(net)
    recipe = Recipe(target=target)
    result = quantized(canonical, feeds, recipe)
    names = {n.name for n in view_of(canonical.model).nodes.values() if n.op_type == "ConvTranspose"}
    assert all(bool(result.plan.nodes[n].activations) == (target == "qnn") for n in names)
    changes = BiasCorrection().apply(subject(canonical.model, feeds, result.plan, target=target))
    assert {(n, 2) for n in names} <= changes.constants.keys()
    after = written(canonical, result, changes, recipe)
    assert mean_error(canonical, after, feeds) < 0.3 * mean_error(canonical, result.model, feeds)
    assert sqnr(canonical.model, after, feeds) > sqnr(canonical.model, result.model, feeds) + 3.0


@pytest.mark.parametrize("net", [transposed, transposed_in_groups], ids=lambda n: n.__name__)
def test_layers_measured_together_know_what_their_inputs_bring(net: Callable[[Builder], str]) -> None:
    """One measurement for the whole net instead of one a layer: strides and groups are in what is left out."""
    canonical, feeds = built(net)
    result = quantized(canonical, feeds, Recipe(target="x86-vnni"))
    together = BiasCorrection(options=replace(BiasCorrection().options, fewest=1, waves=1))
    changes = together.apply(subject(canonical.model, feeds, result.plan))
    after = written(canonical, result, changes, Recipe(target="x86-vnni"))
    assert mean_error(canonical, after, feeds) < 0.3 * mean_error(canonical, result.model, feeds)


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
