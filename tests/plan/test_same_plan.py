"""Plans that differ in words only are one plan."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
from networks.builder import Builder

from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.plan.build import build_plan
from qconvert.plan.model import NodeTimes, same_plan, told_as
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS


def test_times_and_reasons_are_words_and_placement_is_not() -> None:
    b = Builder(seed=0)
    x = b.input("x", [1, 8, 8, 8])
    b.node("Conv", x, b.weight(8, 8, 3, 3), out="a", name="first")
    b.node("Conv", "a", b.weight(8, 8, 3, 3), out="y", name="second")
    b.output("y")
    graph = view_of(prepare(Model(ir=ir.from_proto(b.model()))).model)
    recipe, target = Recipe(placement="pinned"), TARGETS.get("x86-vnni")
    plain = build_plan(graph, recipe, target)
    times = NodeTimes(float_us=2.0, integer_us=1.0)
    timed = build_plan(graph, recipe, target, times={"first": times})
    pinned = build_plan(graph, replace(recipe, pinned_float=("second",)), target)
    assert plain != timed
    assert same_plan(plain, timed)
    assert told_as(plain, timed) == timed
    assert not same_plan(plain, pinned)
    # where the two decide differently, the words of neither fit the other
    mixed = told_as(plain, pinned)
    assert mixed.nodes["second"].decision == plain.nodes["second"].decision


def test_nodes_that_recovery_has_added_to_one_plan_are_no_part_of_the_other() -> None:
    b = Builder(seed=0)
    b.node("Conv", b.input("x", [1, 8, 8, 8]), b.weight(8, 8, 3, 3), out="y", name="first")
    b.output("y")
    graph = view_of(prepare(Model(ir=ir.from_proto(b.model()))).model)
    plain = build_plan(graph, Recipe(placement="pinned"), TARGETS.get("x86-vnni"))
    scaled = replace(plain, nodes={**plain.nodes, "first_scaling": plain.nodes["first"]})
    assert told_as(plain, scaled) == plain
