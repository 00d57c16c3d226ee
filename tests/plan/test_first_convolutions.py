"""Convolutions of few channels at the start of a net run in float where that is much faster; no float islands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from networks.builder import Builder

from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.plan.build import build_plan
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.targets.target import Target
from qconvert.targets.x86_vnni import X86_VNNI


def plan_of(b: Builder, target: Target = X86_VNNI) -> QuantPlan:
    prepared = prepare(Model(ir=ir.from_proto(b.model())))
    return build_plan(view_of(prepared.model), Recipe(), target)


def small_start(size: int | str, first: int = 3) -> Builder:
    """3 -> 8 channels, 8-channel depthwise, then wide layers, on a square image."""
    b = Builder(seed=3)
    x = b.node("Relu", b.conv(b.input("image", [1, first, size, size]), first, 8, stride=2, out="narrow"))
    x = b.node("Relu", b.conv(x, 8, 8, group=8, out="narrow_depthwise"))
    x = b.node("Relu", b.conv(x, 8, 64, 1, stride=4, out="wide"))
    b.output(b.conv(x, 64, 64, 3, out="last"))
    return b


def taken(plan: QuantPlan) -> list[bool]:
    return [n.decision.taken for n in plan.nodes.values() if n.op_type == "Conv"]


def test_a_narrow_start_on_a_large_image_runs_folded() -> None:
    plan = plan_of(small_start(224))
    assert taken(plan) == [True] * 4
    assert [n.form for n in plan.nodes.values() if n.op_type == "Conv"] == ["folded", "folded", "", ""]


def test_it_stays_float_where_rows_are_not_folded() -> None:
    assert X86_VNNI.convolutions is not None
    plan = plan_of(small_start(224), replace(X86_VNNI, convolutions=replace(X86_VNNI.convolutions, folds=())))
    # the third, too: behind it there is less to quantize
    assert taken(plan) == [False, False, False, True]
    reasons = [n.decision.reason for n in plan.nodes.values() if n.op_type == "Conv" and not n.decision.taken]
    assert all("few channels" in r for r in reasons)
    # their clamps go with them: the runtime fuses them into the float convolution
    assert [n.decision.taken for n in plan.nodes.values() if n.op_type == "Relu"] == [False] * 3


def test_a_small_image_is_not_worth_it() -> None:
    assert taken(plan_of(small_start(12))) == [True] * 4


def test_unknown_sizes_run_on_integers() -> None:
    assert taken(plan_of(small_start("size"))) == [True] * 4


def test_no_float_convolution_behind_an_integer_one() -> None:
    """A wide first convolution runs on integers; the narrow ones behind it do, too, though each alone would be
    float."""
    b = Builder(seed=4)
    x = b.node("Relu", b.conv(b.input("image", [1, 64, 112, 112]), 64, 64))
    x = b.node("Relu", b.conv(x, 64, 8, 1))
    x = b.node("Relu", b.conv(x, 8, 8, group=8))
    b.output(b.conv(x, 8, 64, 1))
    assert taken(plan_of(b)) == [True] * 4


def test_costs_grow_with_work() -> None:
    """The estimate of a convolution grows with pixels, channels and taps, in float and on integers."""
    from qconvert.plan.costs import StaticCosts

    def cost(size: int, inputs: int, outputs: int, taps: int, *, integer: bool, target: Target = X86_VNNI) -> float:
        b = Builder(seed=5)
        b.output(b.conv(b.input("x", [1, inputs, size, size]), inputs, outputs, taps))
        view = view_of(prepare(Model(ir=ir.from_proto(b.model()))).model)
        costs = StaticCosts.of(view, target, {})
        found = costs.convolution(next(iter(view.nodes.values())), integer=integer)
        assert found is not None
        return found

    for integer in (False, True):
        base = cost(28, 32, 32, 3, integer=integer)
        assert base < cost(56, 32, 32, 3, integer=integer)
        assert base < cost(28, 64, 32, 3, integer=integer)
        assert base < cost(28, 32, 64, 3, integer=integer)
        assert base < cost(28, 32, 32, 5, integer=integer)
    # many channels: integers win by about the ratio of the kernels; three channels: where rows are folded
    assert cost(56, 64, 64, 3, integer=False) > 3 * cost(56, 64, 64, 3, integer=True)
    assert cost(112, 3, 8, 3, integer=False) > cost(112, 3, 8, 3, integer=True)
    unfolded = replace(X86_VNNI.convolutions, folds=()) if X86_VNNI.convolutions is not None else None
    x86 = replace(X86_VNNI, convolutions=unfolded)
    assert cost(112, 3, 8, 3, integer=False, target=x86) < cost(112, 3, 8, 3, integer=True, target=x86)
    assert np.isfinite(cost(7, 1, 1, 1, integer=True))
