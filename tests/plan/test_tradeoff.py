"""The second term of placement: without weight it changes nothing, and its corners are a monotone front."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from networks.all import NETWORKS

from qconvert.graph.build_view import view_of
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import prepare
from qconvert.plan.build import build_plan
from qconvert.plan.damage import Term, noise_of
from qconvert.plan.tradeoff import Tradeoff
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS

pytestmark = pytest.mark.slow


def tradeoff(name: str, folder: Path, seed: int = 0) -> Tradeoff:
    """With a term of random noise for every integer node, and one for every pair of neighbours."""
    path = folder / "model.onnx"
    path.write_bytes(NETWORKS[name]().proto.SerializeToString())
    graph = view_of(prepare(load(path)).model)
    target = TARGETS.get("x86-vnni")
    plan = build_plan(graph, Recipe(), target)
    rng = np.random.default_rng(seed)
    nodes = [n.node for n in plan.taken() if n.activations]
    sets = [frozenset((n,)) for n in nodes] + [frozenset(pair) for pair in itertools.pairwise(nodes)]
    terms = [Term(nodes=s, noise=float(10 ** rng.uniform(-6, -3))) for s in sets]
    return Tradeoff.of(graph, Recipe(), target, plan, terms)


@pytest.mark.parametrize("name", NETWORKS)
def test_corners_are_a_monotone_front(name: str, tmp_path: Path) -> None:
    made = tradeoff(name, tmp_path)
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


def test_the_number_of_corners_is_bounded(tmp_path: Path) -> None:
    made = tradeoff("squeeze_excite", tmp_path, seed=3)
    few, all_of_them = made.corners(3), made.corners(64)
    assert len(few) == 3 < len(all_of_them)
    assert {c.integer for c in few} <= {c.integer for c in all_of_them}
