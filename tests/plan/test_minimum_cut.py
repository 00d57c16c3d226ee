"""The cut is the cheapest of all placements, whatever the costs are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.builder import Builder

from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.view import GraphView
from qconvert.plan.build import weighed
from qconvert.plan.candidates import Candidate
from qconvert.plan.placement import place
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS

PRICES = st.integers(0, 40)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Costs from lists; the first two convolutions are a group."""

    floats: dict[str, int]
    integers: dict[str, int]
    boundary: dict[str, int]
    together: tuple[str, str]

    def group(self, name: str) -> str:
        return self.together[0] if name in self.together else name

    def in_float(self, candidate: Candidate) -> float | None:
        return self.floats[candidate.node.name]

    def on_integers(self, candidate: Candidate) -> float:
        return self.integers[candidate.node.name]

    def float_before(self, candidate: Candidate) -> Iterable[str]:
        return ()

    def quantize(self, tensor: str) -> float:
        return self.boundary[tensor]

    def dequantize(self, tensor: str) -> float:
        return 2 * self.boundary[tensor]


@pytest.fixture(scope="module")
def graph() -> GraphView:
    """conv - conv - (conv, conv) - Add - conv."""
    b = Builder(seed=1)
    x = b.conv(b.conv(b.input("image", [1, 8, 8, 8]), 8, 8), 8, 8)
    b.output(b.conv(b.node("Add", b.conv(x, 8, 8), b.conv(x, 8, 8)), 8, 8, out="y"))
    return view_of(prepare(Model(ir=ir.from_proto(b.model()))).model)


def total(graph: GraphView, costs: Listed, integer: set[str]) -> float:
    """What a placement costs, from the definition."""
    found = float(sum((costs.integers if n in integer else costs.floats)[n] for n in graph.nodes))
    for name, tensor in graph.tensors.items():
        if tensor.is_constant:
            continue
        made = tensor.producer in integer
        readers = [n in integer for n, _ in tensor.consumers] + ([False] if tensor.is_output else [])
        if not made and any(readers):
            found += costs.quantize(name)
        if made and not all(readers):
            found += costs.dequantize(name)
    return found


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_placement_is_cheaper(graph: GraphView, data: st.DataObject) -> None:
    nodes = list(graph.nodes)
    costs = Listed(
        floats={n: data.draw(PRICES) for n in nodes},
        integers={n: data.draw(PRICES) for n in nodes},
        boundary={t: data.draw(PRICES) for t in graph.tensors},
        together=(nodes[0], nodes[1]),
    )
    candidates = weighed(graph, Recipe(), TARGETS.get("x86-vnni"))
    cut = place(graph, candidates, {}, costs)
    placements = [{n for n, on in zip(nodes, sides, strict=True) if on} for sides in product((0, 1), repeat=len(nodes))]
    allowed = [p for p in placements if (nodes[0] in p) == (nodes[1] in p)]
    assert cut in allowed
    assert total(graph, costs, cut) == min(total(graph, costs, p) for p in allowed)
