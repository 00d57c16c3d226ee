"""QOperator: a lowering of the QDQ graph, driven by each operator's :class:`~qconvert.ops.rule.Lowering`.

    DQ(x), DQ(w), DQ(b) -> Conv -> Q(y)        becomes        QLinearConv(x, w, y, b)

A node whose operands are not all quantized, or that has no integer form, stays float between its DequantizeLinear and
QuantizeLinear.
"""

from __future__ import annotations

import onnx_ir as ir

from qconvert.graph.model import Model
from qconvert.ops import OPS
from qconvert.ops.rule import Constraint, Lowering, OpRule, Role, key
from qconvert.plan.model import QuantPlan


def lower_to_qoperator(model: Model, plan: QuantPlan | None = None) -> Model:
    """The QOperator form of a QDQ model; the argument is not changed.

    Args:
        model: the QDQ model.
        plan: nodes that it leaves float stay so, even where quantized tensors surround them (a linear Resize).
    """
    copy = model.clone()
    graph = copy.ir.graph
    opset = copy.opset
    contrib = False
    for node in list(graph):
        rule = OPS.find(key(node.domain, node.op_type))
        if rule is None or rule.lowering is None or opset < rule.lowering.min_opset:
            continue
        decided = plan.nodes.get(node.name or "") if plan is not None else None
        if decided is not None and not decided.decision.taken:
            continue
        domain = _lower(graph, node, rule, rule.lowering)
        contrib = contrib or domain == "com.microsoft"
    if contrib:
        copy.ir.opset_imports.setdefault("com.microsoft", 1)
    return copy


def _lower(graph: ir.Graph, node: ir.Node, rule: OpRule, lowering: Lowering) -> str | None:
    operands: dict[int, ir.Node] = {}
    for port, value in enumerate(node.inputs):
        role = rule.role(port)
        if value is None or role is Role.PLAIN:
            continue
        producer = value.producer()
        if producer is None or producer.op_type != "DequantizeLinear":
            return None
        operands[port] = producer
    used = [i for i, v in enumerate(node.outputs) if v.name and (v.uses() or v.is_graph_output())]
    quantizers = [_only_quantizer(node.outputs[i]) for i in used]
    scales = {id(n.inputs[1]) for n in (*operands.values(), *quantizers) if n is not None}
    if len(scales) > 1 and rule.constraint is Constraint.SHARED and not rule.variadic:
        return None  # it compares codes
    if all(q is not None for q in quantizers) and quantizers:
        op_type, domain, tokens = lowering.op_type, lowering.domain, lowering.inputs
        results = [q.outputs[0] for q in quantizers if q is not None]
    elif lowering.float_output is not None and len(quantizers) == 1:
        form = lowering.float_output
        op_type, domain, tokens = form.op_type, form.domain, form.inputs
        results = []
    else:
        return None
    inputs = _inputs(node, tokens, operands, rule, quantizers[0])
    while inputs and inputs[-1] is None:
        inputs.pop()
    attributes = {
        name: a for name, a in node.attributes.items() if name not in ("alpha", "beta") or op_type == "QLinearLeakyRelu"
    }
    new = ir.Node(
        domain,
        op_type,
        inputs,
        [*attributes.values(), *(ir.convenience.convert_attribute(n, v) for n, v in lowering.extra)],
        num_outputs=len(node.outputs),
        name=node.name,
    )
    graph.insert_before(node, new)
    for i, old in zip(used, results or [node.outputs[i] for i in used], strict=True):
        fresh = new.outputs[i]
        name = old.name
        fresh.type, fresh.shape = old.type, old.shape
        ir.convenience.replace_all_uses_with(old, fresh, replace_graph_outputs=True)
        old.name = f"{name}_replaced"
        fresh.name = name
    for q in quantizers:
        if q is not None and results:
            graph.remove(q, safe=True)
    graph.remove(node, safe=True)
    return domain


def _only_quantizer(value: ir.Value) -> ir.Node | None:
    """The QuantizeLinear that is the one reader of ``value``."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != "QuantizeLinear":
        return None
    return uses[0].node


def _inputs(
    node: ir.Node, tokens: str, operands: dict[int, ir.Node], rule: OpRule, quantizer: ir.Node | None
) -> list[ir.Value | None]:
    inputs: list[ir.Value | None] = []
    head, _, repeated = tokens.partition("*")
    words = head.split()
    for port in sorted(operands) if repeated else ():
        words += [w.replace("n", str(port)) for w in repeated.split()]
    for word in words:
        if word in ("sy", "zy"):
            inputs.append(quantizer.inputs[1 if word == "sy" else 2] if quantizer is not None else None)
            continue
        kind, port = word[0], int(word[1:])
        if kind == "p":
            inputs.append(node.inputs[port] if port < len(node.inputs) else None)
        elif port not in operands:
            inputs.append(None)
        else:
            inputs.append(operands[port].inputs[{"x": 0, "b": 0, "s": 1, "z": 2}[kind]])
    return inputs
