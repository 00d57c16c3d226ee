"""What a target's table calls an integer kernel is one: each operator between two convolutions, in ONNX Runtime.

The optimized graph has one QuantizeLinear an input and one DequantizeLinear an output, and no weight is unpacked
at run time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conformance.case import Case, Uniform
from conformance.matrix import Fp32, in_float, quantize, run

from qconvert.graph.census import Census, take_census
from qconvert.graph.model import Model
from qconvert.ops import OPS
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS

TARGET = TARGETS.get("x86-vnni")
_OPSET = 17
_IN, _OUT = (8, 4, 3, 3), (4, 8, 1, 1)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _between(op: str, middle: str, out: tuple[int, ...] = _OUT, **constants: object) -> Case:
    """x -> Conv -> c [1, 8, 8, 8], d likewise -> ``middle`` -> m -> Conv -> y."""
    second = "d = Conv<pads=[1,1,1,1]>(x, w)\n" if "d)" in middle else ""
    return Case(
        name=f"fusion-{op}",
        body=f"c = Conv<pads=[1,1,1,1]>(x, u, b)\n{second}{middle}\ny = Conv(m, v)",
        inputs={"x": Uniform(shape=(1, 4, 8, 8))},
        constants={"u": _IN, "b": (8,), "v": out, **({"w": _IN} if second else {}), **constants},
    )


def _product(op: str, body: str, **constants: object) -> Case:
    return Case(name=f"fusion-{op}", body=body, inputs={"x": (5, 16)}, constants=constants)


_DEEP = (4, 8, 1, 1, 1)
_SCALES = np.array([1, 1, 2, 2], np.float32)
_ZERO, _SIX = np.float32(0), np.float32(6)

CASES = {
    "Conv": _between("Conv", "m = Conv(c, k)", k=(8, 8, 3, 3)),
    "Add": _between("Add", "m = Add(c, d)"),
    "Mul": _between("Mul", "m = Mul(c, d)"),
    "Max": _between("Max", "m = Max(c, d)"),
    "Concat": _between("Concat", "m = Concat<axis=1>(c, d)", (4, 16, 1, 1)),
    "Relu": _between("Relu", "m = Relu(c)"),
    "Clip": _between("Clip", "m = Clip(c, l, h)", l=_ZERO, h=_SIX),
    "LeakyRelu": _between("LeakyRelu", "m = LeakyRelu<alpha=0.1>(c)"),
    "Sigmoid": _between("Sigmoid", "m = Sigmoid(c)"),
    "GlobalAveragePool": _between("GlobalAveragePool", "m = GlobalAveragePool(c)"),
    "AveragePool": _between("AveragePool", "m = AveragePool<kernel_shape=[2,2],strides=[2,2]>(c)"),
    "MaxPool": _between("MaxPool", "m = MaxPool<kernel_shape=[2,2],strides=[2,2]>(c)"),
    "Transpose": _between("Transpose", "m = Transpose<perm=[0,1,3,2]>(c)"),
    "Reshape": _between("Reshape", "m = Reshape(c, s)", s=_ints(1, 8, 4, 16)),
    "Flatten": Case(
        name="fusion-Flatten",
        body="c = Conv(x, u)\nm = Flatten(c)\ny = Gemm(m, v, b)",
        inputs={"x": (1, 4, 6, 6)},
        constants={"u": (3, 4, 3, 3), "v": (48, 5), "b": (5,)},
        simplify=False,
    ),
    "Squeeze": Case(
        name="fusion-Squeeze",
        body="c = Conv(x, u)\nm = Squeeze(c, a)\ny = Conv(m, v)",
        inputs={"x": (1, 4, 1, 6, 6)},
        constants={"u": (8, 4, 1, 3, 3), "v": _OUT, "a": _ints(2)},
    ),
    "Unsqueeze": _between("Unsqueeze", "m = Unsqueeze(c, a)", _DEEP, a=_ints(2)),
    "Expand": _between("Expand", "m = Expand(c, s)", s=_ints(2, 8, 8, 8)),
    "Tile": _between("Tile", "m = Tile(c, r)", r=_ints(1, 1, 2, 1)),
    "Slice": _between("Slice", "m = Slice(c, b0, e0, a0)", b0=_ints(1), e0=_ints(5), a0=_ints(2)),
    "Split": _between("Split", "n, o = Split<axis=2>(c, k)\nm = Concat<axis=2>(o, n)", k=_ints(5, 3)),
    "DepthToSpace": _between("DepthToSpace", "m = DepthToSpace<blocksize=2>(c)", (4, 2, 1, 1)),
    "SpaceToDepth": _between("SpaceToDepth", "m = SpaceToDepth<blocksize=2>(c)", (4, 32, 1, 1)),
    "Resize": _between("Resize", 'm = Resize<mode="nearest">(c, , s)', s=_SCALES),
    "Pad": _between("Pad", 'm = Pad<mode="reflect">(c, p)', p=_ints(0, 0, 1, 1, 0, 0, 1, 1)),
    "MatMul": _product("MatMul", "y = MatMul(x, w)", w=(16, 8)),
    "Gemm": _product("Gemm", "y = Gemm(x, w, b)", w=(16, 8), b=(8,)),
    "Gather": Case(
        name="fusion-Gather",
        # read in float too, so that its rows are dequantized; a table that integers alone read is in test_a_table_...
        body="e = Gather(t, i)\nf = MatMul(e, w)\ny = Add(e, f)",
        inputs={"i": _ints(3, 0, 7)},
        constants={"t": (10, 16), "w": (16, 16)},
    ),
    **{
        op: Case(
            name=f"fusion-{op}",
            body=f"c = MatMul(x, u)\nm, h = {op}<hidden_size=24>(c, w, r)\ny = MatMul(m, v)",
            inputs={"x": (7, 2, 16)},
            constants={"u": (16, 32), "w": (1, n * 24, 32), "r": (1, n * 24, 24), "v": (24, 8)},
            simplify=False,
        )
        for op, n in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
    },
    "ConvTranspose": _between("ConvTranspose", "m = ConvTranspose<strides=[2,2]>(c, k)", k=(8, 8, 2, 2)),
    "Sub": _between("Sub", "m = Sub(c, d)"),
    "Div": _between("Div", "m = Div(c, s)", s=np.linspace(1.0, 2.0, 8, dtype=np.float32)),
    "PRelu": _between("PRelu", "m = PRelu(c, s)", s=np.full((8, 1, 1), 0.1, np.float32)),
    "HardSigmoid": _between("HardSigmoid", "m = HardSigmoid(c)"),
    "HardSwish": _between("HardSwish", "m = HardSwish(c)"),
    "Erf": _between("Erf", "m = Erf(c)"),
    "Tanh": _between("Tanh", "m = Tanh(c)"),
    "ReduceMax": _between("ReduceMax", "m = ReduceMax<axes=[3]>(c)"),
    "ReduceMin": _between("ReduceMin", "m = ReduceMin<axes=[2]>(c)"),
    "ReduceMean": _between("ReduceMean", "m = ReduceMean<axes=[3]>(c)"),
    "Where": _between("Where", "m = Where(k, c, d)", k=np.arange(64).reshape(8, 8) % 3 == 0),
    "Softmax": _between("Softmax", "m = Softmax<axis=1>(c)"),
}


def _census(model: Model, plan: QuantPlan) -> Census:
    return take_census(model, [p.node for p in plan.taken()])


def _float_ends(reference: Fp32) -> tuple[int, int]:
    graph = reference.graph
    return sum(graph.tensors[n].is_float for n in graph.inputs), len(graph.outputs)


@pytest.mark.parametrize("op", sorted(TARGET.capabilities))
def test_table_is_true(op: str) -> None:
    capability, case = TARGET.capabilities[op], CASES[op]
    reference = in_float(case, _OPSET)
    names = [n.name for n in reference.graph.nodes.values() if n.op_type == op]
    assert names, f"the canonical form of this case has no {op}"
    made = quantize(reference, Recipe(), case.feed())
    census = _census(made.qdq, made.plan)
    unpacked = [n for n in made.plan.taken() if n.weight is not None and not n.activations]
    assert len(unpacked) == (len(names) if capability.weights_only else 0)
    assert census.weights_dequantized == 0, "weights of float operators are unpacked when the model is loaded"
    if capability.integer:
        assert all(made.plan.nodes[n].decision.taken for n in names), [made.plan.nodes[n].decision for n in names]
        _assert_integer(op, census, reference)
    elif capability.weights_only:
        assert {n.node for n in unpacked} == set(names)
        assert not any(n.quantized_outputs for n in unpacked)
    else:
        reasons = {made.plan.nodes[n].decision.reason for n in names}
        assert reasons == {capability.reason}


def _assert_integer(op: str, census: Census, reference: Fp32) -> None:
    assert census.unfused == ()
    inputs, outputs = _float_ends(reference)
    float_result = TARGET.capability(op).float_result or op in ("Flatten", "Gather")  # what ends in a Gemm or MatMul
    before = 1 if op == "Gather" else inputs
    assert census.quantize == before, f"{census.ops}: a QuantizeLinear is left inside"
    assert census.dequantize == (0 if float_result else outputs), f"{census.ops}: a DequantizeLinear is left inside"


def test_a_table_that_only_integers_read_is_picked_from_as_codes() -> None:
    """No row is dequantized, no QuantizeLinear is left: Gather hands codes to the product."""
    case = Case(
        name="fusion-table-codes",
        body="e = Gather(t, i)\ny = MatMul(e, w)",
        inputs={"i": _ints(3, 0, 7)},
        constants={"t": (10, 16), "w": (16, 8)},
    )
    made = quantize(in_float(case, _OPSET), Recipe(), case.feed())
    census = _census(made.qdq, made.plan)
    assert (census.quantize, census.dequantize, census.weights_dequantized) == (0, 0, 0)
    assert census.ops == {"Gather": 1, "MatMulIntegerToFloat": 1}  # no Cast, no Mul


@pytest.mark.parametrize("op", sorted(o for o, c in TARGET.capabilities.items() if "no integer kernel" in c.reason))
def test_no_kernel_means_none(op: str) -> None:
    """Quantized all the same, the operator runs in float between DequantizeLinear and QuantizeLinear."""
    case = CASES[op]
    reference = in_float(case, _OPSET)
    made = quantize(reference, Recipe(placement="all"), case.feed())
    census = _census(made.qdq, made.plan)
    inputs, outputs = _float_ends(reference)
    assert census.quantize > inputs
    assert census.dequantize > outputs


@pytest.mark.parametrize("case", [c for o, c in CASES.items() if OPS.get(o).lowering is not None], ids=lambda c: c.name)
def test_qoperator_runs_on_integers(case: Case) -> None:
    """The QOperator form of the default plan has conversions at its ends only as well."""
    reference = in_float(case, _OPSET)
    made = quantize(reference, Recipe(), case.feed())
    census, qdq = _census(made.qoperator, made.plan), _census(made.qdq, made.plan)
    assert census.weights_dequantized == 0
    assert census.dequantize <= qdq.dequantize
    assert census.unfused == ()


@pytest.mark.parametrize("excluded", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("clamp", ["", "Relu"])
def test_excluded_stays_float(excluded: str, clamp: str) -> None:
    """ONNX Runtime must not quantize by itself, on load, the weights of what the plan keeps float between integers."""
    name = f"{excluded}{clamp}"
    tail = "f = Relu(m)" if clamp else "f = Abs(m)"
    case = {
        "Conv": _between(f"excluded-{name}", f"m = Conv(c, k)\n{tail}", k=(8, 8, 3, 3)),
        "ConvTranspose": _between(f"excluded-{name}", f"m = ConvTranspose(c, k)\n{tail}", k=(8, 8, 3, 3)),
        "Gemm": Case(
            name=f"excluded-{name}",
            body=f"c = Gemm(x, u)\nm = Gemm(c, k, b)\n{tail}\ny = Gemm(f, v)",
            inputs={"x": (5, 16)},
            constants={"u": (16, 8), "k": (8, 8), "b": (8,), "v": (8, 4)},
        ),
    }[excluded]
    body = case.body if clamp else case.body.replace(f"\n{tail}", "").replace("(f, v)", "(m, v)")
    case = replace(case, body=body.replace("Conv(m, v)", "Conv(f, v)") if clamp else body)
    reference = in_float(case, _OPSET)
    node = next(n.name for n in reference.graph.nodes.values() if "k" in n.inputs)
    made = quantize(reference, Recipe(exclude=(node,)), case.feed())
    census = _census(made.qdq, made.plan)
    assert census.weights_dequantized == 0
    assert any(census.ops.get(form) for form in (excluded, f"Fused{excluded}")), census.ops
    plain = run(made.qdq, case.feed(), case.outputs, optimize=False)["y"]
    optimized = run(made.qdq, case.feed(), case.outputs, optimize=True)["y"]
    scale = float(made.plan.params_of()["y"].scale) if "y" in made.plan.params_of() else 1e-4 * np.abs(plain).max()
    assert np.abs(plain - optimized).max() <= 1.001 * scale


def test_table_names_every_operator() -> None:
    assert set(TARGET.capabilities) == {r.op_type for r in OPS}
