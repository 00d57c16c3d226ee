"""HardSigmoid and HardSwish as sums that saturate: the codes are those of the float operator, rounded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qconvert.emit.saturating_sums import write_saturating_sums
from qconvert.graph.census import take_census
from qconvert.graph.model import Model
from qconvert.graph.signature import session_of
from qconvert.plan.model import Decision, NodePlan, QuantPlan
from qconvert.targets import TARGETS

TARGET = TARGETS.get("x86-vnni")


def quantized(op: str, kind: type, scale: float, zero: int, unit: bool = True, **attributes: float) -> Model:
    """x -> Q -> DQ -> op -> Q -> DQ -> y; the result's range is [0, 1], or twice that if not ``unit``."""
    lo = np.iinfo(kind).min
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([256]))

    def constant(name: str, value: np.ndarray) -> ir.Value:
        return ir.Value(
            name=name,
            const_value=ir.tensor(value, name=name),
            type=ir.TensorType(ir.DataType.from_numpy(value.dtype)),
            shape=ir.Shape([]),
        )

    xs, xz = constant("xs", np.asarray(scale, np.float32)), constant("xz", np.asarray(zero, kind))
    ys = constant("ys", np.asarray((1 if unit else 2) / 255 if op == "HardSigmoid" else 0.05, np.float32))
    yz = constant("yz", np.asarray(lo if op == "HardSigmoid" else lo + 20, kind))
    nodes = []

    def node(op_type: str, *inputs: ir.Value, name: str = "", **given: float) -> ir.Value:
        nodes.append(ir.node(op_type, list(inputs), attributes=given or None, name=name or f"{op_type}_{len(nodes)}"))
        nodes[-1].outputs[0].name = f"t{len(nodes)}"
        return nodes[-1].outputs[0]

    read = node("DequantizeLinear", node("QuantizeLinear", x, xs, xz), xs, xz)
    y = node("DequantizeLinear", node("QuantizeLinear", node(op, read, name="gate", **attributes), ys, yz), ys, yz)
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([256])
    graph = ir.Graph([x], [y], nodes=nodes, initializers=[xs, xz, ys, yz], opset_imports={"": 17}, name="g")
    return Model(ir=ir.Model(graph, ir_version=8))


def rewritten(model: Model, op: str) -> Model:
    plan = QuantPlan(
        nodes={"gate": NodePlan(node="gate", op_type=op, decision=Decision(taken=True, reason=""), activations=(0,))},
        groups=(),
    )
    copy = model.clone()
    write_saturating_sums(copy, plan, TARGET)
    return copy


def outputs(model: Model, x: np.ndarray) -> np.ndarray:
    return session_of(model, integers=False).run({"x": x})[0]


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from([np.uint8, np.int8]),
    alpha=st.floats(0.05, 2.0),
    beta=st.floats(-1.0, 2.0),
    scale=st.floats(0.005, 0.3),
    zero=st.integers(0, 255),
)
def test_codes_of_a_gate_are_those_of_hard_sigmoid(
    kind: type, alpha: float, beta: float, scale: float, zero: int
) -> None:
    lo = np.iinfo(kind).min
    model = quantized("HardSigmoid", kind, scale, zero + lo, alpha=alpha, beta=beta)
    sums = rewritten(model, "HardSigmoid")
    x = (np.arange(256, dtype=np.float32) - zero) * np.float32(scale)  # every code
    before, after = outputs(model, x), outputs(sums, x)
    assert "HardSigmoid" not in [n.op_type for n in sums.ir.graph]
    # rounding to a code may fall to either side of a tie
    assert np.abs(before - after).max() <= 1.01 / 255
    assert (np.abs(before - after) > 1e-6).mean() < 0.05


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_codes_of_hard_swish_are_within_one(kind: type) -> None:
    lo = np.iinfo(kind).min
    model = quantized("HardSwish", kind, 0.05, lo + 100)
    sums = rewritten(model, "HardSwish")
    x = (np.arange(256, dtype=np.float32) - 100) * np.float32(0.05)
    assert np.abs(outputs(model, x) - outputs(sums, x)).max() <= 0.05 * 1.01


@pytest.mark.parametrize("op", ["HardSigmoid", "HardSwish"])
def test_runs_on_integers(op: str) -> None:
    census = take_census(rewritten(quantized(op, np.uint8, 0.05, 100), op), ["gate"])
    assert census.ops["QLinearAdd"] == 1
    assert (census.quantize, census.dequantize) == (1, 1)


@pytest.mark.parametrize("attributes", [{"alpha": -0.2}, {"alpha": 0.0}])
def test_a_slope_that_does_not_rise_is_left_alone(attributes: dict[str, float]) -> None:
    model = rewritten(quantized("HardSigmoid", np.uint8, 0.05, 100, **attributes), "HardSigmoid")
    assert "HardSigmoid" in [n.op_type for n in model.ir.graph]


def test_a_result_in_another_range_is_left_alone() -> None:
    """A Concat may have given it the scale of something larger: then its codes do not end at 0 and 1."""
    model = rewritten(quantized("HardSigmoid", np.uint8, 0.05, 100, unit=False), "HardSigmoid")
    assert "HardSigmoid" in [n.op_type for n in model.ir.graph]
