"""What holds for the plan of every network."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks.all import NETWORKS
from networks.chain import RECIPES

from qconvert.graph.build_view import view_of
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.view import GraphView
from qconvert.plan.build import build_plan
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS


def view(name: str, folder: Path) -> GraphView:
    path = folder / "model.onnx"
    path.write_bytes(NETWORKS[name]().proto.SerializeToString())
    return view_of(prepare(load(path)).model)


@pytest.mark.parametrize("name", NETWORKS)
def test_plan(name: str, tmp_path: Path) -> None:
    graph = view(name, tmp_path)
    for recipe in RECIPES.values():
        plan = build_plan(graph, recipe, TARGETS.get("x86-vnni"))
        assert list(plan.nodes) == list(graph.nodes)
        for node in plan.nodes.values():
            assert node.decision.reason, f"{node.node} has no reason"
            if node.weight is not None:
                assert graph.is_constant(node.weight.tensor)
        members = [t for g in plan.groups for t in g.tensors]
        assert len(members) == len(set(members))
        for tensor in members:
            assert graph.tensors[tensor].is_float
        for node in plan.taken():
            if node.absorbed_into is not None:
                assert plan.nodes[node.absorbed_into].decision.taken
            elif node.table is None:
                for port in node.activations:
                    assert graph.nodes[node.node].inputs[port] in members


def test_other_domains_and_bodies_say_why(tmp_path: Path) -> None:
    plan = build_plan(view("microsoft_domain", tmp_path), Recipe(), TARGETS.get("x86-vnni"))
    assert plan.nodes["gelu"].decision.reason == "operator of the domain com.microsoft, left alone"
    graph = view("weights_in_branches", tmp_path)
    plan = build_plan(graph, Recipe(), TARGETS.get("x86-vnni"))
    (control,) = (n for n in plan.nodes.values() if n.op_type == "If")
    assert control.decision.reason == "control flow; its branches are decided on their own"
    assert graph.body_parameters == 2 * (8 * 8 * 3 * 3 + 8)
