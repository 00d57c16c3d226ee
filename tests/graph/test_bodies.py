"""Branches taken out of a model and put back, before anything is quantized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import branches
from networks.all import NETWORKS
from networks.builder import Network

from qconvert.graph.bodies import Branch, body_parameters, extract, observer, splice, weighted_branches
from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of

CASES: dict[str, Callable[[], Network]] = {
    make.__name__: make for make in (branches.voice, branches.mixed, branches.nested, branches.shared)
}


def canonical(net: Network, folder: Path) -> Model:
    path = folder / "model.onnx"
    onnx.save(net.proto, path)
    return prepare(load(path)).model


@pytest.mark.parametrize("name", CASES)
def test_out_and_in_again(name: str, tmp_path: Path) -> None:
    net = CASES[name]()
    model = canonical(net, tmp_path)
    before = model.to_bytes()
    for branch in weighted_branches(model):
        alone = extract(model, branch)
        assert tuple(v.name for v in alone.ir.graph.inputs) == branch.captured
        back = splice(model, branch, alone)
        proto = onnx.load_from_string(back.to_bytes())
        onnx.checker.check_model(proto, full_check=True)
        pair = session_of(model), session_of(back)
        for feed in net.feeds[:4]:
            for a, b in zip(*(s.run(feed) for s in pair), strict=True):
                assert np.array_equal(a, b)
    assert model.to_bytes() == before


def test_an_extracted_branch_computes_what_it_did(tmp_path: Path) -> None:
    net = branches.mixed()
    model = canonical(net, tmp_path)
    (then, other) = weighted_branches(model)
    assert (then.taken_if, other.taken_if) == (True, False)
    (feed,) = (f for f in net.feeds[:2] if f["flag"])
    (captured,) = then.captured
    (result,) = (n.outputs[0].name for n in model.ir.graph if n.op_type == "If")
    read, wanted = observer(model, [captured, result or ""]).run(feed)
    assert np.array_equal(session_of(extract(model, then)).run({captured: read})[0], wanted)


def test_an_observer_computes_no_more_than_it_must(tmp_path: Path) -> None:
    model = canonical(branches.voice(), tmp_path)
    (condition,) = {b.condition for b in weighted_branches(model)}
    assert [s.name for s in observer(model, [condition]).outputs] == [condition]
    assert any(n.op_type == "If" for n in model.ir.graph)


def test_weights_of_the_main_graph_come_along(tmp_path: Path) -> None:
    model = canonical(branches.shared(), tmp_path)
    then, other = weighted_branches(model)
    assert then.captured == other.captured == ("x",)
    assert {"both.weight", "one.weight"} <= set(extract(model, then).ir.graph.initializers)
    assert "both.weight" in model.ir.graph.initializers
    assert body_parameters(model) == 3 * 32 * 32
    # what only the old branch read goes with it
    spliced = splice(splice(model, then, extract(model, then)), other, extract(model, other))
    assert not spliced.ir.graph.initializers


def test_what_is_added_gives_way(tmp_path: Path) -> None:
    """A name that splicing brings along may be taken in the main graph or in the other branch."""
    model = canonical(branches.mixed(), tmp_path)
    then, other = weighted_branches(model)
    for branch in (then, other):
        alone = extract(model, branch)
        node = next(iter(alone.ir.graph))
        node.name = "Conv_0"
        node.outputs[0].name = "image"
        model = splice(model, branch, alone)
    names = [v.name for g in (model.ir.graph, *model.ir.graph.subgraphs()) for n in g for v in n.outputs]
    assert len(set(names)) == len(names)
    assert "image" not in names
    nodes = [n.name for n in model.ir.graph.all_nodes()]
    assert len(set(nodes)) == len(nodes)


def test_a_branch_that_returns_what_it_read(tmp_path: Path) -> None:
    net = branches.mixed()
    model = canonical(net, tmp_path)
    then = weighted_branches(model)[0]
    alone = extract(model, then)
    alone.ir.graph.outputs[0] = alone.ir.graph.inputs[0]
    session_of(splice(model, then, alone)).run(net.feeds[1])


def test_only_branches_with_weights(tmp_path: Path) -> None:
    def found(name: str) -> list[tuple[str, str]]:
        return [(b.node, b.attribute) for b in weighted_branches(canonical(NETWORKS[name](), tmp_path))]

    assert found("resnet") == found("nested_if") == found("loop") == []
    assert [a for _, a in found("if_branches")] == ["then_branch", "else_branch"]


@pytest.mark.parametrize(("name", "count"), [("if_branches", 2 * (8 * 8 * 3 * 3 + 8)), ("resnet", 0)])
def test_parameters_of_bodies(name: str, count: int, tmp_path: Path) -> None:
    assert body_parameters(canonical(NETWORKS[name](), tmp_path)) == count


def test_external_data(tmp_path: Path) -> None:
    """An extracted model has no folder; its weights are read from the file of the whole model all the same."""
    net = branches.shared()
    path = tmp_path / "model.onnx"
    onnx.save(net.proto, path, save_as_external_data=True, size_threshold=0)
    model = prepare(load(path)).model
    branch: Branch = weighted_branches(model)[0]
    feed = net.feeds[0]
    wanted = session_of(model).run(feed)[0]
    assert np.array_equal(session_of(extract(model, branch)).run({"x": np.asarray(feed["x"])})[0], wanted)
