"""The pass that searches ranges: it finds what no method can see, and its simulation is true to the integer model."""

from __future__ import annotations

from dataclasses import replace

import onnx
from networks.builder import Builder
from onnx import numpy_helper
from recover.nets import prepared, quantized, sqnr, subject

from qconvert.conversion import Quantized, emit
from qconvert.graph.constants import with_constants
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.recipe.recipe import Recipe
from qconvert.recover.passes.ranges import Ranges, RangesOptions
from qconvert.recover.recovery import RANGES, Changes

HIDDEN = 16


def net_with_a_silent_outlier(loud: float = 60.0) -> tuple[onnx.ModelProto, list[dict[str, object]]]:
    """x -> Gemm -> Relu -> Gemm; hidden channel 0 is ``loud`` times the others, and next to nothing reads it."""
    b = Builder(seed=3)
    hidden = b.relu(b.gemm(b.input("x", [1, 8]), 8, HIDDEN))
    b.output(b.gemm(hidden, HIDDEN, 6, out="y"), [1, 6])
    for i, tensor in enumerate(b.initializers):
        array = numpy_helper.to_array(tensor).copy()
        if array.shape == (HIDDEN, 8):
            array[0] *= loud
        if array.shape == (6, HIDDEN):
            array[:, 0] *= 1e-4
        b.initializers[i].CopyFrom(numpy_helper.from_array(array, tensor.name))
    return b.model(), b.feeds(96)


def written(net: Prepared, result: Quantized, changes: Changes) -> Model:
    base = with_constants(net.model, changes.constants)
    return emit(base, changes.planned(result.plan), Recipe(), net.source)[0]


def test_a_range_is_cut_where_the_outputs_do_not_need_it() -> None:
    proto, feeds = net_with_a_silent_outlier()
    net = prepared(proto, feeds[0])
    seen, unseen = feeds[:64], feeds[64:]
    result = quantized(net, seen)
    changes = Ranges().apply(subject(net.model, seen, result.plan))
    assert changes.changed == len(changes.ranges) > 0
    plan = changes.planned(result.plan)
    moved = [(a, c) for a, c in zip(result.plan.groups, plan.groups, strict=True) if c.method == RANGES]
    assert len(moved) == changes.changed
    assert any(c.params.range[1] < a.params.range[1] / 4 for a, c in moved if a.params and c.params)
    before, after = sqnr(net.model, result.model, unseen), sqnr(net.model, written(net, result, changes), unseen)
    assert after > before + 6.0


def test_a_plan_at_its_best_is_left_alone() -> None:
    b = Builder(seed=4)
    b.output(b.gemm(b.relu(b.gemm(b.input("x", [1, 8]), 8, HIDDEN)), HIDDEN, 6, out="y"), [1, 6])
    feeds = b.feeds(96)
    net = prepared(b.model(), feeds[0])
    seen, unseen = feeds[:64], feeds[64:]
    result = quantized(net, seen)
    changes = Ranges().apply(subject(net.model, seen, result.plan))
    before, after = sqnr(net.model, result.model, unseen), sqnr(net.model, written(net, result, changes), unseen)
    # whatever was believed on 64 samples holds, within their noise, on others
    assert after > before - 0.5


def test_the_same_samples_give_the_same_ranges() -> None:
    proto, feeds = net_with_a_silent_outlier()
    net = prepared(proto, feeds[0])
    plan = quantized(net, feeds).plan
    first, second = (Ranges().apply(subject(net.model, feeds, plan)).ranges for _ in range(2))
    assert first.keys() == second.keys()
    assert all(first[t].same_as(second[t]) for t in first)


def test_few_samples_or_too_much_work_change_nothing() -> None:
    proto, feeds = net_with_a_silent_outlier()
    net = prepared(proto, feeds[0])
    plan = quantized(net, feeds).plan
    assert Ranges().apply(subject(net.model, feeds[:7], plan)) == Changes()
    assert Ranges().apply(subject(net.model, feeds)) == Changes()
    for options in (RangesOptions(operations=10.0), RangesOptions(held=8)):
        assert Ranges(options=options).apply(subject(net.model, feeds, plan)) == Changes()


def test_known_ranges_and_constants_are_left_alone() -> None:
    proto, feeds = net_with_a_silent_outlier()
    net = prepared(proto, feeds[0])
    plan = quantized(net, feeds).plan
    groups = tuple(replace(g, fixed_range=g.params.range if g.params else None) for g in plan.groups)
    assert Ranges().apply(subject(net.model, feeds, replace(plan, groups=groups))) == Changes()
    groups = tuple(replace(g, constants=("c",)) for g in plan.groups)
    assert Ranges().apply(subject(net.model, feeds, replace(plan, groups=groups))) == Changes()
