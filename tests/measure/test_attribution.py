"""Times of optimized nodes go to the canonical nodes that they compute."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.conversion import convert
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.session import Feed
from qconvert.measure.attribution import attribute
from qconvert.measure.boundary import boundary_costs
from qconvert.measure.costs import measured_costs
from qconvert.measure.profile import Profile, profile
from qconvert.recipe.recipe import Recipe
from qconvert.run import Run

FEED = {"image": np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)}


class One:
    """One sample."""

    def __iter__(self) -> object:
        return iter([FEED])

    def feed(self, i: int) -> Feed:
        return [FEED][i]


def residual_net() -> Prepared:
    """Two residual blocks and a pool; tensors are called like other nodes, as exporters do."""
    b = Builder(seed=1)
    x = b.relu(b.conv(b.input("image", [1, 3, 16, 16]), 3, 16))
    for _ in range(2):
        y = b.relu(b.conv(x, 16, 16))
        x = b.relu(b.node("Add", b.conv(y, 16, 16), x))
    b.output(b.head(x, 16))
    return prepare(Model(ir=ir.from_proto(b.model())), FEED, min_opset=13)


@pytest.fixture(scope="module")
def profiles() -> tuple[Prepared, Profile, Profile]:
    """(the net, its profile in float, its profile on integers)."""
    prepared = residual_net()
    quantized = convert(prepared, Run(recipe=Recipe(placement="pinned"), samples=One()))
    return (
        prepared,
        profile(prepared.model, FEED, runs=4, seconds=1.0),
        profile(quantized.model, FEED, runs=4, seconds=1.0),
    )


def test_every_node_has_an_owner_and_every_conversion_has_none(profiles: tuple[Prepared, Profile, Profile]) -> None:
    prepared, *both = profiles
    graph = view_of(prepared.model)
    for found in both:
        sides = attribute(graph, found.run)
        assert set(sides.owner) == set(graph.nodes)
        assert not sides.conversions & set(sides.owner.values())
        kinds = {found.run.nodes[n].op_type for n in sides.conversions}
        assert kinds <= {"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose"}
        assert all(found.us[r] > 0 for r in sides.owner.values())


def test_a_clamp_goes_with_what_it_is_fused_into(profiles: tuple[Prepared, Profile, Profile]) -> None:
    prepared, in_float, on_integers = profiles
    graph = view_of(prepared.model)
    for found in (in_float, on_integers):
        owner = attribute(graph, found.run).owner
        for node in graph.nodes.values():
            if node.op_type == "Relu":
                before = graph.producer(node.inputs[0] or "")
                assert before is not None
                assert owner[node.name] == owner[before.name]
        convolutions = [owner[n.name] for n in graph.nodes.values() if n.op_type == "Conv"]
        assert len(set(convolutions)) == len(convolutions)


def test_no_time_is_lost_or_counted_twice(profiles: tuple[Prepared, Profile, Profile]) -> None:
    prepared, in_float, on_integers = profiles
    graph = view_of(prepared.model)
    every = set(graph.nodes)
    costs = measured_costs(graph, in_float, [(every, on_integers)], sizes={}, boundaries=boundary_costs(), placed=every)
    assert sum(costs.float_us.values()) == pytest.approx(in_float.total_us)
    boundaries = sum(costs.quantize_us.values()) + sum(costs.dequantize_us.values())
    assert sum(costs.integer_us.values()) + boundaries == pytest.approx(on_integers.total_us)


def test_boundaries_cost_more_for_larger_tensors() -> None:
    found = boundary_costs()
    for line in (found.quantize, found.dequantize):
        assert 0 < line.at(1000) < line.at(1_000_000)


def hard_swish_net() -> Prepared:
    """Two convolutions with h-swish, whose parts both read the convolution's result."""
    b = Builder(seed=2)
    x = b.input("image", [1, 3, 16, 16])
    for inputs in (3, 16):
        y = b.conv(x, inputs, 16)
        x = b.node("Mul", y, b.node("HardSigmoid", y, alpha=1 / 6, beta=0.5))
    b.output(b.head(b.conv(x, 16, 16), 16))
    return prepare(Model(ir=ir.from_proto(b.model())), FEED, min_opset=13)


def test_what_reads_a_result_twice_goes_into_the_operator_before() -> None:
    prepared = hard_swish_net()
    graph = view_of(prepared.model)
    owner = attribute(graph, profile(prepared.model, FEED, runs=2, seconds=1.0).run).owner
    products = [n for n in graph.nodes.values() if n.op_type == "Mul"]
    assert len(products) == 2
    for product in products:
        before = {p.name for t in product.inputs if (p := graph.producer(t or "")) is not None}
        assert {owner[name] for name in before} == {owner[product.name]}


def test_a_group_is_charged_to_a_node_that_can_be_placed() -> None:
    """One that must stay float is in no group of the cut; what it is named after would be lost."""
    prepared = hard_swish_net()
    graph = view_of(prepared.model)
    found = profile(prepared.model, FEED, runs=2, seconds=1.0)
    placed = {n.name for n in graph.nodes.values() if n.op_type == "Mul"}
    costs = measured_costs(graph, found, [(set(), found)], sizes={}, boundaries=boundary_costs(), placed=placed)
    for name in placed:
        assert costs.group(name) == name
        assert costs.float_us[name] > 0
