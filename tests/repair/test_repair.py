"""What ONNX Runtime does not fuse goes back to float, by the graph that it runs, and nothing gets worse by it."""

from __future__ import annotations

import numpy as np
import pytest
from networks.all import NETWORKS
from networks.builder import Builder
from recover import nets

from qconvert.conversion import Quantized, convert
from qconvert.diagnose.standing import Leftovers, leftovers
from qconvert.graph.build_view import view_of
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import agreement
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import Recipe
from qconvert.repair import convert_and_repair
from qconvert.run import Run

PLAIN = Recipe(recover=("none",))
# int8 activations, which ONNX Runtime fuses everywhere on ARM, and on x86 in few places
SIGNED = Recipe(recover=("none",), activations="int8", symmetric=True)


def left(result: Quantized, *, int8: bool = False) -> Leftovers:
    return leftovers(view_of(result.model), optimized_view(result.model, int8=int8), result.plan)


def both(name: str, recipe: Recipe) -> tuple[Quantized, Quantized, float]:
    """(converted, converted and repaired, dB of the repaired outputs against FP32) for one of NETWORKS."""
    net = NETWORKS[name]()
    prepared = nets.prepared(net.proto, net.feeds[0])
    run = Run(recipe=recipe, samples=nets.Listed(items=net.feeds))
    repaired = convert_and_repair(prepared, run)
    feed = net.feeds[0]
    db = agreement(session_of(prepared.model).run(feed), repaired.session.run(feed))
    return convert(prepared, run), repaired, db


def test_a_split_with_an_unread_part_goes_back_to_float() -> None:
    before, after, _ = both("split_with_unused_part", PLAIN)
    assert [s.node for s in left(before).standing] == ["Split_2"]
    assert left(before).standing[0].how == "Split stands between DequantizeLinear and QuantizeLinear"
    decision = after.plan.nodes["Split_2"].decision
    assert not decision.taken
    assert "does not fuse it: Split stands" in decision.reason
    assert left(after).standing == ()
    assert any("1 operator went back to float" in note and "Split_2 (Split)" in note for note in after.notes)


@pytest.mark.parametrize("name", ["resnet", "yolo"])
def test_int8_activations_stay_where_the_user_wants_them(name: str) -> None:
    """ONNX Runtime does not fuse them on x86; sending them back would undo the choice, and the file would grow."""
    before, after, _ = both(name, SIGNED)
    assert left(before).standing
    assert after.model.to_bytes() == before.model.to_bytes()


def test_what_arm_fuses_does_not_stand_there() -> None:
    before, _, _ = both("resnet", SIGNED)
    assert left(before).standing
    assert left(before, int8=True).standing == ()


@pytest.mark.parametrize(
    "name", ["resnet", "encoder_decomposed", "yolo", "gemm_variants", "integer_results_as_outputs"]
)
def test_what_fuses_stays_as_it_is(name: str) -> None:
    before, after, _ = both(name, PLAIN)
    assert after.model.to_bytes() == before.model.to_bytes()
    assert after.notes == before.notes


def test_on_arm_int8_stays_on_integers() -> None:
    """Whatever the processor is that the conversion runs on."""
    recipe = Recipe(recover=("none",), activations="int8", symmetric=True, target="arm64")
    before, after, _ = both("resnet", recipe)
    assert left(after, int8=True).standing == ()
    assert after.model.to_bytes() == before.model.to_bytes()


def test_whoever_wants_everything_on_integers_gets_it() -> None:
    recipe = Recipe(recover=("none",), placement="all")
    before, after, _ = both("split_with_unused_part", recipe)
    assert left(before).standing
    assert after.model.to_bytes() == before.model.to_bytes()


@pytest.mark.parametrize("clamp", ["Relu", "Clip"])
def test_a_gemm_before_a_float_clamp_is_fused(clamp: str) -> None:
    """ONNX Runtime takes both for one unit, which has no QuantizeLinear; a copy between them parts them."""
    b = Builder()
    b.input("x", (5, 8))
    hidden = b.gemm(b.gemm("x", 8, 8), 8, 16)
    b.node("Abs", b.relu(hidden) if clamp == "Relu" else b.relu6(hidden), out=b.output("y", (5, 16)))
    feeds = [{"x": np.random.default_rng(i).standard_normal((5, 8)).astype(np.float32)} for i in range(2)]
    prepared = nets.prepared(b.model(), feeds[0])
    result = convert_and_repair(prepared, Run(recipe=PLAIN, samples=nets.Listed(items=feeds)))
    run = optimized_view(result.model)
    assert sum(n.op_type == "QGemm" for n in run.nodes.values()) == 2
    assert left(result) == Leftovers(standing=(), conversions=1)
