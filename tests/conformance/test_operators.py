"""The conformance matrix: every rule of OPS in every scheme, as QDQ and as QOperator, in real ONNX Runtime.

Each result must lie within the bound that follows from the scales (``bounds.py``), with all of ONNX Runtime's
optimizations and with none; QOperator must agree with unoptimized QDQ to a stated number of quanta, and must hold the
integer operator wherever there is one.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conformance.case import Case, all_cases
from conformance.matrix import SCHEMES, Fp32, Quantized, Scheme, bounds, in_float, quantize, run

from qconvert.graph.build_view import view_of
from qconvert.ops import OPS
from qconvert.ops.rule import Kind, rule_of

ALL = all_cases()
_CLAMPS = {"Relu", "Clip"}

# QOperator against QDQ without optimizations. With ONNX Runtime 1.31.1 only QLinearSoftmax uses up the quantum, the
# others are bit-equal here; float results differ by 2.5e-7 of the largest.
_KERNEL_QUANTA = 1.0
_KERNEL_FLOAT = 1e-5


MATRIX = [pytest.param(c, s, id=f"{c.name}-{s.name}") for c, s in itertools.product(ALL, SCHEMES)]


@pytest.mark.parametrize(("case", "scheme"), MATRIX)
def test_within_bounds(case: Case, scheme: Scheme) -> None:
    reference = in_float(case, scheme.opset_of(case))
    made = quantize(reference, scheme.recipe, case.feed())
    _check_placement(case, scheme, reference, made)
    _check_lowering(reference, made)
    plain = run(made.qdq, case.feed(), case.outputs, optimize=False)
    _check_bounds("QDQ", plain, case, reference, made, kernels=False)
    for name, model, optimize in (
        ("optimized QDQ", made.qdq, True),
        ("QOperator", made.qoperator, False),
        ("optimized QOperator", made.qoperator, True),
    ):
        results = run(model, case.feed(), case.outputs, optimize=optimize)
        _check_bounds(name, results, case, reference, made, kernels=True)
        if name == "QOperator":
            _check_agreement(results, plain, made)


def _check_placement(case: Case, scheme: Scheme, reference: Fp32, made: Quantized) -> None:
    """What stays float is what the case says; a symmetric range cannot absorb a clamp."""
    floats = {p.op_type for p in made.plan.nodes.values() if not p.decision.taken}
    floats -= {n.op_type for n in reference.graph.nodes.values() if reference.graph.is_constant(n.outputs[0])}
    if scheme.recipe.symmetric:
        floats -= _CLAMPS - set(case.stays_float)
    assert floats == set(case.stays_float), {p.node: p.decision.reason for p in made.plan.nodes.values()}


def _check_lowering(reference: Fp32, made: Quantized) -> None:
    """Every integer node with a lowering is the lowered operator, and reads codes."""
    graph = view_of(made.qoperator)
    for name, plan in made.plan.nodes.items():
        rule = rule_of(reference.graph.nodes[name])
        if not plan.decision.taken or plan.absorbed_into is not None or rule is None or rule.lowering is None:
            continue
        forms = {rule.lowering.op_type}
        if rule.lowering.float_output is not None and not plan.quantized_outputs:
            forms = {rule.lowering.float_output.op_type}
        node = graph.nodes[name]
        assert node.op_type in forms, f"{name} is {node.op_type}"
        if rule.kind is Kind.MOVEMENT:
            source = graph.producer(node.inputs[0] or "")
            assert source is None or source.op_type != "DequantizeLinear", f"{name} moves floats"


def _check_bounds(what: str, results: dict, case: Case, reference: Fp32, made: Quantized, *, kernels: bool) -> None:
    limit = bounds(reference, made.plan, kernels=kernels)
    for name, result in results.items():
        wanted = reference.outputs[name].astype(np.float64)
        assert result.shape == wanted.shape, f"{what} {name}: {result.shape} instead of {wanted.shape}"
        known = np.isfinite(wanted) & (np.abs(wanted) < 1e30)
        assert np.array_equal(result[~known], wanted[~known].astype(np.float32)), f"{what} {name}"
        error = np.abs(result - np.where(known, wanted, 0.0))[known]
        if error.size == 0 or name not in limit.values:
            continue
        allowed = limit[name][known] if limit[name].shape == wanted.shape else limit[name]
        excess = (error - allowed).max()
        params = made.plan.params_of().get(name)
        quanta = f", {excess / float(params.scale):.3f} quanta" if params is not None else ""
        assert excess <= 0, f"{what} {name}: error {error.max():.4g} is {excess:.4g} beyond its bound{quanta}"
        noise = float((error**2).sum())
        if noise:
            db = 10 * np.log10(float((wanted[known] ** 2).sum()) / noise + 1e-30)
            assert db >= case.least_db, f"{what} {name}: {db:.1f} dB"


def _check_agreement(results: dict, plain: dict, made: Quantized) -> None:
    params = made.plan.params_of()
    for name, result in results.items():
        known = np.isfinite(plain[name])  # infinities are equal, the bounds have seen to that
        apart = float(np.abs(result[known].astype(np.float64) - plain[name][known]).max(initial=0.0))
        if name in params:
            quanta = apart / float(params[name].scale)
            assert quanta <= _KERNEL_QUANTA + 1e-3, f"{name}: QOperator is {quanta:.2f} quanta from QDQ"
        else:
            limit = _KERNEL_FLOAT * float(np.abs(plain[name][known]).max(initial=1.0))
            assert apart <= limit, f"{name}: QOperator is {apart:.3g} from QDQ"


def test_every_operator_has_a_case() -> None:
    covered = set()
    for case in ALL:
        reference = in_float(case, case.opsets[-1])
        plan = quantize(reference, SCHEMES[0].recipe, case.feed()).plan
        covered |= {p.op_type for p in plan.taken()}
    missing = {r.op_type for r in OPS} - covered
    assert not missing, f"no conformance case quantizes {sorted(missing)}; add one to tests/conformance/cases/"
