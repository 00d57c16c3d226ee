"""Sum becomes Add, with the same result and the same names, and a residual Sum runs on integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import MIN_AGREEMENT_DB, prepare
from qconvert.plan.build import build_plan
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS

FEED = {"x": np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)}


def residual(operands: int) -> Model:
    """A convolution beside a Sum of ``operands`` convolutions of it."""
    b = Builder(seed=1)
    x = b.conv(b.input("x", [1, 4, 6, 6]), 4, 8)
    total = b.node("Sum", *[b.conv(x, 8, 8) for _ in range(operands)], name="joined", out="total")
    b.output(b.conv(total, 8, 8, out="y"))
    return Model(ir=ir.from_proto(b.model()))


@pytest.mark.parametrize("operands", [2, 3, 4])
def test_sum_becomes_add(operands: int) -> None:
    prepared = prepare(residual(operands), FEED)
    view = view_of(prepared.model)
    ops = [n.op_type for n in view.nodes.values()]
    assert "Sum" not in ops and ops.count("Add") == operands - 1
    assert view.nodes["joined"].outputs == ("total",)
    assert prepared.agreement_db is not None and prepared.agreement_db >= MIN_AGREEMENT_DB
    plan = build_plan(view, Recipe(), TARGETS.get("x86-vnni"))
    assert all(n.decision.taken for n in plan.nodes.values())


def test_a_sum_of_one_stays() -> None:
    """Whatever simplification makes of it, the result is the same."""
    prepared = prepare(residual(1), FEED)
    assert prepared.agreement_db is not None and prepared.agreement_db >= MIN_AGREEMENT_DB
