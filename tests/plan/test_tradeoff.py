"""The second term of placement: without weight it changes nothing, and its corners are a monotone front."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks.all import NETWORKS

from qconvert.graph.build_view import view_of
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import prepare
from qconvert.measure.boundary import BoundaryCosts, Line
from qconvert.measure.costs import MeasuredCosts
from qconvert.plan.build import build_plan
from qconvert.plan.damage import Term, noise_of
from qconvert.plan.tradeoff import Tradeoff
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS

pytestmark = pytest.mark.slow


def tradeoff(name: str, folder: Path, seed: int = 0, *, measured: bool = False) -> Tradeoff:
    """With a term of random noise for every integer node, and one for every pair of neighbours; ``measured``: with
    random times, a clamp in the group of what absorbs it."""
    path = folder / "model.onnx"
    path.write_bytes(NETWORKS[name]().proto.SerializeToString())
    graph = view_of(prepare(load(path)).model)
    target = TARGETS.get("x86-vnni")
    plan = build_plan(graph, Recipe(), target)
    rng = np.random.default_rng(seed)
    nodes = [n.node for n in plan.taken() if n.activations]
    sets = [frozenset((n,)) for n in nodes] + [frozenset(pair) for pair in itertools.pairwise(nodes)]
    terms = [Term(nodes=s, noise=float(10 ** rng.uniform(-6, -3))) for s in sets]
    made = Tradeoff.of(graph, Recipe(), target, plan, terms)
    if not measured:
        return made
    groups = {n: made.absorbed.get(n, n) for n in graph.nodes}
    line = Line(base=2.0, slope=1e-4)
    costs = MeasuredCosts(
        graph=graph,
        groups=groups,
        float_us={g: float(rng.uniform(1, 100)) for g in sorted(set(groups.values()))},
        integer_us={g: float(rng.uniform(1, 100)) for g in sorted(set(groups.values()))},
        quantize_us={},
        dequantize_us={},
        sizes={},
        boundaries=BoundaryCosts(quantize=line, dequantize=line, from_blocks=line, to_blocks=line, transpose=line),
        blocked=frozenset(),
    )
    return replace(made, measured=costs)


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_corners_are_a_monotone_front(name: str, measured: bool, tmp_path: Path) -> None:
    made = tradeoff(name, tmp_path, measured=measured)
    corners = made.corners(16)
    assert corners[0].price == 0.0
    # what placement without damage says
    assert corners[0].integer == made.integer
    assert corners[-1].integer == frozenset() or not made.terms
    for a, b in itertools.pairwise(corners):
        assert b.integer < a.integer
        assert b.noise < a.noise
        assert b.cost >= a.cost
        assert b.price >= a.price
        assert b.noise == noise_of(made.terms, b.integer)
        # neighbours are alike at the price at which one takes over from the other
        assert a.cost + b.price * a.noise == pytest.approx(b.cost + b.price * b.noise)


def test_every_corner_is_the_best_at_its_price(tmp_path: Path) -> None:
    corners = tradeoff("squeeze_excite", tmp_path, seed=3).corners(64)
    assert len(corners) > 4
    for corner in corners:
        totals = [c.cost + corner.price * c.noise for c in corners]
        assert corner.cost + corner.price * corner.noise == pytest.approx(min(totals))


def test_a_node_that_was_measured_to_be_dear_in_float_goes_back_last(tmp_path: Path) -> None:
    made = tradeoff("squeeze_excite", tmp_path, measured=True)
    assert isinstance(made.measured, MeasuredCosts)
    nodes = [n for n in sorted(made.integer) if made.measured.group(n) == n]
    terms = [Term(nodes=frozenset((n,)), noise=1e-4) for n in nodes]
    for dear in nodes[:3]:
        times = {**made.measured.float_us, **dict.fromkeys(nodes, 50.0), dear: 1e6}
        costs = replace(made.measured, float_us=times, integer_us=dict.fromkeys(times, 10.0))
        corners = replace(made, terms=terms, measured=costs).corners(64)
        assert dear in corners[-2].integer
        assert corners[-1].price > 100 * corners[-2].price


def test_the_number_of_corners_is_bounded(tmp_path: Path) -> None:
    made = tradeoff("squeeze_excite", tmp_path, seed=3)
    few, all_of_them = made.corners(3), made.corners(64)
    assert len(few) == 3 < len(all_of_them)
    assert {c.integer for c in few} <= {c.integer for c in all_of_them}


def test_what_the_plan_leaves_in_float_takes_no_other_along(tmp_path: Path) -> None:
    """In float one kernel may compute an activation with its convolution: a group, of which the plan takes a part."""
    made = tradeoff("squeeze_excite", tmp_path, measured=True)
    assert isinstance(made.measured, MeasuredCosts)
    convolutions = [n for n in sorted(made.integer) if made.graph.nodes[n].op_type == "Conv"]
    left = next(n for n in sorted(made.integer) if made.graph.nodes[n].op_type == "Mul")
    together = replace(
        made.measured, groups={**made.measured.groups, left: convolutions[0], convolutions[0]: convolutions[0]}
    )
    part = replace(made, integer=made.integer - {left}, measured=together)
    assert part.corners(4)[0].integer == part.integer
