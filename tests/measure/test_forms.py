"""Forms are taken where their profile takes less, with all that is fused with them; times here are made up."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.view import GraphView
from qconvert.measure.forms import paying, variants
from qconvert.measure.profile import Profile


def canonical() -> GraphView:
    """Two products of one tensor with biases, a third of what comes of it, and a Softmax."""
    b = Builder()
    x = b.node("Relu", b.input("x", [1, 4, 8]), name="start")
    for name in ("q", "k"):
        y = b.node("MatMul", x, b.weight(8, 8), name=name)
        b.output(b.node("Add", y, b.vector(8), name=f"{name}_add", out=f"{name}_sum"), [1, 4, 8])
    y = b.node("MatMul", "q_sum", b.weight(8, 4), name="f")
    b.output(b.node("Softmax", b.node("Add", y, b.input("mask", [4, 4]), name="masked"), name="s", out="p"), [1, 4, 4])
    feed = {"x": np.ones((1, 4, 8), np.float32), "mask": np.zeros((4, 4), np.float32)}
    return view_of(prepare(Model(ir=ir.from_proto(b.model())), feed, min_opset=13).model)


GRAPH = canonical()


def run(**us: float) -> Profile:
    """A profile of the canonical graph itself; times of the nodes that are not named are 10 us."""
    return Profile(run=GRAPH, us={name: us.get(name, 10.0) for name in GRAPH.nodes})


def test_products_of_one_tensor_are_decided_together() -> None:
    static, dynamic = variants({"fused": ("q", "k"), "dynamic": ("q", "k", "f"), "bounded": ("s",)})
    assert static == {"q": "fused", "k": "fused", "s": "bounded"}
    assert dynamic == {"q": "dynamic", "k": "dynamic", "f": "dynamic", "s": "bounded"}
    # q gains, k loses more
    gains = paying(GRAPH, run(), [(static, run(q=2.0, k=30.0)), (dynamic, run(f=2.0, q=9.0))])
    assert [g.forms for g in gains] == [{"f": "dynamic"}]
    # all gain; dynamic ones do not gain enough to take the place of static ones
    gains = paying(GRAPH, run(), [(static, run(q=2.0, s=1.0)), (dynamic, run(q=1.9, s=1.0))])
    assert [g.forms for g in gains] == [{"q": "fused", "k": "fused"}, {"s": "bounded"}]
    assert gains[0].plain_us == pytest.approx(40.0)  # two products, two Adds
    assert gains[0].form_us == pytest.approx(32.0)


def test_noise_changes_nothing() -> None:
    static, _ = variants({"fused": ("q", "k"), "dynamic": ("q", "k")})
    assert paying(GRAPH, run(), [(static, run(q=9.0, k=9.5))]) == ()


def test_what_changes_beside_a_node_counts() -> None:
    """What makes the input of a Softmax is charged with bounding it."""
    forms = {"s": "bounded"}
    assert paying(GRAPH, run(), [(forms, run(s=2.0, masked=18.0))]) == ()
    assert [g.forms for g in paying(GRAPH, run(), [(forms, run(s=2.0, masked=12.0))])] == [forms]


def test_nothing_is_tried_where_nothing_can_take_a_form() -> None:
    assert variants({}) == []
