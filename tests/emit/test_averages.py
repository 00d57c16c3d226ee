"""AveragePool on integers is a convolution of equal weights, or stays in float where it divides by other numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from plan.kernels import Few, dequantized

from qconvert.conversion import Quantized
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import Prepared, agreement, prepare
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import Recipe
from qconvert.repair import convert_and_repair
from qconvert.run import Run

FILTERS = {
    "2x2": {"kernel_shape": (2, 2), "strides": (2, 2)},
    "3x2": {"kernel_shape": (3, 2), "strides": (1, 2)},
    "counted": {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "count_include_pad": 1},
    "valid": {"kernel_shape": (3, 3), "auto_pad": "VALID"},
}
OTHERS = {
    "not counted": {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)},
    "same": {"kernel_shape": (3, 3), "auto_pad": "SAME_UPPER"},
    "ceil": {"kernel_shape": (2, 2), "strides": (2, 2), "ceil_mode": 1},
}


def converted(pool: dict[str, object], **choices: object) -> tuple[Prepared, Few, Quantized]:
    b = Builder(seed=6)
    x = b.node("Relu", b.conv(b.input("image", ["n", 3, 15, 15]), 3, 16, 3))
    x = b.node("AveragePool", x, out="pooled", **pool)
    b.output(b.conv(x, 16, 8, 3, out="y"))
    rng = np.random.default_rng(1)
    feeds = Few([{"image": rng.normal(0.2, 1, (2, 3, 15, 15)).astype(np.float32)} for _ in range(3)])
    prepared = prepare(Model(ir=ir.from_proto(b.model())), feeds.feed(0))
    choices = {"target": "x86-vnni", "recover": ("none",), "placement": "static", **choices}
    recipe = Recipe(**choices)  # type: ignore[arg-type]
    return prepared, feeds, convert_and_repair(prepared, Run(recipe=recipe, samples=feeds))


def kernels(made: Quantized) -> list[str]:
    return [n.op_type for n in optimized_view(made.model).nodes.values()]


@pytest.mark.parametrize("format_", ["qdq", "qoperator"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_runs_on_integers(name: str, format_: str) -> None:
    prepared, feeds, made = converted(FILTERS[name], format=format_)
    run = kernels(made)
    assert run.count("QLinearConv") == 3 and "QLinearAveragePool" not in run and "AveragePool" not in run
    assert run.count("QuantizeLinear") == run.count("DequantizeLinear") == 1
    wanted, got = ([s.run(f)[0] for f in feeds] for s in (session_of(prepared.model), made.session))
    assert agreement(wanted, got) > 30


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_filter_stays_in_float(name: str) -> None:
    _, feeds, made = converted(OTHERS[name])
    run = kernels(made)
    assert "QLinearAveragePool" not in run and "AveragePool" in run
    decision = next(n.decision for n in made.plan.nodes.values() if n.op_type == "AveragePool")
    assert not decision.taken and "12 times as long" in decision.reason
    assert np.isfinite(made.session.run(feeds.feed(0))[0]).all()


def test_other_runtimes_get_the_pool() -> None:
    _, _, made = converted(FILTERS["2x2"], target="openvino")
    assert "AveragePool" in [n.op_type for n in made.model.ir.graph]


def test_the_float_model_is_made_of_it_again() -> None:
    prepared, feeds, made = converted(FILTERS["2x2"])
    back = dequantized(made.model)
    wanted, got = ([s.run(f)[0] for f in feeds] for s in (session_of(prepared.model), session_of(back)))
    assert agreement(wanted, got) > 30
