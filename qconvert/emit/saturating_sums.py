"""HardSigmoid and HardSwish on integers, where the runtime has no kernels for them: an Add that saturates.

    HardSigmoid(x) = min(max(alpha x + beta, 0), 1)         HardSwish(x) = x HardSigmoid(x), alpha = 1/6, beta = 1/2

A range [0, 1] of the codes is what clamps, so the sum x + beta / alpha in the range [0, 1 / alpha] has the codes of the
result: quantized with its scale divided by alpha, dequantized with its own.

    DQ(x) -> HardSigmoid -> Q(s)    becomes    DQ(x) -> Add(beta / alpha) -> Q(s / alpha)
    DQ(x) -> HardSwish -> Q(y)      becomes    the same -> DQ(s) -> Mul(x) -> Q(y)

Source: ONNX operator specification, HardSigmoid-6 and HardSwish-14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.graph.edit import constant_of, stand_for
from qconvert.graph.model import Model
from qconvert.ops.rule import key
from qconvert.plan.model import QuantPlan
from qconvert.targets.target import Target

# Codes at the ends of the range may miss 0 and 1 by this much of a step.
_EXACT = 1e-3


def write_saturating_sums(model: Model, plan: QuantPlan, target: Target) -> None:
    """Rewrite what ``plan`` runs on integers and ``target`` runs so, in place.

    Args:
        model: as :func:`qconvert.emit.qdq.emit_qdq` has written ``plan``.
        plan: the same.
        target: names the operators (:attr:`~qconvert.targets.target.Capability.saturating_sum`).
    """
    taken = {n.node for n in plan.taken() if n.activations}
    additions: Additions | None = None
    for node in list(model.ir.graph):
        if node.name not in taken or not target.capability(key(node.domain, node.op_type)).saturating_sum:
            continue
        found = _match(node)
        if found is None:
            continue
        additions = additions or Additions(model=model.ir)
        if node.op_type == "HardSigmoid":
            _gate(node, found, additions)
        else:
            _product(node, found, additions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """``DQ(x) -> node -> Q``.

    Attributes:
        graph: the node's.
        x: what the node reads, dequantized.
        quantizer: what reads its result.
        least: the least code of x's type, [].
        steps: how many codes there are beside it.
        alpha, offset: the slope, and beta / alpha.
    """

    graph: ir.Graph
    x: ir.Value
    quantizer: ir.Node
    least: NDArray[np.generic]
    steps: int
    alpha: float
    offset: float


def _match(node: ir.Node) -> _Match | None:
    x, uses = node.inputs[0], list(node.outputs[0].uses())
    dq = x.producer() if x is not None else None
    if x is None or dq is None or dq.op_type != "DequantizeLinear" or len(dq.inputs) < 3 or len(uses) != 1:
        return None
    quantizer, zero = uses[0].node, constant_of(dq.inputs[2])
    if quantizer.op_type != "QuantizeLinear" or node.outputs[0].is_graph_output() or zero is None:
        return None
    if zero.dtype.kind not in "iu" or zero.dtype.itemsize != 1:
        return None
    swish = node.op_type == "HardSwish"
    alpha = 1 / 6 if swish else node.attributes.get_float("alpha", 0.2)
    beta = 0.5 if swish else node.attributes.get_float("beta", 0.5)
    limits = np.iinfo(np.uint8 if zero.dtype.kind == "u" else np.int8)
    if not alpha > 0 or not isinstance(node.graph, ir.Graph):
        return None
    return _Match(
        graph=node.graph,
        x=x,
        quantizer=quantizer,
        least=np.asarray(limits.min, zero.dtype),
        steps=limits.max - limits.min,
        alpha=alpha,
        offset=beta / alpha,
    )


def _gate(node: ir.Node, found: _Match, additions: Additions) -> None:
    """Where the result's range is [0, 1], its quantizer takes the sum."""
    quantizer = found.quantizer
    scale, zero = (constant_of(quantizer.inputs[i]) if len(quantizer.inputs) > i else None for i in (1, 2))
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return
    begins = zero.dtype == found.least.dtype and zero.reshape(()) == found.least
    if not begins or abs(float(scale) * found.steps - 1) > _EXACT:
        return
    total = _sum(node, found, additions)
    wider = additions.constant(found.graph, f"{node.name}_sum_s", np.asarray(float(scale) / found.alpha, np.float32))
    quantizer.replace_input_with(1, wider)
    stand_for(total, node)


def _product(node: ir.Node, found: _Match, additions: Additions) -> None:
    """The sum is quantized, and dequantized as a gate, which x is multiplied with."""
    graph, name = found.graph, node.name or "HardSwish"
    total = _sum(node, found, additions)
    unit = 1 / found.steps
    zero = additions.constant(graph, f"{name}_gate_z", found.least)
    wider = additions.constant(graph, f"{name}_sum_s", np.asarray(unit / found.alpha, np.float32))
    scale = additions.constant(graph, f"{name}_gate_s", np.asarray(unit, np.float32))
    codes = additions.node(node, "QuantizeLinear", [total, wider, zero], name=f"{name}_gate_Q")
    gate = additions.node(node, "DequantizeLinear", [codes, scale, zero], name=f"{name}_gate_DQ")
    product = additions.node(node, "Mul", [found.x, gate], name=f"{name}_Mul")
    stand_for(product, node)


def _sum(node: ir.Node, found: _Match, additions: Additions) -> ir.Value:
    """x + offset, the offset a constant of one code."""
    graph, name = found.graph, node.name or node.op_type
    kind = found.least.dtype
    codes = additions.constant(graph, f"{name}_offset_q", np.asarray(1 + np.sign(found.offset), kind))
    scale = additions.constant(graph, f"{name}_offset_s", np.asarray(abs(found.offset) or 1.0, np.float32))
    zero = additions.constant(graph, f"{name}_offset_z", np.asarray(1, kind))
    offset = additions.node(node, "DequantizeLinear", [codes, scale, zero], name=f"{name}_offset_DQ")
    return additions.node(node, "Add", [found.x, offset], name=f"{name}_sum")
